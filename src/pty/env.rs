//! The environment of an agent: the broker's own, without what would mislead or leak (spec/pty 2.7).

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::Path,
};

/// A complete environment: nothing is inherited beside it.
pub type Environment = BTreeMap<OsString, OsString>;

/// Families that never reach an agent: the broker's own configuration and secrets, and what an outer CLI
/// or editor says to its own children.
const REMOVED_PREFIXES: &[&str] =
    &["RELAY_", "AGENT_RELAY_", "RELAYCAST_", "CLAUDE_CODE_", "VSCODE_", "KITTY_", "WEZTERM_", "ZELLIJ"];

/// Single variables that never reach an agent.
const REMOVED: &[&str] = &[
    // An outer agent or a build server: CLIs turn their interactive screen off.
    "CLAUDECODE",
    "CI",
    "NO_COLOR",
    // The size that a terminal once had, and the multiplexer or window around the broker.
    "COLUMNS",
    "LINES",
    "TMUX",
    "TMUX_PANE",
    "STY",
    "WINDOWID",
    "TERMCAP",
    "TERM_PROGRAM",
    "TERM_PROGRAM_VERSION",
    "TERM_SESSION_ID",
    "ITERM_SESSION_ID",
    "WT_SESSION",
    "VTE_VERSION",
    "OLDPWD",
    // A repository other than the one in the working directory (a broker started by a git hook).
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_GRAFT_FILE",
    "GIT_SHALLOW_FILE",
    // What a service manager gave to the broker alone.
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
];

/// The broker's environment made fit for an agent in `cwd`, with `additions` on top (they win). The spawn
/// mark is not part of it: [`launch`](super::launch()) adds that.
pub fn clean_env(
    broker: impl IntoIterator<Item = (OsString, OsString)>,
    cwd: &Path,
    additions: impl IntoIterator<Item = (OsString, OsString)>,
) -> Environment {
    let mut env: Environment = broker.into_iter().filter(|(name, _)| !is_removed(name)).collect();
    if !names_a_locale(&env) {
        env.insert("LANG".into(), "C.UTF-8".into());
    }
    env.insert("TERM".into(), "xterm-256color".into());
    env.insert("COLORTERM".into(), "truecolor".into());
    env.insert("PWD".into(), cwd.into());
    env.extend(additions);
    env
}

fn is_removed(name: &OsStr) -> bool {
    let bytes = name.as_encoded_bytes();
    REMOVED.iter().any(|removed| removed.as_bytes() == bytes)
        || REMOVED_PREFIXES.iter().any(|prefix| bytes.starts_with(prefix.as_bytes()))
}

/// True when the variable that decides the character set names something better than plain ASCII.
fn names_a_locale(env: &Environment) -> bool {
    ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .filter_map(|name| env.get(OsStr::new(name)))
        .find(|value| !value.is_empty())
        .is_some_and(|value| value != "C" && value != "POSIX")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(broker: &[(&str, &str)], additions: &[(&str, &str)]) -> BTreeMap<String, String> {
        let os = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(k, v)| (OsString::from(k), OsString::from(v))).collect::<Vec<_>>()
        };
        let text = |s: OsString| s.into_string().unwrap();
        clean_env(os(broker), Path::new("/work dir"), os(additions))
            .into_iter()
            .map(|(name, value)| (text(name), text(value)))
            .collect()
    }

    #[test]
    fn what_would_mislead_or_leak_does_not_reach_the_agent() {
        for name in [
            "RELAY_API_KEY",
            "RELAY_NODE_TOKEN",
            "RELAY_SPAWN_ID",
            "AGENT_RELAY_HOME",
            "RELAYCAST_WS_URL",
            "CLAUDECODE",
            "CLAUDE_CODE_ENTRYPOINT",
            "CI",
            "NO_COLOR",
            "TMUX",
            "TMUX_PANE",
            "STY",
            "VSCODE_PID",
            "GIT_DIR",
            "GIT_INDEX_FILE",
            "COLUMNS",
            "LINES",
            "TERM_PROGRAM",
            "NOTIFY_SOCKET",
        ] {
            let env = clean(&[(name, "x")], &[]);
            assert!(!env.contains_key(name), "{name} was passed on");
        }
    }

    #[test]
    fn what_the_user_set_for_the_agent_stays() {
        for name in
            ["PATH", "HOME", "ANTHROPIC_API_KEY", "CIRCLE", "GIT_AUTHOR_NAME", "GIT_SSH_COMMAND", "LC_TIME"]
        {
            assert_eq!(clean(&[(name, "x")], &[]).get(name).map(String::as_str), Some("x"), "{name}");
        }
    }

    #[test]
    fn the_terminal_and_the_directory_are_described_as_they_are() {
        let env = clean(&[("TERM", "dumb"), ("PWD", "/elsewhere"), ("OLDPWD", "/before")], &[]);
        let expected = [
            ("COLORTERM", "truecolor"),
            ("LANG", "C.UTF-8"),
            ("PWD", "/work dir"),
            ("TERM", "xterm-256color"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(env, BTreeMap::from(expected));
    }

    #[test]
    fn a_locale_is_set_only_where_none_is_named() {
        for (broker, lang) in [
            (&[][..], Some("C.UTF-8")),
            (&[("LANG", "")], Some("C.UTF-8")),
            (&[("LANG", "C")], Some("C.UTF-8")),
            (&[("LANG", "de_DE.UTF-8")], Some("de_DE.UTF-8")),
            (&[("LC_ALL", "en_US.UTF-8")], None),
            (&[("LC_CTYPE", "UTF-8"), ("LANG", "C")], Some("C")),
        ] {
            assert_eq!(clean(broker, &[]).get("LANG").map(String::as_str), lang, "{broker:?}");
        }
    }

    #[test]
    fn additions_win() {
        let env = clean(
            &[("RELAY_AGENT_TOKEN", "another's"), ("TERM", "x")],
            &[("RELAY_AGENT_TOKEN", "own"), ("TERM", "vt100"), ("CI", "1")],
        );
        assert_eq!(env["RELAY_AGENT_TOKEN"], "own");
        assert_eq!(env["TERM"], "vt100");
        assert_eq!(env["CI"], "1");
    }
}
