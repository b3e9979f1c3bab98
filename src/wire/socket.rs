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
mod tests;
