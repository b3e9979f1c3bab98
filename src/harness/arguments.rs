//! What a start gets from its rule set, around what the caller asked for.

use std::collections::BTreeMap;

use super::schema::{Additions, Harness};

/// A start, as far as a rule set has a say in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start<'a> {
    /// The caller's arguments.
    pub args: &'a [String],
    /// The working directory.
    pub cwd: &'a str,
    /// The session to resume.
    pub session: Option<&'a str>,
    /// It trusts the working directory.
    pub trusts_cwd: bool,
    /// It asks for no permission.
    pub asks_nothing: bool,
}

impl Harness {
    /// All arguments: the session to resume, since that may be a subcommand; what every start gets; what it may
    /// do; the caller's own.
    pub fn args(&self, start: &Start<'_>) -> Vec<String> {
        // A caller that names the session itself knows how.
        let is_named = |session: &str| start.args.iter().any(|arg| arg.contains(session));
        let session = start.session.filter(|session| !is_named(session));
        let resume = session.map_or(&[][..], |_| &self.session.resume_args);
        let session = session.unwrap_or_default();
        let granted = self.granted(start).flat_map(|additions| &additions.args);
        let ours = self.launch.args.iter().chain(granted);
        let resume = resume.iter().map(|arg| arg.replace("{session}", session));
        let ours = ours.map(|arg| arg.replace("{cwd}", start.cwd));
        resume.chain(ours).chain(start.args.iter().cloned()).collect()
    }

    /// The environment that it gets unless the caller sets the same name.
    pub fn env(&self, start: &Start<'_>) -> BTreeMap<String, String> {
        let granted = self.granted(start).flat_map(|additions| &additions.env);
        let all = self.launch.env.iter().chain(granted);
        all.map(|(name, value)| (name.clone(), value.replace("{cwd}", start.cwd))).collect()
    }

    fn granted(&self, start: &Start<'_>) -> impl Iterator<Item = &Additions> {
        let trust = (start.trusts_cwd || start.asks_nothing).then_some(&self.autonomy.trust_cwd);
        let full = start.asks_nothing.then_some(&self.autonomy.full);
        trust.into_iter().chain(full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTTER: &str = "name = 'otter'\n[composer]\nkind = 'always'\n\
        [launch]\nargs = ['--quiet']\nenv = { UPDATES = 'off' }\n\
        [session]\nresume_args = ['resume', '{session}']\n\
        [autonomy.trust_cwd]\nargs = ['--trust={cwd}']\n\
        [autonomy.full]\nargs = ['--yes']\nenv = { ASK = '0' }\n";

    #[test]
    fn a_rule_set_stands_around_the_callers_arguments() {
        let otter: Harness = toml::from_str(OTTER).unwrap();
        let own = ["--dive".to_owned()];
        let ask = Start { args: &own, cwd: "/bay", session: None, trusts_cwd: false, asks_nothing: false };
        let trust = Start { trusts_cwd: true, ..ask };
        let full = Start { asks_nothing: true, session: Some("s1"), ..ask };
        for (start, args, env) in [
            (ask, "--quiet --dive", "UPDATES"),
            (trust, "--quiet --trust=/bay --dive", "UPDATES"),
            (full, "resume s1 --quiet --trust=/bay --yes --dive", "ASK UPDATES"),
        ] {
            assert_eq!(otter.args(&start).join(" "), args);
            assert_eq!(otter.env(&start).into_keys().collect::<Vec<_>>().join(" "), env);
        }
    }

    #[test]
    fn a_session_that_the_caller_resumes_itself_is_not_resumed_twice() {
        let otter: Harness = toml::from_str(OTTER).unwrap();
        let own = ["--continue=s1".to_owned()];
        let start =
            Start { args: &own, cwd: "/", session: Some("s1"), trusts_cwd: false, asks_nothing: false };
        assert_eq!(otter.args(&start), ["--quiet", "--continue=s1"]);
    }

    #[test]
    fn a_program_of_which_nothing_is_known_gets_what_the_caller_said_and_nothing_else() {
        let auto = Harness::by_name("auto").unwrap();
        let own = ["-x".to_owned()];
        let full = Start { args: &own, cwd: "/", session: Some("s"), trusts_cwd: true, asks_nothing: true };
        assert_eq!(auto.args(&full), own);
        assert!(auto.env(&full).is_empty());
    }
}
