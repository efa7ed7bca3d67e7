//! Variables in texts, as the
//! [Compose specification](https://github.com/compose-spec/compose-spec/blob/main/12-interpolation.md)
//! has them.

/// Why a text cannot be interpolated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InterpolateError {
    /// A `${` without a name, an operator or an end that fit.
    #[error("`{0}` is no variable; write ${{NAME}}, ${{NAME:-default}}, or $$ for a dollar sign")]
    Invalid(String),
    /// A variable that has to be set is not.
    #[error("the variable {name} is required{}", if .message.is_empty() { String::new() } else { format!(": {}", .message) })]
    Required {
        /// The variable.
        name: String,
        /// What the file says about it.
        message: String,
    },
    /// Defaults within defaults, too deep.
    #[error("variables are nested more than {MAX_DEPTH} deep")]
    TooDeep,
    /// Variables whose values are very long.
    #[error("with its variables the text comes to more than {MAX_BYTES} bytes")]
    TooLong,
}

const MAX_DEPTH: usize = 64;
/// The longest text that may come of another one, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// Replaces `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME-default}`, `${NAME:?message}`,
/// `${NAME?message}`, `${NAME:+other}`, `${NAME+other}` (each may hold further variables), and `$$`
/// by a dollar sign. A variable that is not set is the empty text; a dollar sign that begins none
/// of these stays.
///
/// ```
/// use deploykit_compose::interpolate;
/// let lookup = |name: &str| (name == "TAG").then(|| "1.27".to_owned());
/// assert_eq!(interpolate("nginx:${TAG}-${FLAVOUR:-alpine}", &lookup)?, "nginx:1.27-alpine");
/// # Ok::<(), deploykit_compose::InterpolateError>(())
/// ```
///
/// # Errors
/// [`InterpolateError`] for a malformed variable, and for a required one that is missing.
pub fn interpolate(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<String, InterpolateError> {
    expand(text, lookup, 0)
}

fn expand(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    depth: usize,
) -> Result<String, InterpolateError> {
    if depth > MAX_DEPTH {
        return Err(InterpolateError::TooDeep);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        if out.len() > MAX_BYTES {
            return Err(InterpolateError::TooLong);
        }
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some(body) = after.strip_prefix('{') {
            let (value, length) = braced(body, lookup, depth)?;
            out.push_str(&value);
            rest = &body[length..];
        } else {
            let length = name_length(after);
            match &after[..length] {
                "" => out.push('$'),
                name => out.push_str(&lookup(name).unwrap_or_default()),
            }
            rest = &after[length..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// The value of what stands behind `${`, and how long that is with its closing brace.
fn braced(
    body: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    depth: usize,
) -> Result<(String, usize), InterpolateError> {
    // Looked for only where it is needed: a text may have many variables in one long line.
    let line = || body.split('\n').next().unwrap_or(body);
    let invalid = || {
        let end = line().find('}').map_or(line().len(), |at| at + 1);
        InterpolateError::Invalid(format!("${{{}", &line()[..end]))
    };
    let length = name_length(body);
    let (name, tail) = body.split_at(length);
    if name.is_empty() {
        return Err(invalid());
    }
    if tail.starts_with('}') {
        return Ok((lookup(name).unwrap_or_default(), length + 1));
    }
    let colon = tail.starts_with(':');
    let from = length + usize::from(colon);
    let operator =
        body[from..].chars().next().filter(|c| "-?+".contains(*c)).ok_or_else(invalid)?;
    let operand = &body[from + 1..];
    let last = || line()[from + 1..].rfind('}');
    let close = closing_brace(operand).or_else(last).ok_or_else(invalid)?;
    let operand = &operand[..close];
    let value = lookup(name);
    let there = value.as_ref().is_some_and(|v| !colon || !v.is_empty());
    let result = match (operator, there) {
        ('-', false) | ('+', true) => expand(operand, lookup, depth + 1)?,
        ('?', false) => {
            let message = expand(operand, lookup, depth + 1)?;
            return Err(InterpolateError::Required { name: name.into(), message });
        }
        _ => value.unwrap_or_default(),
    };
    Ok((result, from + 1 + close + 1))
}

/// Where the brace that was opened before `text` is closed in its line, as braces balance.
fn closing_brace(text: &str) -> Option<usize> {
    let mut open = 1_usize;
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\n' => return None,
            b'{' => {
                open += 1;
                // What stands behind it is not looked at: `{{x}}` is closed by its first brace.
                if bytes.next().is_some_and(|(_, next)| next == b'\n') {
                    return None;
                }
            }
            b'}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(at);
        }
    }
    None
}

fn name_length(text: &str) -> usize {
    let fits = |(at, c): (usize, char)| {
        c == '_' || c.is_ascii_alphabetic() || (at > 0 && c.is_ascii_digit())
    };
    text.char_indices().take_while(|&pair| fits(pair)).count()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "FOO" => Some("first".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn every_form() {
        for (text, expected) in [
            ("$FOO-bar ${FOO} $$FOO $", "first-bar first $FOO $"),
            ("${NONE:-a}${NONE-b}${EMPTY:-c}${EMPTY-d}", "abc"),
            ("${FOO:+x}${FOO+y}${EMPTY:+x}${EMPTY+z}${NONE+x}", "xyz"),
            ("${FOO?no}${EMPTY?no}${FOO:?no}", "firstfirst"),
            ("${NONE:-{\"a\":{}}}!", "{\"a\":{}}!"),
            ("${NONE:-${NONE:-${FOO}}_}}", "first_}"),
            ("${FOO:-{{x}}} ${NONE:-{{x}}}", "first} {{x}}"),
            ("ä$FOO ${NONE:-é}", "äfirst é"),
        ] {
            assert_eq!(interpolate(text, &lookup).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn malformed_and_missing() {
        for text in ["${", "${}", "${ FOO}", "${FOO", "${FOO!}", "${FOO:}", "${NONE:-\n}"] {
            assert!(
                matches!(interpolate(text, &lookup), Err(InterpolateError::Invalid(_))),
                "{text}"
            );
        }
        let missing = interpolate("${NONE:?set it, $FOO}", &lookup).unwrap_err();
        assert_eq!(missing.to_string(), "the variable NONE is required: set it, first");
        let deep = "${A-".repeat(100) + &"}".repeat(100);
        assert_eq!(interpolate(&deep, &lookup), Err(InterpolateError::TooDeep));
        let many = "${NONE}${NONE:-}".repeat(1 << 18);
        assert_eq!(interpolate(&many, &lookup).unwrap(), "");
        let long = |_: &str| Some("x".repeat(1 << 20));
        assert_eq!(interpolate("$A$A$A", &long), Err(InterpolateError::TooLong));
    }
}
