//! The rule sets of this process: those that are compiled in, and what a user puts over them.

use std::{
    path::Path,
    sync::{LazyLock, OnceLock},
};

use super::Harness;

/// The rule set for a program that no other one names.
const DEFAULT: &str = "auto";

const BUILT_IN: [&str; 3] =
    [include_str!("data/plain.toml"), include_str!("data/generic.toml"), include_str!("data/auto.toml")];

static INSTALLED: OnceLock<Vec<Harness>> = OnceLock::new();

static BUILT_IN_SETS: LazyLock<Vec<Harness>> = LazyLock::new(|| {
    // A file that cannot be read is left out; the test below keeps that from happening.
    BUILT_IN.iter().filter_map(|text| Harness::parse(text).ok()).collect()
});

fn all() -> &'static [Harness] {
    INSTALLED.get().unwrap_or_else(|| &*BUILT_IN_SETS)
}

impl Harness {
    /// Reads a rule set.
    ///
    /// # Errors
    /// Not TOML, an unknown field or region, or a field of the wrong type.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// All rule sets of this process.
    pub fn all() -> &'static [Self] {
        all()
    }

    /// The rule set of this name.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        all().iter().find(|harness| harness.name == name)
    }

    /// The rule set for a program as the user wrote it: by the last part of its path, else the default one.
    pub fn for_program(argv0: &str) -> Option<&'static Self> {
        let program = Path::new(argv0).file_name().and_then(|name| name.to_str()).unwrap_or(argv0);
        let named = all().iter().find(|harness| harness.programs.iter().any(|p| p == program));
        named.or_else(|| Self::by_name(DEFAULT))
    }

    /// The rule set that applies once this program has shown a composer.
    pub fn with_composer(&'static self) -> &'static Self {
        self.becomes.as_deref().and_then(Self::by_name).unwrap_or(self)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{ComposerKind, Proof},
        *,
    };

    #[test]
    fn every_file_is_read_and_names_are_unique() {
        for text in BUILT_IN {
            Harness::parse(text).unwrap();
        }
        let mut names: Vec<_> = Harness::all().iter().map(|harness| &harness.name).collect();
        assert_eq!(names.len(), BUILT_IN.len());
        names.sort();
        names.dedup();
        assert_eq!(names.len(), BUILT_IN.len());
        for harness in Harness::all() {
            let becomes = harness.becomes.as_deref();
            assert_eq!(becomes.is_some(), harness.composer.kind == ComposerKind::Seen, "{}", harness.name);
            assert!(becomes.is_none_or(|name| Harness::by_name(name).is_some()));
            assert_eq!(harness.composer.kind != ComposerKind::Always, harness.proof == Proof::Consumed);
        }
    }

    #[test]
    fn an_unknown_program_gets_the_rules_that_watch_what_it_does() {
        let harness = Harness::for_program("/usr/local/bin/whatever").unwrap();
        assert_eq!((harness.name.as_str(), harness.composer.kind), ("auto", ComposerKind::Seen));
        assert_eq!(harness.with_composer().composer.kind, ComposerKind::Always);
        assert!(Harness::by_name("nonsense").is_none());
    }

    #[test]
    fn a_misspelt_field_is_refused() {
        let text = BUILT_IN[0].replace("quiet_ms", "qiuet_ms");
        assert!(Harness::parse(&text).unwrap_err().to_string().contains("qiuet_ms"));
        let text = BUILT_IN[1].replace("bottom:12", "top:12");
        assert!(Harness::parse(&text).is_err());
    }
}
