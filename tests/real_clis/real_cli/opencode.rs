//! OpenCode.

use serde_json::json;

use crate::{
    scenario::scenarios,
    stage::{Cli, Place},
};

pub(super) const OPENCODE: Cli =
    Cli { program: "opencode", args: &[], configure, proof: "accepted", quit_asks: None, step: None };

fn configure(place: &Place<'_>) -> Vec<(&'static str, String)> {
    let config = json!({
        "autoupdate": false,
        "share": "disabled",
        "model": "loopback/fake",
        "small_model": "loopback/fake",
        "provider": { "loopback": {
            "npm": "@ai-sdk/openai-compatible",
            "name": "loopback",
            "options": { "baseURL": format!("{}/v1", place.model), "apiKey": "none" },
            "models": { "fake": { "name": "fake", "tool_call": true, "limit": { "context": 200000, "output": 8000 } } },
        } },
    });
    place.write("opencode.json", &config.to_string());
    vec![
        ("OPENCODE_CONFIG", place.home.join("opencode.json").display().to_string()),
        ("OPENCODE_DISABLE_AUTOUPDATE", "1".to_owned()),
        ("OPENCODE_DISABLE_MODELS_FETCH", "1".to_owned()),
        ("OPENCODE_DISABLE_LSP_DOWNLOAD", "1".to_owned()),
        ("OPENCODE_DISABLE_DEFAULT_PLUGINS", "1".to_owned()),
    ]
}

scenarios!(OPENCODE);
