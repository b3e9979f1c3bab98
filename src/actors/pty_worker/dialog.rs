//! A question that a program asks: which one it is, in what words, and the keys that answer it.
//!
//! ```text
//! none --a rule matches--> open --another text--> open, another one
//!   ^-----------none matches-----/
//! ```
//!
//! A question is known by its rule and its words. A moved selection mark or a redrawn border does not make
//! it another one; any other change does, since an answer that was meant for `ls` must not approve `rm`.

use crate::{
    harness::Keys,
    ids::DialogId,
    messages::pty::{AnswerRefused, Dialog},
};

/// The longest text shown, in characters; the end counts, where the choices are.
const TEXT_MAX: usize = 2000;

/// Single keys that answer a dialog whose rule names no answers, as [`Keys`] spells them.
const KEYS: [&str; 17] =
    ["enter", "esc", "up", "down", "tab", "y", "n", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

/// What a rule has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found<'a> {
    /// The rule's name.
    pub rule: &'a str,
    /// The rows that it looked at.
    pub text: String,
    /// Its answers and their keys; none when the rule names none.
    pub answers: Vec<(String, Keys)>,
}

/// The question that is open now.
#[derive(Debug, Default)]
pub(super) struct Dialogs {
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    view: Dialog,
    /// The words alone.
    words: String,
    /// The keys of each choice, in the order of the view.
    keys: Vec<Keys>,
}

impl Dialogs {
    /// What a whole frame shows, after so many bytes of output. True when another question is open than
    /// before, or none any more.
    pub(super) fn see(&mut self, found: Option<Found<'_>>, offset: u64) -> bool {
        let Some(Found { rule, text, answers }) = found else { return self.open.take().is_some() };
        let words: String = text.chars().filter(|c| !is_decoration(*c)).collect();
        if self.open.as_ref().is_some_and(|open| open.view.rule == rule && open.words == words) {
            return false;
        }
        // Within a process the offset grows, and another process that has written as much asks the same.
        let id = DialogId::from(format!("{}-{offset}", rule.replace(' ', "-")));
        let skip = text.chars().count().saturating_sub(TEXT_MAX);
        let single = || KEYS.iter().filter_map(|key| Some(((*key).to_owned(), key.parse().ok()?))).collect();
        let answers: Vec<_> = if answers.is_empty() { single() } else { answers };
        let (choices, keys) = answers.into_iter().unzip();
        let view = Dialog { id, rule: rule.to_owned(), text: text.chars().skip(skip).collect(), choices };
        self.open = Some(Open { view, words, keys });
        true
    }

    /// The open question.
    pub(super) fn view(&self) -> Option<&Dialog> {
        self.open.as_ref().map(|open| &open.view)
    }

    /// The strokes of this choice. `application` says that the program wants its arrows in application mode.
    ///
    /// # Errors
    /// No dialog is open, another one than expected, or one that has no such choice.
    pub(super) fn keys(
        &self,
        choice: &str,
        expected: Option<&DialogId>,
        application: bool,
    ) -> Result<(DialogId, Vec<Vec<u8>>), AnswerRefused> {
        let open = self.open.as_ref().ok_or(AnswerRefused::NoDialog)?;
        let id = open.view.id.clone();
        if expected.is_some_and(|expected| *expected != id) {
            return Err(AnswerRefused::Changed { now: id });
        }
        let place = open.view.choices.iter().position(|known| known.eq_ignore_ascii_case(choice.trim()));
        let keys = place.and_then(|place| open.keys.get(place)).ok_or_else(|| {
            AnswerRefused::UnknownChoice { choice: choice.to_owned(), choices: open.view.choices.clone() }
        })?;
        let stroke = |stroke: &str| match stroke.strip_prefix("\x1b[") {
            Some(arrow @ ("A" | "B" | "C" | "D")) if application => format!("\x1bO{arrow}").into_bytes(),
            _ => stroke.as_bytes().to_vec(),
        };
        Ok((id, keys.strokes().map(stroke).collect()))
    }
}

/// What a redraw may change although the question is the same.
fn is_decoration(c: char) -> bool {
    c.is_whitespace()
        || matches!(c, '>' | '❯' | '›' | '▶' | '▸' | '●' | '○' | '◉' | '◯' | '\u{2500}'..='\u{259f}' | '\u{2800}'..='\u{28ff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Found<'_> {
        let answers =
            [("yes", "y"), ("no", "down enter")].map(|(choice, keys)| (choice.into(), keys.parse().unwrap()));
        Found { rule: "run a command", text: text.to_owned(), answers: answers.into() }
    }

    #[test]
    fn a_question_stays_the_same_while_its_words_do() {
        let mut dialogs = Dialogs::default();
        assert!(!dialogs.see(None, 1));
        assert!(dialogs.see(Some(found("Run `ls`?\n❯ 1. Yes\n  2. No")), 10));
        let id = dialogs.view().unwrap().id.clone();
        assert_eq!(id.as_str(), "run-a-command-10");
        assert!(!dialogs.see(Some(found("│ Run `ls`?\n│  1. Yes\n│❯ 2. No")), 20), "the mark has moved");
        assert_eq!(dialogs.view().unwrap().id, id);
        assert!(dialogs.see(Some(found("Run `rm`?\n❯ 1. Yes\n  2. No")), 30));
        assert_ne!(dialogs.view().unwrap().id, id);
        assert!(dialogs.see(None, 40));
        assert_eq!(dialogs.view(), None);
    }

    #[test]
    fn an_answer_is_checked_against_what_is_open() {
        let mut dialogs = Dialogs::default();
        assert_eq!(dialogs.keys("yes", None, false), Err(AnswerRefused::NoDialog));
        dialogs.see(Some(found("Run `ls`?")), 10);
        let id = dialogs.view().unwrap().id.clone();
        assert_eq!(dialogs.keys(" Yes", Some(&id), false), Ok((id.clone(), vec![b"y".to_vec()])));
        assert_eq!(dialogs.keys("no", None, false).unwrap().1, [b"\x1b[B".to_vec(), b"\r".to_vec()]);
        let unknown = dialogs.keys("3", None, false).unwrap_err();
        assert_eq!(unknown.to_string(), "this dialog has no choice `3`; it takes: yes, no");
        dialogs.see(Some(found("Run `rm`?")), 20);
        let now = dialogs.view().unwrap().id.clone();
        assert_eq!(dialogs.keys("yes", Some(&id), false), Err(AnswerRefused::Changed { now }));
    }

    #[test]
    fn a_rule_without_answers_takes_single_keys() {
        let mut dialogs = Dialogs::default();
        dialogs.see(Some(Found { answers: Vec::new(), ..found("Continue?") }), 1);
        let keys = |choice, application| dialogs.keys(choice, None, application).map(|(_, keys)| keys);
        assert_eq!(keys("enter", false), Ok(vec![b"\r".to_vec()]));
        assert_eq!(keys("down", false), Ok(vec![b"\x1b[B".to_vec()]));
        assert_eq!(keys("down", true), Ok(vec![b"\x1bOB".to_vec()]));
        for refused in ["", "rm", "enter enter", "ctrl-c", "yy"] {
            assert!(matches!(keys(refused, false), Err(AnswerRefused::UnknownChoice { .. })), "{refused:?}");
        }
    }

    #[test]
    fn a_long_question_shows_its_end() {
        let mut dialogs = Dialogs::default();
        dialogs.see(Some(found(&format!("{}the choices", "é".repeat(3000)))), 1);
        let text = &dialogs.view().unwrap().text;
        assert_eq!(text.chars().count(), TEXT_MAX);
        assert!(text.ends_with("the choices"));
    }
}
