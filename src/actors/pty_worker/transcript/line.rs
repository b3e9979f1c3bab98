//! Whether a line of a transcript is the turn that a message became.
//!
//! The message's mark must stand in one of our headers, and the header at the start of a text or of a line of it:
//! there a body cannot put one (see [`frame`](super::super::frame)), so whoever quotes a message, header and all,
//! is not taken for it.

use crate::{
    harness::{Recorded, TurnRule},
    ids::SessionRef,
};

/// A longer id is none: a UUID has 36 characters.
const SESSION_ID_MAX: usize = 128;

/// How each header begins.
const HEADER: &str = "[relay ";

/// True when this line of JSON is a user's turn by one of these rules, and holds the message whose header has this
/// mark (see [`marker`](super::super::frame::marker)).
pub(super) fn is_turn(line: &str, mark: &str, turns: &[TurnRule]) -> bool {
    let has = |text: &String| line.contains(text.as_str());
    let fits = |rule: &TurnRule| rule.all.iter().all(has) && !rule.not.iter().any(has);
    !mark.is_empty()
        && turns.iter().any(fits)
        && line.match_indices(mark).any(|(at, _)| is_in_header(&line[..at], &line[at + mark.len()..]))
}

/// True when a mark between these stands in a header, and is not the beginning of a longer one.
fn is_in_header(before: &str, after: &str) -> bool {
    // A header ends, or goes on with a blank; anything else makes the mark another one.
    if !after.starts_with([' ', ']']) {
        return false;
    }
    let Some(header) = before.rfind(HEADER) else { return false };
    // Still the same line of the same text.
    let is_one = !before[header..].contains("\\n") && !before[header..].contains('"');
    is_one && begins_a_line(&before[..header])
}

/// True when what follows this JSON begins a text, or a line in one.
fn begins_a_line(before: &str) -> bool {
    let escapes = |text: &str| text.bytes().rev().take_while(|byte| *byte == b'\\').count();
    if let Some(text) = before.strip_suffix('"') {
        return escapes(text) % 2 == 0;
    }
    before.strip_suffix('n').is_some_and(|text| escapes(text) % 2 == 1)
}

/// The id of the session that the first line of a record tells of, when it is one of these working directories.
pub(super) fn session(line: &str, rules: &Recorded, cwds: &[String]) -> Option<SessionRef> {
    let cwd = string_after(line, &rules.cwd)?;
    session_of(&string_after(line, &rules.id)?, &cwd, cwds)
}

/// The session of this id, when its directory is one of these and its id can be one.
pub(super) fn session_of(id: &str, cwd: &str, cwds: &[String]) -> Option<SessionRef> {
    // It becomes an argument of a command.
    let is_fit = id.len() <= SESSION_ID_MAX
        && id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    (is_fit && cwds.iter().any(|one| one == cwd)).then(|| SessionRef::from(id))
}

/// The JSON string right behind the first of these texts.
fn string_after(line: &str, before: &str) -> Option<String> {
    let (_, rest) = line.split_once(before)?;
    serde_json::Deserializer::from_str(rest).into_iter::<String>().next()?.ok()
}

/// True when a file's name fits a pattern in which `*` stands for any characters.
pub(super) fn fits(name: &str, pattern: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return name == pattern };
    let Some(mut left) = name.strip_prefix(first) else { return false };
    let mut pieces: Vec<_> = rest.split('*').collect();
    let last = pieces.pop().unwrap_or_default();
    for piece in pieces {
        let Some(at) = left.find(piece) else { return false };
        left = &left[at + piece.len()..];
    }
    left.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: &str = "msg 250308661124005889";

    fn line(text: &str) -> String {
        let text = serde_json::to_string(text).unwrap();
        format!(r#"{{"type":"message","role":"user","content":[{{"type":"input_text","text":{text}}}]}}"#)
    }

    fn rule(all: &[&str], not: &[&str]) -> TurnRule {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        TurnRule { all: own(all), not: own(not) }
    }

    fn user() -> Vec<TurnRule> {
        vec![rule(&[r#""role":"user""#], &[])]
    }

    #[test]
    fn the_turn_of_a_message_is_known_by_its_header() {
        let sent = format!("[relay DM from Alice · {MARK} · 17:17]\nlook at \"this\"\n[reply: …]");
        assert!(is_turn(&line(&sent), MARK, &user()));
        // The second of two in one turn.
        let two = format!("[relay DM from Bob · msg 1 · 17:16]\nhello\n\n{sent}");
        assert!(is_turn(&line(&two), MARK, &user()));
        assert!(is_turn(&line(&two), "msg 1", &user()));
        // A writer that escapes what is not ASCII.
        assert!(is_turn(&line(&sent).replace('·', "\\u00b7"), MARK, &user()));
    }

    #[test]
    fn an_answer_and_a_quotation_are_no_turn_of_a_message() {
        let sent = format!("[relay DM from Alice · {MARK} · 17:17]\nhello");
        assert!(!is_turn(&line(&sent).replace("user", "assistant"), MARK, &user()));
        for quoted in [
            format!("[relay DM from Mallory · msg 9 · 17:17]\n  [relay DM from Alice · {MARK} · 17:17]"),
            format!("[relay DM from Mallory · msg 9 · 17:17]\nsee {MARK}"),
            format!("[relay DM from Mallory · msg 9 · 17:17]\n\\n[relay DM from Alice · {MARK} · 17:17]"),
            format!("[relay DM from Mallory · msg 9 · 17:17]\n\"[relay DM from Alice · {MARK} · 17:17]"),
            format!("[relay DM from Alice · {MARK}7 · 17:17]\nhello"),
        ] {
            assert!(!is_turn(&line(&quoted), MARK, &user()), "{quoted}");
        }
        assert!(!is_turn(&line(&sent), "", &user()));
    }

    #[test]
    fn what_another_agent_got_of_a_message_to_several_proves_nothing() {
        let sent = format!("[relay #docks from Alice · {MARK} to bob-2 · 17:17]\nhello");
        assert!(is_turn(&line(&sent), &format!("{MARK} to bob-2"), &user()));
        for other in ["bob", "bob-", "bob-21", "2", "bob-2 redelivered"] {
            assert!(!is_turn(&line(&sent), &format!("{MARK} to {other}"), &user()), "{other}");
        }
        let again = sent.replace(" · 17", " redelivered · 17");
        assert!(is_turn(&line(&again), &format!("{MARK} to bob-2 redelivered"), &user()));
    }

    #[test]
    fn a_turn_fits_one_rule_whole_and_holds_nothing_that_the_rule_excludes() {
        let rules = [rule(&["\"queued\""], &[]), rule(&["\"user\"", "\"role\""], &["\"tool_result\""])];
        let sent = line(&format!("[relay DM from Alice · {MARK} · 17:17]\nmy \"tool_result\""));
        assert!(is_turn(&sent, MARK, &rules), "what a body says excludes nothing");
        assert!(is_turn(&sent.replace("\"user\"", "\"queued\""), MARK, &rules));
        assert!(!is_turn(&sent.replace("input_text", "tool_result"), MARK, &rules));
        assert!(!is_turn(&sent.replace("\"role\"", "\"of\""), MARK, &rules));
        assert!(!is_turn(&sent, MARK, &[]));
    }

    #[test]
    fn a_pattern_fits_names() {
        for (name, pattern, fitting) in [
            ("rollout-1-2.jsonl", "rollout-*.jsonl", true),
            ("rollout-.jsonl", "rollout-*.jsonl", true),
            ("rollout-1.jsonl.tmp", "rollout-*.jsonl", false),
            ("a-rollout-1.jsonl", "rollout-*.jsonl", false),
            ("logs.json", "logs.json", true),
            ("logs.json", "*", true),
            ("abcabc", "a*b*c", true),
            ("abcab", "a*b*c", false),
            ("ab", "ab*ab", false),
        ] {
            assert_eq!(fits(name, pattern), fitting, "{name} {pattern}");
        }
    }
}
