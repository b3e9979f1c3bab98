//! The socket against a peer on loopback that answers, breaks off or stalls.

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
    let (sink, stream) = connect_within(&endpoint, &TOKEN.into(), CONNECT_LIMIT, write_limit).await.unwrap();
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
        assert_eq!(handshake_against(answer).await, ConnectError::Refused { status, retry_after: None });
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
async fn a_frame_that_is_cut_at_any_byte_is_a_lost_line_and_never_a_message() {
    let text = r#"{"v":1,"type":"deliver","seq":7}"#;
    let mut whole = vec![0x81, u8::try_from(text.len()).unwrap()];
    whole.extend_from_slice(text.as_bytes());
    for cut in 0..=whole.len() {
        let (_sink, mut stream, peer) = pair().await;
        let mut line = peer.into_parts().io;
        line.write_all(&whole[..cut]).await.unwrap();
        line.shutdown().await.unwrap();
        if cut == whole.len() {
            assert_eq!(stream.next().await, Some(SocketEvent::Text(text.to_owned())));
        }
        let end = stream.next().await;
        assert!(matches!(end, Some(SocketEvent::Closed(Closed::Lost(_)))), "cut at {cut}: {end:?}");
        assert_eq!(stream.next().await, None);
    }
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
