//! Ends: limits, quit keys, wrapper and environment, and what is written down.

use super::*;
use crate::messages::process::{ExitClass, Limits, ProcessSpec};

fn shell(script: &str, process: ProcessSpec) -> Rig {
    Rig::new(SpawnSpec { process, ..spec("sh", &["-c", script], Some("plain")) })
}

fn limited(limits: Limits) -> ProcessSpec {
    ProcessSpec { limits, ..ProcessSpec::default() }
}

#[actix::test]
async fn each_limit_ends_the_agent_and_is_named() {
    let short = Some(Duration::from_millis(600));
    for (limits, script, by) in [
        (
            Limits { max_runtime: short, ..Limits::default() },
            "while :; do echo x; sleep 0.1; done",
            EndedBy::MaxRuntime,
        ),
        (Limits { idle: short, ..Limits::default() }, "echo x; exec sleep 1000", EndedBy::IdleLimit),
        (Limits { output_bytes: Some(5000), ..Limits::default() }, "exec yes", EndedBy::OutputLimit),
    ] {
        let mut rig = shell(script, limited(limits));
        rig.started().await.unwrap();
        let exit = rig.exit().await;
        assert_eq!((exit.by, exit.class), (by, ExitClass::Limit), "{exit:?}");
    }
}

#[actix::test]
async fn a_wrapper_runs_the_program_without_a_shell_and_words_stay_whole() {
    let wrapper = ["env", "--", "MARK=a b;$(false)"].map(str::to_owned).to_vec();
    let process = ProcessSpec { wrapper, ..ProcessSpec::default() };
    let script = "printf '%s|%s' \"$MARK\" \"$1\"; exec sleep 1000";
    let args = ["-c", script, "sh", "x; exit 9 'y"];
    let mut rig = Rig::new(SpawnSpec { process, ..spec("sh", &args, Some("plain")) });
    rig.started().await.unwrap();
    let screen = rig.shows("|").await.plain;
    assert!(screen.contains("a b;$(false)|x; exit 9 'y"), "{screen}");
    rig.end().await;
}

#[actix::test]
async fn an_allow_list_lets_its_variables_through_and_the_agents_own_in_any_case() {
    let env_allow = Some(vec!["PATH".to_owned(), "RELAY_API_KEY".to_owned()]);
    let process = ProcessSpec { env_allow, ..ProcessSpec::default() };
    let given = BTreeMap::from([("GIVEN".to_owned(), "yes".to_owned())]);
    let script = "env | cut -d= -f1 | sort | tr '\\n' ' '; echo END; exec sleep 1000";
    let mut rig = Rig::new(SpawnSpec { process, env: given, ..spec("sh", &["-c", script], Some("plain")) });
    rig.started().await.unwrap();
    let screen = rig.shows("END").await.plain.replace('\n', "");
    let names: Vec<_> = screen.split_whitespace().take_while(|name| *name != "END").collect();
    for there in ["GIVEN", "PATH", "TERM", "COLORTERM", "LANG", "PWD", "RELAY_AGENT_TOKEN", "RELAY_SPAWN_ID"]
    {
        assert!(names.contains(&there), "{there} is not in {names:?}");
    }
    for foreign in ["HOME", "USER", "RELAY_API_KEY", "CARGO_MANIFEST_DIR"] {
        assert!(!names.contains(&foreign), "{foreign} is in {names:?}");
    }
    rig.end().await;
}

#[actix::test]
async fn an_exit_is_written_down_with_its_memory_its_screen_and_without_its_secrets() {
    let secret = "hunter2-hunter2";
    let env = BTreeMap::from([("MY_API_KEY".to_owned(), secret.to_owned())]);
    let grow = "import os; x = b'x' * (200 << 20); print(os.environ['MY_API_KEY'], \
                os.environ['RELAY_AGENT_TOKEN'], 'END', flush=True); input(); os._exit(7)";
    let mut rig = Rig::new(SpawnSpec { env, ..spec("python3", &["-c", grow], Some("plain")) });
    rig.started().await.unwrap();
    // The line's end: an Enter that came within it would be echoed there.
    let shown = rig.shows("END").await;
    assert!(shown.plain.contains(secret), "{}", shown.plain);
    let typed = rig.child.post::<Input>().ask(|reply| Input { bytes: b"\n".to_vec(), reply });
    assert_eq!(typed.await.unwrap(), Ok(1));
    let exit = rig.exit().await;
    assert_eq!((exit.code, exit.by), (Some(7), EndedBy::Itself));
    assert!(exit.peak_memory.is_some_and(|peak| peak > 200 << 20), "{exit:?}");
    assert!(exit.last_output.contains("[redacted] [redacted]"), "{exit:?}");
    assert!(!exit.last_output.contains(secret), "{exit:?}");
}

#[actix::test]
async fn what_shall_stay_stays_and_what_shall_not_is_swept() {
    for keep_daemons in [true, false] {
        let process = ProcessSpec { keep_daemons, ..ProcessSpec::default() };
        let mut rig = shell("setsid sh -c 'echo DAEMON $$.; exec sleep 1000' & exec sleep 1000", process);
        rig.started().await.unwrap();
        let screen = rig.shows(".").await.plain;
        let digits: String = screen.chars().filter(char::is_ascii_digit).collect();
        let daemon: i32 = digits.parse().unwrap();
        let exit = rig.end().await;
        let stat = std::fs::read_to_string(format!("/proc/{daemon}/stat")).unwrap_or_default();
        // Nobody may have reaped it yet.
        let alive = !stat.is_empty() && !stat.contains(") Z ");
        assert_eq!((alive, exit.swept.len()), (keep_daemons, usize::from(!keep_daemons)), "{exit:?}");
        if alive {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(daemon), nix::sys::signal::Signal::SIGKILL)
                .unwrap();
        }
    }
}
