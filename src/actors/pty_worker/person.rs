//! A person at the same keyboard: while they type nobody else does, and their words are never submitted.
//!
//! What they have typed since their last Enter may stand in the composer. It is theirs until the composer
//! looks again as it did before the first of those keys, or its rule set says that it is empty.

use std::time::{Duration, Instant};

/// Nobody else types for this long after a person's key (spec/pty 9.5).
pub(super) const TYPING: Duration = Duration::from_secs(8);

/// The person. See the module.
#[derive(Debug, Default)]
pub(super) struct Person {
    last: Option<Instant>,
    draft: Option<Draft>,
    beside: Beside,
}

/// Words that may stand in the composer.
#[derive(Debug, PartialEq, Eq)]
struct Draft {
    /// What stood before the cursor when it was begun; `None` when nobody saw it.
    resting: Option<String>,
}

/// What a person did since our text was typed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Beside {
    /// They are typing at this moment.
    pub typing: bool,
    /// Bytes that they have typed.
    pub bytes: usize,
    /// They have pressed Enter.
    pub entered: bool,
}

impl Person {
    /// Keys of theirs. `resting` is what stands before the cursor now, `None` when these keys do not go into a
    /// composer.
    pub(super) fn types(&mut self, keys: &[u8], resting: Option<String>, now: Instant) {
        if is_report(keys) {
            return;
        }
        self.last = Some(now);
        self.beside.bytes += keys.len();
        let after = after_submit(keys);
        self.beside.entered |= after.is_some();
        match (after, resting) {
            (_, None) => {}
            (None, Some(resting)) => {
                self.draft.get_or_insert(Draft { resting: Some(resting) });
            }
            (Some([]), Some(_)) => self.draft = None,
            (Some(_), Some(_)) => self.draft = Some(Draft { resting: None }),
        }
    }

    /// Our text is typed now.
    pub(super) fn step_aside(&mut self) {
        self.beside = Beside::default();
    }

    /// What they did since then.
    pub(super) fn beside(&self, now: Instant) -> Beside {
        Beside { typing: self.typing_until(now).is_some(), ..self.beside }
    }

    /// Until when nobody else types.
    pub(super) fn typing_until(&self, now: Instant) -> Option<Instant> {
        self.last.map(|last| last + TYPING).filter(|until| *until > now)
    }

    /// They have typed something since their last Enter.
    pub(super) fn may_have_draft(&self) -> bool {
        self.draft.is_some()
    }

    /// Looks whether their words stand in the composer: `before_cursor` is what does before the cursor, `empty`
    /// what the rule set says, if it can tell. Once it is clean it stays so until they type again.
    pub(super) fn has_draft(&mut self, before_cursor: &str, empty: Option<bool>) -> bool {
        let Some(draft) = &self.draft else { return false };
        let clean = empty.unwrap_or_else(|| draft.resting.as_deref() == Some(before_cursor));
        if clean {
            self.draft = None;
        }
        !clean
    }
}

/// A terminal's own news of its focus, which nobody typed.
fn is_report(keys: &[u8]) -> bool {
    matches!(keys, b"\x1b[I" | b"\x1b[O")
}

/// What comes after the last key that empties a composer: Enter or Ctrl-C, but no line break of a paste and no
/// Enter with Alt. `None` when there is none.
fn after_submit(keys: &[u8]) -> Option<&[u8]> {
    let paste_end = b"\x1b[201~";
    let from = keys
        .windows(paste_end.len())
        .rposition(|part| part == paste_end)
        .map_or(0, |at| at + paste_end.len());
    if from == 0 && keys.starts_with(b"\x1b[200~") {
        return None;
    }
    let ends = |at: usize| matches!(keys[at], b'\r' | b'\n' | 0x03) && (at == 0 || keys[at - 1] != 0x1b);
    let at = (from..keys.len()).rev().find(|at| ends(*at))?;
    keys.get(at + 1..)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt() -> Option<String> {
        Some(">".to_owned())
    }

    #[test]
    fn a_key_holds_everybody_else_back_for_eight_seconds() {
        let (mut person, now) = (Person::default(), Instant::now());
        assert_eq!(person.typing_until(now), None);
        person.types(b"\x1b[I", prompt(), now);
        assert_eq!(person.typing_until(now), None, "a window got the focus");
        person.types(b"a", prompt(), now);
        assert_eq!(person.typing_until(now), Some(now + TYPING));
        assert!(person.beside(now).typing);
        assert_eq!(person.typing_until(now + TYPING), None);
    }

    #[test]
    fn words_are_theirs_until_the_composer_is_as_it_was() {
        let (mut person, now) = (Person::default(), Instant::now());
        assert!(!person.has_draft(">", None));
        person.types(b"hal", prompt(), now);
        person.types(b"f", Some(">hal".to_owned()), now);
        assert!(person.has_draft(">half", None));
        assert!(!person.has_draft(">", None), "they took it away");
        assert!(!person.has_draft(">half", None), "nobody has typed since");
        person.types(b"half", prompt(), now);
        assert!(!person.has_draft(">half", Some(true)), "the rule set knows better");
    }

    #[test]
    fn enter_ends_a_draft_and_what_looks_like_it_does_not() {
        let table: [(&[u8], bool); 8] = [
            (b"done\r", false),
            (b"stop\x03", false),
            (b"one\rtwo", true),
            (b"\x1b\r", true),
            (b"\x1b[200~one\rtwo\x1b[201~", true),
            (b"\x1b[200~one\rtwo", true),
            (b"\x1b[200~one\x1b[201~\r", false),
            (b"\x1b[A", true),
        ];
        for (keys, drafts) in table {
            let (mut person, now) = (Person::default(), Instant::now());
            person.types(b"x", prompt(), now);
            person.types(keys, prompt(), now);
            assert_eq!(person.has_draft(">x", None), drafts, "{:?}", String::from_utf8_lossy(keys));
        }
    }

    #[test]
    fn keys_that_go_into_no_composer_leave_no_words_there() {
        let (mut person, now) = (Person::default(), Instant::now());
        person.types(b"1", None, now);
        assert!(!person.has_draft("anything", None));
        assert!(person.typing_until(now).is_some());
    }

    #[test]
    fn what_they_did_beside_our_text_is_counted_from_when_it_was_typed() {
        let (mut person, now) = (Person::default(), Instant::now());
        person.types(b"before\r", prompt(), now);
        person.step_aside();
        assert_eq!(person.beside(now + TYPING), Beside::default());
        person.types(b"ab", prompt(), now);
        assert_eq!(person.beside(now + TYPING), Beside { typing: false, bytes: 2, entered: false });
        person.types(b"\r", prompt(), now);
        assert!(person.beside(now).entered);
    }
}
