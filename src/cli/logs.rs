//! `logs`: what an agent's terminal has shown, also of an agent that has ended lately.

use futures_util::StreamExt;

use super::{
    Exit, Failure, agent_name,
    client::{Api, block_on},
    find::Where,
    ui,
};
use crate::{
    config::Env,
    escape::{self, Unit},
    ids::AgentName,
};

/// A line of a recording is shorter than this.
const LINE_MAX: usize = 16 << 20;

/// `relay-broker logs`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which agent.
    #[arg(value_parser = agent_name)]
    name: AgentName,
    /// Go on while it runs.
    #[arg(short, long)]
    follow: bool,
    /// With colours and cursor movements: for a terminal of the agent's size.
    #[arg(long, conflicts_with = "cast")]
    raw: bool,
    /// As the asciicast (version 3) that it is kept as, for players.
    #[arg(long)]
    cast: bool,
    #[command(flatten)]
    place: Where,
}

/// Shows the recording.
pub(super) fn run(args: &Args, env: &Env) -> Result<Exit, Failure> {
    let broker = args.place.find(env)?;
    block_on(async {
        let path = format!("/api/spawned/{}/log?follow={}", args.name, args.follow);
        let mut pieces = Api::new(broker).stream(&path).await?;
        let mut held = Vec::new();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| broken(&error.to_string()))?;
            held.extend_from_slice(&piece);
            let whole = held.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            ui::bytes(&shown(&held[..whole], args))?;
            held.drain(..whole);
            if held.len() > LINE_MAX {
                return Err(broken("a line is too long"));
            }
        }
        Ok(Exit::Ok)
    })
}

fn broken(why: &str) -> Failure {
    Failure::new(Exit::Failed, format!("the recording broke off: {why}"))
}

fn shown(lines: &[u8], args: &Args) -> Vec<u8> {
    if args.cast {
        return lines.to_vec();
    }
    let mut shown = Vec::new();
    for line in lines.split(|byte| *byte == b'\n') {
        // The header and what is no output are nothing to show.
        let Ok((_, "o", data)) = serde_json::from_slice::<(f64, &str, String)>(line) else { continue };
        if args.raw {
            shown.extend_from_slice(data.as_bytes());
        } else {
            plain(&data, &mut shown);
        }
    }
    shown
}

/// The text alone: nothing in it acts on a terminal.
fn plain(data: &str, shown: &mut Vec<u8>) {
    for (unit, _) in escape::units(data.as_bytes()) {
        match unit {
            Unit::Text(text) => {
                let text = String::from_utf8_lossy(text).replace(char::is_control, "\u{fffd}");
                shown.extend_from_slice(text.as_bytes());
            }
            Unit::Control(control @ (b'\n' | b'\t')) => shown.push(control),
            Unit::Control(_) | Unit::Csi(..) | Unit::String(..) | Unit::Escape(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_shown_as_text_as_it_was_or_as_it_is_kept() {
        let lines = b"{\"version\":3}\n[0.1,\"o\",\"\\u001b[31mred\\u001b[m\\r\\n\"]\n[1,\"r\",\"80x24\"]\n\
                      [0,\"o\",\"\\u001b]0;t\\u0007x\\u009by\\t\"]\n[0,\"x\",\"code 0\"]\n";
        let args = |raw, cast| Args {
            name: AgentName::parse("a").unwrap(),
            follow: false,
            raw,
            cast,
            place: Where::default(),
        };
        let text = |args| String::from_utf8(shown(lines, &args)).unwrap();
        assert_eq!(text(args(false, false)), "red\nx\u{fffd}y\t");
        assert_eq!(text(args(true, false)), "\u{1b}[31mred\u{1b}[m\r\n\u{1b}]0;t\u{7}x\u{9b}y\t");
        assert_eq!(text(args(false, true)).as_bytes(), lines);
    }
}
