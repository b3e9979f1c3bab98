//! Who is let in, and what is refused before any room hears of it.

use super::*;

#[actix::test]
async fn everything_but_health_and_readyz_wants_the_key() {
    let house = house();
    let host = "host: localhost\r\n";
    for path in ["/health", "/readyz"] {
        assert_eq!(house.with("GET", path, host, "").await.status, 200, "{path}");
    }
    for path in ["/api/session", "/api/spawned", "/ws", "/debug/actors", "/no/such/path", "/health/"] {
        is_envelope(&house.with("GET", path, host, "").await, 401, "unauthorized");
    }
    for (header, status) in [
        (format!("x-api-key: {KEY}"), 200),
        (format!("authorization: Bearer {KEY}"), 200),
        (format!("authorization: bearer {KEY}"), 200),
        (format!("x-api-key: wrong\r\nauthorization: Bearer {KEY}"), 200),
        (format!("authorization: Basic {KEY}"), 401),
        ("x-api-key: br_0123456789abcde".to_owned(), 401),
        ("x-api-key:".to_owned(), 401),
        (format!("x-api-key: {KEY}0"), 401),
    ] {
        let got = house.with("GET", "/api/session", &format!("{host}{header}\r\n"), "").await;
        assert_eq!(got.status, status, "{header}");
    }
}

#[actix::test]
async fn a_lured_browser_gets_no_further_than_its_host_and_origin() {
    let house = house();
    let port = house.server.addr().port();
    let key = format!("x-api-key: {KEY}\r\n");
    for (host, status) in [
        ("host: localhost\r\n".to_owned(), 200),
        (format!("host: 127.0.0.1:{port}\r\n"), 200),
        ("host: [::1]\r\n".to_owned(), 200),
        (String::new(), 421),
        ("host: evil.example\r\n".to_owned(), 421),
        (format!("host: evil.example:{port}\r\n"), 421),
        ("host: localhost.\r\n".to_owned(), 421),
        ("host: 127.0.0.1.evil.example\r\n".to_owned(), 421),
        ("host: localhost\r\nhost: evil.example\r\n".to_owned(), 421),
    ] {
        for path in ["/api/session", "/health", "/no/such/path"] {
            let got = house.with("GET", path, &format!("{host}{key}"), "").await;
            let expected = if status == 200 && path == "/no/such/path" { 404 } else { status };
            // The HTTP parser itself refuses some of them, which is as good.
            assert!(
                got.status == expected || (status == 421 && got.status == 400),
                "{host:?} {path}: {got:?}"
            );
        }
    }
    let headers = format!("host: localhost\r\n{key}");
    let absolute = house.with("GET", "http://evil.example/api/session", &headers, "").await;
    is_envelope(&absolute, 421, "misdirected_request");
    for (origin, status) in [
        (format!("http://localhost:{port}"), 200),
        (format!("http://127.0.0.1:{port}"), 200),
        ("null".to_owned(), 403),
        ("http://evil.example".to_owned(), 403),
        ("http://localhost:1".to_owned(), 403),
    ] {
        let headers = format!("host: localhost\r\norigin: {origin}\r\n{key}");
        for method in ["GET", "POST", "OPTIONS"] {
            let got = house.with(method, "/api/session", &headers, "").await;
            let expected = if status == 200 && method != "GET" { 405 } else { status };
            assert_eq!(got.status, expected, "{method} {origin}");
            assert!(!got.head.contains("access-control"), "{got:?}");
        }
        let upgrade = "upgrade: websocket\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        if status == 403 {
            let got = house.with("GET", "/ws", &format!("{headers}{upgrade}"), "").await;
            assert_eq!(got.status, 403, "WebSocket from {origin}");
        }
    }
}

#[actix::test]
async fn every_bad_request_is_answered_in_the_one_envelope() {
    let house = house();
    for (path, body, status, code) in [
        ("/api/spawn", "{", 400, "invalid_json"),
        ("/api/spawn", "[]", 400, "invalid_json"),
        ("/api/spawn", "null", 400, "invalid_json"),
        ("/api/spawn", "{}", 400, "invalid_request"),
        ("/api/spawn", r#"{"name":7}"#, 400, "invalid_request"),
        ("/api/spawn", r#"{"name":"../evil"}"#, 400, "invalid_name"),
        ("/api/spawn", r#"{"name":"a","cwd":"relative"}"#, 400, "invalid_cwd"),
        ("/api/spawn", r#"{"name":"a","runtime":"headless"}"#, 400, "unsupported_runtime"),
        ("/api/send", r#"{"text":"x"}"#, 400, "invalid_request"),
        ("/api/send", r#"{"to":"al"}"#, 400, "invalid_request"),
        ("/api/send", r##"{"to":"#","text":"x"}"##, 400, "invalid_request"),
        ("/api/send", r#"{"to":"al","text":"x","mode":"soon"}"#, 400, "invalid_request"),
        ("/api/input/nobody", r#"{"data":"x"}"#, 404, "agent_not_found"),
        ("/api/input/al", r#"{}"#, 400, "invalid_request"),
        ("/api/input/a%2Fb", r#"{"data":"x"}"#, 400, "invalid_name"),
        ("/api/input/%ff", r#"{"data":"x"}"#, 400, "invalid_name"),
        ("/api/resize/al", r#"{"rows":0,"cols":0}"#, 400, "invalid_request"),
        ("/api/resize/al", r#"{"rows":70000,"cols":80}"#, 400, "invalid_request"),
        ("/no/such/path", "{}", 404, "not_found"),
        ("/health", "{}", 405, "method_not_allowed"),
        ("/api/spawned", "{}", 405, "method_not_allowed"),
        ("/debug/fault/event_hub/handler", "{}", 404, "not_found"),
    ] {
        is_envelope(&house.post(path, body).await, status, code);
    }
    is_envelope(&house.post("/api/spawn", "").await, 415, "unsupported_media_type");
    let headers = keyed("content-type: text/plain\r\n");
    let plain = house.with("POST", "/api/spawn", &headers, r#"{"name":"a"}"#).await;
    is_envelope(&plain, 415, "unsupported_media_type");
    is_envelope(&house.get("/api/spawned/al/snapshot?format=png").await, 400, "invalid_format");
    is_envelope(&house.get("/api/events/replay?sinceSeq=x").await, 400, "invalid_request");
    is_envelope(&house.get("/ws").await, 400, "websocket_expected");
    is_envelope(&house.get("/debug/agents/nobody").await, 404, "agent_not_found");
    assert!(house.script().spawns.is_empty(), "a bad request reached the registry");
}

#[actix::test]
async fn an_agent_whose_program_rests_is_no_stranger() {
    let house = house();
    house.script().resting = true;
    for (path, body) in [
        ("/api/input/al", r#"{"data":"x"}"#),
        ("/api/resize/al", r#"{"rows":30,"cols":90}"#),
        ("/api/spawned/al/answer", r#"{"choice":"yes"}"#),
    ] {
        is_envelope(&house.post(path, body).await, 409, "agent_restarting");
    }
    is_envelope(&house.get("/api/spawned/al/snapshot").await, 409, "agent_restarting");
    is_envelope(&house.get("/api/spawned/bo/snapshot").await, 404, "agent_not_found");
    assert_eq!(house.get("/debug/agents/al").await.json()["phase"], "restarting");
}

#[actix::test]
async fn a_body_over_1_mib_is_refused_announced_or_not() {
    let house = house();
    let head = format!(
        "POST /api/send HTTP/1.1\r\nhost: localhost\r\nx-api-key: {KEY}\r\ncontent-type: application/json\r\n\
         connection: close\r\n"
    );
    let announced = format!("{head}content-length: {}\r\n\r\n", (1 << 20) + 1);
    is_envelope(&house.raw(announced.as_bytes()).await, 413, "payload_too_large");
    let mut chunked = format!("{head}transfer-encoding: chunked\r\n\r\n").into_bytes();
    for _ in 0..17 {
        chunked.extend(format!("{:x}\r\n", 1 << 16).bytes());
        chunked.extend(std::iter::repeat_n(b'x', 1 << 16));
        chunked.extend(b"\r\n");
    }
    chunked.extend(b"0\r\n\r\n");
    is_envelope(&house.raw(&chunked).await, 413, "payload_too_large");
}

#[actix::test]
async fn a_request_id_is_kept_when_harmless_and_made_otherwise() {
    let house = house();
    let head = "host: localhost\r\n";
    let kept = house.with("GET", "/health", &format!("{head}x-request-id: abc-1.2\r\n"), "").await;
    assert!(kept.head.contains("x-request-id: abc-1.2"), "{kept:?}");
    let made = house.with("GET", "/health", &format!("{head}x-request-id: a b\r\n"), "").await;
    assert!(!made.head.contains("x-request-id: a b"), "{made:?}");
}

#[actix::test]
async fn half_open_requests_are_closed_and_hold_nobody_up() {
    let house = house();
    let mut open = Vec::new();
    for n in 0..300 {
        let mut socket = TcpStream::connect(house.server.addr()).await.unwrap();
        // Half a first request, half a second one, and a refused body that never ends.
        let half = match n % 3 {
            0 => "GET /health HTTP/1.1\r\nhost: loc",
            1 => "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\nGET /health HTTP/1.1\r\nhost: loc",
            _ => "POST /x HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
        };
        socket.write_all(half.as_bytes()).await.unwrap();
        open.push(socket);
    }
    let began = tokio::time::Instant::now();
    assert_eq!(house.get("/health").await.status, 200);
    assert!(began.elapsed() < Duration::from_secs(1));
    for mut socket in open {
        let mut rest = Vec::new();
        let closed = socket.read_to_end(&mut rest);
        let left = Duration::from_secs(15).saturating_sub(began.elapsed());
        tokio::time::timeout(left, closed).await.expect("a half-open request is closed in 15 s").ok();
    }
}
