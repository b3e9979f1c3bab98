//! The client of the local API: JSON over loopback, refusals as typed errors.

use std::time::{Duration, Instant};

use actix_codec::Framed;
use actix_http::ws;
use actix_web::http::{Method, StatusCode, header};
use awc::{
    BoxedSocket, Client, ClientResponse,
    error::{PayloadError, SendRequestError, WsClientError},
};
use bytes::Bytes;
use futures_util::Stream;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Exit, Failure, find::Found, ui};

/// Longer than any answer of a healthy broker takes: a spawn may wait 30 s for a foreign engine.
const ANSWER: Duration = Duration::from_secs(45);
/// How long a broker may take to become ready before a client gives up on it.
const STARTING: Duration = Duration::from_secs(15);
/// Between two questions to a broker that is still starting.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// For an answer that goes on while something runs.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Frames larger than this are not ours.
const FRAME_MAX: usize = 4 << 20;
/// Answers larger than this are not ours.
const BODY_MAX: usize = 16 << 20;

/// What is said of a key that the broker does not know.
const KEY_REFUSED: &str = "the broker refuses the API key; use the one in its connection.json, or unset \
                           RELAY_BROKER_URL to find it there";

/// Talks to one broker.
pub(super) struct Api {
    client: Client,
    broker: Found,
    key_refused: &'static str,
}

/// A good answer, undecoded, so that `--json` passes on exactly what the broker said.
pub(super) struct Answer(Bytes);

/// A body in which nothing is said.
#[derive(Serialize)]
pub(super) struct Nothing {}

/// The envelope of every refusal (docs/api.md).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Refusal {
    code: String,
    message: String,
}

/// Runs a client command to its end.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    actix_rt::System::new().block_on(future)
}

impl Api {
    /// A client of this broker. To be made inside [`block_on`].
    pub(super) fn new(broker: Found) -> Self {
        let client = Client::builder().timeout(ANSWER).disable_redirects().finish();
        Self { client, broker, key_refused: KEY_REFUSED }
    }

    /// With other words for a key that is refused.
    pub(super) fn refused_with(self, key_refused: &'static str) -> Self {
        Self { key_refused, ..self }
    }

    /// Asks for something.
    pub(super) async fn get(&self, path: &str) -> Result<Answer, Failure> {
        self.ask(|| self.request(Method::GET, path).send()).await
    }

    /// Asks for something to be done.
    pub(super) async fn post(&self, path: &str, body: &impl Serialize) -> Result<Answer, Failure> {
        self.ask(|| self.request(Method::POST, path).send_json(body)).await
    }

    /// Asks for something to be so from now on.
    pub(super) async fn put(&self, path: &str, body: &impl Serialize) -> Result<Answer, Failure> {
        self.ask(|| self.request(Method::PUT, path).send_json(body)).await
    }

    /// Asks for something to be ended.
    pub(super) async fn delete(&self, path: &str, body: &impl Serialize) -> Result<Answer, Failure> {
        self.ask(|| self.request(Method::DELETE, path).send_json(body)).await
    }

    /// Asks for something that comes piece by piece, for as long as it comes.
    pub(super) async fn stream(
        &self,
        path: &str,
    ) -> Result<impl Stream<Item = Result<Bytes, PayloadError>> + use<>, Failure> {
        let request = self.request(Method::GET, path).timeout(FOR_EVER);
        let mut response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.body().limit(BODY_MAX).await.unwrap_or_default();
        Err(self.refused(status, false, &body))
    }

    /// Opens a WebSocket.
    pub(super) async fn socket(&self, path: &str) -> Result<Framed<BoxedSocket, ws::Codec>, Failure> {
        let url = format!("{}{path}", self.broker.url);
        let request = self.client.ws(url).max_frame_size(FRAME_MAX);
        let opened = request.bearer_auth(self.broker.api_key.expose()).connect().await;
        let (_, socket) = opened.map_err(|error| match error {
            WsClientError::SendRequest(error) => self.unreachable(&error),
            WsClientError::InvalidResponseStatus(status) => self.refused(status, false, b""),
            error => Failure::new(Exit::Failed, format!("the broker refuses the connection: {error}")),
        })?;
        Ok(socket)
    }

    fn request(&self, method: Method, path: &str) -> awc::ClientRequest {
        let url = format!("{}{path}", self.broker.url);
        self.client.request(method, url).bearer_auth(self.broker.api_key.expose())
    }

    /// Sends, and again while the broker says that it is still starting.
    async fn ask(&self, send: impl Fn() -> awc::SendClientRequest) -> Result<Answer, Failure> {
        let began = Instant::now();
        loop {
            let mut response = send().await.map_err(|error| self.unreachable(&error))?;
            let status = response.status();
            let starting = status == StatusCode::SERVICE_UNAVAILABLE && !is_json(&response);
            if starting && began.elapsed() < STARTING {
                actix_rt::time::sleep(ASK_AGAIN).await;
                continue;
            }
            let body = response.body().limit(BODY_MAX).await.map_err(|error| {
                Failure::new(Exit::Failed, format!("the answer of the broker broke off: {error}"))
            })?;
            if status.is_success() {
                return Ok(Answer(body));
            }
            return Err(self.refused(status, starting, &body));
        }
    }

    fn refused(&self, status: StatusCode, starting: bool, body: &[u8]) -> Failure {
        refused(status, starting, body, self.key_refused)
    }

    fn unreachable(&self, error: &SendRequestError) -> Failure {
        let pid = self.broker.pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
        let url = &self.broker.url;
        match error {
            SendRequestError::Timeout => {
                let said = format!(
                    "the broker at {url}{pid} did not answer within {} s; see `relay-broker actors` for what \
                     it waits for",
                    ANSWER.as_secs()
                );
                Failure::new(Exit::Failed, said)
            }
            error => {
                let said =
                    format!("no broker answers at {url}{pid}: {error}; start one with `relay-broker up`");
                Failure::new(Exit::NotFound, said)
            }
        }
    }
}

impl Answer {
    /// An answer of our own, where no broker was asked.
    pub(super) fn of(value: &impl Serialize) -> Result<Self, Failure> {
        let json = serde_json::to_vec(value)
            .map_err(|error| Failure::new(Exit::Failed, format!("the answer cannot be shown: {error}")))?;
        Ok(Self(json.into()))
    }

    /// Prints it: as it came, or in words.
    pub(super) fn show(
        &self,
        json: bool,
        words: impl FnOnce() -> Result<String, Failure>,
    ) -> Result<Exit, Failure> {
        ui::line(&if json { self.text() } else { words()? })?;
        Ok(Exit::Ok)
    }

    /// The answer as JSON text.
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    /// The answer decoded.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.0).map_err(|error| {
            let said = format!(
                "the broker's answer is not understood ({error}); is it of another version? this is {}",
                env!("CARGO_PKG_VERSION")
            );
            Failure::new(Exit::Failed, said)
        })
    }
}

fn is_json<S>(response: &ClientResponse<S>) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/json"))
}

fn refused(status: StatusCode, starting: bool, body: &[u8], key_refused: &str) -> Failure {
    if starting {
        let text = String::from_utf8_lossy(body);
        let said = format!("{}; try again when it has started, its log says more", text.trim());
        return Failure::new(Exit::Failed, said);
    }
    let refusal: Refusal = serde_json::from_slice(body).unwrap_or_default();
    let said = match (refusal.message.is_empty(), status) {
        (_, StatusCode::UNAUTHORIZED) => key_refused.to_owned(),
        (false, _) => refusal.message,
        (true, _) => format!("the broker answered {status}"),
    };
    let exit = match status {
        StatusCode::NOT_FOUND => Exit::NotFound,
        // Not refused, but not done either.
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Exit::Failed,
        status if status.is_client_error() => Exit::Refused,
        _ => Exit::Failed,
    };
    tracing::debug!(%status, code = refusal.code, "refused");
    Failure::new(exit, said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_the_broker_said_under_the_right_code() {
        let body = br#"{"success":false,"code":"agent_exists","message":"taken","error":"taken"}"#;
        let cases = [
            (StatusCode::CONFLICT, &body[..], Exit::Refused, "taken"),
            (StatusCode::NOT_FOUND, &body[..], Exit::NotFound, "taken"),
            (StatusCode::BAD_GATEWAY, &body[..], Exit::Failed, "taken"),
            (StatusCode::UNAUTHORIZED, &body[..], Exit::Refused, "refuses the API key"),
            (StatusCode::INTERNAL_SERVER_ERROR, b"<html>", Exit::Failed, "answered 500"),
        ];
        for (status, body, exit, words) in cases {
            let failure = refused(status, false, body, KEY_REFUSED);
            assert_eq!(failure.exit(), exit, "{status}");
            assert!(failure.to_string().contains(words), "{failure}");
        }
    }
}
