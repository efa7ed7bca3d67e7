//! Here-documents: `RUN <<EOF`, and the lines up to `EOF`.

/// A here-document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The line that ends it.
    pub name: String,
    /// Its lines, with their line ends.
    pub content: String,
    /// Whether variables in it are replaced: not where its name is quoted.
    pub expand: bool,
    /// Whether leading tabs are taken off: `<<-`.
    pub strip_tabs: bool,
    /// The file descriptor before `<<`; 0 where there is none.
    pub descriptor: u32,
}

/// The here-documents that a line announces, in their order, still empty.
pub(super) fn announced(line: &str) -> Vec<Heredoc> {
    // A line that a shell could not split announces none.
    shell_words(line).unwrap_or_default().iter().filter_map(|word| parse(word)).collect()
}

/// `3<<-NAME`: a descriptor, whether tabs are stripped, and a name that may be quoted.
fn parse(word: &str) -> Option<Heredoc> {
    let digits = word.bytes().take_while(u8::is_ascii_digit).count();
    let (descriptor, rest) = word.split_at(digits);
    let rest = rest.strip_prefix("<<")?;
    let (strip_tabs, name) = match rest.strip_prefix('-') {
        Some(name) => (true, name),
        None => (false, rest),
    };
    if name.is_empty() || name.contains('<') {
        return None;
    }
    let plain = unquoted(name)?;
    Some(Heredoc {
        content: String::new(),
        expand: plain == name,
        name: plain,
        strip_tabs,
        descriptor: descriptor.parse().unwrap_or(0),
    })
}

/// Words as a shell splits them, quotes and escapes kept; `None` where a quote is left open.
fn shell_words(line: &str) -> Option<Vec<String>> {
    let mut words = vec![String::new()];
    let mut rest = line.chars();
    let mut quote = None;
    while let Some(c) = rest.next() {
        if quote.is_none() && c.is_whitespace() {
            words.push(String::new());
            continue;
        }
        if let Some(word) = words.last_mut() {
            word.push(c);
            if c == '\\' && quote != Some('\'') {
                word.extend(rest.next());
                continue;
            }
        }
        match quote {
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
    }
    words.retain(|word| !word.is_empty());
    quote.is_none().then_some(words)
}

/// A word without its quotes and escapes; `None` where a quote is left open.
fn unquoted(word: &str) -> Option<String> {
    let mut plain = String::new();
    let mut rest = word.chars().peekable();
    let mut quote = None;
    while let Some(c) = rest.next() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), _) if c == open => quote = None,
            (None, '\\') => plain.extend(rest.next()),
            // Within double quotes a backslash escapes only what would be special there.
            (Some('"'), '\\') => match rest.next_if(|c| matches!(c, '"' | '$' | '\\')) {
                Some(escaped) => plain.push(escaped),
                None => plain.push(c),
            },
            _ => plain.push(c),
        }
    }
    quote.is_none().then_some(plain)
}
