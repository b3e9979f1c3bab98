//! One rule: texts that must, may or must not stand in a region of the screen.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::Error as _};

use super::keys::Keys;
use crate::messages::spawn::Autonomy;

/// Where a rule looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `screen`: all of it.
    Screen,
    /// `bottom:N`: the last N rows that show anything.
    Bottom(u16),
    /// `cursor:A,B`: the cursor's row, A rows above and B below.
    Cursor {
        /// Rows above.
        above: u16,
        /// Rows below.
        below: u16,
    },
    /// `title`: the window title.
    Title,
}

/// One rule. It matches when all of `all`, one of `any` (if there are any) and none of `not` are there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name in explanations; no two rules of a set have the same.
    pub id: String,
    /// Where it looks.
    pub region: Place,
    /// All of these.
    #[serde(default)]
    pub all: Vec<String>,
    /// One of these.
    #[serde(default)]
    pub any: Vec<String>,
    /// None of these.
    #[serde(default)]
    pub not: Vec<String>,
    /// Only until the first message was typed: from then on the screen shows what others wrote, and whoever
    /// quotes a dialog must not be able to open one.
    #[serde(default)]
    pub fresh: bool,
    /// Nobody has recorded a screen that it matches: it stands on a report alone.
    #[serde(default)]
    pub unseen: bool,
}

/// What a dialog keeps from happening.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// One step: the agent asks whether it may do something.
    #[default]
    Question,
    /// The start: the program will not begin until this is answered.
    Setup,
    /// Everything: it is not signed in, and no answer typed here may help.
    Auth,
}

/// A rule for a question that no message answers, and the keys that do.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "DialogTable")]
pub struct Dialog {
    /// When it is open.
    pub rule: Rule,
    /// What it keeps from happening.
    pub severity: Severity,
    /// Where the question stands, when that is more than where the rule looks.
    pub shows: Option<Place>,
    /// Choices by name and the keys that take them. Nothing of this is ever typed unless somebody who may
    /// answers, or has done so with the spawn: see `granted`.
    pub answer: BTreeMap<String, Keys>,
    /// The choice that a spawn has made by its autonomy.
    pub granted: BTreeMap<Autonomy, String>,
}

/// A [`Dialog`] as it is written: one table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DialogTable {
    id: String,
    region: Place,
    #[serde(default)]
    all: Vec<String>,
    #[serde(default)]
    any: Vec<String>,
    #[serde(default)]
    not: Vec<String>,
    #[serde(default)]
    fresh: bool,
    #[serde(default)]
    unseen: bool,
    #[serde(default)]
    severity: Severity,
    #[serde(default)]
    shows: Option<Place>,
    #[serde(default)]
    answer: BTreeMap<String, Keys>,
    #[serde(default)]
    granted: BTreeMap<Autonomy, String>,
}

impl Dialog {
    /// The part of the screen that a person reads to answer it.
    pub fn shown(&self) -> Place {
        self.shows.unwrap_or(self.rule.region)
    }

    /// The choice that is made already where so much may be done without asking.
    pub fn granted(&self, autonomy: Autonomy) -> Option<&str> {
        self.granted.range(..=autonomy).next_back().map(|(_, choice)| choice.as_str())
    }
}

impl From<DialogTable> for Dialog {
    fn from(table: DialogTable) -> Self {
        let DialogTable { id, region, all, any, not, fresh, unseen, severity, shows, answer, granted } =
            table;
        Self { rule: Rule { id, region, all, any, not, fresh, unseen }, severity, shows, answer, granted }
    }
}

impl Rule {
    /// True when the rule matches a screen, whose regions `look` gives.
    pub fn matches(&self, look: impl FnOnce(Place) -> String) -> bool {
        let seen = look(self.region);
        self.all.iter().all(|text| seen.contains(text))
            && (self.any.is_empty() || self.any.iter().any(|text| seen.contains(text)))
            && !self.not.iter().any(|text| seen.contains(text))
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(text: D) -> Result<Self, D::Error> {
        let text = String::deserialize(text)?;
        parse(&text).ok_or_else(|| {
            D::Error::custom(format!("no region `{text}`; use screen, title, bottom:N or cursor:ABOVE,BELOW"))
        })
    }
}

fn parse(text: &str) -> Option<Place> {
    match text.split_once(':') {
        None if text == "screen" => Some(Place::Screen),
        None if text == "title" => Some(Place::Title),
        Some(("bottom", rows)) => rows.parse().ok().filter(|rows| *rows > 0).map(Place::Bottom),
        Some(("cursor", rows)) => {
            let (above, below) = rows.split_once(',')?;
            Some(Place::Cursor { above: above.parse().ok()?, below: below.parse().ok()? })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_wants_all_one_and_none() {
        let rule = Rule {
            id: "r".into(),
            region: Place::Screen,
            all: vec!["a".into(), "b".into()],
            any: vec!["c".into(), "d".into()],
            not: vec!["x".into()],
            fresh: false,
            unseen: false,
        };
        for (seen, matches) in [("abc", true), ("abd", true), ("ab", false), ("acd", false), ("abcx", false)]
        {
            assert_eq!(rule.matches(|_| seen.to_owned()), matches, "{seen}");
        }
    }

    #[test]
    fn regions_are_read() {
        assert_eq!(parse("bottom:12"), Some(Place::Bottom(12)));
        assert_eq!(parse("cursor:3,1"), Some(Place::Cursor { above: 3, below: 1 }));
        assert_eq!(parse("title"), Some(Place::Title));
        for bad in ["", "bottom", "bottom:x", "bottom:0", "cursor:3", "cursor:3,-1", "left"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_dialog_is_a_rule_with_answers() {
        let text = "id = 'trust'\nregion = 'bottom:9'\nany = ['Trust?']\nseverity = 'setup'\n\
                    answer = { trust = '1 enter', quit = 'esc' }";
        let dialog: Dialog = toml::from_str(text).unwrap();
        assert_eq!((dialog.rule.id.as_str(), dialog.severity), ("trust", Severity::Setup));
        assert_eq!(dialog.answer["trust"].sent(), "1\r");
        let misspelt = toml::from_str::<Dialog>(&text.replace("answer", "anwser")).unwrap_err();
        assert!(misspelt.to_string().contains("anwser"), "{misspelt}");
    }
}
