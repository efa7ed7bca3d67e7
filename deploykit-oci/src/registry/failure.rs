//! How the failures of a registry become errors, and which of them may pass.

use std::error::Error as StdError;
use std::time::{Duration, Instant, SystemTime};

use deploykit_core::{Error, ErrorKind};
use hyper::StatusCode;
use hyper::header::RETRY_AFTER;
use serde::Deserialize;

use super::transport::Answer;
use crate::error::error;

/// What one try comes to.
pub(super) type Attempt<T> = Result<T, Failure>;

/// Why a try failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    /// How long to wait at least before the next try; none where another one is of no use.
    pub(super) retry: Option<Duration>,
    /// How often it is tried at most, however much of the budget is left.
    most_tries: u32,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, retry: None, most_tries: 1 }
    }
}

impl Failure {
    pub(super) fn retryable(error: Error) -> Self {
        Self { error, retry: Some(Duration::ZERO), most_tries: u32::MAX }
    }

    pub(super) fn map(self, change: impl FnOnce(Error) -> Error) -> Self {
        Self { error: change(self.error), ..self }
    }
}

/// How long it is tried again.
pub(super) struct Budget {
    whole: Duration,
    until: Instant,
    tries: u32,
}

/// The first pause; each following one is twice as long.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often a name is looked up that isn't found: it is rather misspelt than gone for a moment.
const LOOKUPS: u32 = 3;

impl Budget {
    pub(super) fn new(whole: Duration) -> Self {
        Self { whole, until: Instant::now() + whole, tries: 0 }
    }

    /// Something has gone well, so that the budget starts anew.
    pub(super) fn refill(&mut self) {
        *self = Self::new(self.whole);
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// The failure's own, where another try is of no use or the budget is spent.
    pub(super) async fn pause(&mut self, failure: Failure) -> Result<(), Error> {
        let Some(least) = failure.retry else { return Err(failure.error) };
        let longest = PAUSE.saturating_mul(1 << self.tries.min(10)).min(LONGEST_PAUSE);
        // Callers that failed together don't come back together.
        let pause = least + longest.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.tries += 1;
        if Instant::now() + pause > self.until || self.tries >= failure.most_tries {
            return Err(failure.error.with("tries", self.tries));
        }
        tracing::debug!(error = %failure.error, ?pause, "trying again");
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// What an error was caused by. What is wrapped as an error of input and output is no source of it.
fn below<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

/// A request that got no answer.
pub(super) fn unreachable(host: &str, cause: hyper_util::client::legacy::Error) -> Failure {
    let causes = || std::iter::successors(Some(&cause as &(dyn StdError + 'static)), |e| below(*e));
    if let Some(refusal) = causes().find(|e| e.is::<rustls::Error>()) {
        let message = format!(
            "the encrypted connection is refused: {refusal}; where its certificate is of an \
             authority of your own, name that one's file among the ca_files"
        );
        return error(ErrorKind::Failed, "connect to a registry", message)
            .with("registry", host)
            .into();
    }
    let reasons: Vec<String> = causes().map(ToString::to_string).collect();
    // The connector has no type for it; a test holds it to this text.
    let is_unknown = reasons.iter().any(|reason| reason == "dns error");
    let (operation, message) = match cause.is_connect() {
        true if is_unknown => {
            ("connect to a registry", "its name is not known; look at how it is written")
        }
        true => ("connect to a registry", "it cannot be reached"),
        false => ("speak to a registry", "the connection broke"),
    };
    let broken = error(ErrorKind::Unavailable, operation, message).with("registry", host);
    let failure = Failure::retryable(broken.because(reasons.join(": ")));
    if is_unknown { Failure { most_tries: LOOKUPS, ..failure } } else { failure }
}

/// What registries say of errors
/// (<https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes>).
#[derive(Deserialize)]
struct Said {
    errors: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// How much of an error's text is read, in bytes.
const MOST_SAID: u64 = 16 << 10;

/// An answer that is no success: `what` was asked for of `host`.
pub(super) async fn refused(mut answer: Answer, operation: &str, host: &str) -> Failure {
    let status = answer.status();
    let after = answer.header(RETRY_AFTER).and_then(retry_after);
    let said = answer.whole(MOST_SAID).await.ok().flatten().unwrap_or_default();
    let said: Vec<Item> = serde_json::from_slice(&said).map(|s: Said| s.errors).unwrap_or_default();
    let has_code = |code| said.iter().any(|item| item.code == code);
    let (kind, message) = match status {
        _ if has_code("DIGEST_INVALID") => {
            (ErrorKind::Corrupt, "what arrived is not what its digest says".to_owned())
        }
        StatusCode::UNAUTHORIZED => (
            ErrorKind::Unauthorized,
            format!("the registry wants other credentials; log in: docker login {host}"),
        ),
        StatusCode::FORBIDDEN => (
            ErrorKind::Unauthorized,
            "the registry denies this to whom you are logged in as".to_owned(),
        ),
        StatusCode::NOT_FOUND => (ErrorKind::NotFound, "the registry has no such thing".to_owned()),
        StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
            (ErrorKind::Unsupported, "the registry does not do this".to_owned())
        }
        StatusCode::PAYLOAD_TOO_LARGE => {
            (ErrorKind::Invalid, "the registry does not take so much".to_owned())
        }
        StatusCode::TOO_MANY_REQUESTS => {
            (ErrorKind::Unavailable, "the registry limits how often it is asked".to_owned())
        }
        StatusCode::REQUEST_TIMEOUT => {
            (ErrorKind::Timeout, "the registry waited too long for the request".to_owned())
        }
        status if status.is_server_error() => {
            (ErrorKind::Unavailable, "the registry failed".to_owned())
        }
        status if status.is_client_error() => {
            (ErrorKind::Failed, "the registry refuses the request".to_owned())
        }
        _ => (ErrorKind::Failed, "the registry gave an answer that does not fit".to_owned()),
    };
    let mut error =
        error(kind, operation, message).with("registry", host).with("status", status.as_u16());
    for item in &said {
        error = error.with("said", format_args!("{}: {}", item.code, item.message));
    }
    let retry = error.is_retryable().then(|| after.unwrap_or_default());
    if let Some(after) = after.filter(|_| retry.is_some()) {
        error = error.with("retry after", format_args!("{} s", after.as_secs()));
    }
    Failure { error, retry, most_tries: u32::MAX }
}

/// Seconds, or a date (<https://www.rfc-editor.org/rfc/rfc9110#field.retry-after>).
fn retry_after(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    // One that has passed is no time to wait.
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_waited_for() {
        assert_eq!(retry_after(" 7 "), Some(Duration::from_secs(7)));
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(3600));
        let wait = retry_after(&soon);
        assert!(wait.is_some_and(|w| (3000..=3600).contains(&w.as_secs())), "{soon}: {wait:?}");
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(retry_after("soon"), None);
    }
}
