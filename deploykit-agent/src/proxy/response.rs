//! Response heads of HTTP/1: read strictly, written anew for the client.

use std::mem::MaybeUninit;

use httparse::{Header, Status};

use super::body::Framing;
use super::head::{
    ConnectionOptions, MAX_FIELDS, RequestHead, content_length, has_bare_newline, put_field,
};

/// What the proxy must know of an answer beside the bytes to forward.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ResponseHead {
    /// Bytes of the head in the input.
    pub(crate) length: usize,
    pub(crate) status: u16,
    pub(crate) framing: Framing,
    /// The backend keeps its connection open after this answer.
    pub(crate) reusable: bool,
    /// The client's connection stays open after this answer.
    pub(crate) keep_alive: bool,
}

impl ResponseHead {
    /// A further head follows (RFC 9110 §15.2).
    pub(crate) fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }
}

/// Reads a response head from the beginning of `input`, and appends to `out` the head for the
/// client; `keep` is whether its connection may stay open. `None`: the head is not whole yet.
/// The error says what is wrong with it.
pub(crate) fn read_response(
    input: &[u8],
    request: &RequestHead,
    keep: bool,
    out: &mut Vec<u8>,
) -> Result<Option<ResponseHead>, &'static str> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        input,
        &mut fields,
    );
    let length = match parsed {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err("too many header fields"),
        Err(_) => return Err("it is not HTTP/1"),
    };
    if has_bare_newline(&input[..length]) {
        return Err("a line of its head does not end in CRLF");
    }
    let (Some(version), Some(status)) = (response.version, response.code) else {
        return Err("it is not HTTP/1");
    };
    let mut options = ConnectionOptions::default();
    let (mut content, mut chunked) = (None, false);
    for Header { name, value } in &*response.headers {
        match name.len() {
            10 if name.eq_ignore_ascii_case("connection") => options.read(value),
            14 if name.eq_ignore_ascii_case("content-length") => {
                content = Some(content_length(value, content)?);
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err("Transfer-Encoding other than one chunked");
                }
                chunked = true;
            }
            _ => {}
        }
    }
    if chunked && content.is_some() {
        return Err("both Content-Length and Transfer-Encoding");
    }
    if status == 101 && !request.upgrade {
        return Err("it switches protocols unasked");
    }
    let framing = match content {
        _ if request.is_head || status < 200 || status == 204 || status == 304 => Framing::Empty,
        _ if chunked => Framing::Chunked,
        Some(length) => Framing::Length(length),
        None => Framing::UntilClose,
    };
    // A client of HTTP/1.0 reads a chunked answer unchunked, until the connection ends.
    let until_close =
        framing == Framing::UntilClose || (framing == Framing::Chunked && request.old);
    let head = ResponseHead {
        length,
        status,
        framing,
        reusable: !options.close
            && (version == 1 || options.keep_alive)
            && framing != Framing::UntilClose,
        keep_alive: keep && request.keep_alive && !until_close,
    };
    if head.is_interim() && request.old {
        return Ok(Some(head));
    }
    write_status(out, status, response.reason.unwrap_or_default());
    for Header { name, value } in &*response.headers {
        if !options.drops(name) {
            put_field(out, name, value);
        }
    }
    if chunked && !request.old && (framing == Framing::Chunked || request.is_head) {
        put_field(out, "Transfer-Encoding", b"chunked");
    }
    if status == 101 {
        put_field(out, "Connection", b"upgrade");
        for field in response.headers.iter().filter(|f| f.name.eq_ignore_ascii_case("upgrade")) {
            put_field(out, field.name, field.value);
        }
    } else if !head.is_interim() {
        if !head.keep_alive {
            put_field(out, "Connection", b"close");
        } else if request.old {
            put_field(out, "Connection", b"keep-alive");
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(Some(head))
}

fn write_status(out: &mut Vec<u8>, status: u16, reason: &str) {
    out.extend_from_slice(b"HTTP/1.1 ");
    let digit = |n: u16| b'0' + u8::try_from(n % 10).unwrap_or_default();
    out.extend_from_slice(&[digit(status / 100), digit(status / 10), digit(status), b' ']);
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
}
