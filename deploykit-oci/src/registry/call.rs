//! One call of a registry's interface: logged in, redirected, and tried again where it may be.

use std::future::Future;

use deploykit_core::{ErrorKind, Result};
use hyper::header::{
    AUTHORIZATION, HeaderName, HeaderValue, LOCATION, USER_AGENT, WWW_AUTHENTICATE,
};
use hyper::{Method, Request, StatusCode, Uri};

use super::RegistryClient;
use super::challenge::Challenge;
use super::failure::{Attempt, Budget, Failure, refused};
use super::transport::{Answer, Meter, Payload};
use crate::error::error;
use crate::reference::Reference;

/// How often an answer may send elsewhere.
const MOST_REDIRECTS: usize = 5;

/// A request to a registry.
pub(super) struct Call<'a> {
    /// What is tried, for errors.
    pub(super) operation: &'a str,
    pub(super) method: Method,
    /// The repository, and what in it is asked for.
    pub(super) on: &'a Reference,
    pub(super) address: Address,
    /// What one wants to be allowed, in the form of a token's scope.
    pub(super) access: String,
    pub(super) headers: Vec<(HeaderName, String)>,
    pub(super) payload: Payload,
    pub(super) meter: Option<Meter>,
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub(super) enum Address {
    /// Below the repository, like `tags/list`.
    Within(String),
    /// What the registry has named.
    Whole(Uri),
}

impl<'a> Call<'a> {
    /// A request that reads.
    pub(super) fn read(
        operation: &'a str,
        method: Method,
        on: &'a Reference,
        within: impl Into<String>,
    ) -> Self {
        Self {
            operation,
            method,
            on,
            address: Address::Within(within.into()),
            access: access(on, "pull"),
            headers: Vec::new(),
            payload: Payload::Empty,
            meter: None,
        }
    }

    /// A request that writes.
    pub(super) fn write(
        operation: &'a str,
        method: Method,
        on: &'a Reference,
        within: impl Into<String>,
    ) -> Self {
        Self { access: access(on, "pull,push"), ..Self::read(operation, method, on, within) }
    }

    pub(super) fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// A token's scope (<https://distribution.github.io/distribution/spec/auth/scope/>).
pub(super) fn access(on: &Reference, actions: &str) -> String {
    format!("repository:{}:{actions}", on.path())
}

/// Where the registry of a domain answers.
fn host(domain: &str) -> &str {
    if domain == "docker.io" { "registry-1.docker.io" } else { domain }
}

impl RegistryClient {
    /// Sends a request once, and again with a login where the registry asks for one. Any answer
    /// but that is returned.
    pub(super) async fn call(&self, call: &Call<'_>) -> Attempt<Answer> {
        let named = |failure: Failure| failure.map(|e| e.with("image", call.on));
        self.call_inner(call).await.map_err(named)
    }

    async fn call_inner(&self, call: &Call<'_>) -> Attempt<Answer> {
        let shared = &self.shared;
        let domain = call.on.domain();
        let mut uri = self.uri(call)?;
        let mut login = shared.authorizer.header(domain, &call.access).await;
        let mut redirects = 0;
        let mut logins = 0;
        loop {
            let is_own = uri.authority().is_some_and(|a| a.as_str() == host(domain));
            let mut request = Request::builder()
                .method(call.method.clone())
                .uri(uri.clone())
                .header(USER_AGENT, concat!("deploykit/", env!("CARGO_PKG_VERSION")));
            for (name, value) in &call.headers {
                request = request.header(name, value);
            }
            // Nobody but the registry itself is told who we are.
            if let Some(login) = login.as_ref().filter(|_| is_own) {
                let mut value = HeaderValue::from_bytes(login.expose()).map_err(|_| {
                    let message = "the credentials have characters that no header takes";
                    error(ErrorKind::Invalid, call.operation, message).with("registry", domain)
                })?;
                value.set_sensitive(true);
                request = request.header(AUTHORIZATION, value);
            }
            let meter = call.meter.clone();
            let answer = shared.transport.send(request, &call.payload, meter).await?;
            let reads = matches!(call.method, Method::GET | Method::HEAD);
            if answer.status().is_redirection() && reads && redirects < MOST_REDIRECTS {
                redirects += 1;
                let target = self.location(call, &uri, &answer)?;
                answer.drain().await;
                uri = target;
            } else if answer.status() == StatusCode::UNAUTHORIZED && is_own && logins < 2 {
                logins += 1;
                let headers = answer.headers().get_all(WWW_AUTHENTICATE).into_iter();
                let challenges: Vec<Challenge> = headers
                    .filter_map(|header| header.to_str().ok())
                    .flat_map(Challenge::parse)
                    .collect();
                if challenges.is_empty() {
                    return Ok(answer);
                }
                let next = shared.authorizer.answer(
                    &shared.transport,
                    &shared.config,
                    domain,
                    &call.access,
                    &challenges,
                    login.as_ref(),
                );
                match next.await? {
                    Some(next) => {
                        answer.drain().await;
                        login = Some(next);
                    }
                    None => return Ok(answer),
                }
            } else {
                return Ok(answer);
            }
        }
    }

    /// The address that a request goes to.
    pub(super) fn uri(&self, call: &Call<'_>) -> Result<Uri> {
        let within = match &call.address {
            Address::Whole(uri) => return Ok(uri.clone()),
            Address::Within(within) => within,
        };
        let domain = call.on.domain();
        if domain.is_empty() {
            let message = "it names no registry; write it like registry.example/team/name:tag";
            return Err(error(ErrorKind::Invalid, call.operation, message));
        }
        let scheme = match self.shared.config.plain_http.allows(domain) {
            true => "http",
            false => "https",
        };
        let text = format!("{scheme}://{}/v2/{}/{within}", host(domain), call.on.path());
        text.parse().map_err(|cause: hyper::http::uri::InvalidUri| {
            error(ErrorKind::Invalid, call.operation, "it is no address").because(cause)
        })
    }

    /// Where an answer to a request to `base` sends its caller.
    pub(super) fn location(&self, call: &Call<'_>, base: &Uri, answer: &Answer) -> Result<Uri> {
        self.target(call, base, answer.header(LOCATION).unwrap_or_default())
    }

    /// What a link in an answer to a request to `base` means.
    pub(super) fn target(&self, call: &Call<'_>, base: &Uri, link: &str) -> Result<Uri> {
        let bad = |message: &str| {
            error(ErrorKind::Failed, call.operation, message)
                .with("registry", call.on.domain())
                .with("location", link)
        };
        let target: Uri = link.parse().map_err(|_| bad("its answer sends to no address"))?;
        let target = match (target.authority(), base.scheme_str(), base.authority()) {
            (Some(_), _, _) => target,
            (None, Some(scheme), Some(authority)) if link.starts_with('/') => {
                let whole = format!("{scheme}://{authority}{link}");
                whole.parse().map_err(|_| bad("its answer sends to no address"))?
            }
            _ => return Err(bad("its answer sends to no address")),
        };
        let allows = |uri: &Uri| {
            uri.authority().is_some_and(|a| self.shared.config.plain_http.allows(a.as_str()))
        };
        match target.scheme_str() {
            Some("https") => Ok(target),
            Some("http") if allows(&target) && allows(base) => Ok(target),
            _ => Err(bad("its answer sends to where nothing is encrypted")),
        }
    }

    /// A call whose answer has to be a success.
    pub(super) async fn call_ok(&self, call: &Call<'_>) -> Attempt<Answer> {
        let answer = self.call(call).await?;
        self.expect(call, answer).await
    }

    /// Takes an answer that has to be a success.
    pub(super) async fn expect(&self, call: &Call<'_>, answer: Answer) -> Attempt<Answer> {
        match answer.status().is_success() {
            true => Ok(answer),
            false => {
                let failure = refused(answer, call.operation, call.on.domain()).await;
                Err(failure.map(|e| e.with("image", call.on)))
            }
        }
    }

    /// Tries again what may be repeated, within the budget.
    pub(super) async fn retrying<T, F>(&self, attempt: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Attempt<T>>,
    {
        let mut budget = Budget::new(self.shared.config.retry_for);
        loop {
            match attempt().await {
                Ok(value) => return Ok(value),
                Err(failure) => budget.pause(failure).await?,
            }
        }
    }
}
