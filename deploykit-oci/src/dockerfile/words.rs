//! The words of an instruction's arguments.

/// Where in a line a reader stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Space,
    Word,
    Quote(char),
}

/// Words split at white space outside quotes; quotes and escapes stay in them.
pub(super) fn split(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    let mut at = At::Space;
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match at {
            At::Space if c.is_whitespace() => continue,
            At::Space | At::Word if c.is_whitespace() => {
                if quoted || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                quoted = false;
                at = At::Space;
                continue;
            }
            At::Space | At::Word => {
                at = At::Word;
                if c == '\'' || c == '"' {
                    quoted = true;
                    at = At::Quote(c);
                }
            }
            At::Quote(quote) if c == quote => at = At::Word,
            At::Quote(_) => {}
        }
        if c == escape && at != At::Quote('\'') {
            // An escape at the very end stands for nothing.
            let Some(escaped) = rest.next() else { break };
            word.push(c);
            word.push(escaped);
        } else {
            word.push(c);
        }
    }
    if quoted || !word.is_empty() {
        words.push(word);
    }
    words
}

/// `name value…` or `name=value …`; `what` is the instruction that takes them.
pub(super) fn check_pairs(text: &str, what: &str, escape: char) -> Result<(), String> {
    let words = split(text, escape);
    let Some(first) = words.first() else { return Ok(()) };
    let what = what.to_uppercase();
    if !first.contains('=') {
        let separated = text.contains([' ', '\t', '\u{b}', '\u{c}', '\r']);
        return match separated {
            true => Ok(()),
            false => Err(format!("{what} takes a name and a value: write {what} {text}=…")),
        };
    }
    match words.iter().find(|word| !word.contains('=')) {
        Some(word) => Err(format!("`{word}` has no `=`: write {what} name=value …")),
        None => Ok(()),
    }
}

/// The words starting with `--` at the front, with quotes and escapes taken off, and the rest.
/// `--` alone ends them.
pub(super) fn flags(text: &str) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let (word, end) = flag(rest);
        rest = rest[end..].trim_start();
        if word == "--" {
            break;
        }
        flags.push(word);
    }
    (flags, rest)
}

/// The first word without its quotes and escapes, and where it ends.
fn flag(text: &str) -> (String, usize) {
    let mut word = String::new();
    let mut quote = None;
    let mut rest = text.char_indices();
    while let Some((index, c)) = rest.next() {
        match quote {
            None if c.is_whitespace() => return (word, index),
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ if c == '\\' => word.extend(rest.next().map(|(_, escaped)| escaped)),
            _ => word.push(c),
        }
    }
    (word, text.len())
}
