//! One pattern. It is matched by following all its possible positions at once, so that no
//! pattern takes longer than its length times the path's.

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(super) struct Glob(Vec<Token>);

#[derive(Clone, Debug)]
enum Token {
    /// This character.
    One(char),
    /// `?`: any character but a slash.
    Any,
    /// `[…]`: a character in one of these ranges, or in none of them. A slash may be one.
    Class { ranges: Vec<(char, char)>, negated: bool },
    /// `*`: any characters but slashes.
    Star,
    /// `**` at the end: anything at all.
    Everything,
    /// `**` before more: nothing, or [`Token::Within`].
    Folders,
    /// Anything that ends with a slash.
    Within,
}

impl Glob {
    /// Compiles a pattern; `None` where its syntax is wrong.
    pub(super) fn new(pattern: &str) -> Option<Self> {
        let mut tokens = Vec::new();
        let mut rest = pattern.chars().peekable();
        while let Some(c) = rest.next() {
            let token = match c {
                '*' if rest.next_if_eq(&'*').is_some() => {
                    let whole_folders = rest.next_if_eq(&'/').is_some();
                    // A leading `**` before plain text fits wherever a path ends with that text.
                    let ending =
                        tokens.is_empty() && !whole_folders && !has_wildcard(&pattern[2..]);
                    if ending || rest.peek().is_none() {
                        Token::Everything
                    } else {
                        tokens.push(Token::Folders);
                        Token::Within
                    }
                }
                '*' => Token::Star,
                '?' => Token::Any,
                '\\' => Token::One(rest.next()?),
                '[' => class(&mut rest)?,
                c => Token::One(c),
            };
            tokens.push(token);
        }
        Some(Self(tokens))
    }

    /// Whether the whole path fits, or that of a folder that it lies in.
    pub(super) fn matches(&self, path: &str) -> bool {
        let mut at = vec![false; self.0.len() + 1];
        at[0] = true;
        self.skip(&mut at);
        for (index, c) in path.char_indices() {
            if c == '/' && index > 0 && at[self.0.len()] {
                return true;
            }
            let mut next = vec![false; at.len()];
            for (index, token) in self.0.iter().enumerate().filter(|(index, _)| at[*index]) {
                match token {
                    Token::One(one) => next[index + 1] |= *one == c,
                    Token::Any => next[index + 1] |= c != '/',
                    Token::Class { ranges, negated } => {
                        let within = ranges.iter().any(|(low, high)| (*low..=*high).contains(&c));
                        next[index + 1] |= within != *negated;
                    }
                    Token::Star => next[index] |= c != '/',
                    Token::Everything => next[index] = true,
                    Token::Folders => {}
                    Token::Within => {
                        next[index] = true;
                        next[index + 1] |= c == '/';
                    }
                }
            }
            self.skip(&mut next);
            at = next;
        }
        at[self.0.len()]
    }

    /// Steps over what may stand for nothing.
    fn skip(&self, at: &mut [bool]) {
        for (index, token) in self.0.iter().enumerate() {
            match token {
                Token::Star | Token::Everything if at[index] => at[index + 1] = true,
                Token::Folders if at[index] => at[index + 1..=index + 2].fill(true),
                _ => {}
            }
        }
    }
}

fn has_wildcard(pattern: &str) -> bool {
    pattern.contains(['*', '?', '[', ']', '\\'])
}

/// The inside of `[…]`, to the syntax of Go's `filepath.Match`.
fn class(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Token> {
    let negated = rest.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && rest.next_if_eq(&']').is_some() {
            return Some(Token::Class { ranges, negated });
        }
        let low = class_character(rest)?;
        let high = match rest.next_if_eq(&'-') {
            Some(_) => class_character(rest)?,
            None => low,
        };
        if low > high {
            return None;
        }
        ranges.push((low, high));
    }
}

fn class_character(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match rest.next()? {
        '-' | ']' => None,
        '\\' => rest.next(),
        c => Some(c),
    }
}
