//! PEM, as far as keys need it (<https://www.rfc-editor.org/rfc/rfc7468>).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

const BEGIN: &str = "-----BEGIN ";
const DASHES: &str = "-----";

/// The label and the content of the first block in a text.
pub(super) fn decode(text: &[u8]) -> Option<(String, Zeroizing<Vec<u8>>)> {
    let text = std::str::from_utf8(text).ok()?;
    let (_, text) = text.split_once(BEGIN)?;
    let (label, text) = text.split_once(DASHES)?;
    let (body, _) = text.split_once(&format!("-----END {label}{DASHES}"))?;
    let mut packed = Zeroizing::new(String::with_capacity(body.len()));
    packed.extend(body.chars().filter(|c| !c.is_ascii_whitespace()));
    let content = Zeroizing::new(STANDARD.decode(packed.as_bytes()).ok()?);
    Some((label.to_owned(), content))
}

/// A text of one block.
pub(super) fn encode(label: &str, content: &[u8]) -> String {
    let packed = STANDARD.encode(content);
    let mut text = format!("{BEGIN}{label}{DASHES}\n");
    let mut rest = packed.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(&format!("-----END {label}{DASHES}\n"));
    text
}
