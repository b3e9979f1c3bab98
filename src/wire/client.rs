//! The HTTP client: one method per call of the engine's API that the broker makes.
//!
//! Only a 5xx is tried again, after 200, 400 and 800 ms; a POST that makes something carries an
//! `Idempotency-Key`, so that the second try does not make a second one. Redirects are not followed: they
//! would carry the token to wherever they point.

use std::time::Duration;

use awc::{
    ClientResponse,
    error::{ConnectError, SendRequestError},
    http::{
        Method, StatusCode,
        header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue},
    },
};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::api::*;
pub use super::net::{BadEndpoint, Bearer, EngineEndpoint};
use super::net::{connector, ensure_crypto_provider, introductions, retry_after};
use crate::ids::{AgentToken, MsgId, NodeToken, WorkspaceKey};

/// For a request and its answer, connecting included (spec/wire 1.1).
pub const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// Before the second, third and fourth try after a 5xx (spec/wire 1.1).
const RETRY_PAUSES: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_millis(400), Duration::from_millis(800)];

/// The largest body that is read.
const BODY_MAX: usize = 4 << 20;

/// The longest message that is taken out of an engine's error.
const MESSAGE_MAX: usize = 300;

/// Proves the right to enrol an existing node again (engines from 9.0).
const NODE_PROOF: HeaderName = HeaderName::from_static("x-relaycast-node-token");

/// Makes a repeated POST the same POST.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Why a call failed. Decide on `kind`, `status` and `code`; `message` is for people, and no token is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code})")]
pub struct ApiError {
    /// Where it went wrong.
    pub kind: ApiErrorKind,
    /// The answer's status, if there was one.
    pub status: Option<u16>,
    /// The engine's code; `http_<status>` when it gave none; else a word for the kind.
    pub code: String,
    /// In words.
    pub message: String,
    /// How long the engine asks us to wait.
    pub retry_after: Option<Duration>,
}

/// Where a call went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiErrorKind {
    /// No connection, or it broke.
    Unreachable,
    /// No complete answer within the limit.
    Timeout,
    /// The engine said no.
    Status,
    /// An answer that is not the engine's.
    Unreadable,
    /// The request could not be made of what it was given (a token with a line break).
    Unsendable,
}

impl ApiError {
    /// Trouble that may pass by itself. (The calls themselves have already retried what is worth it.)
    pub fn is_retryable(&self) -> bool {
        match self.kind {
            ApiErrorKind::Unreachable | ApiErrorKind::Timeout | ApiErrorKind::Unreadable => true,
            ApiErrorKind::Unsendable => false,
            ApiErrorKind::Status => {
                matches!(self.status, Some(408 | 425 | 429 | 500..)) || self.code == "idempotency_in_progress"
            }
        }
    }

    /// The engine answered with this code.
    pub fn is(&self, code: &str) -> bool {
        self.kind == ApiErrorKind::Status && self.code == code
    }

    fn local(kind: ApiErrorKind, message: impl Into<String>) -> Self {
        let code = match kind {
            ApiErrorKind::Unreachable => "unreachable",
            ApiErrorKind::Timeout => "timeout",
            ApiErrorKind::Status => "status",
            ApiErrorKind::Unreadable => "unreadable",
            ApiErrorKind::Unsendable => "unsendable",
        };
        Self { kind, status: None, code: code.to_owned(), message: message.into(), retry_after: None }
    }
}

/// A client of one engine. It lives on one thread; an [`EngineEndpoint`] can travel.
#[derive(Clone)]
pub struct EngineClient {
    endpoint: EngineEndpoint,
    http: awc::Client,
}

impl std::fmt::Debug for EngineClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineClient").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// One call.
struct Call<'a> {
    method: Method,
    path: String,
    bearer: Option<Bearer<'a>>,
    body: Option<Bytes>,
    idempotency_key: Option<String>,
    proof: Option<&'a NodeToken>,
    one_connection: bool,
}

impl<'a> Call<'a> {
    fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            bearer: None,
            body: None,
            idempotency_key: None,
            proof: None,
            one_connection: false,
        }
    }

    fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path)
    }

    fn bearer(mut self, bearer: impl Into<Bearer<'a>>) -> Self {
        self.bearer = Some(bearer.into());
        self
    }

    fn body(mut self, body: &impl Serialize) -> Result<Self, ApiError> {
        let json = serde_json::to_vec(body).map_err(|_| {
            ApiError::local(ApiErrorKind::Unsendable, "the request cannot be written as JSON")
        })?;
        self.body = Some(json.into());
        Ok(self)
    }

    /// Makes the engine take a repeat of this call for the same call.
    fn once(mut self) -> Self {
        self.idempotency_key = Some(Uuid::new_v4().simple().to_string());
        self
    }
}

/// What an answer's body may hold.
#[derive(Deserialize)]
struct Envelope<'a> {
    ok: Option<bool>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    error: Option<FailureCause>,
}

impl EngineClient {
    /// A client of the engine at this place.
    pub fn new(endpoint: EngineEndpoint) -> Self {
        ensure_crypto_provider();
        let mut builder =
            awc::Client::builder().connector(connector()).timeout(REQUEST_LIMIT).disable_redirects();
        for header in introductions() {
            builder = builder.add_default_header(header);
        }
        Self { endpoint, http: builder.finish() }
    }

    /// Where the engine is.
    pub fn endpoint(&self) -> &EngineEndpoint {
        &self.endpoint
    }

    /// `GET /health`
    ///
    /// # Errors
    /// As every call: [`ApiError`].
    pub async fn health(&self) -> Result<Health, ApiError> {
        let body = self.send(&Call::get("/health")).await?;
        serde_json::from_slice(&body).map_err(|why| unreadable(&why))
    }

    /// `POST /v1/workspaces`
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn create_workspace(&self, name: &str) -> Result<CreatedWorkspace, ApiError> {
        let body = CreateWorkspace { name: name.to_owned() };
        self.call(Call::post("/v1/workspaces").once().body(&body)?).await
    }

    /// `GET /v1/workspace`: the one that the key or token belongs to.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn get_workspace(&self, who: impl Into<Bearer<'_>>) -> Result<Workspace, ApiError> {
        self.call(Call::get("/v1/workspace").bearer(who)).await
    }

    /// `GET /v1/nodes`
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn list_nodes(&self, who: impl Into<Bearer<'_>>) -> Result<Vec<PublicNode>, ApiError> {
        self.call(Call::get("/v1/nodes").bearer(who)).await
    }

    /// `GET /v1/nodes?name=`: the node of exactly this name, if there is one.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn find_node(
        &self,
        who: impl Into<Bearer<'_>>,
        name: &str,
    ) -> Result<Option<PublicNode>, ApiError> {
        let path = format!("/v1/nodes?name={}", segment(name));
        let nodes: Vec<PublicNode> = self.call(Call::get(path).bearer(who)).await?;
        Ok(nodes.into_iter().find(|node| node.name == name))
    }

    /// `GET /v1/nodes/:name/agents`: the active bindings.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn list_node_agents(
        &self,
        who: impl Into<Bearer<'_>>,
        node: &str,
    ) -> Result<Vec<Binding>, ApiError> {
        self.call(Call::get(format!("/v1/nodes/{}/agents", segment(node))).bearer(who)).await
    }

    /// `POST /v1/nodes`: enrols the node or rotates its token. Compare the id in the answer with the one
    /// that was asked for. `proof` is the last token known; `idempotency_key` (32 characters or more) makes
    /// a lost answer recoverable on engines from 9.0.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn create_node(
        &self,
        key: &WorkspaceKey,
        node: &CreateNode,
        proof: Option<&NodeToken>,
        idempotency_key: Option<&str>,
    ) -> Result<CreatedNode, ApiError> {
        let mut call = Call::post("/v1/nodes").bearer(key).once().body(node)?;
        if let Some(idempotency_key) = idempotency_key {
            call.idempotency_key = Some(idempotency_key.to_owned());
        }
        call.proof = proof;
        // A pooled connection that the engine has just closed would fail the mint for nothing.
        call.one_connection = true;
        self.call(call).await
    }

    /// `POST /v1/nodes/:name/agents`: moves an agent to a node; its token stays as it is.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn bind_agent(
        &self,
        key: &WorkspaceKey,
        node: &str,
        agent: &str,
        session_ref: Option<&str>,
    ) -> Result<Binding, ApiError> {
        let body = BindAgent {
            agent_name: agent.to_owned(),
            session_ref: session_ref.map(str::to_owned),
            priority: None,
        };
        let path = format!("/v1/nodes/{}/agents", segment(node));
        self.call(Call::post(path).bearer(key).body(&body)?).await
    }

    /// `POST /v1/agents`; `kind` is `agent`, `human` or `system`.
    ///
    /// # Errors
    /// [`ApiError`]; [`codes::AGENT_EXISTS`](super::codes::AGENT_EXISTS) when the name is taken.
    pub async fn create_agent(
        &self,
        key: &WorkspaceKey,
        name: &str,
        kind: &str,
    ) -> Result<CreatedAgent, ApiError> {
        let body =
            CreateAgent { name: name.to_owned(), kind: Some(kind.to_owned()), ..CreateAgent::default() };
        self.call(Call::post("/v1/agents").bearer(key).once().body(&body)?).await
    }

    /// `GET /v1/agents`
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn list_agents(&self, who: impl Into<Bearer<'_>>) -> Result<Vec<PublicAgent>, ApiError> {
        self.call(Call::get("/v1/agents").bearer(who)).await
    }

    /// `POST /v1/channels`
    ///
    /// # Errors
    /// [`ApiError`]; `channel_already_exists` is as good as success.
    pub async fn create_channel(&self, token: &AgentToken, name: &str) -> Result<Channel, ApiError> {
        let body = CreateChannel { name: name.to_owned(), ..CreateChannel::default() };
        self.call(Call::post("/v1/channels").bearer(token).body(&body)?).await
    }

    /// `POST /v1/channels/:name/join`, idempotent.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn join_channel(&self, token: &AgentToken, name: &str) -> Result<JoinedChannel, ApiError> {
        self.call(Call::post(format!("/v1/channels/{}/join", segment(name))).bearer(token)).await
    }

    /// `POST /v1/channels/:name/leave`, idempotent.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn leave_channel(&self, token: &AgentToken, name: &str) -> Result<(), ApiError> {
        let path = format!("/v1/channels/{}/leave", segment(name));
        self.send(&Call::post(path).bearer(token)).await.map(drop)
    }

    /// `POST /v1/channels/:name/messages`
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn post_message(
        &self,
        token: &AgentToken,
        channel: &str,
        message: &PostMessage,
    ) -> Result<Message, ApiError> {
        let path = format!("/v1/channels/{}/messages", segment(channel));
        self.call(Call::post(path).bearer(token).once().body(message)?).await
    }

    /// `POST /v1/messages/:id/replies`
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn post_reply(
        &self,
        token: &AgentToken,
        thread: &MsgId,
        reply: &PostReply,
    ) -> Result<Message, ApiError> {
        let path = format!("/v1/messages/{}/replies", segment(thread.as_str()));
        self.call(Call::post(path).bearer(token).once().body(reply)?).await
    }

    /// `POST /v1/dm`
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn post_dm(&self, token: &AgentToken, dm: &PostDm) -> Result<SentDm, ApiError> {
        self.call(Call::post("/v1/dm").bearer(token).once().body(dm)?).await
    }

    /// `POST /v1/messages/:id/read`
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn mark_read(&self, token: &AgentToken, message: &MsgId) -> Result<ReadReceipt, ApiError> {
        let path = format!("/v1/messages/{}/read", segment(message.as_str()));
        self.call(Call::post(path).bearer(token)).await
    }

    /// Makes the call and takes `data` out of its answer.
    async fn call<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, ApiError> {
        let body = self.send(&call).await?;
        let envelope: Envelope<'_> = serde_json::from_slice(&body).map_err(|why| unreadable(&why))?;
        match (envelope.ok, envelope.data) {
            (Some(true), Some(data)) => serde_json::from_str(data.get()).map_err(|why| unreadable(&why)),
            (Some(false), _) => Err(refusal(StatusCode::OK, envelope.error, None)),
            _ => Err(ApiError::local(ApiErrorKind::Unreadable, "the answer has no `ok` and `data`")),
        }
    }

    /// Makes the call, again after a 5xx, and returns the body of a success.
    async fn send(&self, call: &Call<'_>) -> Result<Bytes, ApiError> {
        for pause in RETRY_PAUSES {
            match self.send_once(call).await {
                Err(failed) if failed.status.is_some_and(|status| status >= 500) => sleep(pause).await,
                settled => return settled,
            }
        }
        self.send_once(call).await
    }

    async fn send_once(&self, call: &Call<'_>) -> Result<Bytes, ApiError> {
        match timeout(REQUEST_LIMIT, self.exchange(call)).await {
            Ok(settled) => settled,
            Err(_) => Err(ApiError::local(ApiErrorKind::Timeout, "the engine did not answer in time")),
        }
    }

    async fn exchange(&self, call: &Call<'_>) -> Result<Bytes, ApiError> {
        let url = format!("{}{}", self.endpoint.base_url(), call.path);
        let mut request = self.http.request(call.method.clone(), url);
        let unsendable =
            |why: super::net::UnsendableToken| ApiError::local(ApiErrorKind::Unsendable, why.to_string());
        if let Some(bearer) = call.bearer {
            request = request.insert_header((AUTHORIZATION, bearer.authorization().map_err(unsendable)?));
        }
        if let Some(proof) = call.proof {
            request = request.insert_header((NODE_PROOF, Bearer::Node(proof).bare().map_err(unsendable)?));
        }
        if let Some(key) = &call.idempotency_key {
            request = request.insert_header((IDEMPOTENCY_KEY, key.as_str()));
        }
        if call.one_connection {
            request = request.force_close();
        }
        let sent = match &call.body {
            Some(body) => request
                .insert_header((CONTENT_TYPE, HeaderValue::from_static("application/json")))
                .send_body(body.clone()),
            None => request.send(),
        };
        let mut response = sent.await.map_err(|why| not_answered(&why))?.timeout(REQUEST_LIMIT);
        let status = response.status();
        let body = read(&mut response).await;
        if status.is_success() {
            return body;
        }
        // The status alone decides; a body that cannot be read only costs its words.
        let cause = body
            .ok()
            .and_then(|body| serde_json::from_slice::<Envelope<'_>>(&body).ok().and_then(|body| body.error));
        Err(refusal(status, cause, retry_after(response.headers())))
    }
}

async fn read<S>(response: &mut ClientResponse<S>) -> Result<Bytes, ApiError>
where
    S: futures_util::Stream<Item = Result<Bytes, awc::error::PayloadError>> + Unpin,
{
    response.body().limit(BODY_MAX).await.map_err(|why| match why {
        awc::error::PayloadError::Overflow => {
            ApiError::local(ApiErrorKind::Unreadable, "the answer is larger than 4 MiB")
        }
        _ => ApiError::local(ApiErrorKind::Unreachable, "the connection broke in the middle of the answer"),
    })
}

fn refusal(status: StatusCode, cause: Option<FailureCause>, retry_after: Option<Duration>) -> ApiError {
    let status = status.as_u16();
    let cause = cause.unwrap_or_default();
    let code = if cause.code.is_empty() { format!("http_{status}") } else { cause.code };
    let message = if cause.message.is_empty() {
        format!("the engine answered with status {status}")
    } else {
        without_tokens(&cause.message)
    };
    ApiError { kind: ApiErrorKind::Status, status: Some(status), code, message, retry_after }
}

/// Says where the JSON went wrong, and not with which words: they might be a token.
fn unreadable(why: &serde_json::Error) -> ApiError {
    let message = format!(
        "the answer is not what the engine's contract promises (line {}, column {})",
        why.line(),
        why.column()
    );
    ApiError::local(ApiErrorKind::Unreadable, message)
}

fn not_answered(why: &SendRequestError) -> ApiError {
    let kind = match why {
        SendRequestError::Timeout | SendRequestError::Connect(ConnectError::Timeout) => ApiErrorKind::Timeout,
        SendRequestError::Url(_) | SendRequestError::Http(_) => ApiErrorKind::Unsendable,
        SendRequestError::Response(_) => ApiErrorKind::Unreadable,
        _ => ApiErrorKind::Unreachable,
    };
    ApiError::local(kind, format!("the engine cannot be reached: {why}"))
}

/// A path segment or query value, everything outside RFC 3986's unreserved characters escaped.
fn segment(text: &str) -> String {
    use std::fmt::Write as _;

    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            write!(out, "%{byte:02X}").ok();
        }
        out
    })
}

/// An engine's message, shortened, with whatever looks like a token taken out.
fn without_tokens(message: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut out = String::new();
    let mut rest = message;
    while !rest.is_empty() && out.len() < MESSAGE_MAX {
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        out.push_str(if word.contains("_live_") { "<secret>" } else { word });
        let between = after.find(is_word).unwrap_or(after.len());
        let (gap, next) = after.split_at(between);
        out.push_str(gap);
        rest = next;
    }
    out.chars().take(MESSAGE_MAX).collect()
}

#[cfg(test)]
mod tests;
