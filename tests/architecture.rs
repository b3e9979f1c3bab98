//! Who may know whom, read off the source: the rules of ARCHITECTURE.md that a compiler does not keep.

#![allow(clippy::unwrap_used, reason = "a test that cannot read the sources must fail")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use syn::{
    Attribute, ImplItem, Item, ItemImpl, ItemMod, ItemUse, UseTree,
    visit::{self, Visit},
};

/// One source file and every path that its production code names.
struct Source {
    /// Below `src/`, with forward slashes.
    file: String,
    paths: BTreeSet<String>,
    unsafe_blocks: usize,
    handlers_without_turn: Vec<String>,
    /// Every word of its texts and macros, documentation apart.
    words: BTreeSet<String>,
}

impl Source {
    fn names(&self, prefix: &str) -> bool {
        self.paths.iter().any(|path| path == prefix || path.starts_with(&format!("{prefix}::")))
    }

    fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.file == *place || self.file.starts_with(&format!("{place}/")))
    }
}

#[derive(Default)]
struct Reader {
    paths: BTreeSet<String>,
    unsafe_blocks: usize,
    handlers_without_turn: Vec<String>,
    words: BTreeSet<String>,
}

impl Reader {
    fn take_words(&mut self, text: &str) {
        let words = text.split(|c: char| !(c.is_alphanumeric() || "_-".contains(c)));
        self.words.extend(words.map(str::to_owned));
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string().contains("test"))
    })
}

fn flatten(tree: &UseTree, prefix: &str, into: &mut BTreeSet<String>) {
    let join = |name: &dyn std::fmt::Display| {
        if prefix.is_empty() { name.to_string() } else { format!("{prefix}::{name}") }
    };
    match tree {
        UseTree::Path(path) => flatten(&path.tree, &join(&path.ident), into),
        UseTree::Name(name) => drop(into.insert(join(&name.ident))),
        UseTree::Rename(rename) => drop(into.insert(join(&rename.ident))),
        UseTree::Glob(_) => drop(into.insert(prefix.to_owned())),
        UseTree::Group(group) => group.items.iter().for_each(|item| flatten(item, prefix, into)),
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes: &[Attribute] = match item {
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            _ => &[],
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if !is_test(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        flatten(&item.tree, "", &mut self.paths);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.paths.insert(names.join("::"));
        visit::visit_path(self, path);
    }

    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        self.take_words(&text.value());
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.take_words(&call.tokens.to_string());
        visit::visit_macro(self, call);
    }

    fn visit_expr_unsafe(&mut self, block: &'ast syn::ExprUnsafe) {
        self.unsafe_blocks += 1;
        visit::visit_expr_unsafe(self, block);
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        if let Some((_, of, _)) = &item.trait_
            && of.segments.last().is_some_and(|segment| segment.ident == "Handler")
        {
            for part in &item.items {
                if let ImplItem::Fn(handle) = part
                    && handle.sig.ident == "handle"
                    && !opens_its_turn(handle)
                {
                    self.handlers_without_turn.push(message_of(of));
                }
            }
        }
        visit::visit_item_impl(self, item);
    }
}

/// The first statement is `let _turn = self.life.turn();`.
fn opens_its_turn(handle: &syn::ImplItemFn) -> bool {
    let Some(syn::Stmt::Local(first)) = handle.block.stmts.first() else { return false };
    let syn::Pat::Ident(name) = &first.pat else { return false };
    let Some(init) = &first.init else { return false };
    let syn::Expr::MethodCall(call) = &*init.expr else { return false };
    name.ident == "_turn" && call.method == "turn"
}

/// `Deliver` of `Handler<Deliver>`.
fn message_of(handler: &syn::Path) -> String {
    let Some(last) = handler.segments.last() else { return String::new() };
    let syn::PathArguments::AngleBracketed(arguments) = &last.arguments else { return String::new() };
    let name = |argument: &syn::GenericArgument| match argument {
        syn::GenericArgument::Type(syn::Type::Path(path)) => {
            path.path.segments.last().map(|segment| segment.ident.to_string())
        }
        _ => None,
    };
    arguments.args.iter().filter_map(name).collect()
}

fn files(below: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Read once for all rules.
fn sources() -> &'static [Source] {
    static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(read_all);
    &SOURCES
}

fn read_all() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    files(&root, &mut found);
    assert!(found.len() > 50, "the sources were not found");
    let read = |path: PathBuf| {
        let file = path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
        let parsed = syn::parse_file(&fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|error| panic!("{file}: {error}"));
        let mut reader = Reader::default();
        reader.visit_file(&parsed);
        let Reader { paths, unsafe_blocks, handlers_without_turn, words } = reader;
        Source { file, paths, unsafe_blocks, handlers_without_turn, words }
    };
    let is_test_file = |source: &Source| {
        ["tests.rs", "fixture.rs"].iter().any(|name| source.file.ends_with(name))
            || source.file.contains("/tests/")
    };
    found.into_iter().map(read).filter(|source| !is_test_file(source)).collect()
}

fn assert_none(rule: &str, broken: Vec<String>) {
    assert!(broken.is_empty(), "{rule}, but:\n  {}", broken.join("\n  "));
}

fn only_in(prefix: &str, places: &[&str]) -> Vec<String> {
    let elsewhere = |source: &&Source| source.names(prefix) && !source.is_in(places);
    sources().iter().filter(elsewhere).map(|source| source.file.clone()).collect()
}

const ROOMS: [&str; 7] = [
    "agent_registry",
    "delivery_cursor",
    "event_hub",
    "node_session",
    "pty_worker",
    "supervisor",
    "token_mint",
];

#[test]
fn a_room_imports_no_other_room_but_the_supervisor_builds_them_all() {
    let mut broken = Vec::new();
    for source in sources() {
        let Some(room) = ROOMS.iter().find(|room| source.is_in(&[&format!("actors/{room}")])) else {
            continue;
        };
        for other in ROOMS.iter().filter(|other| *other != room && *room != "supervisor") {
            if source.names(&format!("crate::actors::{other}")) {
                broken.push(format!("{} names {other}", source.file));
            }
        }
    }
    assert_none("a room imports no other room", broken);
}

#[test]
fn the_hallway_imports_ids_and_posts_alone() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| source.is_in(&["messages"])) {
        for path in source.paths.iter().filter(|path| path.starts_with("crate::")) {
            let allowed = ["crate::ids", "crate::messages", "crate::supervision::Post"];
            if !allowed.iter().any(|prefix| path.starts_with(prefix)) {
                broken.push(format!("{} names {path}", source.file));
            }
        }
    }
    assert_none("messages/ imports ids and supervision::Post alone", broken);
}

#[test]
fn only_those_who_talk_to_an_engine_know_the_wire() {
    let places = [
        "wire",
        "engine",
        "actors/node_session",
        "actors/token_mint",
        "actors/agent_registry",
        "house",
        "cli",
    ];
    assert_none("the wire is known to few", only_in("crate::wire", &places));
}

#[test]
fn only_the_worker_knows_the_kernel_and_the_screen() {
    // The house asks to be a subreaper, starts the guard and sweeps what a killed broker left; the tree hands the
    // guard on, and `guard` is it; who attaches asks for the size of the terminal in front of them.
    let places =
        ["pty", "actors/pty_worker", "actors/supervisor/tree.rs", "house", "cli/attach", "cli/guard.rs"];
    assert_none("pty/ is the worker's", only_in("crate::pty", &places));
    assert_none("screen/ is the worker's", only_in("crate::screen", &["screen", "actors/pty_worker"]));
}

#[test]
fn the_embedded_engine_shares_no_code_with_the_rooms() {
    let broken = sources()
        .iter()
        .filter(|source| source.is_in(&["engine"]))
        .filter(|source| source.names("crate::actors") || source.names("crate::supervision"))
        .map(|source| source.file.clone())
        .collect();
    assert_none("the engine is a stranger that happens to live here", broken);
}

#[test]
fn a_rooms_rule_files_know_no_actix() {
    // The shells: a room's mod.rs, and the files that do a room's talking.
    let shells = [
        "actors/supervisor/tree.rs",
        "actors/agent_registry/calls.rs",
        "actors/agent_registry/conflict.rs",
        "actors/agent_registry/deeds.rs",
        "actors/agent_registry/ends.rs",
        "actors/agent_registry/errands.rs",
        "actors/agent_registry/invoking.rs",
        "actors/agent_registry/letters.rs",
        "actors/agent_registry/listing.rs",
        "actors/agent_registry/registering.rs",
        "actors/agent_registry/releasing.rs",
        "actors/agent_registry/results.rs",
        "actors/agent_registry/session.rs",
        "actors/agent_registry/spawning.rs",
        "actors/agent_registry/stillness.rs",
        "actors/delivery_cursor/holding.rs",
        "actors/delivery_cursor/letters.rs",
        "actors/node_session/clock.rs",
        "actors/node_session/incoming.rs",
        "actors/node_session/offering.rs",
        "actors/node_session/outgoing.rs",
        "actors/node_session/page.rs",
        "actors/pty_worker/launch.rs",
        "actors/pty_worker/drive.rs",
        "actors/pty_worker/ending.rs",
    ];
    let mut broken = Vec::new();
    for source in sources() {
        let rule = source.is_in(&["actors"]) && !source.file.ends_with("mod.rs") && !source.is_in(&shells);
        if rule && (source.names("actix") || source.names("actix_rt")) {
            broken.push(source.file.clone());
        }
    }
    assert_none("rules are pure", broken);
}

#[test]
fn actix_actors_live_in_rooms_alone() {
    assert_none("actix is for actors", only_in("actix", &["actors", "supervision", "messages"]));
}

#[test]
fn unsafe_code_has_one_home() {
    let broken = sources()
        .iter()
        .filter(|source| source.unsafe_blocks > 0 && source.file != "pty/sys.rs")
        .map(|source| source.file.clone())
        .collect();
    assert_none("unsafe stands in pty/sys.rs alone", broken);
}

#[test]
fn untyped_json_stays_at_the_doors() {
    let places = ["wire", "engine", "http", "cli"];
    assert_none("serde_json::Value stays at the doors", only_in("serde_json::Value", &places));
}

#[test]
fn every_handler_opens_its_turn_first() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| source.is_in(&["actors"])) {
        for handler in &source.handlers_without_turn {
            broken.push(format!("{}: {handler}", source.file));
        }
    }
    assert_none("a handler's first line is `let _turn = self.life.turn();`", broken);
}

#[test]
fn programs_have_names_in_data_alone() {
    let catalogue = relay_broker::harness::Catalogue::built_in();
    let named = catalogue.entries().iter().filter(|entry| !entry.harness.programs.is_empty());
    let names: BTreeSet<&str> = named
        .flat_map(|entry| entry.harness.programs.iter().chain([&entry.harness.name]))
        .map(String::as_str)
        .collect();
    assert!(names.len() > 5, "the rule sets were not found");
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| !source.is_in(&["harness/data.rs"])) {
        for name in names.iter().filter(|name| source.words.contains(**name)) {
            broken.push(format!("{} names {name}", source.file));
        }
    }
    assert_none("what is known of a program is data", broken);
}
