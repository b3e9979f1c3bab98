//! The published schemas as a judge.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::npm::{self, Optional};

/// A value, the schema it is judged by, and what to call it when it fails.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) schema: &'static str,
    pub(crate) value: Value,
}

/// Why each value is refused; `None` for one that is accepted.
pub(crate) fn judge(cases: &[Case]) -> Vec<Option<String>> {
    let dir = npm::installed("contract/schemas", Optional::Out);
    let mut node = Command::new("node")
        .arg(dir.join("validate.mjs"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut stdin = node.stdin.take().unwrap();
    let lines: Vec<String> =
        cases.iter().map(|case| format!("{}\n", json!({"as": case.schema, "value": case.value}))).collect();
    // Writing and reading at once: neither pipe holds everything.
    let writer =
        std::thread::spawn(move || lines.iter().try_for_each(|line| stdin.write_all(line.as_bytes())));
    let output = node.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "the judge failed: {}", output.status);
    let verdicts = String::from_utf8(output.stdout).unwrap();
    let verdicts: Vec<_> = verdicts
        .lines()
        .map(|line| serde_json::from_str::<String>(line).unwrap())
        .map(|why| (!why.is_empty()).then_some(why))
        .collect();
    assert_eq!(verdicts.len(), cases.len(), "one verdict per value");
    verdicts
}

/// Fails with every case that is not accepted.
pub(crate) fn all_accepted(cases: &[Case]) {
    assert!(!cases.is_empty(), "nothing to judge");
    let refused: Vec<_> = judge(cases)
        .into_iter()
        .zip(cases)
        .filter_map(|(why, case)| {
            Some(format!("{} ({}): {}\n  {}", case.name, case.schema, why?, case.value))
        })
        .collect();
    assert!(refused.is_empty(), "{} of {} refused:\n{}", refused.len(), cases.len(), refused.join("\n"));
}

/// Fails with every case that is accepted.
pub(crate) fn all_refused(cases: &[Case]) {
    assert!(!cases.is_empty(), "nothing to judge");
    let accepted: Vec<_> = judge(cases)
        .into_iter()
        .zip(cases)
        .filter(|(why, _)| why.is_none())
        .map(|(_, case)| format!("{} ({}): {}", case.name, case.schema, case.value))
        .collect();
    assert!(accepted.is_empty(), "{} of {} accepted:\n{}", accepted.len(), cases.len(), accepted.join("\n"));
}
