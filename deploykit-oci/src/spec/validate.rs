//! What makes a document valid, to the schemas of
//! <https://github.com/opencontainers/image-spec/tree/main/schema>.

use base64::Engine;
use deploykit_core::Problem;
use serde_json::{Map, Value};

use super::media_type;

/// Checks a document that claims to be of a media type: one of [`media_type::DESCRIPTOR`],
/// [`media_type::MANIFEST`], [`media_type::INDEX`], [`media_type::CONFIG`] and
/// [`media_type::LAYOUT`]. Fields that the format doesn't know are let through.
///
/// ```
/// use deploykit_oci::spec::{media_type, validate};
/// let problems = validate(media_type::LAYOUT, br#"{"imageLayoutVersion": 1}"#).unwrap_err();
/// assert_eq!(problems[0].to_string(), "imageLayoutVersion: 1 is not a text");
/// ```
///
/// # Errors
/// Every problem, each with the path of its field.
pub fn validate(media_type: &str, document: &[u8]) -> Result<(), Vec<Problem>> {
    let document: Value = serde_json::from_slice(document)
        .map_err(|error| vec![Problem::new("", format!("this is not JSON: {error}"), "")])?;
    let mut check = Check::default();
    let root = Field { path: String::new(), value: &document };
    match media_type {
        media_type::DESCRIPTOR => check.descriptor(&root, true),
        media_type::MANIFEST => check.manifest(&root),
        media_type::INDEX => check.index(&root),
        media_type::CONFIG => check.config(&root),
        media_type::LAYOUT => check.layout(&root),
        other => check.wrong(&root, format!("the media type {other} is unknown"), ""),
    }
    if check.problems.is_empty() { Ok(()) } else { Err(check.problems) }
}

/// A value and where it stands.
struct Field<'a> {
    path: String,
    value: &'a Value,
}

impl<'a> Field<'a> {
    fn child(&self, name: &str, value: &'a Value) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        Field { path: format!("{}{dot}{name}", self.path), value }
    }
}

/// How one field is checked.
type Rule = fn(&mut Check, &Field<'_>);

#[derive(Default)]
struct Check {
    problems: Vec<Problem>,
}

impl Check {
    fn wrong(&mut self, field: &Field<'_>, what: impl Into<String>, fix: &str) {
        self.problems.push(Problem::new(field.path.clone(), what, fix));
    }

    fn object<'a>(&mut self, field: &Field<'a>) -> Option<&'a Map<String, Value>> {
        let object = field.value.as_object();
        if object.is_none() {
            self.wrong(field, format!("{} is not an object", field.value), "");
        }
        object
    }

    /// Checks the fields of an object that are there, and that the required ones are.
    fn fields(&mut self, field: &Field<'_>, required: &[&str], rules: &[(&str, Rule)]) {
        let Some(object) = self.object(field) else { return };
        for name in required.iter().filter(|name| !object.contains_key(**name)) {
            self.wrong(&field.child(name, field.value), "it is missing", "");
        }
        for (name, rule) in rules {
            if let Some(value) = object.get(*name) {
                rule(self, &field.child(name, value));
            }
        }
    }

    fn each(&mut self, field: &Field<'_>, rule: Rule) {
        match field.value {
            Value::Array(values) => {
                for (index, value) in values.iter().enumerate() {
                    rule(self, &Field { path: format!("{}[{index}]", field.path), value });
                }
            }
            other => self.wrong(field, format!("{other} is not a list"), ""),
        }
    }

    fn each_value(&mut self, field: &Field<'_>, rule: Rule) {
        for (name, value) in self.object(field).into_iter().flatten() {
            rule(self, &field.child(name, value));
        }
    }

    fn text<'a>(&mut self, field: &Field<'a>) -> Option<&'a str> {
        let text = field.value.as_str();
        if text.is_none() {
            self.wrong(field, format!("{} is not a text", field.value), "");
        }
        text
    }

    fn text_that(&mut self, field: &Field<'_>, fits: fn(&str) -> bool, what: &str) {
        if let Some(text) = self.text(field).filter(|text| !fits(text)) {
            self.wrong(field, format!("`{text}` is not {what}"), "");
        }
    }

    fn descriptor(&mut self, field: &Field<'_>, alone: bool) {
        let rules: [(&str, Rule); 7] = [
            ("mediaType", MEDIA_TYPE),
            ("artifactType", MEDIA_TYPE),
            ("digest", |c, f| c.text_that(f, is_digest, "a digest")),
            ("size", |c, f| {
                if f.value.as_i64().is_none_or(|size| size < 0) {
                    c.wrong(f, format!("{} is not a size in bytes", f.value), "");
                }
            }),
            ("urls", |c, f| c.each(f, |c, f| c.text_that(f, is_uri, "a URI"))),
            ("data", |c, f| c.text_that(f, is_base64, "base64")),
            ("annotations", TEXTS),
        ];
        self.fields(field, &["mediaType", "digest", "size"], &rules);
        if let Some(Value::String(digest)) = field.value.get("digest").filter(|_| alone)
            && !is_encoded(digest)
        {
            self.wrong(field, format!("`{digest}` has not as many digits as its algorithm"), "");
        }
    }

    fn manifest(&mut self, field: &Field<'_>) {
        let rules: [(&str, Rule); 7] = [
            ("schemaVersion", VERSION),
            ("mediaType", MEDIA_TYPE),
            ("artifactType", MEDIA_TYPE),
            ("config", DESCRIPTOR),
            ("subject", DESCRIPTOR),
            ("layers", |c, f| {
                c.each(f, DESCRIPTOR);
                if f.value.as_array().is_some_and(Vec::is_empty) {
                    c.wrong(f, "there is none", "name one layer or more");
                }
            }),
            ("annotations", TEXTS),
        ];
        self.fields(field, &["schemaVersion", "config", "layers"], &rules);
    }

    fn index(&mut self, field: &Field<'_>) {
        let rules: [(&str, Rule); 6] = [
            ("schemaVersion", VERSION),
            ("mediaType", MEDIA_TYPE),
            ("artifactType", MEDIA_TYPE),
            ("subject", DESCRIPTOR),
            ("manifests", |c, f| {
                c.each(f, |c, f| {
                    c.descriptor(f, false);
                    if let Some(platform) = f.value.get("platform") {
                        c.platform(&f.child("platform", platform));
                    }
                });
            }),
            ("annotations", TEXTS),
        ];
        self.fields(field, &["schemaVersion", "manifests"], &rules);
    }

    fn platform(&mut self, field: &Field<'_>) {
        let rules: [(&str, Rule); 5] = [
            ("architecture", TEXT),
            ("os", TEXT),
            ("os.version", TEXT),
            ("os.features", LIST),
            ("variant", TEXT),
        ];
        self.fields(field, &["architecture", "os"], &rules);
    }

    fn config(&mut self, field: &Field<'_>) {
        let rules: [(&str, Rule); 9] = [
            ("created", DATE),
            ("author", TEXT),
            ("architecture", TEXT),
            ("variant", TEXT),
            ("os", TEXT),
            ("os.version", TEXT),
            ("os.features", LIST),
            ("config", |c, f| c.execution(f)),
            ("history", |c, f| c.each(f, |c, f| c.history(f))),
        ];
        self.fields(field, &["architecture", "os", "rootfs"], &rules);
        if let Some(rootfs) = field.value.get("rootfs") {
            let rules: [(&str, Rule); 2] = [
                ("type", |c, f| c.text_that(f, |kind| kind == "layers", "`layers`")),
                ("diff_ids", LIST),
            ];
            self.fields(&field.child("rootfs", rootfs), &["diff_ids", "type"], &rules);
        }
    }

    fn execution(&mut self, field: &Field<'_>) {
        let rules: [(&str, Rule); 10] = [
            ("User", TEXT),
            ("ExposedPorts", SET),
            ("Env", |c, f| c.each(f, |c, f| c.text_that(f, is_pair, "NAME=value"))),
            ("Entrypoint", |c, f| c.unless_null(f, LIST)),
            ("Cmd", |c, f| c.unless_null(f, LIST)),
            ("Volumes", |c, f| c.unless_null(f, SET)),
            ("WorkingDir", TEXT),
            ("Labels", |c, f| c.unless_null(f, TEXTS)),
            ("StopSignal", TEXT),
            ("ArgsEscaped", BOOL),
        ];
        self.fields(field, &[], &rules);
    }

    fn history(&mut self, field: &Field<'_>) {
        let rules: [(&str, Rule); 5] = [
            ("created", DATE),
            ("author", TEXT),
            ("created_by", TEXT),
            ("comment", TEXT),
            ("empty_layer", BOOL),
        ];
        self.fields(field, &[], &rules);
    }

    fn layout(&mut self, field: &Field<'_>) {
        let version: Rule = |c, f| c.text_that(f, |version| version == "1.0.0", "`1.0.0`");
        self.fields(field, &["imageLayoutVersion"], &[("imageLayoutVersion", version)]);
    }

    fn unless_null(&mut self, field: &Field<'_>, rule: Rule) {
        if !field.value.is_null() {
            rule(self, field);
        }
    }
}

const TEXT: Rule = |c, f| c.text_that(f, |_| true, "");
const LIST: Rule = |c, f| c.each(f, TEXT);
const TEXTS: Rule = |c, f| c.each_value(f, TEXT);
const SET: Rule = |c, f| c.each_value(f, |c, f| c.fields(f, &[], &[]));
const DATE: Rule = |c, f| c.text_that(f, is_date_time, "a time to RFC 3339");
const MEDIA_TYPE: Rule = |c, f| c.text_that(f, is_media_type, "a media type");
const DESCRIPTOR: Rule = |c, f| c.descriptor(f, false);
const BOOL: Rule = |c, f| {
    if !f.value.is_boolean() {
        c.wrong(f, format!("{} is neither true nor false", f.value), "");
    }
};
const VERSION: Rule = |c, f| {
    if f.value.as_i64() != Some(2) {
        c.wrong(f, format!("the version {} is not known", f.value), "only 2 is");
    }
};

fn is_media_type(text: &str) -> bool {
    let fits = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.len() <= 127
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b))
    };
    text.split_once('/').is_some_and(|(kind, subtype)| fits(kind) && fits(subtype))
}

fn is_digest(text: &str) -> bool {
    let component =
        |c: &str| !c.is_empty() && c.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    text.split_once(':').is_some_and(|(algorithm, encoded)| {
        algorithm.split(['+', '.', '_', '-']).all(component)
            && !encoded.is_empty()
            && encoded.bytes().all(|b| b.is_ascii_alphanumeric() || b"=_-".contains(&b))
    })
}

/// Whether a digest of a registered algorithm has as many hexadecimal digits as that has.
fn is_encoded(digest: &str) -> bool {
    let digits = match digest.split_once(':') {
        Some(("sha256", digits)) if digits.len() == 64 => digits,
        Some(("sha384", digits)) if digits.len() == 96 => digits,
        Some(("sha512", digits)) if digits.len() == 128 => digits,
        Some(("sha256" | "sha384" | "sha512", _)) => return false,
        _ => return true,
    };
    digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn is_uri(text: &str) -> bool {
    let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
    let scheme_fits = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    scheme_fits && !text.contains(|c: char| c.is_ascii_control() || c == ' ' || c == '\\')
}

fn is_base64(text: &str) -> bool {
    let text: String = text.chars().filter(|c| *c != '\r' && *c != '\n').collect();
    base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}

fn is_pair(text: &str) -> bool {
    text.find('=').is_some_and(|at| at > 0)
}

/// `2015-10-31T22:22:56.015925234Z`, `…+01:00`.
fn is_date_time(text: &str) -> bool {
    let Some((date, time)) = text.split_once('T') else { return false };
    let number = |text: &str, digits: usize| -> Option<u32> {
        (text.len() == digits && text.bytes().all(|b| b.is_ascii_digit()))
            .then(|| text.parse().ok())?
    };
    let date_fits = || {
        let mut parts = date.split('-');
        let (year, month) = (number(parts.next()?, 4)?, number(parts.next()?, 2)?);
        let day = number(parts.next()?, 2)?;
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => 0,
        };
        (parts.next().is_none() && (1..=days).contains(&day)).then_some(())
    };
    let clock = |text: &str, seconds: bool| -> Option<()> {
        let mut parts = text.split(':');
        let (hour, minute) = (number(parts.next()?, 2)?, number(parts.next()?, 2)?);
        let second = if seconds { number(parts.next()?, 2)? } else { 0 };
        (hour < 24 && minute < 60 && second < 60 && parts.next().is_none()).then_some(())
    };
    let (time, zone_fits) = match time.strip_suffix('Z') {
        Some(time) => (time, true),
        None => match time.rfind(['+', '-']).map(|sign| time.split_at(sign)) {
            Some((time, zone)) => (time, clock(&zone[1..], false).is_some()),
            None => return false,
        },
    };
    let (time, fraction_fits) = match time.split_once('.') {
        Some((time, digits)) => {
            (time, !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
        }
        None => (time, true),
    };
    date_fits().is_some() && clock(time, true).is_some() && zone_fits && fraction_fits
}
