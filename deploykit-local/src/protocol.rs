//! What clients and the supervisor say to each other: JSON in frames of a 4-byte length, over the
//! folder's socket. Each side names its version first.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use deploykit_core::model::{AppName, SecretName, ServiceName, VolumeName};
use deploykit_core::{
    EndpointSpec, Error, ErrorKind, Expected, Fence, InstanceSpec, Lease, Result,
};
use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::bytes::{Bytes, BytesMut};
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

use crate::error::BACKEND;
use crate::secrets::Wire;

/// The version of this protocol: both sides must speak the same.
pub(crate) const PROTOCOL: u32 = 2;
/// The longest frame in bytes.
const LONGEST: usize = 64 << 20;

/// The client's first word. Its form stays the same in every version.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) protocol: u32,
    pub(crate) program: String,
}

/// The supervisor's first word. Its form stays the same in every version.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Welcome {
    pub(crate) protocol: u32,
    pub(crate) program: String,
    pub(crate) pid: u32,
}

/// The version of this crate, for people.
pub(crate) fn program() -> String {
    format!("deploykit {}", env!("CARGO_PKG_VERSION"))
}

/// One call.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Call<R = Request> {
    pub(crate) id: u64,
    pub(crate) request: R,
}

/// What can be asked of the supervisor; the names are those of core's traits.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    Apps,
    Get {
        app: AppName,
        key: String,
    },
    Keys {
        app: AppName,
        prefix: String,
    },
    Put {
        fence: Fence,
        key: String,
        value: String,
        expected: Expected,
    },
    Delete {
        fence: Fence,
        key: String,
        version: u64,
    },
    Acquire {
        app: AppName,
        holder: String,
        ttl: Duration,
    },
    Renew {
        lease: Lease,
        ttl: Duration,
    },
    Release {
        lease: Lease,
    },
    PutSecret {
        app: AppName,
        name: SecretName,
        value: Wire,
        only_first: bool,
    },
    GetSecret {
        app: AppName,
        name: SecretName,
        version: u64,
    },
    SecretVersions {
        app: AppName,
        name: SecretName,
    },
    ListSecrets {
        app: AppName,
    },
    DeleteSecrets {
        app: AppName,
        name: SecretName,
        versions: Vec<u64>,
    },
    /// Answered with what has changed since that version of an earlier answer.
    Inspect {
        app: AppName,
        since: Option<u64>,
    },
    Watch {
        app: AppName,
    },
    EnsureVolume {
        fence: Fence,
        name: VolumeName,
    },
    RemoveVolume {
        fence: Fence,
        name: VolumeName,
    },
    EnsureEndpoint {
        fence: Fence,
        endpoint: EndpointSpec,
    },
    RemoveEndpoint {
        fence: Fence,
        service: ServiceName,
    },
    Route {
        fence: Fence,
        service: ServiceName,
        instances: BTreeSet<String>,
    },
    Drain {
        fence: Fence,
        service: ServiceName,
        instance: String,
        deadline: Duration,
    },
    Start {
        fence: Fence,
        spec: Box<InstanceSpec>,
    },
    Stop {
        fence: Fence,
        instance: String,
    },
    Remove {
        fence: Fence,
        instance: String,
    },
    Collect {
        fence: Fence,
        digests: BTreeSet<String>,
    },
    Surroundings {
        app: AppName,
        instance: String,
    },
}

/// What a command beside an instance is run with.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Surroundings {
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) workdir: PathBuf,
}

/// The reading half of a connection.
pub(crate) type Reader = FramedRead<OwnedReadHalf, LengthDelimitedCodec>;
/// The writing half of a connection.
pub(crate) type Writer = FramedWrite<OwnedWriteHalf, LengthDelimitedCodec>;

/// Cuts a connection into frames.
pub(crate) fn framed(stream: UnixStream) -> (Reader, Writer) {
    let codec = LengthDelimitedCodec::builder().max_frame_length(LONGEST).new_codec();
    let (read, write) = stream.into_split();
    (FramedRead::new(read, codec.clone()), FramedWrite::new(write, codec))
}

/// A message as a frame.
pub(crate) fn encode(message: &impl Serialize) -> Result<Bytes> {
    serde_json::to_vec(message)
        .map(Bytes::from)
        .map_err(|e| broken(format!("a message cannot be written: {e}")))
}

/// An answer as a frame: the id of its call in 8 bytes, then the result. A watch has many answers.
pub(crate) fn encode_answer<T: Serialize>(id: u64, result: &Result<T>) -> Bytes {
    let mut frame = id.to_be_bytes().to_vec();
    if let Err(e) = serde_json::to_writer(&mut frame, result) {
        let failed: Result<()> = Err(broken(format!("an answer cannot be written: {e}")));
        frame.truncate(8);
        frame.extend(serde_json::to_vec(&failed).unwrap_or_default());
    }
    frame.into()
}

/// The id of the call that a frame answers, and the result.
pub(crate) fn split_answer(mut frame: BytesMut) -> Option<(u64, BytesMut)> {
    let result = frame.split_off(frame.len().min(8));
    Some((u64::from_be_bytes(frame.as_ref().try_into().ok()?), result))
}

/// The message of a frame.
pub(crate) fn decode<T: DeserializeOwned>(frame: &[u8]) -> Result<T> {
    serde_json::from_slice(frame).map_err(|e| broken(format!("a message cannot be read: {e}")))
}

/// Sends one message.
pub(crate) async fn send<W>(writer: &mut W, message: &impl Serialize) -> Result<()>
where
    W: Sink<Bytes, Error = std::io::Error> + Unpin,
{
    let frame = encode(message)?;
    writer.send(frame).await.map_err(|e| broken(format!("the connection ended: {e}")))
}

/// Receives one message.
pub(crate) async fn receive<T: DeserializeOwned, R>(reader: &mut R) -> Result<T>
where
    R: Stream<Item = std::io::Result<BytesMut>> + Unpin,
{
    decode(&receive_frame(reader).await?)
}

/// Receives one frame.
pub(crate) async fn receive_frame<R>(reader: &mut R) -> Result<BytesMut>
where
    R: Stream<Item = std::io::Result<BytesMut>> + Unpin,
{
    match reader.next().await {
        Some(Ok(frame)) => Ok(frame),
        Some(Err(e)) => Err(broken(format!("the connection ended: {e}"))),
        None => Err(broken("the connection ended".into())),
    }
}

/// The other side is gone or makes no sense.
pub(crate) fn broken(message: String) -> Error {
    Error::new(ErrorKind::Unavailable, "talk to the supervisor", message).on(BACKEND)
}
