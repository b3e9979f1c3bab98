//! What we know of each program that can be an agent, as data: when it is ready, when it is busy, how a
//! message is typed into it, and what proves that it took it.
//!
//! One TOML file per program in `data/`, compiled in. Code never names a program. A rule looks at a region
//! of the screen for plain texts; regions keep a rule from being triggered by what a message merely quotes.

mod rule;

use std::{path::Path, sync::LazyLock, time::Duration};

use serde::{Deserialize, Deserializer};

pub use rule::{Place, Rule};

/// The rule set for a program that no other one names.
const DEFAULT: &str = "auto";

const DATA: [&str; 3] =
    [include_str!("data/plain.toml"), include_str!("data/generic.toml"), include_str!("data/auto.toml")];

static ALL: LazyLock<Vec<Harness>> = LazyLock::new(|| {
    // A file that cannot be read is left out; the test below keeps that from happening.
    DATA.iter().filter_map(|text| Harness::parse(text).ok()).collect()
});

/// Whether a program has a composer: a place where text stands before Enter submits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Composer {
    /// It reads its input and shows nothing of it that we could judge.
    Never,
    /// It has one.
    Always,
    /// It has one from the moment it switches bracketed paste or the alternate screen on.
    Seen,
}

/// One rule set.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Harness {
    /// Its name.
    pub name: String,
    /// Program names (the last part of `argv[0]`) that it is for.
    #[serde(default, rename = "match")]
    pub programs: Vec<String>,
    /// Whether the program has a composer.
    pub composer: Composer,
    /// The rule set that applies once a composer was seen.
    #[serde(default)]
    pub becomes: Option<String>,
    /// When it takes messages.
    pub ready: Ready,
    /// What a message looks like.
    pub text: Text,
    /// How it is typed and submitted.
    #[serde(default)]
    pub submit: Submit,
    /// A turn runs when one of these matches.
    #[serde(default)]
    pub working: Vec<Rule>,
    /// It waits for an answer that no message is.
    #[serde(default)]
    pub blocked: Vec<Rule>,
}

/// When a program takes messages (spec/pty 11).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ready {
    /// Silence after output.
    #[serde(rename = "quiet_ms", deserialize_with = "ms")]
    pub quiet: Duration,
    /// The same before the first message.
    #[serde(rename = "first_quiet_ms", deserialize_with = "ms")]
    pub first_quiet: Duration,
    /// Without a composer: silence since the start.
    #[serde(rename = "silent_ms", deserialize_with = "ms")]
    pub silent: Duration,
    /// Without a composer: ready at this age whatever it does.
    #[serde(rename = "life_ms", deserialize_with = "ms")]
    pub life: Duration,
    /// With a composer: not ready at this age means blocked; nothing is typed.
    #[serde(rename = "startup_timeout_ms", deserialize_with = "ms")]
    pub startup_timeout: Duration,
}

/// What a message looks like.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// Say now and then how to reply.
    pub hints: bool,
    /// The longest body in bytes; a longer one is cut, and says so.
    pub body_max: usize,
}

/// How a message is typed and submitted (spec/pty 7).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Submit {
    /// The key that submits, in raw mode.
    pub raw: String,
    /// The end of a line, in canonical mode.
    pub canonical: String,
    /// From the end of the text to the key: shorter, and it counts as a part of a paste.
    #[serde(rename = "settle_ms", deserialize_with = "ms")]
    pub settle: Duration,
    /// Silence wanted before the key.
    #[serde(rename = "settle_quiet_ms", deserialize_with = "ms")]
    pub settle_quiet: Duration,
    /// Longest wait for that silence.
    #[serde(rename = "settle_max_ms", deserialize_with = "ms")]
    pub settle_max: Duration,
    /// Within this the text shows.
    #[serde(rename = "landed_ms", deserialize_with = "ms")]
    pub landed: Duration,
    /// Within this, times the presses so far, the text leaves the composer.
    #[serde(rename = "submitted_ms", deserialize_with = "ms")]
    pub submitted: Duration,
    /// Most presses of the key.
    pub presses: u8,
    /// What stands in the composer for a long paste.
    pub paste_marks: Vec<String>,
}

impl Default for Ready {
    fn default() -> Self {
        Self {
            quiet: Duration::from_millis(250),
            first_quiet: Duration::from_millis(600),
            silent: Duration::from_millis(1500),
            life: Duration::from_secs(10),
            startup_timeout: Duration::from_secs(120),
        }
    }
}

impl Default for Submit {
    fn default() -> Self {
        Self {
            raw: "\r".to_owned(),
            canonical: "\n".to_owned(),
            settle: Duration::from_millis(300),
            settle_quiet: Duration::from_millis(150),
            settle_max: Duration::from_millis(1500),
            landed: Duration::from_secs(2),
            submitted: Duration::from_millis(1500),
            presses: 3,
            paste_marks: Vec::new(),
        }
    }
}

impl Harness {
    /// Reads a rule set.
    ///
    /// # Errors
    /// Not TOML, an unknown field or region, or a field of the wrong type.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// All rule sets that are compiled in.
    pub fn all() -> &'static [Self] {
        &ALL
    }

    /// The rule set of this name.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|harness| harness.name == name)
    }

    /// The rule set for a program as the user wrote it: by the last part of its path, else the default one.
    pub fn for_program(argv0: &str) -> Option<&'static Self> {
        let program = Path::new(argv0).file_name().and_then(|name| name.to_str()).unwrap_or(argv0);
        let named = ALL.iter().find(|harness| harness.programs.iter().any(|p| p == program));
        named.or_else(|| Self::by_name(DEFAULT))
    }

    /// The rule set that applies once this program has shown a composer.
    pub fn with_composer(&'static self) -> &'static Self {
        self.becomes.as_deref().and_then(Self::by_name).unwrap_or(self)
    }
}

fn ms<'de, D: Deserializer<'de>>(number: D) -> Result<Duration, D::Error> {
    u64::deserialize(number).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_read_and_names_are_unique() {
        for text in DATA {
            Harness::parse(text).unwrap();
        }
        let mut names: Vec<_> = Harness::all().iter().map(|harness| &harness.name).collect();
        assert_eq!(names.len(), DATA.len());
        names.sort();
        names.dedup();
        assert_eq!(names.len(), DATA.len());
        for harness in Harness::all() {
            let becomes = harness.becomes.as_deref();
            assert_eq!(becomes.is_some(), harness.composer == Composer::Seen, "{}", harness.name);
            assert!(becomes.is_none_or(|name| Harness::by_name(name).is_some()));
        }
    }

    #[test]
    fn an_unknown_program_gets_the_rules_that_watch_what_it_does() {
        let harness = Harness::for_program("/usr/local/bin/whatever").unwrap();
        assert_eq!((harness.name.as_str(), harness.composer), ("auto", Composer::Seen));
        assert_eq!(harness.with_composer().composer, Composer::Always);
        assert!(Harness::by_name("nonsense").is_none());
    }

    #[test]
    fn a_misspelt_field_is_refused() {
        let text = DATA[0].replace("quiet_ms", "qiuet_ms");
        assert!(Harness::parse(&text).unwrap_err().to_string().contains("qiuet_ms"));
        let text = DATA[1].replace("bottom:12", "top:12");
        assert!(Harness::parse(&text).is_err());
    }
}
