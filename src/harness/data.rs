//! The rule sets that are compiled in: the only place in the code where programs have names.

/// The text of every file in `data/`.
pub(super) const FILES: [&str; 3] =
    [include_str!("data/auto.toml"), include_str!("data/generic.toml"), include_str!("data/plain.toml")];
