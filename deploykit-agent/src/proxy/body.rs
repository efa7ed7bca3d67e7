//! Where a message body ends (RFC 9112 §6 and §7), found without buffering it.

use super::head::is_forbidden_trailer;

/// A chunk's size line with its extensions may be this long.
const MAX_SIZE_LINE: usize = 1024;
/// A trailer section may be this long, with this many fields.
const MAX_TRAILERS: usize = 8 * 1024;
const MAX_TRAILER_FIELDS: usize = 32;

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is no body.
    Empty,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// The connection ends; answers only.
    UntilClose,
}

/// The body is not framed as RFC 9112 says; what came before its fault may have been forwarded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// What to do with the bytes at hand: forward `from..to`, drop `consumed`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) consumed: usize,
}

/// The part of a body that is still to come.
#[derive(Debug)]
pub(crate) enum Body {
    Length(u64),
    Chunked(Box<Chunks>),
    UntilClose,
}

impl Body {
    /// With `decode`, chunks are forwarded without their framing: for peers of HTTP/1.0.
    pub(crate) fn new(framing: Framing, decode: bool) -> Self {
        match framing {
            Framing::Empty => Self::Length(0),
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Box::new(Chunks::new(decode))),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.at == At::Done,
            Self::UntilClose => false,
        }
    }

    /// How much to read at once: no more than pays off for what is left.
    pub(crate) fn read_size(&self, small: usize, large: usize) -> usize {
        match self {
            Self::Length(left) if *left <= small as u64 => small,
            _ => large,
        }
    }

    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<Taken, Malformed> {
        match self {
            Self::Length(left) => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= n as u64;
                Ok(Taken { from: 0, to: n, consumed: n })
            }
            Self::Chunked(chunks) => chunks.take(bytes),
            Self::UntilClose => Ok(Taken { from: 0, to: bytes.len(), consumed: bytes.len() }),
        }
    }

    /// What follows the last forwarded byte of a whole body.
    pub(crate) fn tail(&self) -> &[u8] {
        match self {
            Self::Chunked(chunks) if !chunks.decode => &chunks.tail,
            _ => &[],
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Size,
    Extension,
    SizeEnd,
    Data,
    DataEnd(u8),
    Trailers,
    Done,
}

/// The chunked coding (RFC 9112 §7.1), read strictly: lines end in CRLF only, and no space pads a
/// size, since another reader might see another body in what is forwarded as it came.
#[derive(Debug)]
pub(crate) struct Chunks {
    at: At,
    decode: bool,
    left: u64,
    line: usize,
    trailers: Vec<u8>,
    tail: Vec<u8>,
}

impl Chunks {
    fn new(decode: bool) -> Self {
        Self { at: At::Size, decode, left: 0, line: 0, trailers: Vec::new(), tail: Vec::new() }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<Taken, Malformed> {
        let mut taken = Taken::default();
        while taken.consumed < bytes.len() && self.at != At::Done {
            let rest = &bytes[taken.consumed..];
            match self.at {
                At::Data => {
                    let n = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest.len());
                    self.left -= n as u64;
                    if self.left == 0 {
                        self.at = At::DataEnd(b'\r');
                    }
                    if self.decode {
                        let from = taken.consumed;
                        return Ok(Taken { from, to: from + n, consumed: from + n });
                    }
                    taken.consumed += n;
                }
                At::Trailers => {
                    taken.consumed += self.take_trailers(rest)?;
                    continue;
                }
                _ => {
                    self.framing(rest[0])?;
                    taken.consumed += 1;
                }
            }
            if !self.decode {
                taken.to = taken.consumed;
            }
        }
        Ok(taken)
    }

    fn framing(&mut self, byte: u8) -> Result<(), Malformed> {
        self.at = match (self.at, byte) {
            (At::Size, b'\r') if self.line > 0 => At::SizeEnd,
            (At::Size, b';') if self.line > 0 => At::Extension,
            (At::Size, _) => {
                let digit = char::from(byte).to_digit(16).ok_or(Malformed("bad chunk size"))?;
                self.left = self
                    .left
                    .checked_mul(16)
                    .and_then(|left| left.checked_add(u64::from(digit)))
                    .ok_or(Malformed("chunk size too large"))?;
                At::Size
            }
            (At::Extension, b'\r') => At::SizeEnd,
            (At::Extension, b'\t' | b' '..=b'~' | 0x80..) => At::Extension,
            (At::SizeEnd, b'\n') if self.left > 0 => At::Data,
            (At::SizeEnd, b'\n') => At::Trailers,
            (At::DataEnd(b'\r'), b'\r') => At::DataEnd(b'\n'),
            (At::DataEnd(b'\n'), b'\n') => At::Size,
            _ => return Err(Malformed("bad chunk framing")),
        };
        self.line += 1;
        match self.at {
            At::Size | At::Extension | At::SizeEnd if self.line > MAX_SIZE_LINE => {
                return Err(Malformed("chunk size line too long"));
            }
            At::Data | At::Trailers => self.line = 0,
            _ => {}
        }
        if byte == b'\n' {
            self.line = 0;
        }
        Ok(())
    }

    /// Collects the trailer section; once whole, what of it may pass becomes the tail.
    fn take_trailers(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        for (index, byte) in bytes.iter().enumerate() {
            self.trailers.push(*byte);
            let bare_newline = *byte == b'\n' && !self.trailers.ends_with(b"\r\n");
            if bare_newline || self.trailers.len() > MAX_TRAILERS {
                return Err(Malformed("bad trailer section"));
            }
            if self.trailers == b"\r\n" || self.trailers.ends_with(b"\r\n\r\n") {
                self.tail = filter_trailers(&self.trailers)?;
                self.at = At::Done;
                return Ok(index + 1);
            }
        }
        Ok(bytes.len())
    }
}

fn filter_trailers(section: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
    let mut tail = Vec::with_capacity(section.len());
    match httparse::parse_headers(section, &mut fields) {
        Ok(httparse::Status::Complete((_, fields))) => {
            for field in fields.iter().filter(|field| !is_forbidden_trailer(field.name)) {
                tail.extend_from_slice(field.name.as_bytes());
                tail.extend_from_slice(b": ");
                tail.extend_from_slice(field.value);
                tail.extend_from_slice(b"\r\n");
            }
        }
        _ => return Err(Malformed("bad trailer section")),
    }
    tail.extend_from_slice(b"\r\n");
    Ok(tail)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// Feeds `bytes` in pieces of `step` and returns what would be forwarded and what is left.
    fn run(bytes: &[u8], step: usize, decode: bool) -> Result<(Vec<u8>, usize, bool), Malformed> {
        let mut body = Body::new(Framing::Chunked, decode);
        let (mut out, mut at) = (Vec::new(), 0);
        while at < bytes.len() && !body.is_done() {
            let piece = &bytes[at..(at + step).min(bytes.len())];
            let taken = body.take(piece)?;
            out.extend_from_slice(&piece[taken.from..taken.to]);
            at += taken.consumed;
        }
        out.extend_from_slice(if body.is_done() { body.tail() } else { &[] });
        Ok((out, bytes.len() - at, body.is_done()))
    }

    #[test]
    fn forwards_chunks_and_trailers_as_they_came_and_stops_at_their_end() {
        let body = b"5;a=\"b\"\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 1\r\n\r\nGET /next";
        for step in [1, 2, 3, 7, 100] {
            let (out, left, done) = run(body, step, false).unwrap();
            assert!(done);
            assert_eq!(left, b"GET /next".len());
            assert_eq!(out, &body[..body.len() - left]);
            assert_eq!(run(body, step, true).unwrap().0, b"hello!");
        }
    }

    #[test]
    fn drops_trailers_that_would_frame_or_route() {
        let (out, _, _) =
            run(b"0\r\nContent-Length: 5\r\nHost: x\r\nX-Ok: y\r\n\r\n", 4, false).unwrap();
        assert_eq!(out, b"0\r\nX-Ok: y\r\n\r\n");
    }

    #[test]
    fn refuses_what_another_reader_could_see_differently() {
        for bad in [
            "5\nhello\r\n0\r\n\r\n",
            "5 \r\nhello\r\n0\r\n\r\n",
            "+5\r\nhello\r\n0\r\n\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            "\r\nhello",
            ";a\r\n",
            "5\r\nhelloX\r\n0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5;a\nb\r\nhello\r\n0\r\n\r\n",
            "5;a\rb\r\nhello\r\n0\r\n\r\n",
            "fffffffffffffffff\r\n",
            "0\r\nX: y\n\r\n\r\n",
            "0\r\nX : y\r\n\r\n",
            "0\r\n: y\r\n\r\n",
        ] {
            assert!(run(bad.as_bytes(), 3, false).is_err(), "{bad:?}");
        }
        assert!(run(&[b'0'; 2000], 50, false).is_err());
        assert!(run(&[b"0\r\nA: ".as_slice(), &[b'x'; 9000]].concat(), 50, false).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_one_result(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..200),
                "([0-9a-f]{1,2}(;[a-z]*)?\r\n[a-z\r\n]{0,20}\r\n){0,4}0\r\n(A: b\r\n)?\r\n"
                    .prop_map(String::into_bytes),
            ],
            step in 1_usize..50,
        ) {
            let whole = run(&bytes, usize::MAX / 2, false);
            prop_assert_eq!(&run(&bytes, step, false), &whole);
            if let Ok((out, left, true)) = whole {
                // What is forwarded is one whole body in itself.
                prop_assert_eq!(run(&out, 1, false), Ok((out.clone(), 0, true)));
                prop_assert!(left <= bytes.len());
            }
        }

        #[test]
        fn chunks_decode_to_what_was_encoded(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..6),
            step in 1_usize..400,
        ) {
            let mut bytes = Vec::new();
            for chunk in &chunks {
                bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
            prop_assert_eq!(run(&bytes, step, true), Ok((chunks.concat(), 0, true)));
            prop_assert_eq!(run(&bytes, step, false), Ok((bytes, 0, true)));
        }
    }
}
