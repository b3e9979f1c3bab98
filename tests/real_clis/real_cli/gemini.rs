//! Gemini.

use serde_json::json;

use crate::{
    scenario::scenarios,
    stage::{Cli, Place},
};

pub(super) const GEMINI: Cli = Cli {
    program: "gemini",
    args: &["--model", "gemini-2.5-flash"],
    configure,
    proof: "accepted",
    quit_asks: Some("Press Ctrl+C again to exit"),
    step: None,
};

pub(super) fn configure(place: &Place<'_>) -> Vec<(&'static str, String)> {
    let settings = json!({
        "general": { "enableAutoUpdate": false, "enableAutoUpdateNotification": false },
        "security": { "auth": { "selectedType": "gemini-api-key" }, "folderTrust": { "enabled": true } },
        "privacy": { "usageStatisticsEnabled": false },
        "telemetry": { "enabled": false },
    });
    place.write(".gemini/settings.json", &settings.to_string());
    let trusted = json!({ place.project.to_str().unwrap(): "TRUST_FOLDER" });
    place.write(".gemini/trustedFolders.json", &trusted.to_string());
    vec![("GEMINI_API_KEY", "none".to_owned()), ("GOOGLE_GEMINI_BASE_URL", place.model.to_owned())]
}

scenarios!(GEMINI);
