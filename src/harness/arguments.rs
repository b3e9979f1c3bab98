//! What a start gets from its rule set, around what the caller asked for.

use std::collections::BTreeMap;

use super::schema::{Additions, Harness, Mcp};
use crate::messages::spawn::Autonomy;

/// The broker's own program, in the texts of [`Mcp`].
pub(super) const BROKER: &str = "{broker}";

/// A start, as far as a rule set has a say in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start<'a> {
    /// The caller's arguments.
    pub args: &'a [String],
    /// The working directory.
    pub cwd: &'a str,
    /// The session that it begins or takes up.
    pub session: SessionStart<'a>,
    /// What it may do without asking.
    pub autonomy: Autonomy,
    /// What hands it its tools; `None` for none.
    pub tools: Option<&'a Additions>,
}

impl Mcp {
    /// What hands over the tools of the program `broker`; `None` where nobody wants that, by what was `asked` for, or
    /// where a variable that it needs `is_set` already.
    pub fn hand_over(
        &self,
        broker: &str,
        asked: Option<bool>,
        is_set: impl Fn(&str) -> bool,
    ) -> Option<Additions> {
        if !asked.unwrap_or(!self.unseen) || self.env.keys().any(|name| is_set(name)) {
            return None;
        }
        let broker = quoted(broker);
        let fill = |text: &String| text.replace(BROKER, &broker);
        let env = self.env.iter().map(|(name, value)| (name.clone(), fill(value))).collect();
        Some(Additions { args: self.args.iter().map(fill).collect(), env })
    }
}

/// A path as it stands between double quotes: JSON and TOML escape the same two characters in the same way, and
/// control characters too, as far as they can be in a path that anybody uses.
fn quoted(path: &str) -> String {
    let mut quoted = String::with_capacity(path.len());
    for c in path.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted
}

/// The session of a start, by the id that the program knows it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionStart<'a> {
    /// A new one, named by the program.
    Unnamed,
    /// A new one, under this name.
    Named(&'a str),
    /// The one that has this name.
    Resumed(&'a str),
}

impl Harness {
    /// All arguments: the session, since that may be a subcommand; what every start gets; what it may do; its
    /// tools; the caller's own.
    pub fn args(&self, start: &Start<'_>) -> Vec<String> {
        let granted = self.granted(start).flat_map(|additions| &additions.args);
        let ours = self.launch.args.iter().chain(granted);
        let ours = ours.map(|arg| arg.replace("{cwd}", start.cwd));
        let tools = start.tools.into_iter().flat_map(|tools| tools.args.iter().cloned());
        self.session_args(start)
            .into_iter()
            .chain(ours)
            .chain(tools)
            .chain(start.args.iter().cloned())
            .collect()
    }

    fn session_args(&self, start: &Start<'_>) -> Vec<String> {
        let (args, session) = match start.session {
            SessionStart::Unnamed => return Vec::new(),
            SessionStart::Named(session) => (&self.session.id_args, session),
            SessionStart::Resumed(session) => (&self.session.resume_args, session),
        };
        // A caller that chooses the session itself knows how.
        if self.is_session_chosen(start.args) || start.args.iter().any(|arg| arg.contains(session)) {
            return Vec::new();
        }
        args.iter().map(|arg| arg.replace("{session}", session)).collect()
    }

    /// True when a new session can be begun under a name of ours, and these arguments leave that to us.
    pub fn takes_session_name(&self, args: &[String]) -> bool {
        !self.session.id_args.is_empty() && !self.is_session_chosen(args)
    }

    /// The command by which a person takes up a session.
    pub fn resume_command(&self, program: &str, session: &str) -> Option<Vec<String>> {
        let args = &self.session.resume_args;
        let words = || args.iter().map(|arg| arg.replace("{session}", session));
        (!args.is_empty()).then(|| [program.to_owned()].into_iter().chain(words()).collect())
    }

    fn is_session_chosen(&self, args: &[String]) -> bool {
        let chooses = |arg: &str| {
            let flag = arg.split_once('=').map_or(arg, |(flag, _)| flag);
            self.session.chosen_by.iter().any(|by| by == flag)
        };
        args.iter().any(|arg| chooses(arg))
    }

    /// The environment that it gets unless the caller sets the same name.
    pub fn env(&self, start: &Start<'_>) -> BTreeMap<String, String> {
        let granted = self.granted(start).flat_map(|additions| &additions.env);
        let all = self.launch.env.iter().chain(granted);
        let all = all.map(|(name, value)| (name.clone(), value.replace("{cwd}", start.cwd)));
        all.chain(start.tools.into_iter().flat_map(|tools| tools.env.clone())).collect()
    }

    fn granted(&self, start: &Start<'_>) -> impl Iterator<Item = &Additions> {
        let trust = (start.autonomy >= Autonomy::TrustCwd).then_some(&self.autonomy.trust_cwd);
        let full = (start.autonomy >= Autonomy::Full).then_some(&self.autonomy.full);
        trust.into_iter().chain(full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTTER: &str = "name = 'otter'\n[composer]\nkind = 'always'\n\
        [launch]\nargs = ['--quiet']\nenv = { UPDATES = 'off' }\n\
        [session]\nresume_args = ['resume', '{session}']\nid_args = ['--id={session}']\n\
        chosen_by = ['--continue']\n\
        [autonomy.trust_cwd]\nargs = ['--trust={cwd}']\n\
        [autonomy.full]\nargs = ['--yes']\nenv = { ASK = '0' }\n";

    #[test]
    fn a_rule_set_stands_around_the_callers_arguments() {
        let otter: Harness = toml::from_str(OTTER).unwrap();
        let own = ["--dive".to_owned()];
        let session = SessionStart::Unnamed;
        let ask = Start { args: &own, cwd: "/bay", session, autonomy: Autonomy::Ask, tools: None };
        let named = Start { session: SessionStart::Named("s1"), ..ask };
        let trust = Start { autonomy: Autonomy::TrustCwd, ..ask };
        let full = Start { autonomy: Autonomy::Full, session: SessionStart::Resumed("s1"), ..ask };
        for (start, args, env) in [
            (ask, "--quiet --dive", "UPDATES"),
            (named, "--id=s1 --quiet --dive", "UPDATES"),
            (trust, "--quiet --trust=/bay --dive", "UPDATES"),
            (full, "resume s1 --quiet --trust=/bay --yes --dive", "ASK UPDATES"),
        ] {
            assert_eq!(otter.args(&start).join(" "), args);
            assert_eq!(otter.env(&start).into_keys().collect::<Vec<_>>().join(" "), env);
        }
    }

    #[test]
    fn a_session_that_the_caller_chooses_itself_is_left_to_it() {
        let otter: Harness = toml::from_str(OTTER).unwrap();
        for own in ["--continue=s1", "--continue", "--continue=s2", "from-s1"] {
            let args = [own.to_owned()];
            for session in [SessionStart::Named("s1"), SessionStart::Resumed("s1")] {
                let start = Start { args: &args, cwd: "/", session, autonomy: Autonomy::Ask, tools: None };
                assert_eq!(otter.args(&start), ["--quiet", own]);
            }
        }
        assert!(otter.takes_session_name(&["--dive".to_owned()]));
        assert!(!otter.takes_session_name(&["--continue".to_owned()]));
    }

    #[test]
    fn a_person_takes_a_session_up_by_the_command_of_the_rule_set() {
        let otter: Harness = toml::from_str(OTTER).unwrap();
        let words = otter.resume_command("/bin/otter", "s1").unwrap();
        assert_eq!(words, ["/bin/otter", "resume", "s1"]);
        assert_eq!(Harness::by_name("auto").unwrap().resume_command("x", "s1"), None);
    }

    #[test]
    fn a_program_of_which_nothing_is_known_gets_what_the_caller_said_and_nothing_else() {
        let auto = Harness::by_name("auto").unwrap();
        let own = ["-x".to_owned()];
        let session = SessionStart::Resumed("s");
        let full = Start { args: &own, cwd: "/", session, autonomy: Autonomy::Full, tools: None };
        assert_eq!(auto.args(&full), own);
        assert!(auto.env(&full).is_empty());
    }

    #[test]
    fn tools_stand_before_the_callers_arguments_and_know_the_broker() {
        let otter = format!(
            "{OTTER}[mcp]\nargs = ['-c', 'run=\"{{broker}}\"']\nenv = {{ TOOLS = '[\"{{broker}}\"]' }}\n"
        );
        let otter: Harness = toml::from_str(&otter).unwrap();
        let broker = "/opt/a \"b\"\\c\u{7}/relay-broker";
        let tools = otter.mcp.as_ref().unwrap().hand_over(broker, None, |_| false).unwrap();
        let toml: toml::Table = toml::from_str(&tools.args[1]).unwrap();
        let json: Vec<String> = serde_json::from_str(&tools.env["TOOLS"]).unwrap();
        assert_eq!((toml["run"].as_str(), json[0].as_str()), (Some(broker), broker));

        let own = ["--dive".to_owned()];
        let tools = Additions { args: vec!["--tools".into()], env: tools.env };
        let start = Start {
            args: &own,
            cwd: "/bay",
            session: SessionStart::Unnamed,
            autonomy: Autonomy::Ask,
            tools: Some(&tools),
        };
        assert_eq!(otter.args(&start).join(" "), "--quiet --tools --dive");
        assert_eq!(otter.env(&start).into_keys().collect::<Vec<_>>().join(" "), "TOOLS UPDATES");
    }

    #[test]
    fn tools_that_nobody_has_seen_are_handed_over_only_when_asked_for() {
        let seen = Mcp::default();
        let unseen = Mcp { unseen: true, ..Mcp::default() };
        for (asked, of_seen, of_unseen) in
            [(None, true, false), (Some(true), true, true), (Some(false), false, false)]
        {
            let is_handed = |mcp: &Mcp| mcp.hand_over("/b", asked, |_| false).is_some();
            assert_eq!((is_handed(&seen), is_handed(&unseen)), (of_seen, of_unseen), "{asked:?}");
        }
    }

    #[test]
    fn where_its_user_has_set_the_variable_nothing_is_handed_over() {
        let mcp = Mcp { env: [("TOOLS".to_owned(), String::new())].into(), ..Mcp::default() };
        for (set, is_handed) in [("TOOLS", false), ("TOOL", true)] {
            assert_eq!(mcp.hand_over("/b", Some(true), |name| name == set).is_some(), is_handed, "{set}");
        }
    }
}
