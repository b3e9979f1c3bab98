//! `/v1/workspaces`, `/v1/workspace`.

use actix_web::{HttpResponse, web};
use serde_json::json;

use super::{Answer, Call, ok};
use crate::{
    engine::{error::Failure, ids, rules::text::is_name, views},
    wire::api::{CreateWorkspace, CreatedWorkspace, Success},
};

pub(super) fn routes(scope: &mut web::ServiceConfig) {
    scope
        .route("/workspaces", web::post().to(create))
        .route("/workspaces/by-name/{name}", web::get().to(by_name))
        .route("/workspace", web::get().to(get));
}

async fn create(call: Call, body: web::Json<CreateWorkspace>) -> Answer {
    let (fresh, workspace) = call
        .open(move |core, token| {
            let name = body.into_inner().name;
            if !is_name(&name) {
                let why = "a name has 1 to 128 characters, no slash, no control";
                return Err(Failure::bad_request("invalid_request", why));
            }
            if let Some(known) = core.store.workspace_by_name(&name)? {
                // Whoever holds its key already owns it.
                return match token.filter(|token| ids::fingerprint(token) == known.key_hash) {
                    Some(key) => Ok((false, answer(&known, key))),
                    None => Err(Failure::conflict(
                        "workspace_already_exists",
                        format!("{name} exists; choose another"),
                    )),
                };
            }
            let key = ids::mint("rk_live_", 16)?;
            let row = core.store.insert_workspace(&name, &ids::fingerprint(&key))?;
            core.store.insert_channel(row.id, crate::engine::ops::GENERAL, None, "{}", None)?;
            Ok((true, answer(&row, &key)))
        })
        .await?;
    let mut response = if fresh { HttpResponse::Created() } else { HttpResponse::Ok() };
    Ok(response.json(Success::new(workspace)))
}

fn answer(row: &crate::engine::store::WorkspaceRow, key: &str) -> CreatedWorkspace {
    CreatedWorkspace {
        workspace_id: row.id.to_string().into(),
        api_key: Some(key.into()),
        created_at: views::iso(row.created_at),
    }
}

async fn by_name(call: Call, name: web::Path<String>) -> Answer {
    let row = call.open(move |core, _| Ok(core.store.workspace_by_name(&name)?)).await?;
    let row = row.ok_or_else(|| Failure::not_found("not_found", "there is no such workspace"))?;
    ok(json!({"id": row.id.to_string(), "name": row.name, "created_at": views::iso(row.created_at)}))
}

async fn get(call: Call) -> Answer {
    let row = call.any(|core, caller| Ok(core.store.workspace(caller.workspace())?)).await?;
    let row = row.ok_or_else(|| Failure::not_found("not_found", "there is no such workspace"))?;
    ok(views::workspace(&row))
}
