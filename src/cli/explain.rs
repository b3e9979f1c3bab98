//! `explain`: where an agent's last message is, and what it waits for.

use serde::Deserialize;

use super::{
    Exit, Failure, agent_name,
    client::{Api, block_on},
    find::Where,
    ui,
};
use crate::{config::Env, ids::AgentName};

/// `relay-broker explain`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which agent.
    #[arg(value_parser = agent_name)]
    name: AgentName,
    /// Print the broker's answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Where,
}

/// What is shown of the answer; it has more.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Explained {
    summary: String,
    process: Process,
    state: Option<State>,
    last_message: Option<Message>,
    cursor: Option<Cursor>,
    screen: Option<Screen>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Process {
    pid: Option<u32>,
    program: Option<String>,
    cwd: Option<String>,
    uptime_ms: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct State {
    dialog: Option<Dialog>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Dialog {
    text: String,
    choices: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Message {
    msg_id: String,
    from: String,
    rung: Option<String>,
    waiting_for: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Cursor {
    received: u64,
    injected: u64,
    journalled: u64,
    acked: u64,
    held: u64,
    gaps: u64,
    dead_letters: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Screen {
    title: String,
    lines: Vec<String>,
}

/// Explains it.
pub(super) fn run(args: &Args, env: &Env) -> Result<Exit, Failure> {
    let broker = args.place.find(env)?;
    let path = format!("/debug/agents/{}", args.name);
    let answer = block_on(async { Api::new(broker).get(&path).await })?;
    answer.show(args.json, || Ok(tell(&answer.read()?)))
}

fn tell(agent: &Explained) -> String {
    let mut lines = vec![ui::plain(&agent.summary), String::new()];
    lines.push(format!("process  {}", process(&agent.process)));
    lines.push(format!("message  {}", agent.last_message.as_ref().map_or("none yet".to_owned(), message)));
    if let Some(dialog) = agent.state.as_ref().and_then(|state| state.dialog.as_ref()) {
        lines.push(format!("asks     answer with one of: {}", ui::plain(&dialog.choices.join(", "))));
        lines.extend(dialog.text.lines().map(|line| format!("  | {}", ui::plain(line))));
    }
    if let Some(cursor) = &agent.cursor {
        let Cursor { received, injected, journalled, acked, held, gaps, dead_letters } = cursor;
        lines.push(format!(
            "mailbox  received {received}, injected {injected}, on disk {journalled}, acked {acked}; \
             {held} held, {gaps} missing, {dead_letters} dead"
        ));
    }
    if let Some(screen) = &agent.screen {
        let title = if screen.title.is_empty() { "its last lines" } else { &screen.title };
        lines.push(format!("screen   {}", ui::plain(title)));
        lines.extend(screen.lines.iter().map(|line| format!("  | {}", ui::plain(line))));
    }
    lines.join("\n")
}

fn process(process: &Process) -> String {
    let Some(pid) = process.pid else { return "none".to_owned() };
    let mut text = format!("pid {pid}");
    if let Some(program) = &process.program {
        text.push_str(&format!(", {}", ui::plain(program)));
    }
    if let Some(cwd) = &process.cwd {
        text.push_str(&format!(" in {}", ui::plain(cwd)));
    }
    if let Some(ms) = process.uptime_ms {
        text.push_str(&format!(", for {}", ui::span(ms)));
    }
    text
}

fn message(message: &Message) -> String {
    let rung = message.rung.as_deref().unwrap_or("not in the terminal yet");
    let mut text = format!("{} from {}: {rung}", ui::plain(&message.msg_id), ui::plain(&message.from));
    if !message.waiting_for.is_empty() {
        text.push_str(&format!(", waits for {}", ui::plain(&message.waiting_for)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_explained_from_its_sentence_down_to_its_screen() {
        let answer = r#"{
            "name": "al", "summary": "al is idle; nothing to do", "next": null,
            "process": {"pid": 7, "program": "bash", "cwd": "/w", "uptime_ms": 3000},
            "state": {"dialog": {"id": "q", "text": "Trust this folder?", "choices": ["yes", "no"]}},
            "last_message": {"delivery_id": "d", "msg_id": "m1", "seq": 1, "from": "bob",
                             "rung": "consumed", "waiting_for": ""},
            "cursor": {"received": 1, "injected": 1, "journalled": 1, "acked": 1, "held": 0, "gaps": 0},
            "screen": {"title": "", "lines": ["$ \u001b[31mhi"]}, "actors": []
        }"#;
        let text = tell(&serde_json::from_str(answer).unwrap());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "al is idle; nothing to do");
        assert_eq!(lines[2], "process  pid 7, bash in /w, for 3 s");
        assert_eq!(lines[3], "message  m1 from bob: consumed");
        assert_eq!(lines[4..6], ["asks     answer with one of: yes, no", "  | Trust this folder?"]);
        assert!(lines[6].starts_with("mailbox  received 1, injected 1, on disk 1, acked 1"));
        assert_eq!(lines[8], "  | $ \u{FFFD}[31mhi");
    }

    #[test]
    fn an_agent_of_which_little_is_known_is_explained_all_the_same() {
        let text = tell(&serde_json::from_str(r#"{"summary": "x", "process": {}}"#).unwrap());
        assert!(text.contains("process  none") && text.contains("message  none yet"), "{text}");
    }
}
