//! Answering what an agent's program asks.

use actix_web::{
    HttpRequest, HttpResponse,
    http::StatusCode,
    web::{Data, Path, Payload},
};
use serde::Deserialize;
use serde_json::json;

use super::{
    api::{Api, of_worker},
    body,
    error::ApiError,
};
use crate::{
    ids::DialogId,
    messages::pty::{AnswerDialog, AnswerRefused},
};

#[derive(Deserialize)]
pub(super) struct AnswerBody {
    choice: String,
    /// The id of the dialog that was seen.
    #[serde(default)]
    expect: Option<String>,
}

/// `POST /api/spawned/{name}/answer`
pub(super) async fn answer(
    api: Data<Api>,
    name: Path<String>,
    req: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let AnswerBody { choice, expect } = body::object(&req, payload).await?;
    let agent = api.agent(&name).await?;
    let (pressed, dialog) = (choice.clone(), expect.map(DialogId::from));
    let answered = agent.answer.ask(|reply| AnswerDialog { choice: pressed, dialog, reply });
    let dialog = of_worker(&name, answered).await?;
    let dialog = dialog.map_err(|refused| ApiError::from(refused).about(name.as_str()))?;
    Ok(HttpResponse::Ok().json(json!({ "name": *name, "dialog": dialog, "choice": choice })))
}

impl From<AnswerRefused> for ApiError {
    fn from(refused: AnswerRefused) -> Self {
        let message = refused.to_string();
        match refused {
            AnswerRefused::NoDialog => Self::new(StatusCode::CONFLICT, "no_dialog", message),
            AnswerRefused::Changed { .. } => Self::new(StatusCode::CONFLICT, "dialog_changed", message),
            AnswerRefused::UnknownChoice { .. } => {
                Self::new(StatusCode::BAD_REQUEST, "unknown_choice", message)
            }
            AnswerRefused::Terminal(refused) => Self::from(refused),
        }
    }
}
