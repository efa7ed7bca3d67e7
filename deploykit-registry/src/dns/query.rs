//! Asking a name server.

use std::time::Duration;

use deploykit_core::{Error, ErrorKind, Result};
use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::error::timed_out;

/// How long one name server may take, and how often all of them are asked.
const CALL: Duration = Duration::from_secs(2);
const ROUNDS: usize = 2;

/// What a datagram may have that no network on the way cuts:
/// <https://www.dnsflagday.net/2020/>.
pub(super) const DATAGRAM: u16 = 1232;

const OPERATION: &str = "ask a name server";

pub(super) struct Answer {
    pub(super) records: Vec<Record>,
    pub(super) additional: Vec<Record>,
}

/// What the first one that answers says; a name that is not there has no records.
pub(super) async fn ask(hosts: &[String], name: Name, kind: RecordType) -> Result<Answer> {
    let mut last = timed_out("dns", OPERATION);
    for host in hosts.iter().cycle().take(hosts.len() * ROUNDS) {
        let asked = timeout(CALL, ask_one(host, &name, kind)).await;
        match asked.unwrap_or_else(|_| Err(timed_out("dns", OPERATION))) {
            Ok(answer) => return Ok(answer),
            Err(error) => last = error.with("server", host).with("name", &name),
        }
    }
    Err(last)
}

async fn ask_one(host: &str, name: &Name, kind: RecordType) -> Result<Answer> {
    let mut question = Message::query();
    question.add_query(Query::query(name.clone(), kind));
    question.metadata.recursion_desired = true;
    let mut edns = Edns::new();
    edns.set_max_payload(DATAGRAM);
    question.set_edns(edns);
    let bytes = question.to_vec().map_err(|error| {
        Error::new(ErrorKind::Invalid, OPERATION, "this cannot be asked").on("dns").because(error)
    })?;
    let mut answer = by_datagram(host, &bytes, &question).await?;
    if answer.metadata.truncation {
        answer = by_stream(host, &bytes, &question).await?;
    }
    match answer.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => {
            Ok(Answer { records: answer.answers, additional: answer.additionals })
        }
        ResponseCode::ServFail => {
            let message = "the name server could not answer; trying again may help";
            Err(Error::new(ErrorKind::Unavailable, OPERATION, message).on("dns"))
        }
        other => {
            let message = "the name server refused; check that it serves the zone";
            let error = Error::new(ErrorKind::Failed, OPERATION, message).on("dns");
            Err(error.with("answer", other))
        }
    }
}

fn broken(error: std::io::Error) -> Error {
    let message = "the name server is not reached; check its address";
    Error::new(ErrorKind::Unavailable, OPERATION, message).on("dns").because(error)
}

/// Whether this is what was asked for; anybody can send a datagram.
fn answers(answer: &Message, question: &Message) -> bool {
    answer.metadata.id == question.metadata.id && answer.queries == question.queries
}

async fn by_datagram(host: &str, bytes: &[u8], question: &Message) -> Result<Message> {
    let to = tokio::net::lookup_host(host).await.map_err(broken)?.next();
    let any = if to.is_some_and(|to| to.is_ipv6()) { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any).await.map_err(broken)?;
    socket.connect(host).await.map_err(broken)?;
    socket.send(bytes).await.map_err(broken)?;
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await.map_err(broken)?;
        if let Ok(answer) = Message::from_vec(&buffer[..length])
            && answers(&answer, question)
        {
            return Ok(answer);
        }
    }
}

async fn by_stream(host: &str, bytes: &[u8], question: &Message) -> Result<Message> {
    let mut stream = TcpStream::connect(host).await.map_err(broken)?;
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    let framed = [&length.to_be_bytes(), bytes].concat();
    stream.write_all(&framed).await.map_err(broken)?;
    let length = stream.read_u16().await.map_err(broken)?;
    let mut buffer = vec![0; length.into()];
    stream.read_exact(&mut buffer).await.map_err(broken)?;
    let answer = Message::from_vec(&buffer).ok().filter(|answer| answers(answer, question));
    answer.ok_or_else(|| {
        let message = "the name server's answer is none; check what listens there";
        Error::new(ErrorKind::Failed, OPERATION, message).on("dns")
    })
}
