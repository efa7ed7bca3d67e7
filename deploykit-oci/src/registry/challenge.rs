//! The header `WWW-Authenticate` (<https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1>).

use std::collections::BTreeMap;

/// How a registry wants its callers to log in.
///
/// ```
/// use deploykit_oci::Challenge;
/// let header = r#"Bearer realm="https://auth.example/token",service="registry.example""#;
/// let challenges = Challenge::parse(header);
/// assert_eq!(challenges[0].scheme, "bearer");
/// assert_eq!(challenges[0].parameters["service"], "registry.example");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Challenge {
    /// The scheme, in lower case: `basic`, `bearer`.
    pub scheme: String,
    /// Its parameters, with names in lower case.
    pub parameters: BTreeMap<String, String>,
}

impl Challenge {
    /// Reads a header, which may have several. What does not follow the grammar ends the reading.
    pub fn parse(header: &str) -> Vec<Self> {
        let mut challenges: Vec<Self> = Vec::new();
        let mut rest = header;
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            let (name, after) = token(rest);
            if name.is_empty() {
                return challenges;
            }
            let value = after.trim_start_matches([' ', '\t']).strip_prefix('=');
            match (value, challenges.last_mut()) {
                (Some(value), Some(challenge)) => {
                    let Some((value, after)) = parameter(value.trim_start_matches([' ', '\t']))
                    else {
                        return challenges;
                    };
                    challenge.parameters.entry(name.to_ascii_lowercase()).or_insert(value);
                    rest = after;
                }
                (Some(_), None) => return challenges,
                (None, _) => {
                    let scheme = name.to_ascii_lowercase();
                    challenges.push(Self { scheme, parameters: BTreeMap::new() });
                    rest = after;
                }
            }
        }
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }
}

fn token(text: &str) -> (&str, &str) {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    text.split_at(text.find(|c| !is_token(c)).unwrap_or(text.len()))
}

/// A parameter's value, quoted or not, and what comes after it.
fn parameter(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = token(text);
        return (!value.is_empty()).then(|| (value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::Challenge;

    fn read(header: &str) -> Vec<(String, Vec<(String, String)>)> {
        let read = Challenge::parse(header).into_iter();
        read.map(|c| (c.scheme, c.parameters.into_iter().collect())).collect()
    }

    fn one(scheme: &str, parameters: &[(&str, &str)]) -> (String, Vec<(String, String)>) {
        let owned = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
        (scheme.to_owned(), parameters.iter().map(owned).collect())
    }

    #[test]
    fn challenges_are_read_to_the_grammar() {
        let bearer = r#"Bearer realm="https://a/t",service="b c", scope="repository:x:pull,push""#;
        let wanted =
            [("realm", "https://a/t"), ("scope", "repository:x:pull,push"), ("service", "b c")];
        assert_eq!(read(bearer), [one("bearer", &wanted)]);
        assert_eq!(
            read(r#"Negotiate, BASIC realm = "a \"b\"", charset=UTF-8"#),
            [one("negotiate", &[]), one("basic", &[("charset", "UTF-8"), ("realm", "a \"b\"")])]
        );
        assert_eq!(read(r#"Basic realm="open"#), [one("basic", &[])]);
        assert_eq!(read(r#"realm="alone""#), []);
        assert_eq!(read(""), []);
    }
}
