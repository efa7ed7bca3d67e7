//! Names of images, to the grammar of <https://github.com/distribution/reference>.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DOMAIN: &str = "index.docker.io";
const OFFICIAL: &str = "library/";
const LONGEST_PATH: usize = 255;
const LONGEST_TAG: usize = 128;

/// The name of an image: a registry's domain, the path of a repository, a tag, a digest.
///
/// ```
/// use deploykit_oci::Reference;
/// let short = Reference::parse_normalized("nginx:1.27")?;
/// assert_eq!(short.to_string(), "docker.io/library/nginx:1.27");
/// assert_eq!(short.familiar(), "nginx:1.27");
/// # Ok::<(), deploykit_oci::ReferenceError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no [`Reference`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The text does not follow the grammar.
    #[error("`{0}` is not an image reference; write it like registry.example/team/name:tag")]
    Format(String),
    /// A repository's name has upper-case letters.
    #[error("the repository name in `{0}` must be lower-case")]
    Uppercase(String),
    /// A repository's path has more than 255 characters.
    #[error("the repository name in `{0}` is longer than {LONGEST_PATH} characters")]
    TooLong(String),
    /// What follows `@` is no SHA-256 digest.
    #[error("the digest in `{0}` is not sha256: and 64 lower-case hexadecimal digits")]
    Digest(String),
    /// 64 hexadecimal digits would be taken for the id of an image.
    #[error("`{0}` reads like an image's id; a repository cannot be named like that")]
    Identifier(String),
}

impl Reference {
    /// Parses a reference as it is written: nothing is filled in, so the domain may be empty.
    ///
    /// # Errors
    /// [`ReferenceError`] says which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let (name, tag) = split_tag(rest);
        let well_formed = tag.is_none_or(is_tag) && digest.is_none_or(has_digest_form);
        let Some((domain, path)) = split_name(name).filter(|_| well_formed) else {
            let lower = name.to_lowercase();
            return Err(match well_formed && split_name(&lower).is_some() {
                true => ReferenceError::Uppercase(text.to_owned()),
                false => ReferenceError::Format(text.to_owned()),
            });
        };
        if path.len() > LONGEST_PATH {
            return Err(ReferenceError::TooLong(text.to_owned()));
        }
        let digest = digest
            .map(Digest::from_str)
            .transpose()
            .map_err(|_| ReferenceError::Digest(text.to_owned()))?;
        Ok(Self {
            domain: domain.to_owned(),
            path: path.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }

    /// Parses a reference as people write it: without a domain it is one of `docker.io`, and
    /// there without a namespace one of `library`.
    ///
    /// # Errors
    /// [`ReferenceError`] says which rule the text breaks.
    pub fn parse_normalized(text: &str) -> Result<Self, ReferenceError> {
        if Digest::is_hex(text) {
            return Err(ReferenceError::Identifier(text.to_owned()));
        }
        let (domain, remainder) = with_domain(text);
        let repository = remainder.split(':').next().unwrap_or_default();
        if repository.to_lowercase() != repository {
            return Err(ReferenceError::Uppercase(text.to_owned()));
        }
        Self::parse(&format!("{domain}/{remainder}"))
    }

    /// The registry, with its port where it has one; empty where none was written.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The domain and the path, without tag and digest.
    pub fn name(&self) -> String {
        match self.domain.as_str() {
            "" => self.path.clone(),
            domain => format!("{domain}/{}", self.path),
        }
    }

    /// The one thing that is pulled: the digest where there is one (the tag is dropped), the tag
    /// `latest` where there is neither.
    pub fn pinned(mut self) -> Self {
        match (&self.tag, &self.digest) {
            (_, Some(_)) => self.tag = None,
            (None, None) => self.tag = Some("latest".to_owned()),
            (Some(_), None) => {}
        }
        self
    }

    /// The same repository, named by digest alone.
    pub fn at(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The same repository, with a tag alone.
    ///
    /// # Errors
    /// [`ReferenceError::Format`] where the text is no tag.
    pub fn tagged(&self, tag: &str) -> Result<Self, ReferenceError> {
        if !is_tag(tag) {
            return Err(ReferenceError::Format(format!("{}:{tag}", self.name())));
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The short form that people know: what [`Reference::parse_normalized`] fills in is left out.
    pub fn familiar(&self) -> String {
        let mut short = self.clone();
        if short.domain == DEFAULT_DOMAIN {
            short.domain.clear();
            if let Some(rest) = short.path.strip_prefix(OFFICIAL).filter(|r| !r.contains('/')) {
                short.path = rest.to_owned();
            }
        }
        short.to_string()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// What a short name means: its domain, and the rest.
fn with_domain(text: &str) -> (&str, String) {
    let (domain, rest) = match text.split_once('/') {
        None => return (DEFAULT_DOMAIN, format!("{OFFICIAL}{text}")),
        Some((LEGACY_DOMAIN, rest)) => (DEFAULT_DOMAIN, rest),
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first.to_lowercase() != first =>
        {
            (first, rest)
        }
        Some(_) => (DEFAULT_DOMAIN, text),
    };
    match domain == DEFAULT_DOMAIN && !rest.contains('/') {
        true => (domain, format!("{OFFICIAL}{rest}")),
        false => (domain, rest.to_owned()),
    }
}

/// A colon after the last slash starts a tag; one before belongs to a port.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    let after_slash = text.rfind('/').map_or(0, |slash| slash + 1);
    match text[after_slash..].find(':') {
        Some(colon) => {
            let colon = after_slash + colon;
            (&text[..colon], Some(&text[colon + 1..]))
        }
        None => (text, None),
    }
}

/// The domain and the path of a name that follows the grammar. The first component is the domain
/// wherever it can be one.
fn split_name(name: &str) -> Option<(&str, &str)> {
    if let Some((first, rest)) = name.split_once('/')
        && is_domain(first)
        && is_path(rest)
    {
        return Some((first, rest));
    }
    is_path(name).then_some(("", name))
}

fn is_domain(text: &str) -> bool {
    let (host, port) = match text.rfind(']').map(|end| text.split_at(end + 1)) {
        Some((host, rest)) => (host, rest.strip_prefix(':').or((!rest.is_empty()).then_some(""))),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port_fits = port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    let host_fits = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(address) => {
            !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':')
        }
        None => host.split('.').all(is_domain_component),
    };
    host_fits && port_fits
}

fn is_domain_component(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends_fit = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    ends_fit(bytes.first())
        && ends_fit(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
}

fn is_path(text: &str) -> bool {
    text.split('/').all(is_path_component)
}

/// Lower-case letters and digits, with one of `.`, `_`, `__` or any number of `-` between them.
fn is_path_component(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separators = text.split(is_word).filter(|s| !s.is_empty());
    text.starts_with(is_word)
        && text.ends_with(is_word)
        && separators
            .into_iter()
            .all(|s| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

fn is_tag(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= LONGEST_TAG
        && text.starts_with(is_word)
        && text.chars().all(|c| is_word(c) || c == '.' || c == '-')
}

/// The grammar's own, wider idea of a digest; [`Digest`] says which of them are known here.
fn has_digest_form(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else { return false };
    let component = |c: &str| {
        c.starts_with(|c: char| c.is_ascii_alphabetic())
            && c.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    algorithm.split(['+', '.', '-', '_']).all(component)
        && hex.len() >= 32
        && hex.bytes().all(|b| b.is_ascii_hexdigit())
}
