//! What the engine asks of this node, turned into a spawn or a release: the rules.
//!
//! An invocation may be repeated (after 30 s without a result, after a reconnect): while it runs a repeat is
//! ignored, and afterwards its result is sent again, from the journal if need be. It never runs twice.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

use crate::{
    command_line,
    config::CommandLine,
    ids::{AgentName, InvocationId, SessionRef},
    messages::{
        invoke::{Action, InvocationResult, InvokedSpawn},
        pty::TermSize,
        spawn::{Autonomy, SpawnRefused, SpawnSpec},
    },
};

/// Invocations under way.
#[derive(Debug, Default)]
pub(super) struct Running(HashSet<InvocationId>);

/// What to do with an invocation.
#[derive(Debug, PartialEq)]
pub(super) enum Plan {
    /// Nothing: it runs already.
    Ignore,
    /// Answer from memory.
    Repeat(InvocationResult),
    /// Start this.
    Spawn(Box<SpawnSpec>),
    /// End this.
    Release(AgentName, Option<String>),
    /// It cannot be done.
    Fail(String),
}

/// What the broker fills in where the engine names nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Defaults<'a> {
    /// The working directory.
    pub(super) cwd: &'a Path,
    /// The channels.
    pub(super) channels: &'a [String],
    /// What runs for a harness that is declared.
    pub(super) handlers: &'a BTreeMap<String, CommandLine>,
}

impl Running {
    /// Plans an invocation, and notes it as running when something is to be done.
    pub(super) fn plan(
        &mut self,
        invocation: &InvocationId,
        known: Option<InvocationResult>,
        action: Action,
        defaults: Defaults<'_>,
    ) -> Plan {
        if self.0.contains(invocation) {
            return Plan::Ignore;
        }
        if let Some(result) = known {
            return Plan::Repeat(result);
        }
        let plan = match action {
            Action::Spawn(asked) => {
                spec(asked, defaults).map_or_else(Plan::Fail, |spec| Plan::Spawn(Box::new(spec)))
            }
            Action::Release { name: None, .. } => Plan::Fail("release_missing_agent_name".to_owned()),
            Action::Release { name: Some(name), reason } => match AgentName::parse(&name) {
                Ok(name) => Plan::Release(name, reason),
                // No agent of ours can have such a name.
                Err(_) => Plan::Fail("release_failed: no such agent on this node".to_owned()),
            },
            Action::Unhandled(_) => Plan::Fail("handler_unavailable".to_owned()),
        };
        if matches!(plan, Plan::Spawn(_) | Plan::Release(..)) {
            self.0.insert(invocation.clone());
        }
        plan
    }

    /// It has its result.
    pub(super) fn ended(&mut self, invocation: &InvocationId) {
        self.0.remove(invocation);
    }

    /// True while any runs.
    pub(super) fn any(&self) -> bool {
        !self.0.is_empty()
    }

    /// Forgets all: the registry restarted, and their ends are dealt with by the sagas.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// The failure text of a refused spawn (spec/wire 5.8).
pub(super) fn spawn_failure(refused: &SpawnRefused) -> InvocationResult {
    InvocationResult::Failed(match refused {
        SpawnRefused::NameTaken(_) => "spawn_agent_name_in_use".to_owned(),
        other => format!("spawn_failed: {other}"),
    })
}

fn spec(asked: InvokedSpawn, defaults: Defaults<'_>) -> Result<SpawnSpec, String> {
    let name = asked.name.ok_or("spawn_missing_agent_name")?;
    let name = AgentName::parse(&name).map_err(|bad| format!("spawn_failed: {bad}"))?;
    let cli = asked.cli.ok_or("spawn_missing_cli")?;
    // A spawn that the engine places again comes as a bare `spawn`: then the cli names the harness.
    let (program, args) = match defaults.handlers.get(asked.harness.as_ref().unwrap_or(&cli)) {
        Some(declared) => (declared.program.clone(), declared.args.clone()),
        None => command_line::split(&cli).map_err(|bad| format!("spawn_failed: {bad}"))?,
    };
    let channels = if asked.channels.is_empty() { defaults.channels.to_vec() } else { asked.channels };
    Ok(SpawnSpec {
        name,
        program,
        args,
        cwd: asked.cwd.map_or_else(|| defaults.cwd.to_owned(), Into::into),
        env: Default::default(),
        channels,
        task: asked.task,
        harness: None,
        model: asked.model,
        size: TermSize::default(),
        session_ref: asked.session_ref.map(SessionRef::from),
        autonomy: Autonomy::Ask,
        process: Default::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults() -> Defaults<'static> {
        static NONE: BTreeMap<String, CommandLine> = BTreeMap::new();
        Defaults { cwd: Path::new("/srv"), channels: &[], handlers: &NONE }
    }

    fn plan(action: Action) -> Plan {
        Running::default().plan(&InvocationId::from("inv_1"), None, action, defaults())
    }

    fn asked(name: Option<&str>, cli: Option<&str>) -> Action {
        Action::Spawn(InvokedSpawn {
            name: name.map(str::to_owned),
            cli: cli.map(str::to_owned),
            ..InvokedSpawn::default()
        })
    }

    #[test]
    fn what_is_missing_is_a_typed_failure() {
        for (action, failure) in [
            (asked(None, Some("cat")), "spawn_missing_agent_name"),
            (asked(Some("a"), None), "spawn_missing_cli"),
            (Action::Release { name: None, reason: None }, "release_missing_agent_name"),
            (Action::Unhandled("dance".into()), "handler_unavailable"),
        ] {
            assert_eq!(plan(action), Plan::Fail(failure.to_owned()));
        }
        let Plan::Fail(text) = plan(asked(Some("../evil"), Some("cat"))) else { panic!("planned") };
        assert!(text.starts_with("spawn_failed: "), "{text}");
    }

    #[test]
    fn a_spawn_takes_the_brokers_directory_and_channels_where_it_names_none() {
        let channels = ["general".to_owned()];
        let defaults = Defaults { channels: &channels, ..defaults() };
        let id = InvocationId::from("inv_1");
        let Plan::Spawn(spec) =
            Running::default().plan(&id, None, asked(Some("a"), Some("cat -u")), defaults)
        else {
            panic!("not a spawn");
        };
        assert_eq!((spec.program.as_str(), spec.args.as_slice()), ("cat", &["-u".to_owned()][..]));
        assert_eq!(spec.cwd, Path::new("/srv"));
        assert_eq!(spec.channels, channels);
    }

    #[test]
    fn a_declared_handler_runs_instead_of_the_cli_of_the_input_and_others_run_directly() {
        let declared = CommandLine { program: "/opt/stub".into(), args: vec!["--quiet".into()] };
        let handlers = BTreeMap::from([("otter".to_owned(), declared)]);
        let defaults = Defaults { handlers: &handlers, ..defaults() };
        for (harness, cli, wanted) in [
            (Some("otter"), "otter", "/opt/stub --quiet"),
            (Some("otter"), "heron --fast", "/opt/stub --quiet"),
            (None, "otter", "/opt/stub --quiet"),
            (Some("heron"), "heron", "heron"),
            (Some("heron"), "otter", "otter"),
            (None, "heron --fast", "heron --fast"),
        ] {
            let asked = InvokedSpawn {
                name: Some("a".into()),
                harness: harness.map(str::to_owned),
                cli: Some(cli.to_owned()),
                ..InvokedSpawn::default()
            };
            let spec = spec(asked, defaults).unwrap();
            assert_eq!([vec![spec.program], spec.args].concat().join(" "), wanted, "{harness:?} {cli}");
        }
    }

    #[test]
    fn an_invocation_runs_once_and_its_repeat_is_answered_from_memory() {
        let mut running = Running::default();
        let id = InvocationId::from("inv_1");
        let action = || asked(Some("a"), Some("cat"));
        assert!(matches!(running.plan(&id, None, action(), defaults()), Plan::Spawn(_)));
        assert_eq!(running.plan(&id, None, action(), defaults()), Plan::Ignore);
        assert!(running.any());
        running.ended(&id);
        let done = InvocationResult::Failed("spawn_failed: no".into());
        assert_eq!(running.plan(&id, Some(done.clone()), action(), defaults()), Plan::Repeat(done));
        assert!(!running.any());
    }
}
