//! docs/mission.md against the tests that it names, and the habits that only a look at the repository can keep.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use syn::visit::{self, Visit};

/// The statements that have no test yet. Each leaves this list with its test, and none comes in.
const OPEN: [&str; 0] = [];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A row of the page: what stands in its last column, in backticks or not.
struct Row {
    id: String,
    statement: String,
    shown_by: Vec<String>,
    is_open: bool,
}

fn rows() -> Vec<Row> {
    let page = read("docs/mission.md");
    let is_statement = |id: &str| {
        let number = id.strip_prefix(['S', 'D']);
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    };
    let row = |line: &str| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [id, statement, shown_by] = cells[..] else { return None };
        is_statement(id).then(|| Row {
            id: id.to_owned(),
            statement: statement.to_owned(),
            shown_by: shown_by.split('`').skip(1).step_by(2).map(str::to_owned).collect(),
            is_open: shown_by == "open",
        })
    };
    page.lines().filter(|line| line.starts_with('|')).filter_map(row).collect()
}

/// Every test function of a file, those of `proptest!` too.
#[derive(Default)]
struct Tests(BTreeSet<String>);

impl<'ast> Visit<'ast> for Tests {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        let is_test = |attribute: &syn::Attribute| {
            attribute.path().segments.last().is_some_and(|segment| segment.ident == "test")
        };
        if item.attrs.iter().any(is_test) {
            self.0.insert(item.sig.ident.to_string());
        }
        visit::visit_item_fn(self, item);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        if called.path.segments.last().is_some_and(|segment| segment.ident == "proptest") {
            let text = called.tokens.to_string();
            let mut words = text.split_whitespace();
            // `# [test] fn name (...)`, however the tokens are spaced.
            let mut is_test = false;
            while let Some(word) = words.next() {
                is_test |= word.contains("test]") || word == "test";
                if word == "fn" && std::mem::take(&mut is_test) {
                    let name = words.next().unwrap_or_default();
                    self.0.insert(name.split('(').next().unwrap_or_default().to_owned());
                }
            }
        }
    }
}

fn tests_of(path: &str) -> BTreeSet<String> {
    let mut tests = Tests::default();
    tests.visit_file(&syn::parse_file(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}")));
    tests.0
}

#[test]
fn every_statement_has_a_row() {
    let found: Vec<_> = rows().into_iter().map(|row| row.id).collect();
    let wanted: Vec<_> = (1..=126).map(|n| format!("S{n}")).chain((1..=9).map(|n| format!("D{n}"))).collect();
    assert_eq!(found, wanted);
    for row in rows() {
        assert!(!row.statement.is_empty(), "{} says nothing", row.id);
    }
}

#[test]
fn every_test_that_a_row_names_is_there() {
    let mut files = BTreeMap::new();
    let mut broken = Vec::new();
    for row in rows() {
        for named in &row.shown_by {
            let Some((path, test)) = named.split_once("::") else {
                // A check that is no test: a script, a configuration.
                if !root().join(named).is_file() {
                    broken.push(format!("{}: no file {named}", row.id));
                }
                continue;
            };
            if !root().join(path).is_file() {
                broken.push(format!("{}: no file {path}", row.id));
                continue;
            }
            let tests = files.entry(path.to_owned()).or_insert_with(|| tests_of(path));
            if !tests.contains(test) {
                broken.push(format!("{}: no test {named}", row.id));
            }
        }
    }
    for (page, at_least) in [("docs/reliability.md", 40), ("docs/injection.md", 30)] {
        let text = read(page);
        let named: Vec<_> = text.split('`').filter_map(|word| word.split_once(".rs::")).collect();
        assert!(named.len() > at_least, "{page} names its tests otherwise: {named:?}");
        for (file, test) in named {
            let path = format!("{file}.rs");
            if !files.entry(path.clone()).or_insert_with(|| tests_of(&path)).contains(test) {
                broken.push(format!("{page}: no test {path}::{test}"));
            }
        }
    }
    assert!(broken.is_empty(), "documents name what is not there:\n  {}", broken.join("\n  "));
    let of_macros = tests_of("src/actors/pty_worker/sanitise.rs");
    assert!(
        of_macros.contains("no_control_survives_anywhere"),
        "tests in macros are not seen: {of_macros:?}"
    );
    assert!(!of_macros.contains("sanitise"), "not every function is a test");
}

#[test]
fn only_the_open_statements_are_without_a_test() {
    let rows = rows();
    let open: Vec<_> = rows.iter().filter(|row| row.is_open).map(|row| row.id.as_str()).collect();
    println!("{} of {} statements are open: {open:?}", open.len(), rows.len());
    assert_eq!(open, OPEN, "change docs/mission.md and OPEN together");
    for row in rows.iter().filter(|row| !row.is_open) {
        assert!(!row.shown_by.is_empty(), "{} is shown by nothing", row.id);
        let has_test = row.shown_by.iter().any(|named| named.contains("::"));
        assert!(has_test, "{} is shown by no test", row.id);
    }
}

fn sources(below: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Every source but files of tests, with its text, comments and the tests at its end left out.
fn code() -> Vec<(String, String)> {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    assert!(files.len() > 50, "the sources were not found");
    let file = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let production = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let lines: Vec<_> = production.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        (path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(), lines.join("\n"))
    };
    let is_of_tests = |(file, _): &(String, String)| file.ends_with("/tests.rs") || file.contains("/tests/");
    files.into_iter().map(file).filter(|source| !is_of_tests(source)).collect()
}

#[test]
fn messages_have_one_way_in_and_no_switch_selects_another() {
    let mut broken = Vec::new();
    let mut ways_in = Vec::new();
    for (file, text) in code() {
        for forbidden in ["/v1/ws", "workspace/stream", "observer", "ot_live", "fleet_mode"] {
            if text.to_lowercase().contains(forbidden) {
                broken.push(format!("{file} knows `{forbidden}`"));
            }
        }
        // An agent's delivery mode holds its messages back, wherever they come from. It is no setting of the node.
        let is_the_node = ["config", "house", "wire", "actors/node_session", "actors/token_mint"];
        if is_the_node.iter().any(|place| file.starts_with(&format!("src/{place}")))
            && text.to_lowercase().contains("delivery_mode")
        {
            broken.push(format!("{file} knows a delivery mode"));
        }
        if text.contains("/v1/node/ws") && !file.starts_with("src/engine/") {
            ways_in.push(file);
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert_eq!(ways_in, ["src/wire/net.rs"], "the one address that messages come from");
}

#[test]
fn the_one_shared_map_is_the_directory_of_probes() {
    let users: Vec<_> =
        code().into_iter().filter(|(_, text)| text.contains("DashMap")).map(|(file, _)| file).collect();
    assert_eq!(users, ["src/supervision/directory.rs"]);
}

#[test]
fn the_repository_holds_what_the_product_needs_and_no_records_of_work() {
    let listed = Command::new("git").args(["ls-files"]).current_dir(root()).output().unwrap();
    assert!(listed.status.success(), "not a git repository: {}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8(listed.stdout).unwrap();
    let known = BTreeSet::from([
        ".ci",
        ".config",
        ".gitignore",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "README.md",
        "benches",
        "clippy.toml",
        "deny.toml",
        "docs",
        "examples",
        "fixtures",
        "fuzz",
        "justfile",
        "proptest-regressions",
        "rust-toolchain.toml",
        "rustfmt.toml",
        "scripts",
        "src",
        "tests",
    ]);
    let tops: BTreeSet<_> = listed.lines().filter_map(|path| path.split('/').next()).collect();
    let unknown: Vec<_> = tops.difference(&known).collect();
    assert!(unknown.is_empty(), "what is this for? {unknown:?}");
    let words =
        ["todo", "notes", "journal.log", "trajector", "transcript", "session-log", "handoff", "retro"];
    let records: Vec<_> = listed
        .lines()
        .filter(|path| {
            let name = path.rsplit('/').next().unwrap_or_default().to_lowercase();
            let is_log = [".log", ".orig", ".rej", ".bak", ".swp"].iter().any(|end| name.ends_with(end));
            is_log || words.iter().any(|word| name.starts_with(word))
        })
        .collect();
    assert!(records.is_empty(), "records of work: {records:?}");
}

#[test]
fn the_changelog_has_one_short_line_for_each_change() {
    let text = read("CHANGELOG.md");
    let (_, changes) = text.split_once("\n## ").unwrap();
    let mut count = 0;
    for line in changes.lines().skip(1).filter(|line| !line.is_empty() && !line.starts_with("## ")) {
        assert!(line.starts_with("- ") && line.ends_with('.'), "not one line: {line}");
        assert!(line.chars().count() <= 160, "too long: {line}");
        for internal in ["http://", "https://", "](", "src/", "::", ".rs"] {
            assert!(!line.contains(internal), "{internal} means nothing to a user: {line}");
        }
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn the_gate_of_every_change_formats_lints_tests_and_documents() {
    assert!(read(".ci/run").contains("scripts/test"));
    assert!(read("CONTRIBUTING.md").contains("./scripts/test"));
    let gate = read("scripts/test");
    assert!(gate.contains("set -eu"), "it must end at the first failure");
    for step in [
        "cargo fmt --check",
        "cargo clippy --locked --all-targets",
        "-D warnings",
        "cargo nextest run --locked",
        "cargo test --locked",
        "cargo doc --locked",
    ] {
        assert!(gate.contains(step), "no `{step}`");
    }
}

#[test]
fn the_documents_explain_the_words_that_users_meet() {
    let delivery = read("docs/delivery.md");
    for word in ["node", "broker", "PTY engine", "driver", "action runner", "engine", "agent"] {
        assert!(delivery.contains(&format!("| {word} |")), "docs/delivery.md does not say what a {word} is");
    }
    for part in ["## What counts as delivered", "## What is lost or repeated", "`redelivered`"] {
        assert!(delivery.contains(part), "docs/delivery.md has no {part}");
    }
    let readme = read("README.md");
    for page in ["docs/operations.md", "docs/delivery.md", "docs/security.md", "ARCHITECTURE.md"] {
        assert!(readme.contains(page), "README.md does not lead to {page}");
        assert!(root().join(page).is_file(), "{page}");
    }
}
