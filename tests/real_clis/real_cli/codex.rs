//! Codex.

use crate::{
    scenario::scenarios,
    stage::{Cli, Place},
};

pub(super) const CODEX: Cli =
    Cli { program: "codex", args: &[], configure, proof: "accepted", quit_asks: None, step: None };

fn configure(place: &Place<'_>) -> Vec<(&'static str, String)> {
    let config = format!(
        r#"model = "loopback"
model_provider = "loopback"
check_for_update_on_startup = false
[analytics]
enabled = false
[feedback]
enabled = false
[model_providers.loopback]
name = "loopback"
base_url = "{}/v1"
wire_api = "responses"
env_key = "LOOPBACK_KEY"
[projects."{}"]
trust_level = "trusted"
"#,
        place.model,
        place.project.display()
    );
    place.write(".codex/config.toml", &config);
    vec![("LOOPBACK_KEY", "none".to_owned())]
}

scenarios!(CODEX);
