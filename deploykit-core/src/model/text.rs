//! How problems name things: paths of fields, nearest known words, texts cut to a length.

use std::fmt::{self, Display};

/// Longest text of the input's that a problem repeats, in characters.
const SHOWN: usize = 80;

/// The path of a field, as a problem shows it: `services.web.ports[0].name`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Path(String);

impl Path {
    /// The path of a field, or of a map's entry, below this one.
    pub(crate) fn field(&self, key: impl AsRef<str>) -> Self {
        let key = key.as_ref();
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if key.is_empty() || key.len() > SHOWN || !key.chars().all(plain) {
            return Self(format!("{}[{:?}]", self.0, shown(key)));
        }
        let dot = if self.0.is_empty() { "" } else { "." };
        Self(format!("{}{dot}{key}", self.0))
    }

    /// The path of a list's element, counted from 0.
    pub(crate) fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }
}

impl Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Path> for String {
    fn from(path: Path) -> Self {
        path.0
    }
}

/// A text of the input's, cut to a length.
pub(crate) fn shown(text: &str) -> String {
    cut(text, SHOWN)
}

/// A text without control characters, of at most that many characters: what a hostile input says
/// reaches terminals and logs.
pub(crate) fn cut(text: &str, most: usize) -> String {
    let mut out = String::new();
    for (index, c) in text.chars().enumerate() {
        if index == most {
            out.push('…');
            break;
        }
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// The known word that is most like `word`, where one is like it.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // What is long is no misspelling, and comparing takes the product of the lengths.
    if word.len() > SHOWN {
        return None;
    }
    known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(&word.to_ascii_lowercase(), k), k))
        .filter(|(distance, k)| *distance <= k.chars().count().max(3) / 3)
        .min()
        .map(|(_, k)| k)
}

/// What to do about a word that is not among the known ones.
pub(crate) fn instead<'a>(
    word: &str,
    known: impl IntoIterator<Item = &'a str> + Clone,
    none: &str,
) -> String {
    const LISTED: usize = 30;
    let mut list: Vec<&str> = known.clone().into_iter().take(LISTED + 1).collect();
    let more = if list.len() > LISTED { ", …" } else { "" };
    list.truncate(LISTED);
    match (nearest(word, known), list.is_empty()) {
        (_, true) => none.to_owned(),
        (Some(nearest), _) => {
            format!("did you mean `{nearest}`? known: {}{more}", list.join(", "))
        }
        (None, _) => format!("known: {}{more}", list.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_written_as_in_the_file() {
        let path = Path::default().field("services").field("web").field("ports").index(2);
        assert_eq!(path.field("name").to_string(), "services.web.ports[2].name");
        let labels = Path::default().field("labels");
        assert_eq!(labels.field("a.b\n").to_string(), r#"labels["a.b\\n"]"#);
    }

    #[test]
    fn a_misspelt_word_has_a_nearest_one() {
        let known = ["port", "protocol", "publish"];
        assert_eq!(nearest("prot", known), Some("port"));
        assert_eq!(nearest("Protocoll", known), Some("protocol"));
        assert_eq!(nearest("xyz", known), None);
        assert_eq!(
            instead("prot", known, ""),
            "did you mean `port`? known: port, protocol, publish"
        );
        assert_eq!(instead("x", [], "there is none"), "there is none");
    }
}
