//! Who wins over whom, and what is refused.

use super::*;

struct Case<'a> {
    asked: Asked,
    env: Env,
    file: &'a str,
}

fn up() -> Asked {
    Asked::default()
}

fn init(persist: bool) -> Asked {
    Asked { form: Form::Init { persist }, ..Asked::default() }
}

fn run(case: &Case<'_>) -> Result<Config, Vec<String>> {
    let mut problems = Vec::new();
    let file = File::parse(Path::new("rb.toml"), case.file, &mut problems);
    let place = Place { cwd: "/home/u/My Project".into(), temp: "/tmp".into(), pid: 7 };
    resolve(&case.asked, &case.env, &file, &place, problems)
        .map_err(|errors| errors.0.iter().map(ToString::to_string).collect())
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn the_instance_is_named_by_flag_then_legacy_flag_then_environment_then_file_then_directory() {
    let env = || Env::from([("HOME", "/home/u"), ("AGENT_RELAY_BROKER_NAME", "of-env")]);
    let bare = || Env::from([("HOME", "/home/u")]);
    let both = Asked { instance: some("flag"), legacy_name: some("legacy"), ..init(true) };
    let legacy = Asked { legacy_name: some("legacy"), ..init(true) };
    let file = "name = 'of-file'";
    let cases = [
        (both, env(), file, "flag"),
        (legacy, env(), file, "legacy"),
        (init(true), env(), file, "of-env"),
        (init(true), bare(), file, "of-file"),
        (init(true), bare(), "", "My-Project"),
        (up(), bare(), "", "My-Project"),
        (Asked { instance: some("x y"), ..init(true) }, bare(), "", "x-y"),
    ];
    for (asked, env, file, wanted) in cases {
        assert_eq!(run(&Case { asked, env, file }).unwrap().instance, wanted);
    }
}

#[test]
fn the_engine_is_named_by_flag_then_environment_then_file_then_the_form() {
    let remote = |url: &str| EngineChoice::Remote { base_url: url.to_owned(), ws_url: None };
    let bare = || Env::from([("HOME", "/h")]);
    let cast =
        || Env::from([("HOME", "/h"), ("RELAYCAST_BASE_URL", "http://cast"), ("RELAY_BASE_URL", "http://b")]);
    let base = || Env::from([("HOME", "/h"), ("RELAY_BASE_URL", "http://base/")]);
    let flag = || Asked { engine: some("https://flag:1/"), ..up() };
    let file = "engine = 'http://file'";
    let cases = [
        (flag(), cast(), file, remote("https://flag:1")),
        (up(), cast(), file, remote("http://cast")),
        (up(), base(), file, remote("http://base")),
        (up(), bare(), file, remote("http://file")),
        (up(), bare(), "", EngineChoice::Embedded),
        (init(false), bare(), "", remote(HOSTED_ENGINE)),
        (init(false), bare(), "engine = 'embedded'", EngineChoice::Embedded),
        (Asked { embedded: true, ..init(false) }, cast(), "", EngineChoice::Embedded),
    ];
    for (asked, env, file, wanted) in cases {
        assert_eq!(run(&Case { asked, env, file }).unwrap().engine, wanted);
    }
}

#[test]
fn the_state_is_kept_where_the_form_says() {
    let env = || Env::from([("HOME", "/h"), ("AGENT_RELAY_STATE_DIR", "/s/env")]);
    let bare = || Env::from([("HOME", "/h")]);
    let below = "/home/u/My Project/.agentworkforce/relay";
    let cases = [
        (Asked { state_dir: Some("flag".into()), ..up() }, env(), "/home/u/My Project/flag"),
        (up(), env(), "/s/env"),
        (up(), bare(), below),
        (init(true), env(), below),
        (Asked { state_dir: Some("/x".into()), ..init(false) }, env(), "/x"),
    ];
    for (asked, env, wanted) in cases {
        let config = run(&Case { asked, env, file: "" }).unwrap();
        assert_eq!(config.state_dir, Path::new(wanted));
        assert!(!config.ephemeral);
    }
    let config = run(&Case { asked: init(false), env: env(), file: "" }).unwrap();
    assert!(config.ephemeral);
    assert!(config.state_dir.starts_with("/tmp"), "{:?}", config.state_dir);
}

#[test]
fn only_a_broker_that_a_program_started_without_persist_has_a_lease() {
    let lease = |asked| run(&Case { asked, env: Env::from([("HOME", "/h")]), file: "" }).unwrap().lease;
    assert_eq!(lease(init(false)), Some(LEASE));
    assert_eq!(lease(init(true)), None);
    assert_eq!(lease(up()), None);
}

#[test]
fn the_workspace_key_follows_its_order_and_the_oldest_variable_is_only_a_hint() {
    let key = |asked: Asked, env: Env| {
        let config = run(&Case { asked, env, file: "workspace_key = 'rk_file'" })?;
        Ok::<_, Vec<String>>(config.workspace_key.map(|key| key.expose().to_owned()))
    };
    let env = |extra: [(&str, &str); 2]| Env::from([("HOME", "/h"), extra[0], extra[1]]);
    let all = [("AGENT_RELAY_WORKSPACE_KEY", "rk_a"), ("RELAY_WORKSPACE_KEY", "rk_b")];
    let flag = Asked { workspace_key: some("rk_flag"), ..up() };
    assert_eq!(key(flag, env(all)).unwrap().as_deref(), Some("rk_flag"));
    assert_eq!(key(up(), env(all)).unwrap().as_deref(), Some("rk_a"));
    let second = [("AGENT_RELAY_WORKSPACE_KEY", ""), ("RELAY_WORKSPACE_KEY", "rk_b")];
    assert_eq!(key(up(), env(second)).unwrap().as_deref(), Some("rk_b"));
    assert_eq!(key(up(), Env::from([("HOME", "/h")])).unwrap().as_deref(), Some("rk_file"));
    let bad = [("AGENT_RELAY_WORKSPACE_KEY", "sk_b"), ("RELAY_WORKSPACE_KEY", "rk_b")];
    assert!(key(up(), env(bad)).is_err());

    let old = |value| {
        let env = Env::from([("HOME", "/h"), ("RELAY_API_KEY", value)]);
        run(&Case { asked: up(), env, file: "" }).unwrap().workspace_key.is_some()
    };
    assert!(old("rk_old"));
    assert!(!old("something-else"));
}

#[test]
fn the_api_stays_on_loopback_unless_the_user_insists() {
    let bind: IpAddr = "0.0.0.0".parse().unwrap();
    let env = || Env::from([("HOME", "/h")]);
    let refused = run(&Case { asked: Asked { bind: Some(bind), ..up() }, env: env(), file: "" });
    assert!(refused.unwrap_err()[0].contains("--allow-remote-api"));
    let asked = Asked { bind: Some(bind), allow_remote_api: true, ..up() };
    assert_eq!(run(&Case { asked, env: env(), file: "" }).unwrap().api.bind, bind);
    let file = "[api]\nbind = '0.0.0.0'\n";
    assert!(run(&Case { asked: up(), env: env(), file }).unwrap_err()[0].contains("rb.toml"));
}

#[test]
fn a_generated_key_is_new_each_time_and_a_given_one_is_kept() {
    let key = |env: Env| run(&Case { asked: up(), env, file: "" }).unwrap().api.key;
    let bare = || Env::from([("HOME", "/h")]);
    let made = key(bare());
    assert_eq!(made.expose().len(), 35);
    assert!(made.expose().starts_with("br_"));
    assert_ne!(made.expose(), key(bare()).expose());
    let given = Env::from([("HOME", "/h"), ("RELAY_BROKER_API_KEY", "mine")]);
    assert_eq!(key(given).expose(), "mine");
}

#[test]
fn every_bad_value_is_reported_at_once_with_its_source() {
    let asked =
        Asked { instance: some("../evil"), engine: some("ftp://x"), channels: some("General,ok"), ..up() };
    let env = Env::from([
        ("AGENT_RELAY_WORKSPACE_KEY", "nope"),
        ("AGENT_RELAY_NODE_MAX_AGENTS", "many"),
        ("AGENT_RELAY_NODE_HARNESSES", "spawn"),
        ("RELAY_BROKER_API_KEY", "a b"),
    ]);
    let problems = run(&Case { asked, env, file: "node_name = 'a/b'\nfoo = 1\n" }).unwrap_err();
    let sources = [
        "`foo` in rb.toml",
        "--name",
        "--engine",
        "AGENT_RELAY_WORKSPACE_KEY",
        "`node_name` in rb.toml",
        "RELAY_BROKER_API_KEY",
        "--channels",
        "AGENT_RELAY_NODE_HARNESSES",
        "AGENT_RELAY_NODE_MAX_AGENTS",
        "HOME",
    ];
    for source in sources {
        let found = problems.iter().filter(|problem| problem.starts_with(&format!("{source}: "))).count();
        assert_eq!(found, 1, "{source}: {problems:#?}");
    }
    assert_eq!(problems.len(), sources.len(), "{problems:#?}");
}

#[test]
fn a_secret_in_a_bad_value_is_not_repeated() {
    let asked = Asked { workspace_key: some("secret-thing"), ..up() };
    let env = Env::from([("HOME", "/h"), ("RELAYCAST_BASE_URL", "http://user:pass@host")]);
    let problems = run(&Case { asked, env, file: "" }).unwrap_err().join("\n");
    assert!(!problems.contains("secret-thing") && !problems.contains("pass@"), "{problems}");
}

#[test]
fn declared_handlers_are_advertised_with_the_harnesses_and_actions_by_their_names() {
    let bare = || Env::from([("HOME", "/h")]);
    let file = "harnesses = ['otter', 'heron']\n\
                [handlers.'spawn:heron']\ncommand = ['stub', '-x', 'a b']\n\
                [handlers.'spawn:crane']\ncommand = ['/opt/crane']\n\
                [handlers.'tide.table']\ncommand = ['/opt/tide', '--json']\ntimeout_ms = 500\n\
                [handlers.moor]\ncommand = ['moor']\n";
    let config = run(&Case { asked: up(), env: bare(), file }).unwrap();
    assert_eq!(config.harnesses, ["otter", "heron", "crane"]);
    let heron = CommandLine { program: "stub".into(), args: vec!["-x".into(), "a b".into()] };
    assert_eq!((config.handlers.len(), &config.handlers["heron"]), (2, &heron));
    assert_eq!(config.actions.keys().collect::<Vec<_>>(), ["moor", "tide.table"]);
    let tide = CommandLine { program: "/opt/tide".into(), args: vec!["--json".into()] };
    let tide = DeclaredAction { command: tide, timeout: Duration::from_millis(500) };
    assert_eq!(config.actions["tide.table"], tide);
    assert_eq!(config.actions["moor"].timeout, ACTION_TIMEOUT);

    for (file, words) in [
        ("[handlers.spawn]\ncommand = ['x']", "every spawn of the workspace"),
        ("[handlers.'spawn:']\ncommand = ['x']", "is not a harness"),
        ("[handlers.'spawn:a b']\ncommand = ['x']", "is not a harness"),
        ("[handlers.release]\ncommand = ['x']", "the broker's own"),
        ("[handlers.'tide table']\ncommand = ['x']", "not the name of an action"),
        ("[handlers.'relay:cursor']\ncommand = ['x']", "not the name of an action"),
        ("[handlers.tide]\ncommand = ['']", "name a program"),
        ("[handlers.tide]\ncommand = ['x']\ntimeout_ms = 0", "a number from 1"),
        ("[handlers.'spawn:x']\ncommand = ['x']\ntimeout_ms = 5", "only actions have one"),
        ("[handlers.'spawn:x']\ncommand = []", "name a program"),
        ("[handlers.'spawn:x']\ncommand = 'x'", "a list of a program"),
        ("[handlers.'spawn:x']\ncommand = ['x']\nargs = []", "a list of a program"),
        ("handlers = 3", "a table of tables"),
    ] {
        let problems = run(&Case { asked: up(), env: bare(), file }).unwrap_err();
        assert_eq!(problems.len(), 1, "{file}: {problems:#?}");
        assert!(problems[0].contains("handlers") && problems[0].contains(words), "{file}: {problems:#?}");
    }
}

#[test]
fn the_periods_of_the_file_replace_the_usual_ones() {
    let env = Env::from([("HOME", "/h")]);
    let file = "[timings]\nheartbeat_ms = 200\n";
    let timings = run(&Case { asked: up(), env, file }).unwrap().timings;
    assert_eq!(timings.heartbeat, Duration::from_millis(200));
    assert_eq!(timings.silence, Timings::default().silence);
}
