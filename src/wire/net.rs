//! What both clients share: where the engine is, TLS, TCP and headers.

use std::{
    fmt,
    str::FromStr,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use actix_tls::connect::{
    ConnectError as TcpError, ConnectInfo, Connection, Connector as TcpConnector, ConnectorService, Resolver,
};
use actix_web::dev::Service;
use awc::http::{
    Uri,
    header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT},
};
use futures_util::future::LocalBoxFuture;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, ring},
};
use tokio::net::TcpStream;

use crate::ids::{AgentToken, NodeToken, WorkspaceKey};

/// What this program calls itself to an engine.
pub(crate) const PRODUCT: &str = concat!("relay-broker/", env!("CARGO_PKG_VERSION"));

/// For name look-up, TCP and TLS together.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(15);

/// A `Retry-After` is believed up to this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Where an engine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineEndpoint {
    base_url: String,
    socket_url: String,
}

/// Why a URL cannot be an engine's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{url}` is not an engine's address: {why}")]
pub struct BadEndpoint {
    url: String,
    why: &'static str,
}

impl EngineEndpoint {
    /// Checks and takes the base URL and, if the socket has another base, that one. Trailing slashes are
    /// dropped; `http` and `ws` (and their secure forms) mean the same.
    ///
    /// # Errors
    /// [`BadEndpoint`] for another scheme, a missing host, or something in the URL that would end up in
    /// logs or in the path.
    pub fn parse(base_url: &str, ws_url: Option<&str>) -> Result<Self, BadEndpoint> {
        let (secure, rest) = split(base_url)?;
        let base_url = format!("http{secure}://{rest}");
        let (secure, rest) = split(ws_url.unwrap_or(&base_url))?;
        let socket_url = format!("ws{secure}://{rest}/v1/node/ws");
        Ok(Self { base_url, socket_url })
    }

    /// The base URL, without a trailing slash.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// The node socket's URL. It never carries a token.
    pub fn socket_url(&self) -> &str {
        &self.socket_url
    }
}

/// A URL as `s` or nothing, and what follows the scheme.
fn split(url: &str) -> Result<(&'static str, &str), BadEndpoint> {
    let bad = |why| BadEndpoint { url: without_userinfo(url), why };
    let trimmed = url.trim().trim_end_matches('/');
    let uri = Uri::from_str(trimmed).map_err(|_| bad("it is not a URL"))?;
    let secure = match uri.scheme_str() {
        Some("http" | "ws") => "",
        Some("https" | "wss") => "s",
        _ => return Err(bad("it must begin with http:// or https://")),
    };
    if uri.host().is_none_or(str::is_empty) {
        return Err(bad("it names no host"));
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(bad("it must not carry credentials"));
    }
    if trimmed.contains(['?', '#']) {
        return Err(bad("it must end with its path"));
    }
    let rest = trimmed.split_once("://").map_or("", |(_, rest)| rest);
    Ok((secure, rest))
}

fn without_userinfo(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}{}", &url[..scheme + 3], &url[at + 1..]),
        _ => url.to_owned(),
    }
}

/// Who speaks. The one place where a token becomes a header.
#[derive(Clone, Copy)]
pub enum Bearer<'a> {
    /// Administers the workspace.
    Workspace(&'a WorkspaceKey),
    /// Speaks as one agent.
    Agent(&'a AgentToken),
    /// Opens the node socket, or proves the right to enrol a node again.
    Node(&'a NodeToken),
}

impl Bearer<'_> {
    /// The value of an `Authorization` header.
    pub(crate) fn authorization(self) -> Result<HeaderValue, UnsendableToken> {
        sensitive(&format!("Bearer {}", self.expose()))
    }

    /// The token alone, as a header's value.
    pub(crate) fn bare(self) -> Result<HeaderValue, UnsendableToken> {
        sensitive(self.expose())
    }

    fn expose(&self) -> &str {
        match self {
            Self::Workspace(key) => key.expose(),
            Self::Agent(token) => token.expose(),
            Self::Node(token) => token.expose(),
        }
    }
}

impl fmt::Debug for Bearer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<bearer>")
    }
}

impl<'a> From<&'a WorkspaceKey> for Bearer<'a> {
    fn from(key: &'a WorkspaceKey) -> Self {
        Self::Workspace(key)
    }
}

impl<'a> From<&'a AgentToken> for Bearer<'a> {
    fn from(token: &'a AgentToken) -> Self {
        Self::Agent(token)
    }
}

/// A token with characters that no header can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token has characters that cannot be sent; check where it was copied from")]
pub(crate) struct UnsendableToken;

fn sensitive(text: &str) -> Result<HeaderValue, UnsendableToken> {
    let mut value = HeaderValue::from_str(text).map_err(|_| UnsendableToken)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Headers of every request: who we are, in our own name.
pub(crate) fn introductions() -> [(HeaderName, HeaderValue); 4] {
    [
        (USER_AGENT, HeaderValue::from_static(PRODUCT)),
        (HeaderName::from_static("x-sdk-version"), HeaderValue::from_static(env!("CARGO_PKG_VERSION"))),
        (
            HeaderName::from_static("x-relaycast-origin-client"),
            HeaderValue::from_static(env!("CARGO_PKG_NAME")),
        ),
        (
            HeaderName::from_static("x-relaycast-origin-version"),
            HeaderValue::from_static(env!("CARGO_PKG_VERSION")),
        ),
    ]
}

/// How long the peer asks us to wait: seconds, bounded by an hour. (The form with a date is not sent by any
/// engine.)
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// The connector of both clients: our TLS settings, no Nagle, one limit.
pub(crate) fn connector() -> awc::Connector<NoDelay> {
    let connector = awc::Connector::new()
        .connector(NoDelay(TcpConnector::new(Resolver::default()).service()))
        .timeout(CONNECT_LIMIT)
        .handshake_timeout(CONNECT_LIMIT);
    match tls() {
        Some(config) => connector.rustls_0_23(config),
        None => connector,
    }
}

/// ring, the web's roots, HTTP/1.1 alone (a socket cannot be opened over h2). `None` only when ring lacks
/// every suite, and then awc's own settings stand.
fn tls() -> Option<Arc<ClientConfig>> {
    static CONFIG: OnceLock<Option<Arc<ClientConfig>>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .ok()?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Some(Arc::new(config))
    });
    config.clone()
}

/// `awc::Connector::new` panics without a process-wide provider. The binary installs one first thing; a
/// program that only uses the library may not have.
pub(crate) fn ensure_crypto_provider() {
    if CryptoProvider::get_default().is_none() {
        // Losing the race to another thread is as good as winning it.
        ring::default_provider().install_default().ok();
    }
}

/// TCP without Nagle's algorithm, which would hold back a small ack until the previous one is answered.
#[derive(Clone)]
pub(crate) struct NoDelay(ConnectorService);

impl Service<ConnectInfo<Uri>> for NoDelay {
    type Response = Connection<Uri, TcpStream>;
    type Error = TcpError;
    type Future = LocalBoxFuture<'static, Result<Self::Response, TcpError>>;

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), TcpError>> {
        Service::<ConnectInfo<Uri>>::poll_ready(&self.0, cx)
    }

    fn call(&self, to: ConnectInfo<Uri>) -> Self::Future {
        let connecting = self.0.call(to);
        Box::pin(async move {
            let connection = connecting.await?;
            connection.io_ref().set_nodelay(true).map_err(TcpError::Io)?;
            Ok(connection)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_knows_both_of_its_urls() {
        for (base, ws, base_url, socket_url) in [
            ("http://127.0.0.1:80/", None, "http://127.0.0.1:80", "ws://127.0.0.1:80/v1/node/ws"),
            ("https://e.example//", None, "https://e.example", "wss://e.example/v1/node/ws"),
            ("https://e.example/relay", None, "https://e.example/relay", "wss://e.example/relay/v1/node/ws"),
            ("wss://e.example", None, "https://e.example", "wss://e.example/v1/node/ws"),
            (
                "https://e.example",
                Some("http://s.example:9/x/"),
                "https://e.example",
                "ws://s.example:9/x/v1/node/ws",
            ),
        ] {
            let endpoint = EngineEndpoint::parse(base, ws).unwrap();
            assert_eq!((endpoint.base_url(), endpoint.socket_url()), (base_url, socket_url));
        }
    }

    #[test]
    fn an_address_that_could_leak_or_confuse_is_refused() {
        for bad in ["", "e.example", "ftp://e.example", "http://", "http://e.example/?token=x", "http://a b"]
        {
            assert!(EngineEndpoint::parse(bad, None).is_err(), "{bad} was accepted");
        }
        assert!(EngineEndpoint::parse("http://e.example", Some("nonsense")).is_err());
        let refused = EngineEndpoint::parse("https://user:hunter2@e.example", None).unwrap_err();
        assert!(!refused.to_string().contains("hunter2"), "{refused}");
    }

    #[test]
    fn a_token_in_a_header_shows_nowhere() {
        let key = WorkspaceKey::from("rk_live_0");
        let header = Bearer::from(&key).authorization().unwrap();
        assert_eq!(header.to_str().unwrap(), "Bearer rk_live_0");
        assert!(!format!("{header:?} {:?}", Bearer::from(&key)).contains("rk_"));
        assert_eq!(Bearer::Workspace(&"rk\n".into()).authorization(), Err(UnsendableToken));
    }

    #[test]
    fn retry_after_is_read_in_seconds_and_bounded() {
        let with = |value| HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))]);
        assert_eq!(retry_after(&with("7")), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(&with("999999999")), Some(RETRY_AFTER_MAX));
        for unusable in ["soon", "-1", "Wed, 21 Oct 2026 07:28:00 GMT"] {
            assert_eq!(retry_after(&with(unusable)), None);
        }
    }

    #[actix::test]
    async fn a_connection_does_not_hold_small_frames_back() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri: Uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let connector = NoDelay(TcpConnector::new(Resolver::default()).service());
        let connection = connector.call(ConnectInfo::new(uri)).await.unwrap();
        assert!(connection.io_ref().nodelay().unwrap());
    }
}
