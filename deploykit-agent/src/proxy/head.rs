//! Request heads of HTTP/1: read strictly, written anew.
//!
//! `httparse` splits the head. What decides about framing and routing is checked here and refused
//! when two readers could disagree on it ([RFC 9112 §11.2], request smuggling); the forwarded head
//! is written from the parsed fields, so nothing unchecked passes.
//!
//! [RFC 9112 §11.2]: https://www.rfc-editor.org/rfc/rfc9112#section-11.2

use std::mem::MaybeUninit;
use std::net::SocketAddr;

use httparse::{Header, Status};

use super::body::Framing;
use super::refusal::Refusal;

/// A head may hold this many fields.
pub(crate) const MAX_FIELDS: usize = 128;

/// What the proxy must know of a request beside the bytes to forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestHead {
    /// Bytes of the head in the input.
    pub(crate) length: usize,
    pub(crate) framing: Framing,
    pub(crate) is_head: bool,
    /// May be sent twice, RFC 9110 §9.2.2.
    pub(crate) idempotent: bool,
    /// The client speaks HTTP/1.0: no chunks, no 1xx.
    pub(crate) old: bool,
    pub(crate) keep_alive: bool,
    pub(crate) upgrade: bool,
}

/// Whether RFC 9110 §9.2.2 lets a request with this method be sent again.
pub(crate) fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE" | "TRACE")
}

/// Fields of one connection that are never forwarded (RFC 9110 §7.6.1). `Connection` may name more.
pub(crate) fn is_hop_by_hop(name: &str) -> bool {
    // By length first: most names end here after one comparison.
    match name.len() {
        2 => name.eq_ignore_ascii_case("te"),
        7 => name.eq_ignore_ascii_case("upgrade"),
        10 => name.eq_ignore_ascii_case("connection") || name.eq_ignore_ascii_case("keep-alive"),
        14 => name.eq_ignore_ascii_case("http2-settings"),
        16 => name.eq_ignore_ascii_case("proxy-connection"),
        17 => name.eq_ignore_ascii_case("transfer-encoding"),
        _ => false,
    }
}

/// Fields that a trailer section may not carry since they frame or route (RFC 9110 §6.5.1).
pub(crate) fn is_forbidden_trailer(name: &str) -> bool {
    const FRAMING: [&str; 6] =
        ["content-length", "host", "trailer", "content-encoding", "content-type", "content-range"];
    is_hop_by_hop(name) || FRAMING.iter().any(|other| name.eq_ignore_ascii_case(other))
}

/// The `Connection` fields of a message.
#[derive(Debug, Default)]
pub(crate) struct ConnectionOptions<'a> {
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    pub(crate) upgrade: bool,
    /// Field names beside the known hop-by-hop ones.
    named: Vec<&'a [u8]>,
}

impl<'a> ConnectionOptions<'a> {
    pub(crate) fn read(&mut self, value: &'a [u8]) {
        for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else if !option.is_empty() {
                self.named.push(option);
            }
        }
    }

    /// Whether the field ends at this connection. What frames or routes is not dropped because a
    /// `Connection` field says so.
    pub(crate) fn drops(&self, name: &str) -> bool {
        is_hop_by_hop(name)
            || (!self.named.is_empty()
                && !name.eq_ignore_ascii_case("host")
                && !name.eq_ignore_ascii_case("content-length")
                && self.named.iter().any(|other| name.as_bytes().eq_ignore_ascii_case(other)))
    }
}

/// `Content-Length`, as one number and nothing else (RFC 9112 §6.3): no sign, no list, no repeat.
pub(crate) fn content_length(value: &[u8], seen: Option<u64>) -> Result<u64, &'static str> {
    if seen.is_some() {
        return Err("Content-Length given twice");
    }
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value)
        .ok()
        .filter(|_| digits)
        .and_then(|text| text.parse().ok())
        .ok_or("Content-Length is not a number")
}

pub(crate) fn put_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Every line must end in CRLF. `httparse` takes a bare LF too, other readers do not.
pub(crate) fn has_bare_newline(head: &[u8]) -> bool {
    head.iter().enumerate().any(|(at, byte)| *byte == b'\n' && (at == 0 || head[at - 1] != b'\r'))
}

/// The addresses of one client connection, for the forwarded fields.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) client: SocketAddr,
    pub(crate) listener: SocketAddr,
}

impl Peer {
    /// On this host only another proxy or a program of the same owner connects from loopback: what
    /// it says of the original request stands. Anybody else's claim is replaced.
    pub(crate) fn is_trusted(&self) -> bool {
        self.client.ip().is_loopback()
    }
}

/// The fields that routing and framing depend on.
#[derive(Default)]
struct Facts<'a> {
    length: Option<u64>,
    chunked: bool,
    host: Option<&'a [u8]>,
    upgrade: bool,
    options: ConnectionOptions<'a>,
    forwarded_for: bool,
    forwarded_proto: bool,
    forwarded_host: bool,
}

/// Reads a request head from the beginning of `input`, and writes to `out` the head to forward.
/// `None`: the head is not whole yet.
pub(crate) fn read_request(
    input: &[u8],
    peer: Peer,
    out: &mut Vec<u8>,
) -> Result<Option<RequestHead>, Refusal> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(input, &mut fields) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Refusal::new(431, format!("more than {MAX_FIELDS} header fields")));
        }
        Err(error) => return Err(Refusal::bad_request(error.to_string())),
    };
    if has_bare_newline(&input[..length]) {
        return Err(Refusal::bad_request("a line does not end in CRLF"));
    }
    let (Some(method), Some(target), Some(version)) =
        (request.method, request.path, request.version)
    else {
        return Err(Refusal::bad_request("no request line"));
    };
    let old = version == 0;
    let facts = read_fields(request.headers, old).map_err(Refusal::bad_request)?;
    let (authority, target) = split_target(method, target)?;
    let host = match (authority, facts.host) {
        (Some(authority), _) => Some(authority.as_bytes()),
        (None, host @ Some(_)) => host,
        (None, None) if old => None,
        (None, None) => return Err(Refusal::bad_request("no Host field")),
    };
    if !host.unwrap_or_default().iter().all(|byte| is_host_byte(*byte)) {
        return Err(Refusal::bad_request("bad Host field"));
    }
    let framing = match facts.length {
        _ if facts.chunked => Framing::Chunked,
        Some(length) if length > 0 => Framing::Length(length),
        _ => Framing::Empty,
    };

    out.clear();
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    if !target.starts_with('/') && target != "*" {
        out.push(b'/');
    }
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    write_fields(request.headers, &facts, host, peer, out);

    Ok(Some(RequestHead {
        length,
        framing,
        is_head: method == "HEAD",
        idempotent: is_idempotent(method),
        old,
        keep_alive: !facts.options.close && (!old || facts.options.keep_alive),
        upgrade: facts.upgrade,
    }))
}

fn read_fields<'a>(fields: &[Header<'a>], old: bool) -> Result<Facts<'a>, &'static str> {
    let mut facts = Facts::default();
    let mut upgrade = false;
    for Header { name, value } in fields {
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") => {
                if facts.host.replace(value).is_some() {
                    return Err("Host given twice");
                }
            }
            7 if name.eq_ignore_ascii_case("upgrade") => {
                // h2c would let requests through on the same connection that nobody checks.
                let is_h2c = |protocol: &[u8]| {
                    protocol.trim_ascii().get(..2).is_some_and(|p| p.eq_ignore_ascii_case(b"h2"))
                };
                upgrade = !value.split(|byte| *byte == b',').any(is_h2c);
            }
            10 if name.eq_ignore_ascii_case("connection") => facts.options.read(value),
            14 if name.eq_ignore_ascii_case("content-length") => {
                facts.length = Some(content_length(value, facts.length)?);
            }
            15 if name.eq_ignore_ascii_case("x-forwarded-for") => facts.forwarded_for = true,
            16 if name.eq_ignore_ascii_case("x-forwarded-host") => facts.forwarded_host = true,
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                if facts.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err("Transfer-Encoding other than one chunked");
                }
                facts.chunked = true;
            }
            17 if name.eq_ignore_ascii_case("x-forwarded-proto") => facts.forwarded_proto = true,
            _ => {}
        }
    }
    if facts.chunked && facts.length.is_some() {
        return Err("both Content-Length and Transfer-Encoding");
    }
    if facts.chunked && old {
        return Err("Transfer-Encoding in HTTP/1.0");
    }
    facts.upgrade = upgrade && facts.options.upgrade && !old;
    Ok(facts)
}

/// The authority of an absolute-form target, and the target to forward (RFC 9112 §3.2).
fn split_target<'a>(method: &str, target: &'a str) -> Result<(Option<&'a str>, &'a str), Refusal> {
    if method == "CONNECT" {
        return Err(Refusal::new(405, "this is no forward proxy"));
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok((None, target));
    }
    let absolute = ["http://", "https://"].into_iter().find_map(|scheme| {
        let start = target.get(..scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then(|| &target[scheme.len()..])
    });
    let rest = absolute.ok_or_else(|| Refusal::bad_request("bad request target"))?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    if end == 0 {
        return Err(Refusal::bad_request("bad request target"));
    }
    Ok((Some(&rest[..end]), &rest[end..]))
}

/// The bytes of `uri-host [":" port]` (RFC 9110 §7.2).
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=:[]%".contains(&byte)
}

fn write_fields(
    fields: &[Header<'_>],
    facts: &Facts<'_>,
    host: Option<&[u8]>,
    peer: Peer,
    out: &mut Vec<u8>,
) {
    use std::io::Write;

    let trusted = peer.is_trusted();
    let host = host
        .map_or_else(|| peer.listener.to_string().into_bytes().into(), std::borrow::Cow::Borrowed);
    put_field(out, "Host", &host);
    for Header { name, value } in fields {
        let rewritten = match name.len() {
            4 => name.eq_ignore_ascii_case("host"),
            15 => name.eq_ignore_ascii_case("x-forwarded-for"),
            16 => !trusted && name.eq_ignore_ascii_case("x-forwarded-host"),
            17 => !trusted && name.eq_ignore_ascii_case("x-forwarded-proto"),
            _ => false,
        };
        if !rewritten && !facts.options.drops(name) {
            put_field(out, name, value);
        }
    }
    if facts.chunked {
        put_field(out, "Transfer-Encoding", b"chunked");
    }
    if facts.upgrade {
        put_field(out, "Connection", b"upgrade");
        for field in fields.iter().filter(|field| field.name.eq_ignore_ascii_case("upgrade")) {
            put_field(out, field.name, field.value);
        }
    }
    out.extend_from_slice(b"X-Forwarded-For: ");
    if facts.forwarded_for && trusted {
        for field in fields.iter().filter(|f| f.name.eq_ignore_ascii_case("x-forwarded-for")) {
            out.extend_from_slice(field.value);
            out.extend_from_slice(b", ");
        }
    }
    // Writing to a vector cannot fail.
    let _ = write!(out, "{}", peer.client.ip());
    out.extend_from_slice(b"\r\n");
    if !(facts.forwarded_proto && trusted) {
        put_field(out, "X-Forwarded-Proto", b"http");
    }
    if !(facts.forwarded_host && trusted) {
        put_field(out, "X-Forwarded-Host", &host);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn read(input: &[u8], client: &str) -> (Result<Option<RequestHead>, Refusal>, Vec<u8>) {
        let mut out = Vec::new();
        let peer = Peer {
            client: format!("{client}:1").parse().unwrap(),
            listener: "127.77.0.1:80".parse().unwrap(),
        };
        (read_request(input, peer, &mut out), out)
    }

    #[test]
    fn what_a_stranger_claims_about_the_origin_is_replaced() {
        let head = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\n\
                    X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\r\n";
        let (_, out) = read(head.as_bytes(), "192.0.2.7");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.7\r\n\
             X-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\n\r\n"
        );
    }

    #[test]
    fn a_connection_field_cannot_drop_what_frames_the_message() {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\
                    Connection: Content-Length, Host, X-Forwarded-For\r\n\r\n";
        let (read, out) = read(head.as_bytes(), "192.0.2.7");
        let out = String::from_utf8(out).unwrap();
        assert_eq!(read.unwrap().unwrap().framing, Framing::Length(3));
        assert!(out.contains("Host: a\r\n") && out.contains("Content-Length: 3\r\n"), "{out}");
        assert!(out.contains("X-Forwarded-For: 192.0.2.7\r\n"), "{out}");
    }

    fn head() -> impl Strategy<Value = Vec<u8>> {
        let name = prop_oneof![
            Just("Host"),
            Just("Content-Length"),
            Just("Transfer-Encoding"),
            Just("Connection"),
            Just("Upgrade"),
            Just("Expect"),
            Just("X-Forwarded-For"),
            Just("host "),
            Just("X"),
        ];
        let value = prop_oneof![
            Just("a.example"),
            Just("5"),
            Just("chunked"),
            Just("close, upgrade"),
            Just("identity"),
            Just("5, 5"),
            Just("\tchunked\x0b"),
            Just("x\ny"),
            Just(""),
            Just("websocket"),
        ];
        let end = prop_oneof![8 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r\n ")];
        let fields = proptest::collection::vec((name, value, end), 0..6);
        let line = prop_oneof![
            4 => Just("POST /p HTTP/1.1\r\n"), 1 => Just("GET http://b/ HTTP/1.1\r\n"),
            1 => Just("OPTIONS * HTTP/1.1\r\n"), 1 => Just("GET / HTTP/1.0\r\n"),
        ];
        (line, fields).prop_map(|(line, fields)| {
            let fields: String = fields.iter().map(|(n, v, e)| format!("{n}: {v}{e}")).collect();
            format!("{line}{fields}\r\n").into_bytes()
        })
    }

    proptest! {
        #[test]
        fn what_is_forwarded_reads_the_same_again(
            bytes in prop_oneof![3 => head(), 1 => proptest::collection::vec(any::<u8>(), 0..120)],
        ) {
            let (first, out) = read(&bytes, "192.0.2.7");
            if let Ok(Some(first)) = first {
                prop_assert!(!has_bare_newline(&out));
                let text = String::from_utf8_lossy(&out).to_ascii_lowercase();
                prop_assert_eq!(text.matches("\r\nhost: ").count(), 1);
                let chunked = text.contains("\r\ntransfer-encoding: chunked\r\n");
                prop_assert_eq!(chunked, first.framing == Framing::Chunked);
                prop_assert!(!(chunked && text.contains("\r\ncontent-length: ")));
                let (again, _) = read(&out, "192.0.2.7");
                let again = again.unwrap().unwrap();
                prop_assert_eq!(again.length, out.len());
                prop_assert_eq!(again.framing, first.framing);
                prop_assert_eq!(again.upgrade, first.upgrade);
            }
            // A part of a head is never taken for a whole one.
            if let Ok(Some(whole)) = read(&bytes, "192.0.2.7").0 {
                for end in 0..whole.length {
                    prop_assert!(!matches!(read(&bytes[..end], "192.0.2.7").0, Ok(Some(_))));
                }
            }
        }
    }
}
