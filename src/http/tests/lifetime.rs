//! From the port to the end.

use super::*;

#[actix::test]
async fn a_taken_port_is_said_with_the_next_step() {
    let house = house();
    let taken = Options { port: house.server.addr().port(), ..Options::default() };
    let error = try_house(taken).err().expect("a taken port is refused");
    assert!(error.to_string().contains("--api-port"), "{error}");
}

#[actix::test]
async fn until_the_house_is_built_only_health_answers_and_the_rest_says_503_in_words() {
    let house = house_with(Options { starting: true, ..Options::default() });
    let health = house.with("GET", "/health", "host: localhost\r\n", "").await;
    assert_eq!((health.status, health.json()["status"].as_str()), (200, Some("degraded")));
    assert_eq!(health.json()["relaycastConnected"], false);
    for path in ["/api/session", "/readyz", "/api/spawned", "/no/such/path"] {
        let got = house.get(path).await;
        assert_eq!(got.status, 503, "{path}");
        assert!(got.head.contains("content-type: text/plain"), "{got:?}");
        assert!(got.body.contains("503 Service Unavailable"), "{got:?}");
    }
    house.readiness.set(Readiness::Offline { why: "refused".into(), next: "again in 2 s".into() });
    assert_eq!(house.get("/api/session").await.status, 200);
    let ready = house.get("/readyz").await;
    assert_eq!((ready.status, ready.json()["next"].as_str()), (503, Some("again in 2 s")));
    house.readiness.set(Readiness::Live { node_id: "node_1".into(), node_name: "n".into() });
    assert_eq!(house.get("/readyz").await.status, 200);
    assert_eq!(house.get("/health").await.json()["status"], "ok");
}

#[actix::test]
async fn a_shutdown_is_answered_before_it_begins() {
    let mut house = house();
    let got = house.post("/api/shutdown", "").await;
    assert_eq!(got.json(), json!({"status": "shutting_down"}));
    assert!(house.ends.recv().await.is_some());
    assert_eq!(house.post("/api/resume", "").await.status, 200);
    assert_eq!(house.ends.recv().await.as_deref(), Some("resume"));
}

#[actix::test]
async fn a_lease_that_is_renewed_lasts_and_one_that_is_not_ends_the_house() {
    let period = Duration::from_secs(1);
    let mut house = house_with(Options { lease: Some(period), ..Options::default() });
    let began = tokio::time::Instant::now();
    tokio::time::sleep(period / 2).await;
    assert_eq!(house.post("/api/session/renew", "").await.json()["expires_in_secs"], 1);
    house.ends.recv().await.unwrap();
    assert!(began.elapsed() >= period + period / 2);
}
