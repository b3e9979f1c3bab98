//! The WebSocket client of `/v1/node/ws`: awc's, with everything that it leaves to its user.
//!
//! ```text
//! connect --> FrameSink --urgent lane--\
//!                       --frames lane---> writer task --> socket
//!         --> FrameStream <---------------------------------/
//! ```
//!
//! Reading and writing wait for each other nowhere: the sink never blocks its caller (a full lane refuses),
//! a ping is answered from the urgent lane, and a write that makes no progress for 10 s ends the stream
//! with [`Closed::WriteStalled`]. What this does not do is measure silence: that is a policy, and belongs
//! to who reads the stream.

use std::{
    cell::RefCell,
    fmt,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_codec::Framed;
use actix_http::ws::Item;
use actix_web::dev::Service;
use awc::{
    BoxedSocket, ConnectRequest, ConnectResponse,
    error::{ConnectError as AwcConnectError, SendRequestError, WsClientError, WsProtocolError},
    http::{StatusCode, header::AUTHORIZATION},
    middleware::Transform,
    ws::{CloseCode, CloseReason, Codec, Frame, Message},
};
use bytes::{Bytes, BytesMut};
use futures_util::{
    SinkExt, Stream, StreamExt,
    future::LocalBoxFuture,
    stream::{SplitSink, SplitStream},
};
use tokio::{
    select,
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::net::{
    Bearer, CONNECT_LIMIT, EngineEndpoint, connector, ensure_crypto_provider, introductions, retry_after,
};
use crate::ids::NodeToken;

/// The largest message that is read, whole or in parts. (An engine's limit is not known; its own cap on
/// ours should be 1 MiB, spec/wire 2.4.)
pub const MESSAGE_MAX: usize = 4 << 20;

/// For each write: a socket that takes nothing for this long is dead.
pub const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// Frames waiting in the urgent lane: pings, pongs, heartbeats.
const URGENT_MAX: usize = 64;

/// Frames waiting in the ordinary lane.
const FRAMES_MAX: usize = 1024;

/// Frames written between two flushes.
const BATCH_MAX: usize = 32;

type Socket = Framed<BoxedSocket, Codec>;

/// Why there is no socket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The engine answered, and with another status than 101. Only 401 means that the token is dead.
    #[error("the engine refused the socket with status {status}")]
    Refused {
        /// The status.
        status: u16,
        /// How long the engine asks us to wait.
        retry_after: Option<Duration>,
    },
    /// What answered is not a WebSocket server.
    #[error("what answered is not an engine's socket: {0}")]
    NotWebSocket(String),
    /// The certificate or the TLS handshake is no good.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// No connection, or it broke during the handshake.
    #[error("the engine cannot be reached: {0}")]
    Unreachable(String),
    /// No answer within [`CONNECT_LIMIT`].
    #[error("the engine did not answer the handshake in time")]
    TimedOut,
    /// The token has characters that no header can carry.
    #[error("the node token cannot be sent: it has a line break or another character of that kind")]
    BadToken,
}

impl ConnectError {
    /// The token is dead: HTTP 401 and nothing else (spec/wire 2.3).
    pub fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Refused { status: 401, .. })
    }
}

/// What comes in.
#[derive(Clone, PartialEq, Eq)]
pub enum SocketEvent {
    /// A whole text message.
    Text(String),
    /// The peer asked whether we live; it has been answered.
    Ping,
    /// The peer answered our ping.
    Pong,
    /// A binary message, which the contract does not know. Its bytes count as a sign of life.
    Binary,
    /// The end; nothing follows.
    Closed(Closed),
}

impl fmt::Debug for SocketEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Ping => f.write_str("Ping"),
            Self::Pong => f.write_str("Pong"),
            Self::Binary => f.write_str("Binary"),
            Self::Closed(how) => write!(f, "Closed({how:?})"),
        }
    }
}

/// How a socket ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The peer said goodbye.
    ByPeer {
        /// Its code, if it gave one.
        code: Option<u16>,
        /// Its words.
        reason: String,
    },
    /// End of file, an I/O error, or a breach of the protocol.
    Lost(String),
    /// The peer took nothing for [`WRITE_LIMIT`].
    WriteStalled,
}

/// Why a frame was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SinkRefused {
    /// The lane is full.
    #[error("too many frames wait for the socket")]
    Full,
    /// The socket is closing or closed.
    #[error("the socket is closed")]
    Closed,
}

/// The way out. Cheap to clone; nothing here ever waits.
#[derive(Clone, Debug)]
pub struct FrameSink {
    urgent: mpsc::Sender<Message>,
    frames: mpsc::Sender<Message>,
    farewell: mpsc::Sender<Farewell>,
}

#[derive(Debug)]
struct Farewell {
    reason: CloseReason,
    done: oneshot::Sender<()>,
}

impl FrameSink {
    /// Hands over a frame. Frames of this lane stay in order.
    ///
    /// # Errors
    /// [`SinkRefused`]; the frame is dropped.
    pub fn try_send(&self, frame: String) -> Result<(), SinkRefused> {
        taken(self.frames.try_send(Message::Text(frame.into())))
    }

    /// Hands over a frame that goes before all ordinary ones: a heartbeat, which must not wait behind a
    /// backlog.
    ///
    /// # Errors
    /// [`SinkRefused`]; the frame is dropped.
    pub fn try_send_urgent(&self, frame: String) -> Result<(), SinkRefused> {
        taken(self.urgent.try_send(Message::Text(frame.into())))
    }

    /// Asks the peer whether it lives.
    ///
    /// # Errors
    /// [`SinkRefused`]; no ping is sent.
    pub fn ping(&self) -> Result<(), SinkRefused> {
        taken(self.urgent.try_send(Message::Ping(Bytes::new())))
    }

    /// Writes what both lanes hold, then the close frame, and flushes, all within [`WRITE_LIMIT`]. From now
    /// on nothing else is taken. The work is done whether or not the future is awaited; it ends when the
    /// writing has, well or not.
    pub fn close(&self, code: u16, reason: &str) -> impl Future<Output = ()> + use<> {
        let (done, finished) = oneshot::channel();
        let reason =
            CloseReason { code: CloseCode::from(code), description: Some(close_words(reason).to_owned()) };
        // Refused when a farewell is under way already, or when all is over: then there is nothing to wait
        // for, and the dropped sender says so.
        self.farewell.try_send(Farewell { reason, done }).ok();
        async move {
            finished.await.ok();
        }
    }
}

fn taken(sent: Result<(), mpsc::error::TrySendError<Message>>) -> Result<(), SinkRefused> {
    sent.map_err(|refused| match refused {
        mpsc::error::TrySendError::Full(_) => SinkRefused::Full,
        mpsc::error::TrySendError::Closed(_) => SinkRefused::Closed,
    })
}

/// A control frame holds 125 bytes, two of which are the code (RFC 6455, 5.5).
fn close_words(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(123)]
}

/// The way in. Ends after [`SocketEvent::Closed`]; dropping it drops the socket.
pub struct FrameStream {
    socket: SplitStream<Socket>,
    parts: Parts,
    urgent: mpsc::Sender<Message>,
    /// Resolves when the writer gives up.
    writer: Option<oneshot::Receiver<Closed>>,
    /// Tells the writer, by being dropped, that nobody reads any more.
    _reading: oneshot::Sender<()>,
    ended: bool,
}

impl fmt::Debug for FrameStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameStream").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl FrameStream {
    fn end(&mut self, how: Closed) -> Poll<Option<SocketEvent>> {
        self.ended = true;
        Poll::Ready(Some(SocketEvent::Closed(how)))
    }

    fn poll_writer(&mut self, cx: &mut Context<'_>) -> Option<Closed> {
        let Poll::Ready(end) = Pin::new(self.writer.as_mut()?).poll(cx) else { return None };
        self.writer = None;
        // The writer that leaves without a word has said goodbye to the peer; the peer's answer is still
        // to come.
        end.ok()
    }
}

impl Stream for FrameStream {
    type Item = SocketEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<SocketEvent>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(how) = self.poll_writer(cx) {
            return self.end(how);
        }
        loop {
            let frame = match ready!(self.socket.poll_next_unpin(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(why)) => return self.end(Closed::Lost(why.to_string())),
                None => return self.end(Closed::Lost("the connection ended without a close frame".into())),
            };
            match self.parts.step(frame) {
                Step::Event(SocketEvent::Closed(how)) => {
                    // The protocol wants an answer; a peer that has gone will not miss it.
                    self.urgent.try_send(Message::Close(None)).ok();
                    return self.end(how);
                }
                Step::Event(event) => return Poll::Ready(Some(event)),
                Step::Answer(bytes) => {
                    // When the lane is full the peer has had no answer for 64 pings: one more is no loss.
                    self.urgent.try_send(Message::Pong(bytes)).ok();
                    return Poll::Ready(Some(SocketEvent::Ping));
                }
                Step::More => {}
            }
        }
    }
}

/// Puts messages together from frames.
#[derive(Debug, Default)]
struct Parts {
    text: Option<BytesMut>,
    binary: usize,
}

/// What a frame leads to.
#[derive(Debug, PartialEq)]
enum Step {
    Event(SocketEvent),
    /// Answer a ping with its own bytes.
    Answer(Bytes),
    /// The message is not whole yet.
    More,
}

impl Parts {
    fn step(&mut self, frame: Frame) -> Step {
        match frame {
            Frame::Text(bytes) => text(bytes),
            Frame::Binary(_) => Step::Event(SocketEvent::Binary),
            Frame::Continuation(part) => self.part(part),
            Frame::Ping(bytes) => Step::Answer(bytes),
            Frame::Pong(_) => Step::Event(SocketEvent::Pong),
            Frame::Close(reason) => Step::Event(SocketEvent::Closed(Closed::ByPeer {
                code: reason.as_ref().map(|reason| reason.code.into()),
                reason: reason.and_then(|reason| reason.description).unwrap_or_default(),
            })),
        }
    }

    /// The codec has checked already that parts come in a legal order.
    fn part(&mut self, part: Item) -> Step {
        match part {
            Item::FirstText(bytes) => {
                self.text = Some(bytes.into());
                Step::More
            }
            Item::FirstBinary(bytes) => {
                self.binary = bytes.len();
                Step::More
            }
            Item::Continue(bytes) => self.grow(&bytes).map_or_else(lost, |()| Step::More),
            Item::Last(bytes) => match self.grow(&bytes) {
                Err(why) => lost(why),
                Ok(()) => match self.text.take() {
                    Some(whole) => text(whole.freeze()),
                    None => Step::Event(SocketEvent::Binary),
                },
            },
        }
    }

    fn grow(&mut self, bytes: &Bytes) -> Result<(), &'static str> {
        let size = match &mut self.text {
            Some(whole) => {
                whole.extend_from_slice(bytes);
                whole.len()
            }
            None => {
                self.binary = self.binary.saturating_add(bytes.len());
                self.binary
            }
        };
        if size <= MESSAGE_MAX { Ok(()) } else { Err("a message in parts is larger than 4 MiB") }
    }
}

fn text(bytes: Bytes) -> Step {
    match String::from_utf8(bytes.into()) {
        Ok(text) => Step::Event(SocketEvent::Text(text)),
        Err(_) => lost("a text message is not UTF-8"),
    }
}

fn lost(why: &str) -> Step {
    Step::Event(SocketEvent::Closed(Closed::Lost(why.to_owned())))
}

/// Opens the node socket.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(
    endpoint: &EngineEndpoint,
    token: &NodeToken,
) -> Result<(FrameSink, FrameStream), ConnectError> {
    connect_within(endpoint, token, CONNECT_LIMIT, WRITE_LIMIT).await
}

async fn connect_within(
    endpoint: &EngineEndpoint,
    token: &NodeToken,
    connect_limit: Duration,
    write_limit: Duration,
) -> Result<(FrameSink, FrameStream), ConnectError> {
    ensure_crypto_provider();
    let seen = HandshakeSeen::default();
    let http = awc::Client::builder().connector(connector()).wrap(seen.clone()).finish();
    let authorization = Bearer::Node(token).authorization().map_err(|_| ConnectError::BadToken)?;
    let mut request =
        http.ws(endpoint.socket_url()).set_header(AUTHORIZATION, authorization).max_frame_size(MESSAGE_MAX);
    for (name, value) in introductions() {
        request = request.set_header(name, value);
    }
    match timeout(connect_limit, request.connect()).await {
        Err(_) => Err(ConnectError::TimedOut),
        Ok(Err(why)) => Err(refused(&why, seen.retry_after())),
        Ok(Ok((_, socket))) => Ok(open(socket, write_limit)),
    }
}

fn refused(why: &WsClientError, retry_after: Option<Duration>) -> ConnectError {
    use SendRequestError::{Connect, Response, Timeout, TunnelNotSupported};
    match why {
        WsClientError::InvalidResponseStatus(status) => {
            ConnectError::Refused { status: status.as_u16(), retry_after }
        }
        WsClientError::SendRequest(why) => match why {
            Timeout | Connect(AwcConnectError::Timeout) => ConnectError::TimedOut,
            Connect(AwcConnectError::Io(io)) if is_tls(io) => ConnectError::Tls(io.to_string()),
            Response(_) | TunnelNotSupported => ConnectError::NotWebSocket(why.to_string()),
            _ => ConnectError::Unreachable(why.to_string()),
        },
        other => ConnectError::NotWebSocket(other.to_string()),
    }
}

fn is_tls(io: &std::io::Error) -> bool {
    io.get_ref().is_some_and(|why| why.is::<rustls::Error>())
}

fn open(socket: Socket, write_limit: Duration) -> (FrameSink, FrameStream) {
    let (sink, stream) = socket.split();
    let (urgent, urgent_lane) = mpsc::channel(URGENT_MAX);
    let (frames, frames_lane) = mpsc::channel(FRAMES_MAX);
    let (farewell, farewells) = mpsc::channel(1);
    let (failed, writer) = oneshot::channel();
    let (reading, reader_gone) = oneshot::channel();
    let task = Writer { sink, urgent: urgent_lane, frames: frames_lane, farewells, limit: write_limit };
    actix_rt::spawn(async move {
        if let Some(how) = task.run(reader_gone).await {
            // Nobody listens when the stream was dropped meanwhile.
            failed.send(how).ok();
        }
    });
    let stream = FrameStream {
        socket: stream,
        parts: Parts::default(),
        urgent: urgent.clone(),
        writer: Some(writer),
        _reading: reading,
        ended: false,
    };
    (FrameSink { urgent, frames, farewell }, stream)
}

/// The task that owns the socket's way out.
struct Writer {
    sink: SplitSink<Socket, Message>,
    urgent: mpsc::Receiver<Message>,
    frames: mpsc::Receiver<Message>,
    farewells: mpsc::Receiver<Farewell>,
    limit: Duration,
}

impl Writer {
    /// Runs until the farewell is written or the stream is dropped (`None`), or a write fails.
    async fn run(mut self, reader_gone: oneshot::Receiver<()>) -> Option<Closed> {
        let mut reader_gone = pin!(reader_gone);
        loop {
            let message = select! {
                biased;
                Some(message) = self.urgent.recv() => message,
                _ = &mut reader_gone => return None,
                Some(farewell) = self.farewells.recv() => return self.leave(farewell).await,
                Some(message) = self.frames.recv() => message,
                else => return None,
            };
            if let Some(failed) = within(self.limit, self.write(message)).await {
                return Some(failed);
            }
        }
    }

    /// Writes a message and what waits behind it, then flushes.
    async fn write(&mut self, message: Message) -> Result<(), WsProtocolError> {
        let mut next = Some(message);
        for _ in 0..BATCH_MAX {
            let Some(message) = next else { break };
            self.sink.feed(message).await?;
            next = self.waiting();
        }
        if let Some(message) = next {
            self.sink.feed(message).await?;
        }
        self.sink.flush().await
    }

    async fn leave(mut self, farewell: Farewell) -> Option<Closed> {
        self.urgent.close();
        self.frames.close();
        let limit = self.limit;
        let parting = async {
            while let Some(message) = self.waiting() {
                self.sink.feed(message).await?;
            }
            self.sink.feed(Message::Close(Some(farewell.reason))).await?;
            self.sink.flush().await
        };
        let failed = within(limit, parting).await;
        // Nobody may be waiting for it.
        farewell.done.send(()).ok();
        failed
    }

    fn waiting(&mut self) -> Option<Message> {
        self.urgent.try_recv().or_else(|_| self.frames.try_recv()).ok()
    }
}

/// What went wrong with the writing, if something did.
async fn within(
    limit: Duration,
    writing: impl Future<Output = Result<(), WsProtocolError>>,
) -> Option<Closed> {
    match timeout(limit, writing).await {
        Ok(Ok(())) => None,
        Ok(Err(why)) => Some(Closed::Lost(why.to_string())),
        Err(_) => Some(Closed::WriteStalled),
    }
}

/// Keeps the one header of a failed handshake that awc's error does not carry.
#[derive(Clone, Default)]
struct HandshakeSeen(Rc<RefCell<Option<Duration>>>);

impl HandshakeSeen {
    fn retry_after(&self) -> Option<Duration> {
        *self.0.borrow()
    }
}

impl<S> Transform<S, ConnectRequest> for HandshakeSeen
where
    S: Service<ConnectRequest, Response = ConnectResponse, Error = SendRequestError>,
    S::Future: 'static,
{
    type Transform = SeeHandshake<S>;

    fn new_transform(self, inner: S) -> SeeHandshake<S> {
        SeeHandshake { inner, seen: self }
    }
}

struct SeeHandshake<S> {
    inner: S,
    seen: HandshakeSeen,
}

impl<S> Service<ConnectRequest> for SeeHandshake<S>
where
    S: Service<ConnectRequest, Response = ConnectResponse, Error = SendRequestError>,
    S::Future: 'static,
{
    type Response = ConnectResponse;
    type Error = SendRequestError;
    type Future = LocalBoxFuture<'static, Result<ConnectResponse, SendRequestError>>;

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), SendRequestError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&self, request: ConnectRequest) -> Self::Future {
        let seen = self.seen.clone();
        let answering = self.inner.call(request);
        Box::pin(async move {
            let answer = answering.await?;
            if let ConnectResponse::Tunnel(head, _) = &answer
                && head.status != StatusCode::SWITCHING_PROTOCOLS
            {
                *seen.0.borrow_mut() = retry_after(&head.headers);
            }
            Ok(answer)
        })
    }
}

#[cfg(test)]
mod tests {
    use actix_http::ws::hash_key;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        task::JoinHandle,
    };

    use super::*;

    const TOKEN: &str = "nt_live_5ea";

    type Peer = Framed<TcpStream, Codec>;

    async fn listen() -> (TcpListener, EngineEndpoint) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        (listener, EngineEndpoint::parse(&url, None).unwrap())
    }

    async fn head(stream: &mut TcpStream) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap()
    }

    fn switching(head: &str) -> String {
        let key = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().starts_with("sec-websocket-key:").then(|| &line[18..]))
            .unwrap();
        let accept = hash_key(key.trim().as_bytes());
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: {}\r\n\r\n",
            std::str::from_utf8(&accept).unwrap()
        )
    }

    /// Our end and the engine's end of an open socket.
    async fn pair_with(write_limit: Duration) -> (FrameSink, FrameStream, Peer) {
        let (listener, endpoint) = listen().await;
        let accepting: JoinHandle<Peer> = actix_rt::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = switching(&head(&mut stream).await);
            stream.write_all(answer.as_bytes()).await.unwrap();
            Framed::new(stream, Codec::new().max_size(MESSAGE_MAX))
        });
        let (sink, stream) =
            connect_within(&endpoint, &TOKEN.into(), CONNECT_LIMIT, write_limit).await.unwrap();
        (sink, stream, accepting.await.unwrap())
    }

    async fn pair() -> (FrameSink, FrameStream, Peer) {
        pair_with(WRITE_LIMIT).await
    }

    /// What a handshake ends in when the engine answers with these bytes and hangs up.
    async fn handshake_against(answer: &'static [u8]) -> ConnectError {
        let (listener, endpoint) = listen().await;
        actix_rt::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            head(&mut stream).await;
            stream.write_all(answer).await.unwrap();
            stream.shutdown().await.unwrap();
        });
        connect(&endpoint, &TOKEN.into()).await.unwrap_err()
    }

    #[actix::test]
    async fn the_token_is_in_the_header_and_nowhere_in_the_url() {
        let (listener, endpoint) = listen().await;
        let asked = actix_rt::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            head(&mut stream).await
        });
        connect(&endpoint, &TOKEN.into()).await.unwrap_err();
        let head = asked.await.unwrap().to_ascii_lowercase();
        assert!(head.starts_with("get /v1/node/ws http/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("\r\nauthorization: bearer {TOKEN}\r\n")), "{head}");
        assert!(head.contains("\r\nx-relaycast-origin-client: relay-broker\r\n"), "{head}");
        assert_eq!(head.matches(TOKEN).count(), 1);
    }

    #[actix::test]
    async fn a_refusal_keeps_its_status_and_its_retry_after() {
        let plain: [(&[u8], u16); 6] = [
            (b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n", 401),
            (b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno", 403),
            (b"HTTP/1.1 404 Not Found\r\n\r\n", 404),
            (b"HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\n\r\n", 426),
            (b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", 302),
            (b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n", 500),
        ];
        for (answer, status) in plain {
            let refused = handshake_against(answer).await;
            assert_eq!(refused, ConnectError::Refused { status, retry_after: None });
            assert_eq!(refused.is_unauthorized(), status == 401);
        }
        for (answer, status) in [
            (&b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n"[..], 429),
            (b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\ncontent-length: 0\r\n\r\n", 503),
        ] {
            let retry_after = Some(Duration::from_secs(7));
            assert_eq!(handshake_against(answer).await, ConnectError::Refused { status, retry_after });
        }
    }

    #[actix::test]
    async fn what_is_no_socket_is_told_apart_from_what_is_not_there() {
        for garbage in [
            &b"SSH-2.0-OpenSSH_9.6\r\n\r\n"[..],
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: bm90IHRoZSByaWdodCBvbmUhISE=\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
        ] {
            let failed = handshake_against(garbage).await;
            assert!(matches!(failed, ConnectError::NotWebSocket(_)), "{failed:?}");
        }
        let hung_up = handshake_against(b"").await;
        assert!(matches!(hung_up, ConnectError::Unreachable(_)), "{hung_up:?}");

        let (listener, endpoint) = listen().await;
        drop(listener);
        let absent = connect(&endpoint, &TOKEN.into()).await.unwrap_err();
        assert!(matches!(absent, ConnectError::Unreachable(_)), "{absent:?}");
    }

    #[actix::test]
    async fn an_engine_that_never_answers_is_given_up() {
        let (listener, endpoint) = listen().await;
        let holding = actix_rt::spawn(async move { listener.accept().await.unwrap() });
        let limit = Duration::from_millis(100);
        let failed = connect_within(&endpoint, &TOKEN.into(), limit, WRITE_LIMIT).await.unwrap_err();
        assert_eq!(failed, ConnectError::TimedOut);
        drop(holding.await.unwrap());
    }

    #[actix::test]
    async fn a_plain_server_behind_https_is_a_tls_failure() {
        let (listener, endpoint) = listen().await;
        let secure = endpoint.base_url().replace("http:", "https:");
        actix_rt::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            stream.flush().await.unwrap();
            // Held open until the client has understood: a reset could overtake the bytes.
            stream.read_to_end(&mut Vec::new()).await.ok();
        });
        let endpoint = EngineEndpoint::parse(&secure, None).unwrap();
        let failed = connect(&endpoint, &TOKEN.into()).await.unwrap_err();
        assert!(matches!(failed, ConnectError::Tls(_)), "{failed:?}");
    }

    #[actix::test]
    async fn a_token_with_a_line_break_is_refused_before_anything_is_sent() {
        let (_listener, endpoint) = listen().await;
        let failed = connect(&endpoint, &"nt\r\nx: y".into()).await.unwrap_err();
        assert_eq!(failed, ConnectError::BadToken);
    }

    #[actix::test]
    async fn texts_travel_both_ways_up_to_four_mebibytes() {
        let (sink, mut stream, mut peer) = pair().await;
        sink.try_send("hello".to_owned()).unwrap();
        assert_eq!(peer.next().await.unwrap().unwrap(), Frame::Text("hello".into()));

        let large = "é".repeat(MESSAGE_MAX / 2);
        let too_large = large.clone() + "!";
        let expected = SocketEvent::Text(large.clone());
        // The peer writes beside us: so much fits into no socket buffer.
        let sending = actix_rt::spawn(async move {
            peer.send(Message::Text(large.into())).await.unwrap();
            // How much of this one can be written is the reader's choice.
            peer.send(Message::Text(too_large.into())).await.ok();
        });
        assert!(stream.next().await == Some(expected));
        assert!(matches!(stream.next().await, Some(SocketEvent::Closed(Closed::Lost(_)))));
        assert_eq!(stream.next().await, None);
        drop(stream);
        sending.await.unwrap();
    }

    #[actix::test]
    async fn a_ping_is_answered_with_its_own_bytes() {
        let (_sink, mut stream, mut peer) = pair().await;
        peer.send(Message::Ping("are you there".into())).await.unwrap();
        assert_eq!(stream.next().await, Some(SocketEvent::Ping));
        assert_eq!(peer.next().await.unwrap().unwrap(), Frame::Pong("are you there".into()));
    }

    #[actix::test]
    async fn our_ping_is_answered_and_seen() {
        let (sink, mut stream, mut peer) = pair().await;
        sink.ping().unwrap();
        assert_eq!(peer.next().await.unwrap().unwrap(), Frame::Ping("".into()));
        peer.send(Message::Pong("".into())).await.unwrap();
        assert_eq!(stream.next().await, Some(SocketEvent::Pong));
    }

    #[actix::test]
    async fn a_message_in_parts_is_put_together_around_a_ping() {
        let (_sink, mut stream, mut peer) = pair().await;
        for message in [
            Message::Continuation(Item::FirstText("one, ".into())),
            Message::Ping("".into()),
            Message::Continuation(Item::Continue("two, ".into())),
            Message::Continuation(Item::Last("three".into())),
            Message::Continuation(Item::FirstBinary("x".into())),
            Message::Continuation(Item::Last("y".into())),
            Message::Binary("z".into()),
        ] {
            peer.send(message).await.unwrap();
        }
        for event in [
            SocketEvent::Ping,
            SocketEvent::Text("one, two, three".to_owned()),
            SocketEvent::Binary,
            SocketEvent::Binary,
        ] {
            assert_eq!(stream.next().await, Some(event));
        }
    }

    #[test]
    fn a_message_in_parts_has_the_same_limit_as_a_whole_one() {
        let half = Bytes::from(vec![b'x'; MESSAGE_MAX / 2]);
        for first in [Item::FirstText(half.clone()), Item::FirstBinary(half.clone())] {
            let mut parts = Parts::default();
            assert_eq!(parts.step(Frame::Continuation(first)), Step::More);
            assert_eq!(parts.step(Frame::Continuation(Item::Continue(half.clone()))), Step::More);
            let over = parts.step(Frame::Continuation(Item::Last("!".into())));
            assert!(matches!(over, Step::Event(SocketEvent::Closed(Closed::Lost(_)))), "{over:?}");
        }
    }

    #[test]
    fn text_that_is_not_utf8_ends_the_socket() {
        let mut parts = Parts::default();
        let split = "é".as_bytes();
        assert_eq!(parts.step(Frame::Continuation(Item::FirstText(split[..1].to_vec().into()))), Step::More);
        let whole = parts.step(Frame::Continuation(Item::Last(split[1..].to_vec().into())));
        assert_eq!(whole, Step::Event(SocketEvent::Text("é".to_owned())), "a character may span two parts");
        let broken = parts.step(Frame::Text(split[..1].to_vec().into()));
        assert!(matches!(broken, Step::Event(SocketEvent::Closed(Closed::Lost(_)))), "{broken:?}");
    }

    #[actix::test]
    async fn a_close_frame_is_the_end_and_keeps_its_words() {
        let (_sink, mut stream, mut peer) = pair().await;
        let reason = CloseReason { code: CloseCode::Normal, description: Some("superseded".to_owned()) };
        peer.send(Message::Close(Some(reason))).await.unwrap();
        peer.send(Message::Text("after the end".into())).await.unwrap();
        let closed = Closed::ByPeer { code: Some(1000), reason: "superseded".to_owned() };
        assert_eq!(stream.next().await, Some(SocketEvent::Closed(closed)));
        assert_eq!(stream.next().await, None);
        assert!(matches!(peer.next().await, Some(Ok(Frame::Close(_)))));
    }

    #[actix::test]
    async fn a_connection_that_just_ends_is_lost() {
        let (_sink, mut stream, peer) = pair().await;
        drop(peer);
        assert!(matches!(stream.next().await, Some(SocketEvent::Closed(Closed::Lost(_)))));
        assert_eq!(stream.next().await, None);
    }

    #[actix::test]
    async fn closing_writes_everything_that_waits_and_then_says_goodbye() {
        let (sink, mut stream, mut peer) = pair().await;
        for n in 0..500 {
            sink.try_send(n.to_string()).unwrap();
        }
        let closing = sink.close(1000, "bye");
        for n in 0..500 {
            assert_eq!(peer.next().await.unwrap().unwrap(), Frame::Text(n.to_string().into()));
        }
        match peer.next().await.unwrap().unwrap() {
            Frame::Close(Some(reason)) => {
                assert_eq!(reason, CloseReason { code: CloseCode::Normal, description: Some("bye".into()) });
            }
            other => panic!("{other:?}"),
        }
        closing.await;
        assert_eq!(sink.try_send("late".to_owned()), Err(SinkRefused::Closed));
        assert_eq!(sink.ping(), Err(SinkRefused::Closed));
        sink.close(1000, "again").await;
        peer.send(Message::Close(None)).await.unwrap();
        let goodbye = Closed::ByPeer { code: None, reason: String::new() };
        assert_eq!(stream.next().await, Some(SocketEvent::Closed(goodbye)));
    }

    #[actix::test]
    async fn an_urgent_frame_overtakes_a_backlog_and_a_full_lane_refuses() {
        let (sink, _stream, mut peer) = pair().await;
        for _ in 0..FRAMES_MAX {
            sink.try_send("backlog".to_owned()).unwrap();
        }
        assert_eq!(sink.try_send("one more".to_owned()), Err(SinkRefused::Full));
        sink.try_send_urgent("heartbeat".to_owned()).unwrap();
        assert_eq!(peer.next().await.unwrap().unwrap(), Frame::Text("heartbeat".into()));
        for _ in 0..FRAMES_MAX {
            assert_eq!(peer.next().await.unwrap().unwrap(), Frame::Text("backlog".into()));
        }
    }

    #[actix::test]
    async fn a_peer_that_takes_nothing_ends_the_stream_while_reading_goes_on() {
        let (sink, mut stream, mut peer) = pair_with(Duration::from_millis(300)).await;
        for _ in 0..64 {
            sink.try_send("x".repeat(1 << 20)).unwrap();
        }
        peer.send(Message::Text("still read".into())).await.unwrap();
        assert_eq!(stream.next().await, Some(SocketEvent::Text("still read".to_owned())));
        assert_eq!(stream.next().await, Some(SocketEvent::Closed(Closed::WriteStalled)));
        assert_eq!(stream.next().await, None);
        assert_eq!(sink.try_send("late".to_owned()), Err(SinkRefused::Closed));
        sink.close(1000, "").await;
    }

    #[actix::test]
    async fn dropping_the_stream_drops_the_socket() {
        let (sink, stream, mut peer) = pair().await;
        drop(stream);
        // No close frame: the end of the connection itself.
        assert!(peer.next().await.is_none_or(|end| end.is_err()));
        assert_eq!(sink.try_send("late".to_owned()), Err(SinkRefused::Closed));
    }

    #[test]
    fn the_words_of_a_close_frame_are_cut_at_a_character() {
        assert_eq!(close_words("bye"), "bye");
        let long = "é".repeat(100);
        assert_eq!(close_words(&long), "é".repeat(61));
    }
}
