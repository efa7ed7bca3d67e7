//! Messages between two programs of this library: JSON in frames of a 4-byte big-endian length,
//! over any stream of bytes. Many calls are under way at once, told apart by their ids.
//!
//! Frames may hold a secret's value, so they are wiped from memory when dropped.

mod connection;
mod secret;

pub use connection::{Connection, Lost};
pub use secret::SecretText;

use std::io;

use deploykit_core::{Error, ErrorKind, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use zeroize::Zeroizing;

/// The longest frame in bytes.
pub const LONGEST: usize = 64 << 20;
/// Memory is taken in steps of this: a length that is announced is not yet sent.
const STEP: usize = 64 << 10;
/// The bytes before an answer: the id of its call.
const ID: usize = 8;

/// The bytes of one message.
pub type Frame = Zeroizing<Vec<u8>>;

/// One call.
#[derive(Debug, Serialize, Deserialize)]
pub struct Call<R> {
    /// What its answer names; 0 is never a call's.
    pub id: u64,
    /// What is asked.
    pub request: R,
}

/// Writes one frame. Not cancel-safe: half a frame may have been written.
///
/// # Errors
/// Those of the stream; `InvalidData` for more than [`LONGEST`] bytes, of which nothing is written.
pub async fn write_frame(writer: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len()).ok().filter(|_| frame.len() <= LONGEST);
    let length = length.ok_or_else(|| too_long(frame.len()))?;
    writer.write_all(&length.to_be_bytes()).await?;
    writer.write_all(frame).await?;
    writer.flush().await
}

/// Reads one frame. Not cancel-safe: half a frame may have been read.
///
/// # Errors
/// Those of the stream, `UnexpectedEof` where it ends; `InvalidData` where more than [`LONGEST`]
/// bytes are announced.
pub async fn read_frame(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Frame> {
    let mut length = [0; 4];
    reader.read_exact(&mut length).await?;
    let length = u32::from_be_bytes(length) as usize;
    if length > LONGEST {
        return Err(too_long(length));
    }
    let mut frame = Frame::new(Vec::with_capacity(length.min(STEP)));
    while frame.len() < length {
        let filled = frame.len();
        let end = length.min(filled + STEP);
        if end > frame.capacity() {
            // Not grown in place: what is left behind would not be wiped.
            let mut larger = Vec::with_capacity(length.min(frame.capacity() * 4));
            larger.extend_from_slice(&frame);
            frame = Frame::new(larger);
        }
        frame.resize(end, 0);
        reader.read_exact(&mut frame[filled..]).await?;
    }
    Ok(frame)
}

fn too_long(length: usize) -> io::Error {
    let message = format!("a frame of {length} bytes, more than {LONGEST}");
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// Writes frames as they come, until none can come any more or the stream ends.
///
/// Dropping the future may leave half a frame written.
pub async fn write_frames(
    mut writer: impl AsyncWrite + Unpin,
    mut frames: tokio::sync::mpsc::Receiver<Frame>,
) {
    while let Some(frame) = frames.recv().await {
        if write_frame(&mut writer, &frame).await.is_err() {
            return;
        }
    }
}

/// A message as a frame.
///
/// # Errors
/// Where it cannot be written as JSON.
pub fn encode(message: &impl Serialize) -> io::Result<Frame> {
    let mut frame = Frame::default();
    serde_json::to_writer(&mut *frame, message).map_err(io::Error::other)?;
    Ok(frame)
}

/// The message of a frame.
///
/// # Errors
/// `InvalidData`; what was sent is not in the message.
pub fn decode<T: DeserializeOwned>(frame: &[u8]) -> io::Result<T> {
    serde_json::from_slice(frame).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// An answer as a frame: the id of its call in 8 bytes, then the result; where that cannot be
/// written as JSON, an error that says so.
pub fn encode_answer<T: Serialize>(id: u64, result: &Result<T>) -> Frame {
    let mut frame = Frame::new(id.to_be_bytes().to_vec());
    if let Err(e) = serde_json::to_writer(&mut *frame, result) {
        frame.truncate(ID);
        let message = format!("the answer cannot be written: {e}");
        let failed: Result<()> = Err(Error::new(ErrorKind::Failed, "answer a call", message));
        frame.extend(serde_json::to_vec(&failed).unwrap_or_default());
    }
    frame
}

/// The result of an answer.
///
/// # Errors
/// `InvalidData`.
pub fn decode_answer<T: DeserializeOwned>(frame: &[u8]) -> io::Result<Result<T>> {
    decode(frame.get(ID..).unwrap_or_default())
}

/// The id of the call that a frame answers.
fn answered(frame: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*frame.first_chunk::<ID>()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn frames_of_all_lengths_come_through() {
        let (mut one, mut other) = tokio::io::duplex(1 << 10);
        let lengths = [0, 1, STEP - 1, STEP, STEP + 1, 5 * STEP + 7];
        let writer = tokio::spawn(async move {
            for length in lengths {
                let frame: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
                write_frame(&mut one, &frame).await.unwrap();
            }
        });
        for length in lengths {
            let frame = read_frame(&mut other).await.unwrap();
            assert_eq!(frame.len(), length);
            assert!(frame.iter().enumerate().all(|(n, byte)| *byte == (n % 251) as u8));
        }
        writer.await.unwrap();
        let end = read_frame(&mut other).await.unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn frames_that_are_too_long_are_refused_before_memory_is_taken() {
        let announced = u32::try_from(LONGEST + 1).unwrap().to_be_bytes();
        let refused = read_frame(&mut announced.as_slice()).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        assert_eq!(refused.to_string(), "a frame of 67108865 bytes, more than 67108864");
        let mut written = Vec::new();
        let long = vec![0; LONGEST + 1];
        assert!(write_frame(&mut written, &long).await.is_err());
        assert!(written.is_empty());
    }
}
