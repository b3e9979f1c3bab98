//! What a rule set says of one whole screen.

use super::{
    rule::{Dialog, Place, Rule},
    schema::Harness,
};

/// What the rules say. A dialog wins over a turn, and both over being ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// The dialog that is open.
    pub blocked: Option<&'a Dialog>,
    /// Why a turn runs; never together with a rule that says it does not.
    pub working: Option<&'a Rule>,
    /// One of the `ready` rules matches, or there are none.
    pub ready: bool,
}

impl Harness {
    /// Judges a screen whose regions `look` gives. `fresh` as long as no message was typed.
    pub fn judge(&self, fresh: bool, look: impl Fn(Place) -> String) -> Verdict<'_> {
        let matches = |rule: &Rule| (fresh || !rule.fresh) && rule.matches(&look);
        let is_idle = self.idle.iter().any(matches);
        Verdict {
            blocked: self.blocked.iter().find(|dialog| matches(&dialog.rule)),
            working: self.working.iter().find(|rule| !is_idle && matches(rule)),
            ready: self.ready.rules.is_empty() || self.ready.rules.iter().any(matches),
        }
    }
}
