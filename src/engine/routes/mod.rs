//! The engine over HTTP: JSON in, one job for the core thread, the envelope of spec/wire 1.2 out.
//!
//! Every route is guarded in the job itself, so that authentication and action are one transaction.

mod actions;
mod agents;
mod channels;
mod mailbox;
mod messages;
mod nodes;
mod socket;
mod workspaces;

use std::{
    future::{Ready, ready},
    sync::atomic::AtomicU64,
};

use actix_web::{
    App, FromRequest, HttpRequest, HttpResponse, HttpServer,
    dev::{Payload, Server},
    error::{JsonPayloadError, QueryPayloadError},
    http::header,
    web,
};
use serde::Serialize;

use super::{
    core::{Core, CoreHandle},
    error::Failure,
    ids::fingerprint,
    ops::access::Caller,
    store::AgentRow,
};
use crate::wire::api::{Health, Success};

/// The largest body of a request, and the largest frame, in bytes.
const BODY_MAX: usize = 1 << 20;

/// What every handler can reach.
pub(super) struct Shared {
    version: String,
    core: CoreHandle,
    links: AtomicU64,
}

/// Binds loopback and starts serving; answers the bound port. One worker: every request ends on the core
/// thread anyway.
pub(super) fn server(port: u16, version: String, core: CoreHandle) -> std::io::Result<(u16, Server)> {
    let shared = web::Data::new(Shared { version, core, links: AtomicU64::new(1) });
    let server = HttpServer::new(move || App::new().app_data(shared.clone()).configure(configure))
        .workers(1)
        .disable_signals()
        .tcp_nodelay(true)
        .shutdown_timeout(2)
        .bind(("127.0.0.1", port))?;
    let port = server.addrs().first().map_or(port, std::net::SocketAddr::port);
    Ok((port, server.run()))
}

fn configure(app: &mut web::ServiceConfig) {
    let json = web::JsonConfig::default()
        .limit(BODY_MAX)
        .content_type_required(false)
        .content_type(|_| true)
        .error_handler(|error, _| bad_json(&error).into());
    let query = web::QueryConfig::default().error_handler(|error: QueryPayloadError, _| {
        Failure::bad_request("invalid_request", error.to_string()).into()
    });
    app.app_data(json)
        .app_data(query)
        .route("/health", web::get().to(health))
        .route("/v1/node/ws", web::get().to(socket::open))
        .service(
            web::scope("/v1")
                .configure(workspaces::routes)
                .configure(nodes::routes)
                .configure(actions::routes)
                .configure(agents::routes)
                .configure(channels::routes)
                .configure(messages::routes)
                .configure(mailbox::routes),
        )
        .default_service(web::to(no_route));
}

async fn health(shared: web::Data<Shared>) -> HttpResponse {
    HttpResponse::Ok().json(Health { ok: true, version: shared.version.clone(), build: None })
}

async fn no_route() -> Answer {
    Err(Failure::not_found("not_found", "there is no such route"))
}

fn bad_json(error: &JsonPayloadError) -> Failure {
    match error {
        JsonPayloadError::Deserialize(why) if why.is_data() => {
            Failure::bad_request("invalid_request", why.to_string())
        }
        JsonPayloadError::Overflow { .. } | JsonPayloadError::OverflowKnownLength { .. } => {
            Failure::too_large("invalid_request", "the body is over 1 MiB")
        }
        other => Failure::bad_request("invalid_json", other.to_string()),
    }
}

/// What a handler answers.
type Answer = Result<HttpResponse, Failure>;

fn ok(data: impl Serialize) -> Answer {
    Ok(HttpResponse::Ok().json(Success::new(data)))
}

fn created(data: impl Serialize) -> Answer {
    Ok(HttpResponse::Created().json(Success::new(data)))
}

fn no_content() -> Answer {
    Ok(HttpResponse::NoContent().finish())
}

/// An id out of a path. What is no number is no id of this engine, so it is simply not found.
fn number(id: &str, code: &'static str) -> Result<i64, Failure> {
    id.parse().map_err(|_| Failure::not_found(code, "there is no such id"))
}

/// One request: where the core is, and who asks.
struct Call {
    shared: web::Data<Shared>,
    token: Option<String>,
    key: Option<String>,
    place: String,
}

impl FromRequest for Call {
    type Error = actix_web::Error;
    type Future = Ready<Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::of(request))
    }
}

impl Call {
    fn of(request: &HttpRequest) -> Result<Self, actix_web::Error> {
        let shared = request
            .app_data::<web::Data<Shared>>()
            .cloned()
            .ok_or(Failure::Aborted("the engine is not configured"))?;
        let text = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        // The contract compares the prefix exactly, one space.
        let token = text(header::AUTHORIZATION.as_str()).and_then(|value| value.strip_prefix("Bearer "));
        let key = match request.headers().get("Idempotency-Key") {
            None => None,
            Some(value) => match value.to_str() {
                Ok(key) if (1..=255).contains(&key.len()) && key.chars().all(|c| c.is_ascii_graphic()) => {
                    Some(key.to_owned())
                }
                _ => {
                    let why = "an idempotency key is 1 to 255 visible characters";
                    return Err(Failure::bad_request("invalid_idempotency_key", why).into());
                }
            },
        };
        Ok(Self {
            shared,
            token: token.map(str::to_owned),
            key,
            place: format!("{} {}", request.method(), request.path()),
        })
    }

    /// For anyone, without a token.
    async fn open<T: Send + 'static>(
        self,
        job: impl FnOnce(&mut Core, Option<&str>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let token = self.token;
        self.shared.core.run(move |core| job(core, token.as_deref())).await
    }

    /// For a workspace key or an agent token.
    async fn any<T: Send + 'static>(
        self,
        job: impl FnOnce(&mut Core, Caller) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        self.open(|core, token| {
            let caller = core.caller(token)?;
            job(core, caller)
        })
        .await
    }

    /// For the workspace key alone; the job gets the workspace.
    async fn workspace<T: Send + 'static>(
        self,
        job: impl FnOnce(&mut Core, i64) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        self.open(|core, token| {
            let workspace = core.key_holder(token)?;
            job(core, workspace)
        })
        .await
    }

    /// For an agent token alone.
    async fn agent<T: Send + 'static>(
        self,
        job: impl FnOnce(&mut Core, AgentRow) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        self.open(|core, token| {
            let agent = core.speaker(token)?;
            job(core, agent)
        })
        .await
    }

    /// For an agent token, answering 201, at most once per idempotency key. `body` is what was asked.
    async fn agent_once<B: Serialize, T: Serialize>(
        mut self,
        body: &B,
        job: impl FnOnce(&mut Core, &AgentRow) -> Result<T, Failure> + Send + 'static,
    ) -> Answer {
        let key = self.key.take().map(|key| {
            // Bodies of requests are plain structs, which always serialise.
            let body = serde_json::to_string(body).unwrap_or_default();
            (key, fingerprint(&format!("{} {body}", self.place)))
        });
        let (answer, replayed) = self.agent(move |core, agent| once(core, &agent, key, job)).await?;
        let mut response = HttpResponse::Created();
        if replayed {
            response.insert_header(("Idempotency-Replayed", "true"));
        }
        Ok(response.content_type("application/json").body(answer))
    }
}

/// The answer to a request, and whether it was given before. Jobs run one after the other, so there is no
/// twin in flight to refuse.
fn once<T: Serialize>(
    core: &mut Core,
    agent: &AgentRow,
    key: Option<(String, String)>,
    job: impl FnOnce(&mut Core, &AgentRow) -> Result<T, Failure>,
) -> Result<(String, bool), Failure> {
    if let Some((key, asked)) = &key
        && let Some((known, answer)) = core.store.recall(agent.id, key, core.oldest_key())?
    {
        return if known == *asked {
            Ok((answer, true))
        } else {
            Err(Failure::conflict("idempotency_key_reused", "this key came with another request before"))
        };
    }
    let answer = serde_json::to_string(&Success::new(job(core, agent)?))
        .map_err(|_| Failure::Aborted("an answer did not serialise"))?;
    if let Some((key, asked)) = &key {
        core.store.remember(agent.id, key, asked, &answer)?;
    }
    Ok((answer, false))
}
