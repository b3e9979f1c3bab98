//! The mint against an engine on loopback that answers as each test says.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex},
};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, http::StatusCode, web};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::{
    messages::lifecycle::{ActorId, ActorKind},
    store::token_cache::TOKEN_DIR,
    supervision::{Child, Directory, Seat},
    testing::until_holds,
};

/// One request as the engine saw it.
#[derive(Clone, Debug)]
struct Seen {
    line: String,
    proof: Option<String>,
    body: Value,
}

type Script = dyn FnMut(&Seen) -> (u16, Value) + Send;

/// An engine that answers by script and remembers what it was asked.
struct Engine {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Engine {
    async fn start(script: impl FnMut(&Seen) -> (u16, Value) + Send + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Mutex<Box<Script>>> = Arc::new(Mutex::new(Box::new(script)));
        let log = seen.clone();
        let server = HttpServer::new(move || {
            let (log, script) = (log.clone(), script.clone());
            App::new().default_service(web::to(move |request: HttpRequest, body: web::Bytes| {
                let line = format!("{} {}", request.method(), request.uri());
                let proof = request.headers().get("x-relaycast-node-token");
                let proof = proof.map(|value| value.to_str().unwrap().to_owned());
                let seen = Seen { line, proof, body: serde_json::from_slice(&body).unwrap_or_default() };
                log.lock().unwrap().push(seen.clone());
                let (status, body) = script.lock().unwrap()(&seen);
                async move { HttpResponse::build(StatusCode::from_u16(status).unwrap()).json(body) }
            }))
        });
        let server = server.workers(1).disable_signals().bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}", server.addrs()[0]);
        actix_rt::spawn(server.run());
        Self { url, seen }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn mints(&self) -> usize {
        self.seen().iter().filter(|seen| seen.line.starts_with("POST /v1/nodes")).count()
    }
}

fn node(id: &str, name: &str, live: bool) -> Value {
    json!({"id": id, "name": name, "live": live})
}

fn ok(data: Value) -> Value {
    json!({"ok": true, "data": data})
}

fn failure(code: &str) -> Value {
    json!({"ok": false, "error": {"code": code, "message": "words"}})
}

/// An engine that enrols whoever asks, with numbered tokens.
fn obliging() -> impl FnMut(&Seen) -> (u16, Value) {
    let mut minted = 0;
    move |seen| {
        if seen.line.starts_with("GET /v1/workspace") {
            return (200, ok(json!({"id": "ws1", "name": "w"})));
        }
        if seen.line.starts_with("GET") {
            return (200, ok(json!([])));
        }
        minted += 1;
        let mut row =
            node(seen.body["node_id"].as_str().unwrap(), seen.body["name"].as_str().unwrap(), false);
        row["token"] = json!(format!("nt_live_{minted}"));
        (201, ok(row))
    }
}

struct Bench {
    data: TempDir,
    directory: Directory,
}

impl Bench {
    fn new() -> Self {
        Self { data: tempfile::tempdir().unwrap(), directory: Directory::default() }
    }

    fn config(&self, engine: &Engine) -> MintConfig {
        MintConfig {
            endpoint: EngineEndpoint::parse(&engine.url, None).unwrap(),
            workspace_key: Some("rk_live_1".into()),
            workspace: Some("ws1".into()),
            identity: Identity::Derived {
                seed: MachineSeed::load_or_create(self.data.path()).unwrap(),
                cwd: "/srv/quay".into(),
            },
            pinned_token: None,
            node_name: Some("quay".into()),
            host: "host".to_owned(),
            harnesses: vec!["plain".to_owned()],
            max_agents: 3,
            tags: vec![],
            data_dir: self.data.path().to_owned(),
        }
    }

    fn start(&self, config: MintConfig) -> Child<TokenMint> {
        let (child, seat) = Seat::reserve(ActorId::sole(ActorKind::TokenMint), &self.directory);
        seat.start(None, move |_, life| TokenMint::new(life, config));
        child
    }

    fn cache_file(&self) -> std::path::PathBuf {
        let mut files = fs::read_dir(self.data.path().join(TOKEN_DIR)).unwrap();
        let file = files.next().unwrap().unwrap().path();
        assert!(files.next().is_none(), "one file, and nothing left beside it");
        file
    }
}

async fn get(mint: &Child<TokenMint>, rejected: Option<u64>) -> Result<TokenGrant, TokenRefused> {
    let rejected = rejected.map(Generation);
    mint.post::<GetToken>().ask(|reply| GetToken { rejected, reply }).await.unwrap()
}

async fn enrol(mint: &Child<TokenMint>, code: &str) -> Result<TokenGrant, TokenRefused> {
    let code = code.to_owned();
    mint.post::<EnrolAgain>().ask(|reply| EnrolAgain { code, reply }).await.unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn last_error(mint: &Child<TokenMint>) -> String {
    mint.probe().view().last_error.unwrap_or_default()
}

#[actix::test]
async fn one_mint_answers_ten_askers_and_the_next_start_needs_none() {
    let bench = Bench::new();
    let engine = Engine::start(obliging()).await;
    let mint = bench.start(bench.config(&engine));
    let grants = join_all((0..10).map(|_| get(&mint, None))).await;
    for grant in grants {
        let grant = grant.unwrap();
        assert_eq!((grant.token.expose(), grant.generation), ("nt_live_1", Generation(1)));
        assert_eq!(grant.node_name.as_str(), "quay");
    }
    let seen = engine.seen();
    let lines: Vec<_> = seen.iter().map(|seen| seen.line.as_str()).collect();
    assert_eq!(lines, ["GET /v1/nodes?name=quay", "POST /v1/nodes"]);
    let body = &seen[1].body;
    assert_eq!((&body["kind"], &body["role"]), (&json!("ws"), &json!("broker")));
    assert_eq!(body["capabilities"], json!(["spawn:plain"]));

    let again = bench.start(bench.config(&engine));
    let grant = get(&again, None).await.unwrap();
    assert_eq!((grant.token.expose(), grant.generation), ("nt_live_1", Generation(0)));
    assert_eq!(engine.seen().len(), 2, "the engine was not asked");
}

#[actix::test]
async fn a_refused_token_is_replaced_once_with_the_old_one_as_proof() {
    let bench = Bench::new();
    let engine = Engine::start(obliging()).await;
    let mint = bench.start(bench.config(&engine));
    get(&mint, None).await.unwrap();
    let grants = join_all([get(&mint, Some(1)), get(&mint, Some(1)), get(&mint, Some(0))]).await;
    for (grant, token) in grants.into_iter().zip(["nt_live_2", "nt_live_2", "nt_live_1"]) {
        assert_eq!(grant.unwrap().token.expose(), token, "a newer one is answered as it is");
    }
    let seen = engine.seen();
    assert_eq!(engine.mints(), 2);
    assert_eq!(seen.last().unwrap().proof.as_deref(), Some("nt_live_1"));
    assert_eq!(get(&mint, Some(1)).await.unwrap().generation, Generation(2));
    assert_eq!(engine.mints(), 2);
}

#[actix::test]
async fn the_workspace_is_asked_for_when_it_is_not_known_and_the_name_has_something_of_the_directory() {
    let bench = Bench::new();
    let engine = Engine::start(obliging()).await;
    let config = MintConfig { workspace: None, node_name: None, ..bench.config(&engine) };
    let mint = bench.start(config);
    let grant = get(&mint, None).await.unwrap();
    assert_eq!(engine.seen()[0].line, "GET /v1/workspace");
    assert_eq!(grant.node_name.as_str(), format!("host-{}", &grant.node_id.as_str()[5..11]));
}

#[actix::test]
async fn a_strangers_row_is_left_alone_and_the_name_gets_a_suffix() {
    let bench = Bench::new();
    let mut obliging = obliging();
    let engine = Engine::start(move |seen| {
        if seen.line == "GET /v1/nodes?name=quay" {
            return (200, ok(json!([node("node_stranger", "quay", true)])));
        }
        obliging(seen)
    })
    .await;
    let mint = bench.start(bench.config(&engine));
    let grant = get(&mint, None).await.unwrap();
    assert!(grant.node_name.as_str().starts_with("quay-"), "{}", grant.node_name);
    let mint_request = engine.seen().pop().unwrap();
    assert_eq!(mint_request.body["name"], json!(grant.node_name.as_str()));
    assert_eq!(mint_request.body["node_id"], json!(grant.node_id.as_str()));
    assert!(last_error(&mint).contains("node_stranger"));

    let again = bench.start(bench.config(&engine));
    assert_eq!(get(&again, None).await.unwrap().node_name, grant.node_name, "the suffix is kept");
}

#[actix::test]
async fn an_engine_that_gives_back_a_strangers_id_is_not_believed() {
    let bench = Bench::new();
    let mut obliging = obliging();
    let engine = Engine::start(move |seen| {
        let (status, mut body) = obliging(seen);
        if seen.body["name"] == json!("quay") {
            body["data"]["id"] = json!("node_stranger");
        }
        (status, body)
    })
    .await;
    let mint = bench.start(bench.config(&engine));
    let grant = get(&mint, None).await.unwrap();
    assert_eq!(grant.token.expose(), "nt_live_2");
    assert_ne!(grant.node_id.as_str(), "node_stranger");
    assert!(grant.node_name.as_str().starts_with("quay-"));
    assert_eq!(engine.mints(), 2);
}

#[actix::test]
async fn proof_that_was_lost_leads_to_a_new_identity_which_the_next_start_finds() {
    let bench = Bench::new();
    let mut obliging = obliging();
    let engine = Engine::start(move |seen| {
        if seen.body["name"] == json!("quay") {
            return (409, failure("node_token_proof_required"));
        }
        obliging(seen)
    })
    .await;
    let mint = bench.start(bench.config(&engine));
    let grant = get(&mint, None).await.unwrap();
    let own = engine.seen()[1].body["node_id"].clone();
    assert_ne!(json!(grant.node_id.as_str()), own);

    let again = bench.start(bench.config(&engine));
    let found = get(&again, None).await.unwrap();
    assert_eq!((found.node_id, found.token.expose()), (grant.node_id, "nt_live_1"));
}

#[actix::test]
async fn the_token_file_is_private_also_when_one_was_there_that_others_could_read() {
    let bench = Bench::new();
    let engine = Engine::start(obliging()).await;
    get(&bench.start(bench.config(&engine)), None).await.unwrap();
    let file = bench.cache_file();
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));

    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(file.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    let mint = bench.start(bench.config(&engine));
    let cached = get(&mint, None).await.unwrap();
    assert_eq!(mode(&file), 0o600, "narrowed when it is read");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    get(&mint, Some(cached.generation.0)).await.unwrap();
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    assert!(fs::read_to_string(bench.cache_file()).unwrap().contains("nt_live_2"));
}

#[actix::test]
async fn a_token_that_cannot_be_stored_is_used_all_the_same_and_said_so() {
    let bench = Bench::new();
    let engine = Engine::start(obliging()).await;
    let file = bench.data.path().join("file");
    fs::write(&file, "in the way").unwrap();
    let mint = bench.start(MintConfig { data_dir: file.clone(), ..bench.config(&engine) });
    assert_eq!(get(&mint, None).await.unwrap().token.expose(), "nt_live_1");
    assert!(last_error(&mint).contains("degraded"), "{}", last_error(&mint));
    assert!(!last_error(&mint).contains("nt_live"));
    assert_eq!(get(&mint, Some(1)).await.unwrap().token.expose(), "nt_live_2");
    assert_eq!(engine.seen().pop().unwrap().proof.as_deref(), Some("nt_live_1"), "from memory");
    assert_eq!(fs::read_to_string(&file).unwrap(), "in the way");
}

#[actix::test]
async fn a_failed_mint_leaves_the_old_token_where_it_was_and_the_mint_alive() {
    let bench = Bench::new();
    let engine = Engine::start(obliging()).await;
    get(&bench.start(bench.config(&engine)), None).await.unwrap();
    let stored = fs::read(bench.cache_file()).unwrap();

    let limited = Engine::start(|_| (429, failure("rate_limit_exceeded"))).await;
    // The cache belongs to the engine it was minted at; this one has the same address as far as it knows.
    let text = String::from_utf8(stored).unwrap().replace(&engine.url, &limited.url);
    fs::write(bench.cache_file(), &text).unwrap();
    let mint = bench.start(bench.config(&limited));
    let cached = get(&mint, None).await.unwrap();
    let mut pauses = Vec::new();
    for _ in 0..3 {
        match get(&mint, Some(cached.generation.0)).await {
            Err(TokenRefused::Retry { after, .. }) => pauses.push(after.as_secs()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(pauses, [1, 2, 4]);
    assert_eq!(fs::read_to_string(bench.cache_file()).unwrap(), text);
    assert_eq!(mint.probe().view().restart_count, 0);
}

#[actix::test]
async fn a_refused_key_is_told_to_all_and_parks_the_mint() {
    for (status, code) in [(401, "unauthorized"), (403, "forbidden"), (401, "workspace_expired")] {
        let bench = Bench::new();
        let engine = Engine::start(move |_| (status, failure(code))).await;
        let mint = bench.start(bench.config(&engine));
        for answer in join_all((0..3).map(|_| get(&mint, None))).await {
            assert!(matches!(answer, Err(TokenRefused::KeyRefused { .. })), "{answer:?}");
        }
        assert_eq!(engine.seen().len(), 1);
        until_holds("the mint is parked", || mint.probe().view().state.starts_with("parked")).await;
    }
}

#[actix::test]
async fn a_pinned_token_is_used_verbatim_and_its_refusal_is_final() {
    let bench = Bench::new();
    let engine = Engine::start(obliging()).await;
    let config = MintConfig {
        identity: Identity::Pinned("node_pinned".into()),
        pinned_token: Some("nt_pinned".into()),
        ..bench.config(&engine)
    };
    let mint = bench.start(config.clone());
    let grant = get(&mint, None).await.unwrap();
    assert_eq!((grant.token.expose(), grant.node_id.as_str()), ("nt_pinned", "node_pinned"));
    assert!(matches!(get(&mint, Some(0)).await, Err(TokenRefused::KeyRefused { .. })));
    // The slow probe is a new life: there it is tried once more.
    mint.handle().resume();
    assert_eq!(get(&mint, Some(0)).await.unwrap().token.expose(), "nt_pinned");
    assert!(matches!(enrol(&mint, "node_id_mismatch").await, Err(TokenRefused::KeyRefused { .. })));

    let seed = MachineSeed::load_or_create(bench.data.path()).unwrap();
    let identity = Identity::Derived { seed: seed.clone(), cwd: "/srv/quay".into() };
    let derived = bench.start(MintConfig { identity, ..config });
    assert_eq!(get(&derived, None).await.unwrap().node_id, seed.verbatim());
    assert!(engine.seen().is_empty(), "the engine was never asked");
}

#[actix::test]
async fn enrolling_again_takes_another_name_or_a_new_token() {
    let bench = Bench::new();
    let engine = Engine::start(obliging()).await;
    let mint = bench.start(bench.config(&engine));
    let first = get(&mint, None).await.unwrap();
    let renamed = enrol(&mint, "node_name_conflict").await.unwrap();
    assert_eq!((renamed.token.expose(), engine.mints()), ("nt_live_1", 1));
    assert!(renamed.node_name.as_str().starts_with("quay-"));
    let again = enrol(&mint, "node_not_found").await.unwrap();
    assert_eq!((again.token.expose(), again.generation), ("nt_live_2", Generation(2)));
    assert_eq!(again.node_id, first.node_id);
}

#[actix::test]
async fn another_name_that_was_needed_once_is_tried_first_at_the_next_start() {
    let bench = Bench::new();
    let engine = Engine::start(obliging()).await;
    let first = bench.start(bench.config(&engine));
    get(&first, None).await.unwrap();
    let renamed = enrol(&first, "node_name_conflict").await.unwrap();
    let next = bench.start(bench.config(&engine));
    let found = get(&next, None).await.unwrap();
    assert_eq!(found.node_name, renamed.node_name);
    assert_eq!((found.token.expose(), engine.mints()), ("nt_live_1", 1), "with the token it had");
}

#[actix::test]
async fn without_any_credential_nothing_is_asked_of_anybody() {
    let bench = Bench::new();
    let engine = Engine::start(obliging()).await;
    let mint = bench.start(MintConfig { workspace_key: None, ..bench.config(&engine) });
    assert!(matches!(get(&mint, None).await, Err(TokenRefused::KeyRefused { .. })));
    assert!(engine.seen().is_empty());
}
