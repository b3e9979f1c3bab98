//! The fields of a rule set. What is absent takes the default that is named here or in `Default`.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Deserializer};

use super::{
    keys::Keys,
    rule::{Dialog, Rule},
};

/// One rule set: what is known of one program.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Harness {
    /// Its name.
    pub name: String,
    /// The version of the program that its screens were recorded with; absent when all is reported by others
    /// or holds for any program.
    #[serde(default)]
    pub version: Option<String>,
    /// Program names (the last part of `argv[0]`) that it is for.
    #[serde(default, rename = "match")]
    pub programs: Vec<String>,
    /// The rule set whose `idle`, `working` and `blocked` rules are tried after these, and whose paste marks
    /// count too. That one inherits nothing itself.
    #[serde(default)]
    pub inherits: Option<String>,
    /// With `composer.kind = "seen"`: the rule set that applies once a composer was seen.
    #[serde(default)]
    pub becomes: Option<String>,
    /// What must be seen of a message before it counts as delivered.
    #[serde(default)]
    pub proof: Proof,
    /// Where text stands before it is submitted.
    pub composer: Composer,
    /// When it takes messages.
    #[serde(default)]
    pub ready: Ready,
    /// What a message looks like.
    #[serde(default)]
    pub text: Text,
    /// How it is typed and submitted.
    #[serde(default)]
    pub submit: Submit,
    /// How a message reaches it while a turn runs.
    #[serde(default)]
    pub busy: Busy,
    /// No turn runs when one of these matches, whatever `working` says. Meant for titles.
    #[serde(default)]
    pub idle: Vec<Rule>,
    /// A turn runs when one of these matches.
    #[serde(default)]
    pub working: Vec<Rule>,
    /// It waits for an answer that no message is.
    #[serde(default)]
    pub blocked: Vec<Dialog>,
    /// Ends the program politely, typed before any signal is sent.
    #[serde(default)]
    pub quit: Option<Keys>,
    /// What every start of it gets.
    #[serde(default)]
    pub launch: Additions,
    /// How a session is named, learned and taken up again.
    #[serde(default)]
    pub session: Session,
    /// How it is handed the broker's tools; without it, it never is.
    #[serde(default)]
    pub mcp: Option<Mcp>,
    /// Where the program writes down a user's turn itself.
    #[serde(default)]
    pub records: Option<Records>,
    /// What a start gets beyond `launch` when it may do more without asking.
    #[serde(default)]
    pub autonomy: Grants,
}

/// The rung of proof that a delivery must reach (spec/pty 8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// The program has read it. All that can be seen of a program without a composer.
    Consumed,
    /// The composer took it.
    #[default]
    Submitted,
    /// The program's own record shows it. When no record can be found, submitted counts, and is what the
    /// proof says.
    Accepted,
}

/// Whether a program has a composer: a place where text stands before Enter submits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComposerKind {
    /// It reads its input and shows nothing of it that we could judge.
    Never,
    /// It has one.
    Always,
    /// It has one from the moment it switches bracketed paste or the alternate screen on.
    Seen,
}

/// Where text stands before it is submitted.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Composer {
    /// Whether there is one.
    pub kind: ComposerKind,
    /// Where `empty` texts are looked for; there when and only when they are.
    #[serde(default)]
    pub region: Option<super::Place>,
    /// Texts of which one stands in the region when nothing was typed, and none when something was: a
    /// placeholder, but no prompt. Without them words are told from none by what stands before the cursor.
    #[serde(default)]
    pub empty: Vec<String>,
    /// What stands in it for a long paste.
    #[serde(default)]
    pub paste_marks: Vec<String>,
}

/// When a program takes messages (spec/pty 11).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ready {
    /// When there are any, one must match.
    pub rules: Vec<Rule>,
    /// It must take pastes (mode 2004).
    pub needs_paste: bool,
    /// Silence after output.
    #[serde(rename = "quiet_ms", deserialize_with = "ms")]
    pub quiet: Duration,
    /// The same before the first message: longer, since a start-up draws in bursts.
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
#[serde(deny_unknown_fields, default)]
pub struct Text {
    /// Say now and then how to reply.
    pub hints: bool,
    /// The longest body in bytes; a longer one is cut, and says so.
    pub body_max: usize,
}

/// How the lines of a message are typed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Newline {
    /// In one paste; as one line while it takes no pastes.
    #[default]
    Paste,
    /// In one paste; with Ctrl-J between the lines while it takes no pastes.
    CtrlJ,
    /// As one line, always.
    Flatten,
}

/// How a message is typed and submitted (spec/pty 7).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Submit {
    /// Submits, while the program reads keys. A program that reads lines gets a line feed.
    pub key: Keys,
    /// Between the strokes of any keys here: shorter, and a program may take them for one key, or for a paste.
    #[serde(rename = "stroke_gap_ms", deserialize_with = "ms")]
    pub stroke_gap: Duration,
    /// How several lines are typed.
    pub newline: Newline,
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
}

/// Turns longer than this are rare (spec/pty 9.2).
pub(super) const MAX_WAIT: Duration = Duration::from_mins(10);

/// How a message reaches a program while a turn runs (spec/pty 9).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Busy {
    /// A message that waits for the turn's end.
    pub queue: Queue,
    /// With `queue = "hold"`: puts a message that has waited for `max_wait` into the program's own queue. Without it
    /// the message stays, however long the turn is.
    pub overdue: Option<Keys>,
    /// From when the message came to the terminal's worker.
    #[serde(rename = "max_wait_ms", deserialize_with = "ms")]
    pub max_wait: Duration,
    /// A message that is to change the turn's course.
    pub steer: Steer,
    /// Stops a turn; pressed once, and only while one runs.
    pub interrupt: Option<Keys>,
    /// So long it may take until the program is idle after `interrupt`.
    #[serde(rename = "interrupt_wait_ms", deserialize_with = "ms")]
    pub interrupt_wait: Duration,
}

/// A message that waits for the turn's end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Queue {
    /// `hold`: it waits in the broker until the program is idle.
    #[default]
    Hold,
    /// A key (`enter`, `tab`): it is typed and this key puts it into the program's own queue.
    Key(Keys),
}

/// A message that is to change the turn's course.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Steer {
    /// Not known how: it is treated like any other.
    #[default]
    None,
    /// It is typed and submitted while the turn runs.
    Enter,
    /// The turn is interrupted first.
    Interrupt,
}

/// Arguments and environment of a start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Additions {
    /// Arguments, before the caller's own. `{cwd}` is the working directory.
    pub args: Vec<String>,
    /// Environment. What the caller sets wins.
    pub env: BTreeMap<String, String>,
}

/// How a session of the program is named, learned and taken up again. `{session}` is its id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Session {
    /// Takes up a session; stands before everything else, since it may be a subcommand.
    pub resume_args: Vec<String>,
    /// Begins a session under an id of our choice, a UUID.
    pub id_args: Vec<String>,
    /// Arguments by which a caller chooses the session itself: with one of them we add none of ours.
    pub chosen_by: Vec<String>,
    /// What the program writes down of the session it is in. Needs `records`.
    pub recorded: Option<Recorded>,
}

/// Where the first line of a record says which session it is of. Each text stands right before a JSON string, and
/// counts where it comes first.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// Stands before the id.
    pub id: String,
    /// Stands before the working directory, which must be the agent's own.
    pub cwd: String,
}

/// How a program is told of an MCP server beside those of its user, whose files are never touched (spec/pty 10).
///
/// `{broker}` is the broker's own program, as it stands between double quotes of JSON or TOML. The server takes
/// the agent's tokens from its environment: no other way is offered, so none stands on a command line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mcp {
    /// Arguments, before the caller's own.
    pub args: Vec<String>,
    /// Environment. Where a name is set already, by the caller or around the broker, nothing is handed over: its
    /// user has said something with it.
    pub env: BTreeMap<String, String>,
    /// Nobody has seen it work: it is handed over only where that is asked for.
    pub unseen: bool,
}

/// Where a program writes down a user's turn itself: a JSON text in each line of a file, or in the rows of a SQLite
/// database (spec/pty 8). The files are only ever read.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Records {
    /// Directories, of which the first that exists is taken. They start with `~` or a variable (`$HOME`);
    /// one whose variable is not set is passed over.
    pub dirs: Vec<String>,
    /// What a file is named, with `*` for any characters.
    pub file: String,
    /// So many directories below `dirs` files are looked for.
    #[serde(default)]
    pub depth: u8,
    /// A line with the message's header is a user's turn when one of these fits it; there is at least one.
    #[serde(default)]
    pub turns: Vec<TurnRule>,
    /// The file is a SQLite database, and this is asked of it: a JSON text in the first column, which `turns` are for,
    /// and, if there are more, the id of its session and the directory of that. `:since` is the start of the
    /// program, in milliseconds of Unix time.
    #[serde(default)]
    pub query: Option<String>,
}

/// What a line of a record holds when it is a user's turn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TurnRule {
    /// All of these stand in it.
    pub all: Vec<String>,
    /// None of these does.
    pub not: Vec<String>,
}

/// What a start gets when it may do more without asking. `full` includes `trust_cwd`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// It trusts the directory it starts in.
    pub trust_cwd: Additions,
    /// It asks for no permission at all.
    pub full: Additions,
}

impl Harness {
    /// All its rules: ready, idle, working, blocked.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        let dialogs = self.blocked.iter().map(|dialog| &dialog.rule);
        self.ready.rules.iter().chain(&self.idle).chain(&self.working).chain(dialogs)
    }
}

impl Composer {
    /// True when the program has one from the start.
    pub fn is_always(&self) -> bool {
        self.kind == ComposerKind::Always
    }
}

impl Default for Ready {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            needs_paste: false,
            quiet: Duration::from_millis(250),
            first_quiet: Duration::from_millis(600),
            silent: Duration::from_millis(1500),
            life: Duration::from_secs(10),
            startup_timeout: Duration::from_secs(120),
        }
    }
}

impl Default for Text {
    fn default() -> Self {
        Self { hints: true, body_max: 16 * 1024 }
    }
}

impl Default for Submit {
    fn default() -> Self {
        Self {
            key: Keys::enter(),
            stroke_gap: Duration::from_millis(100),
            newline: Newline::Paste,
            settle: Duration::from_millis(300),
            settle_quiet: Duration::from_millis(150),
            settle_max: Duration::from_millis(1500),
            landed: Duration::from_secs(2),
            submitted: Duration::from_millis(1500),
            presses: 3,
        }
    }
}

impl Default for Busy {
    fn default() -> Self {
        Self {
            queue: Queue::Hold,
            overdue: None,
            max_wait: MAX_WAIT,
            steer: Steer::None,
            interrupt: None,
            interrupt_wait: Duration::from_secs(2),
        }
    }
}

impl Submit {
    /// How long to wait before each stroke of some keys: not before the first.
    pub fn gaps(&self) -> impl Iterator<Item = Duration> + use<> {
        std::iter::once(Duration::ZERO).chain(std::iter::repeat(self.stroke_gap))
    }
}

impl Busy {
    /// The key that puts a text into the program's own queue, at once or when it is overdue, where there is one.
    pub fn queue_key(&self) -> Option<&Keys> {
        match &self.queue {
            Queue::Hold => self.overdue.as_ref(),
            Queue::Key(key) => Some(key),
        }
    }
}

impl<'de> Deserialize<'de> for Queue {
    fn deserialize<D: Deserializer<'de>>(words: D) -> Result<Self, D::Error> {
        let words = String::deserialize(words)?;
        match words.as_str() {
            "hold" => Ok(Self::Hold),
            keys => keys.parse().map(Self::Key).map_err(serde::de::Error::custom),
        }
    }
}

fn ms<'de, D: Deserializer<'de>>(number: D) -> Result<Duration, D::Error> {
    u64::deserialize(number).map(Duration::from_millis)
}
