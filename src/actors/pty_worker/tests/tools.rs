//! The broker's tools, handed over or not.

use super::*;

/// How many arguments the program has, and what stands in the one variable that a rule set may set.
async fn start(harness: &str, change: impl FnOnce(&mut WorkerConfig)) -> String {
    let mut worker = spec("the-program", &["mine"], Some(harness));
    let show = "echo \"[$# ${OPENCODE_CONFIG_CONTENT-unset}]\"; exec sleep 1000";
    worker.process.wrapper = ["sh", "-c", show, "sh"].map(str::to_owned).to_vec();
    let mut rig = Rig::with(worker, change);
    rig.started().await.unwrap();
    let shown = rig.shows("]").await.plain;
    rig.end().await;
    shown.trim().to_owned()
}

#[actix::test]
async fn a_program_is_told_of_the_tools_unless_somebody_said_no() {
    let handed = r#"{"mcp":{"relay":{"type":"local","command":["/opt/relay-broker","mcp"]}}}"#;
    assert_eq!(start("opencode", |_| {}).await, format!("[2 {handed}]"));
    assert_eq!(start("opencode", |config| config.tools.wanted = Some(false)).await, "[2 unset]");
    assert_eq!(start("opencode", |config| config.tools.program = None).await, "[2 unset]");
    let this_one = |config: &mut WorkerConfig| {
        config.tools.wanted = Some(false);
        config.spec.mcp = Some(true);
    };
    assert_eq!(start("opencode", this_one).await, format!("[2 {handed}]"));
    // Two of its own, two that hand over, the caller's one, and its name.
    assert_eq!(start("codex", |_| {}).await, "[6 unset]");
    assert_eq!(start("codex", |config| config.spec.mcp = Some(false)).await, "[4 unset]");
    assert_eq!(start("plain", |config| config.spec.mcp = Some(true)).await, "[2 unset]");
}
