//! The rule sets that are compiled in: the only place in the code where programs have names.

/// What a spawn runs that names no program (upstream's default).
pub const DEFAULT_PROGRAM: &str = "claude";

/// The text of every file in `data/`.
pub(super) const FILES: [&str; 15] = [
    include_str!("data/aider.toml"),
    include_str!("data/amp.toml"),
    include_str!("data/auto.toml"),
    include_str!("data/claude.toml"),
    include_str!("data/codex.toml"),
    include_str!("data/copilot.toml"),
    include_str!("data/cursor-agent.toml"),
    include_str!("data/droid.toml"),
    include_str!("data/gemini.toml"),
    include_str!("data/generic.toml"),
    include_str!("data/goose.toml"),
    include_str!("data/opencode.toml"),
    include_str!("data/plain.toml"),
    include_str!("data/qwen.toml"),
    include_str!("data/unknown.toml"),
];
