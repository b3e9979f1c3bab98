//! Claude Code.

use std::fs;

use serde_json::json;

use crate::{
    scenario::scenarios,
    stage::{Cli, Place, Stage},
};

pub(super) const CLAUDE: Cli = Cli {
    program: "claude",
    args: &[],
    configure,
    proof: "accepted",
    quit_asks: Some("Press Ctrl-C again to exit"),
    step: Some(step),
};

/// No account: a key, and an address of its own.
const KEY: &str = "sk-ant-none-of-anybody-at-all-loopback";

fn configure(place: &Place<'_>) -> Vec<(&'static str, String)> {
    let own = json!({
        "hasCompletedOnboarding": true,
        "theme": "dark",
        // It asks whether to use a key that stands in the environment, and knows it by its end.
        "customApiKeyResponses": { "approved": [&KEY[KEY.len() - 20..]], "rejected": [] },
        "projects": { place.project.to_str().unwrap(): { "hasTrustDialogAccepted": true } },
    });
    place.write(".claude.json", &own.to_string());
    vec![
        ("ANTHROPIC_BASE_URL", place.model.to_owned()),
        ("ANTHROPIC_API_KEY", KEY.to_owned()),
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".to_owned()),
    ]
}

/// A file is read, for which it asks nobody.
fn step(stage: &Stage) {
    let file = stage.house.dir().join("project").join("notes.txt");
    fs::write(&file, "nothing of note").unwrap();
    stage.model.call("Read", json!({ "file_path": file }));
    stage.model.let_go();
}

scenarios!(CLAUDE);
