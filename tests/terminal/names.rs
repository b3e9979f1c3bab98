//! Names of agents that are meant to become paths (T26).

use std::{collections::BTreeSet, fs, path::Path};

use crate::{stage::Stage, support::Chance};

/// Names that mean something to a file system, a shell, a terminal or a URL.
const NAMES: [&str; 22] = [
    "../evil",
    "..",
    ".",
    "/etc/evil",
    "a/b",
    "a\\b",
    "..%2fevil",
    "%2e%2e/evil",
    "a\u{0}b",
    "a\nb",
    "a\r\nb",
    "\u{1b}[201~",
    "~",
    "$HOME",
    "$(touch evil)",
    "`touch evil`",
    "a;touch evil",
    "é",
    "\u{202e}a",
    " ",
    "",
    "-rf *",
];

/// Everything below a directory.
fn below(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut unseen = vec![dir.to_owned()];
    while let Some(dir) = unseen.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                unseen.push(entry.path());
            }
            found.insert(entry.path().display().to_string());
        }
    }
    found
}

#[test]
fn no_name_of_an_agent_is_a_path_out_of_the_state_directory() {
    let stage = Stage::new();
    let (dir, state) = (stage.house.dir().to_owned(), stage.house.dir().join("state"));
    let outside = || -> BTreeSet<_> {
        let state = state.display().to_string();
        below(&dir).into_iter().filter(|path| !path.starts_with(&state)).collect()
    };
    let before = outside();
    let mut chance = Chance::new();
    let mut names: Vec<String> = NAMES.iter().map(ToString::to_string).collect();
    for _ in 0..200 {
        let parts = (0..=chance.below(4)).map(|_| {
            let parts = ["..", "/", "a", ".", "%2f", "\\", "\u{0}", "\n", "'", "\"", " ", "-", "\u{ff0e}"];
            parts[usize::try_from(chance.below(parts.len() as u64)).unwrap()]
        });
        names.push(parts.collect());
    }
    names.push("x".repeat(65));
    names.push("../".repeat(2000));
    let mut taken = 0;
    for name in &names {
        let mut body = stage.house.spawn_request("shared", "exec cat", &[]);
        body["name"] = name.as_str().into();
        let answer = stage.house.call("POST", "/api/spawn", Some(&body));
        let harmless = (1..=64).contains(&name.len())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        if harmless && !matches!(name.as_str(), "." | "..") {
            taken += 1;
            assert!([200, 409].contains(&answer.status), "{name:?}: {}", answer.text);
        } else {
            assert_eq!(answer.status, 400, "{name:?}: {}", answer.text);
        }
    }
    assert!(taken > 0, "no name at all was taken");
    assert_eq!(outside(), before, "files outside the state directory");
    stage.over();
}
