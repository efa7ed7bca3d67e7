//! A command line as words.

/// The words of a command line as a shell cuts them: blanks separate, quotes and backslashes keep
/// together; nothing is expanded. As in Compose, the line ends where a shell would go on with
/// another command or a file (`;`, `&`, `|`, `<`, `>`).
///
/// # Errors
/// What is wrong, where a quote is not closed or the line ends in a backslash.
pub(crate) fn split_words(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (_, '\\') => match chars.next() {
                Some(next) => {
                    if quote == Some('"') && !"\"\\$`".contains(next) {
                        word.get_or_insert_default().push('\\');
                    }
                    word.get_or_insert_default().push(next);
                }
                None => return Err("it ends in a backslash"),
            },
            (None, '"' | '\'') => {
                word.get_or_insert_default();
                quote = Some(c);
            }
            (None, ';' | '&' | '|' | '<' | '>') => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed");
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_as_a_shell_does() {
        let words = split_words(r#"sh -c "echo 'a b' \"c\"" '' d\ e "x\y" 'q"q'"#);
        let expected = ["sh", "-c", "echo 'a b' \"c\"", "", "d e", "x\\y", "q\"q"];
        assert_eq!(words, Ok(expected.map(str::to_owned).to_vec()));
        assert_eq!(split_words("a && b"), Ok(vec!["a".to_owned()]));
        assert!(split_words("a 'b").is_err());
        assert!(split_words("a \\").is_err());
    }
}
