//! Answers that the proxy gives itself.

/// An answer of the proxy's own, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    fn reason(&self) -> &'static str {
        hyper::StatusCode::from_u16(self.status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or("Error")
    }

    /// The body: one plain line that says what happened.
    pub(crate) fn text(&self) -> String {
        format!("{} {}: {}\n", self.status, self.reason(), self.message)
    }

    /// The whole answer for HTTP/1.
    pub(crate) fn write(&self, out: &mut Vec<u8>, close: bool, head_only: bool) {
        let text = self.text();
        let connection = if close { "Connection: close\r\n" } else { "" };
        out.extend_from_slice(
            format!(
                "HTTP/1.1 {} {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n{connection}\r\n{}",
                self.status,
                self.reason(),
                text.len(),
                if head_only { "" } else { &text },
            )
            .as_bytes(),
        );
    }
}
