//! The engine over HTTP: JSON in, one job for the core thread, the envelope of spec/wire 1.2 out.

use actix_web::{App, HttpResponse, HttpServer, dev::Server, web};
use serde_json::json;

use super::{core::CoreHandle, error::Failure};

/// What every handler can reach.
pub(super) struct Shared {
    version: String,
    core: CoreHandle,
}

/// Binds loopback and starts serving; answers the bound port. One worker: every request ends on the core
/// thread anyway.
pub(super) fn server(port: u16, version: String, core: CoreHandle) -> std::io::Result<(u16, Server)> {
    let shared = web::Data::new(Shared { version, core });
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
    app.route("/health", web::get().to(health)).default_service(web::to(no_route));
}

async fn health(shared: web::Data<Shared>) -> HttpResponse {
    HttpResponse::Ok().json(json!({"ok": true, "version": shared.version, "build": null}))
}

async fn no_route() -> Result<HttpResponse, Failure> {
    Err(Failure::not_found("not_found", "no such route"))
}
