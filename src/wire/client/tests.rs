//! The client against canned answers on loopback.

use std::{cell::RefCell, rc::Rc, time::Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;

/// An engine that gives the answers it was given, one per request, and remembers the requests.
struct Canned {
    client: EngineClient,
    requests: Rc<RefCell<Vec<String>>>,
    connections: Rc<RefCell<usize>>,
}

impl Canned {
    async fn new(answers: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let (requests, connections) = (Rc::<RefCell<Vec<_>>>::default(), Rc::<RefCell<usize>>::default());
        let answers: Vec<String> = answers
            .iter()
            .rev()
            .map(|(head, body)| format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
            .collect();
        let answers = Rc::new(RefCell::new(answers));
        let engine = (requests.clone(), connections.clone());
        actix_rt::spawn(async move {
            let (requests, connections) = engine;
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                *connections.borrow_mut() += 1;
                let (requests, answers) = (requests.clone(), answers.clone());
                actix_rt::spawn(async move {
                    while let Some(request) = request(&mut stream).await {
                        requests.borrow_mut().push(request);
                        let answer = answers.borrow_mut().pop().expect("a request too many");
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        let client = EngineClient::new(EngineEndpoint::parse(&url, None).unwrap());
        Self { client, requests, connections }
    }

    fn request(&self, n: usize) -> String {
        self.requests.borrow()[n].clone()
    }
}

/// One request, head in lower case and body, or `None` at the end of the connection.
async fn request(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    Some(head + &String::from_utf8(body).unwrap())
}

fn header(request: &str, name: &str) -> Option<String> {
    let found = request.lines().find_map(|line| {
        let (key, value) = line.split_once(": ")?;
        key.eq_ignore_ascii_case(name).then_some(value)
    });
    found.map(str::to_owned)
}

fn key() -> WorkspaceKey {
    "rk_live_77".into()
}

const NODE: &str =
    r#"{"ok":true,"data":{"id":"node_1","name":"reef-3","token":"nt_live_9","load":null,"later":1}}"#;
const DONE: &str = r#"{"ok":true,"data":{"message_id":"m/1","agent_id":"7"}}"#;

#[actix::test]
async fn a_call_speaks_in_its_own_name_and_reads_leniently() {
    let engine = Canned::new(&[("201 Created", NODE)]).await;
    let node = CreateNode::broker("node_1".into(), &"reef-3".into());
    let proof = NodeToken::from("nt_live_8");
    let made = engine.client.create_node(&key(), &node, Some(&proof), None).await.unwrap();
    assert_eq!((made.node.id.as_str(), made.token.expose()), ("node_1", "nt_live_9"));

    let request = engine.request(0);
    assert!(request.starts_with("POST /v1/nodes HTTP/1.1\r\n"), "{request}");
    for (name, value) in [
        ("authorization", "Bearer rk_live_77"),
        ("x-relaycast-node-token", "nt_live_8"),
        ("x-relaycast-origin-client", "relay-broker"),
        ("x-sdk-version", env!("CARGO_PKG_VERSION")),
        ("content-type", "application/json"),
        ("connection", "close"),
    ] {
        assert_eq!(header(&request, name).as_deref(), Some(value), "{name}");
    }
    assert!(header(&request, "idempotency-key").unwrap().len() >= 32);
    assert!(!format!("{made:?} {:?}", engine.client).contains("_live_"), "{made:?}");
}

#[actix::test]
async fn only_a_5xx_is_tried_again_and_with_the_same_key() {
    let sent = r#"{"ok":true,"data":{"id":"m1"}}"#;
    let engine = Canned::new(&[("503 Service Unavailable", ""), ("201 Created", sent)]).await;
    let dm = PostDm { to: "otter".to_owned(), text: "hi".to_owned(), ..PostDm::default() };
    let began = Instant::now();
    engine.client.post_dm(&"at_live_1".into(), &dm).await.unwrap();
    assert!(began.elapsed() >= RETRY_PAUSES[0]);
    let keys = [0, 1].map(|n| header(&engine.request(n), "idempotency-key").unwrap());
    assert_eq!(keys[0], keys[1]);

    for status in ["400 Bad Request", "401 Unauthorized", "409 Conflict", "429 Too Many Requests"] {
        let engine = Canned::new(&[(status, r#"{"ok":false,"error":{"code":"c","message":"m"}}"#)]).await;
        let failed = engine.client.list_agents(&key()).await.unwrap_err();
        assert!(failed.is("c"), "{failed:?}");
        assert_eq!(engine.requests.borrow().len(), 1);
    }
}

#[actix::test]
async fn after_the_fourth_5xx_the_call_has_failed() {
    let engine = Canned::new(&[("500 Oops", "<html>at_live_1</html>"); 4]).await;
    let failed = engine.client.list_agents(&key()).await.unwrap_err();
    assert_eq!(
        (failed.kind, failed.status, failed.code.as_str()),
        (ApiErrorKind::Status, Some(500), "http_500")
    );
    assert!(failed.is_retryable());
    assert!(!failed.to_string().contains("html"), "{failed}");
    assert_eq!(engine.requests.borrow().len(), 4);
}

#[actix::test]
async fn a_refusal_says_how_long_to_wait_and_never_repeats_a_token() {
    let body =
        r#"{"ok":false,"error":{"code":"rate_limit_exceeded","message":"slow down, rk_live_77: it's 3/3"}}"#;
    let engine = Canned::new(&[("429 Too Many Requests\r\nretry-after: 9", body)]).await;
    let failed = engine.client.get_workspace(&key()).await.unwrap_err();
    assert!(failed.is("rate_limit_exceeded") && failed.is_retryable());
    assert_eq!(failed.retry_after, Some(Duration::from_secs(9)));
    assert_eq!(failed.message, "slow down, <secret>: it's 3/3");
}

#[actix::test]
async fn a_redirect_is_not_followed() {
    let engine = Canned::new(&[("302 Found\r\nlocation: /elsewhere", "")]).await;
    let failed = engine.client.get_workspace(&key()).await.unwrap_err();
    assert_eq!((failed.status, failed.code.as_str()), (Some(302), "http_302"));
    assert!(!failed.is_retryable());
}

#[actix::test]
async fn an_answer_that_is_not_the_engines_is_told_without_its_words() {
    for body in
        ["nt_live_9", r#"{"data":{}}"#, r#"{"ok":true}"#, r#"{"ok":true,"data":{"token":"nt_live_9"}}"#]
    {
        let engine = Canned::new(&[("200 OK", body)]).await;
        let node = CreateNode::default();
        let failed = engine.client.create_node(&key(), &node, None, None).await.unwrap_err();
        assert_eq!(failed.kind, ApiErrorKind::Unreadable, "{body}");
        assert!(!failed.to_string().contains("nt_live"), "{failed}");
    }
    let engine = Canned::new(&[("200 OK", r#"{"ok":false,"error":{"code":"c","message":"m"}}"#)]).await;
    assert!(engine.client.get_workspace(&key()).await.unwrap_err().is("c"));
}

#[actix::test]
async fn names_cannot_leave_their_place_in_the_path() {
    let found = r#"{"ok":true,"data":[{"id":"n1","name":"a"},{"id":"n2","name":"a&b=c#/d"}]}"#;
    let engine = Canned::new(&[("200 OK", DONE), ("200 OK", found), ("204 No Content", "")]).await;
    engine.client.mark_read(&"at_live_1".into(), &"m/1?x".into()).await.unwrap();
    let node = engine.client.find_node(&key(), "a&b=c#/d").await.unwrap().unwrap();
    assert_eq!(node.id.as_str(), "n2");
    engine.client.leave_channel(&"at_live_1".into(), "reef 3/ött").await.unwrap();
    for (n, line) in [
        (0, "POST /v1/messages/m%2F1%3Fx/read HTTP/1.1"),
        (1, "GET /v1/nodes?name=a%26b%3Dc%23%2Fd HTTP/1.1"),
        (2, "POST /v1/channels/reef%203%2F%C3%B6tt/leave HTTP/1.1"),
    ] {
        assert_eq!(engine.request(n).lines().next(), Some(line));
    }
    assert_eq!(*engine.connections.borrow(), 1, "the connection is kept for the next call");
}

#[actix::test]
async fn health_has_no_envelope() {
    let engine = Canned::new(&[("200 OK", r#"{"ok":true,"version":"5.0.1","build":{"n":1}}"#)]).await;
    let health = engine.client.health().await.unwrap();
    assert!(health.ok);
    assert_eq!(health.version, "5.0.1");
    assert_eq!(header(&engine.request(0), "authorization"), None);
}

#[actix::test]
async fn an_engine_that_is_not_there_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = EngineClient::new(EngineEndpoint::parse(&url, None).unwrap());
    let failed = client.health().await.unwrap_err();
    assert_eq!((failed.kind, failed.status), (ApiErrorKind::Unreachable, None));
    assert!(failed.is_retryable());
}

#[actix::test]
async fn a_key_that_no_header_can_carry_is_not_sent() {
    let engine = Canned::new(&[]).await;
    let failed = engine.client.get_workspace(&WorkspaceKey::from("rk\nlive")).await.unwrap_err();
    assert_eq!(failed.kind, ApiErrorKind::Unsendable);
    assert!(!failed.is_retryable());
    assert_eq!(*engine.connections.borrow(), 0);
}

#[test]
fn a_message_loses_whatever_looks_like_a_token_and_is_bounded() {
    for (message, shown) in [
        ("no nt_live_00ff here", "no <secret> here"),
        ("\"at_live_1\",rk_live_2", "\"<secret>\",<secret>"),
        ("alive_livery", "alive_livery"),
        ("é ü", "é ü"),
        ("", ""),
    ] {
        assert_eq!(without_tokens(message), shown);
    }
    assert_eq!(without_tokens(&"é ".repeat(1000)).chars().count(), MESSAGE_MAX);
    assert_eq!(without_tokens(&"x".repeat(1000)).len(), MESSAGE_MAX);
}
