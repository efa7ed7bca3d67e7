//! The [gRPC health protocol] answering SERVING.
//!
//! Two one-field messages, so no code is generated for them: a request with the service's name and
//! an answer with its status, in the [framing] of gRPC and the [encoding] of protobuf.
//!
//! [gRPC health protocol]: https://github.com/grpc/grpc-proto/blob/master/grpc/health/v1/health.proto
//! [framing]: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
//! [encoding]: https://protobuf.dev/programming-guides/encoding/

use std::error::Error;
use std::net::SocketAddr;

use bytes::Bytes;
use deploykit_core::model::GrpcCheck;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::excerpt;

const MAX_ANSWER: usize = 4096;

pub(super) async fn ask(check: &GrpcCheck, addr: SocketAddr) -> Result<String, String> {
    let stream = TcpStream::connect(addr).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|error| no_http2(&error))?;
    let request = Request::post(format!("http://{addr}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(encode(&check.service)))
        .map_err(|error| error.to_string())?;
    let call = async {
        let response = sender.send_request(request).await.map_err(|error| no_http2(&error))?;
        read(response).await
    };
    tokio::select! {
        answer = call => answer,
        // The connection ends by itself only when the peer ends it.
        ended = connection => Err(match ended {
            Ok(()) => "the connection was closed".to_owned(),
            Err(error) => no_http2(&error),
        }),
    }
}

/// The error with its causes, which say what it was.
fn no_http2(error: &hyper::Error) -> String {
    let mut text = format!("no answer over HTTP/2: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

async fn read(response: Response<hyper::body::Incoming>) -> Result<String, String> {
    let (head, body) = response.into_parts();
    if head.status != 200 {
        return Err(format!("HTTP {}", head.status));
    }
    check_status(&head.headers)?;
    let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| error.to_string())?;
    if let Some(trailers) = body.trailers() {
        check_status(trailers)?;
    }
    match decode(&body.to_bytes()) {
        Some(1) => Ok("SERVING".to_owned()),
        Some(0) => Err("UNKNOWN".to_owned()),
        Some(2) => Err("NOT_SERVING".to_owned()),
        Some(3) => Err("SERVICE_UNKNOWN".to_owned()),
        Some(other) => Err(format!("status {other}")),
        None => Err("not a health answer".to_owned()),
    }
}

/// `grpc-status`, which stands in the trailers or, without a body, in the head.
fn check_status(headers: &HeaderMap) -> Result<(), String> {
    let Some(status) = headers.get("grpc-status").filter(|status| *status != "0") else {
        return Ok(());
    };
    let message = headers.get("grpc-message").map(|message| excerpt(message.as_bytes()));
    Err(format!("gRPC status {}: {}", excerpt(status.as_bytes()), message.unwrap_or_default()))
}

/// `HealthCheckRequest { string service = 1; }`, uncompressed.
fn encode(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a); // field 1, length-delimited
        put_varint(&mut message, service.len() as u64);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(&message);
    frame.into()
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// `HealthCheckResponse { ServingStatus status = 1; }`; an absent field is 0, unknown ones are
/// skipped.
fn decode(frame: &[u8]) -> Option<u64> {
    let (prefix, mut rest) = frame.split_at_checked(5)?;
    let length = u32::from_be_bytes(prefix[1..].try_into().ok()?);
    if prefix[0] != 0 || rest.len() as u64 != u64::from(length) {
        return None;
    }
    let mut status = 0;
    while !rest.is_empty() {
        let key = take_varint(&mut rest)?;
        match (key >> 3, key & 7) {
            (1, 0) => status = take_varint(&mut rest)?,
            (_, 0) => drop(take_varint(&mut rest)?),
            (_, 1) => rest = rest.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(take_varint(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
            }
            (_, 5) => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_are_encoded_as_protobuf_has_it() {
        assert_eq!(encode("").as_ref(), [0, 0, 0, 0, 0]);
        assert_eq!(encode("a.B").as_ref(), b"\0\0\0\0\x05\x0a\x03a.B");
        assert_eq!(encode(&"x".repeat(200))[5..8], [0x0a, 0xc8, 0x01]);
        assert_eq!(decode(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(decode(&[0, 0, 0, 0, 0]), Some(0));
        // An unknown field of each wire type goes before the status.
        let unknown =
            [0x10, 0xff, 0x01, 0x19, 1, 2, 3, 4, 5, 6, 7, 8, 0x22, 2, 9, 9, 0x2d, 1, 2, 3, 4];
        let frame = [&[0, 0, 0, 0, 23], unknown.as_slice(), &[8, 2]].concat();
        assert_eq!(decode(&frame), Some(2));
        for bad in [
            &[0, 0, 0, 0, 2, 8][..],
            &[1, 0, 0, 0, 2, 8, 1],
            &[0, 0, 0, 0, 1, 8],
            &[0, 0],
            &[0, 0, 0, 0, 1, 0x0f],
        ] {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let frame = [&[0, 0, 0, 0, u8::try_from(bytes.len()).unwrap()], bytes.as_slice()].concat();
            let _ = decode(&frame);
            let _ = decode(&bytes);
        }
    }
}
