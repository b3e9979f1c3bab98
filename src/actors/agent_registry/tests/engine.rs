//! An engine's HTTP side on loopback.

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use serde_json::{Value, json};

use super::*;

/// An engine's HTTP side that answers agents and bindings, and remembers what it was asked.
pub(super) async fn serve(binding: u16) -> (String, Arc<Mutex<Vec<String>>>) {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = seen.clone();
    let server = HttpServer::new(move || {
        let log = log.clone();
        App::new().default_service(web::to(move |request: HttpRequest, body: web::Bytes| {
            let line = format!("{} {}", request.method(), request.path());
            log.lock().unwrap().push(line.clone());
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            async move {
                let ok = |data: Value| HttpResponse::Ok().json(json!({"ok": true, "data": data}));
                match line.as_str() {
                    "POST /v1/agents" => ok(json!({
                        "id": "7", "name": body["name"], "token": "at_live_7", "status": "online",
                        "created_at": "2026-01-01T00:00:00.000Z"
                    })),
                    "POST /v1/messages/m1/read" => ok(json!({"message_id": "m1", "agent_id": "7"})),
                    "GET /v1/nodes/quay/agents" => ok(json!([])),
                    "POST /v1/nodes/quay/agents" if binding == 200 => ok(json!({
                        "agent_id": "7", "agent_name": "ann", "node_id": "node_1", "node_name": "quay",
                        "status": "active", "name": "ann"
                    })),
                    _ => {
                        let status = actix_web::http::StatusCode::from_u16(binding.max(400)).unwrap();
                        let error = json!({"code": "node_not_found", "message": "words"});
                        HttpResponse::build(status).json(json!({"ok": false, "error": error}))
                    }
                }
            }
        }))
    });
    let server = server.workers(1).disable_signals().bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", server.addrs()[0]);
    actix_rt::spawn(server.run());
    (url, seen)
}
