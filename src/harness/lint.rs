//! What a rule set's text must be, beyond what its types say, and on which line it is not.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use toml::de::{DeTable, DeValue};

use super::{
    arguments::BROKER,
    schema::{Busy, ComposerKind, Harness, MAX_WAIT, Proof, Queue, Steer, TurnRule},
};
use crate::{ids::AgentName, messages::spawn::Autonomy};

/// Records are looked for at most so many directories deep.
const DEPTH_MAX: u8 = 8;
/// A body shorter than this could not say where the rest is.
const BODY_MIN: usize = 256;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// On which line, first is 1.
    pub line: usize,
    /// In words.
    pub said: String,
}

/// Reads a rule set by itself.
///
/// # Errors
/// Everything that is wrong with it; text that is not TOML, or has an unknown field or a value of the wrong
/// type, is one fault, and nothing behind it is looked at.
pub fn read(text: &str) -> Result<Harness, Vec<Fault>> {
    let harness: Harness = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        vec![Fault { line: line_at(text, at), said: error.message().to_owned() }]
    })?;
    let mut lint = Lint { text, faults: Vec::new() };
    lint.names(&harness);
    lint.rules(&harness);
    lint.dialogs(&harness);
    lint.sense(&harness);
    lint.arguments(&harness);
    lint.records(&harness);
    lint.mcp(&harness);
    if lint.faults.is_empty() { Ok(harness) } else { Err(lint.faults) }
}

/// The same for a file, which is named like what is in it.
///
/// # Errors
/// As for [`read`].
pub fn read_file(file: &Path, text: &str) -> Result<Harness, Vec<Fault>> {
    let harness = read(text)?;
    if file.file_stem().is_some_and(|stem| stem == harness.name.as_str()) {
        return Ok(harness);
    }
    let said = format!("the set is named `{}`; name the file `{0}.toml`", harness.name);
    Err(vec![fault(text, "name", said)])
}

/// A fault on the line of a key: `name`, `busy.steer`, `blocked.1.answer`.
pub(super) fn fault(text: &str, key: &str, said: String) -> Fault {
    let at = DeTable::parse(text).ok().and_then(|table| position(table.get_ref(), key));
    Fault { line: line_at(text, at.unwrap_or(0)), said }
}

/// Where a key stands, or the innermost table of its way that is there.
fn position(table: &DeTable<'_>, key: &str) -> Option<usize> {
    let (first, rest) = key.split_once('.').unwrap_or((key, ""));
    let (found, value) = table.iter().find(|(name, _)| name.get_ref() == first)?;
    inside(value.get_ref(), rest).or(Some(found.span().start))
}

fn inside(value: &DeValue<'_>, key: &str) -> Option<usize> {
    if let Some(table) = value.as_table() {
        return position(table, key);
    }
    let (nth, rest) = key.split_once('.').unwrap_or((key, ""));
    let element = value.as_array()?.get(nth.parse::<usize>().ok()?)?;
    inside(element.get_ref(), rest).or(Some(element.span().start))
}

fn line_at(text: &str, byte: usize) -> usize {
    1 + text.bytes().take(byte).filter(|byte| *byte == b'\n').count()
}

struct Lint<'a> {
    text: &'a str,
    faults: Vec<Fault>,
}

impl Lint<'_> {
    fn wrong(&mut self, key: &str, said: impl Into<String>) {
        self.faults.push(fault(self.text, key, said.into()));
    }

    fn names(&mut self, harness: &Harness) {
        if AgentName::parse(&harness.name).is_err() {
            self.wrong("name", "use letters, digits, dots, dashes and underscores");
        }
        for (nth, program) in harness.programs.iter().enumerate() {
            if program.is_empty() || program.contains('/') {
                let said = format!("`{program}` is not the name of a program; leave its directories out");
                self.wrong(&format!("match.{nth}"), said);
            }
        }
    }

    fn rules(&mut self, harness: &Harness) {
        let lists = [
            ("ready.rules", harness.ready.rules.iter().collect::<Vec<_>>()),
            ("idle", harness.idle.iter().collect()),
            ("working", harness.working.iter().collect()),
            ("blocked", harness.blocked.iter().map(|dialog| &dialog.rule).collect()),
        ];
        let mut ids = BTreeSet::new();
        for (list, rules) in lists {
            for (nth, rule) in rules.into_iter().enumerate() {
                if !ids.insert(&rule.id) {
                    self.wrong(&format!("{list}.{nth}.id"), format!("there are two rules `{}`", rule.id));
                }
                if rule.all.is_empty() && rule.any.is_empty() {
                    let said = format!("rule `{}` would match every screen; say `all` or `any`", rule.id);
                    self.wrong(&format!("{list}.{nth}"), said);
                }
                for (key, texts) in [("all", &rule.all), ("any", &rule.any), ("not", &rule.not)] {
                    if texts.iter().any(|text| shows_nothing(text) || text.chars().any(char::is_control)) {
                        let said =
                            format!("rule `{}`: a text is blank or holds a control character", rule.id);
                        self.wrong(&format!("{list}.{nth}.{key}"), said);
                    }
                }
            }
        }
    }

    fn dialogs(&mut self, harness: &Harness) {
        for (nth, dialog) in harness.blocked.iter().enumerate() {
            let unknown = dialog.granted.values().find(|choice| !dialog.answer.contains_key(*choice));
            let said = if dialog.granted.contains_key(&Autonomy::Ask) {
                "`ask` grants nothing: use trust_cwd or full".to_owned()
            } else if let Some(choice) = unknown {
                format!("`{choice}` is none of the choices in `answer`")
            } else {
                continue;
            };
            self.wrong(&format!("blocked.{nth}.granted"), said);
        }
    }

    fn sense(&mut self, harness: &Harness) {
        let seen = harness.composer.kind == ComposerKind::Seen;
        if seen != harness.becomes.is_some() {
            self.wrong(
                if seen { "composer.kind" } else { "becomes" },
                "a composer that is `seen` goes with `becomes`, and no other does",
            );
        }
        // Each would be found on every screen: a draft would count for nothing, and a message for pasted.
        if harness.composer.empty.iter().any(|text| shows_nothing(text)) {
            self.wrong("composer.empty", "a placeholder is blank; write what the empty composer says");
        }
        if !harness.composer.paste_marks.iter().all(|mark| mark.contains(char::is_alphanumeric)) {
            self.wrong(
                "composer.paste_marks",
                "a mark has no letter or digit; write what stands for a paste",
            );
        }
        if harness.composer.empty.is_empty() == harness.composer.region.is_some() {
            self.wrong("composer", "`empty` and the `region` it stands in go together");
        }
        if harness.composer.is_always() == (harness.proof == Proof::Consumed) {
            let said = "`consumed` is the proof of a program that has no composer, and its only one";
            self.wrong("proof", said);
        }
        if harness.proof == Proof::Accepted && harness.records.is_none() {
            self.wrong("proof", "`accepted` needs `[records]` to be read off");
        }
        if harness.busy.steer == Steer::Interrupt && harness.busy.interrupt.is_none() {
            self.wrong("busy.steer", "`interrupt` needs the key that interrupts: busy.interrupt");
        }
        self.patience(&harness.busy);
        if !harness.composer.is_always()
            && (harness.busy.steer != Steer::None || harness.busy.queue_key().is_some())
        {
            self.wrong("busy", "only a program with a composer can be told while it works");
        }
        if harness.submit.presses == 0 {
            self.wrong("submit.presses", "at least one");
        }
        if harness.submit.settle > harness.submit.settle_max {
            self.wrong("submit.settle_max_ms", "less than settle_ms");
        }
        if harness.text.body_max < BODY_MIN {
            self.wrong("text.body_max", format!("at least {BODY_MIN}"));
        }
    }

    fn patience(&mut self, busy: &Busy) {
        match &busy.overdue {
            Some(_) if busy.queue != Queue::Hold => {
                self.wrong("busy.overdue", "no message waits that long where `queue` names a key");
            }
            Some(_) if busy.max_wait.is_zero() => {
                self.wrong("busy.max_wait_ms", "for no wait at all, say the key in `queue`");
            }
            None if busy.max_wait != MAX_WAIT => {
                self.wrong("busy.max_wait_ms", "needs the key that is pressed then: busy.overdue");
            }
            Some(_) | None => {}
        }
    }

    fn arguments(&mut self, harness: &Harness) {
        let session = &harness.session;
        for (key, args) in
            [("session.resume_args", &session.resume_args), ("session.id_args", &session.id_args)]
        {
            if !args.is_empty() && !args.iter().any(|arg| arg.contains("{session}")) {
                self.wrong(key, "`{session}` stands in none of these");
            }
        }
        if let Some(recorded) = &session.recorded {
            if harness.records.as_ref().is_none_or(|records| records.query.is_some()) {
                self.wrong("session.recorded", "needs files to look into: [records] without a query");
            }
            for (key, text) in
                [("session.recorded.id", &recorded.id), ("session.recorded.cwd", &recorded.cwd)]
            {
                if text.is_empty() {
                    self.wrong(key, "the text before the value");
                }
            }
        }
        let none = BTreeMap::new();
        let environments = [
            ("launch.env", &harness.launch.env),
            ("mcp.env", harness.mcp.as_ref().map_or(&none, |mcp| &mcp.env)),
            ("autonomy.trust_cwd.env", &harness.autonomy.trust_cwd.env),
            ("autonomy.full.env", &harness.autonomy.full.env),
        ];
        for (key, env) in environments {
            for name in env.keys().filter(|name| name.is_empty() || name.contains(['=', '\0'])) {
                self.wrong(&format!("{key}.{name}"), format!("`{name}` cannot name an environment variable"));
            }
        }
    }

    fn mcp(&mut self, harness: &Harness) {
        let Some(mcp) = &harness.mcp else { return };
        if !mcp.args.iter().chain(mcp.env.values()).any(|text| text.contains(BROKER)) {
            self.wrong("mcp", format!("`{BROKER}`, the program to start, stands nowhere in `args` or `env`"));
        }
    }

    fn records(&mut self, harness: &Harness) {
        let Some(records) = &harness.records else { return };
        if records.dirs.is_empty() {
            self.wrong("records.dirs", "names no directory");
        }
        for (nth, dir) in records.dirs.iter().enumerate() {
            if !(dir.starts_with("~/") || dir.starts_with('$')) {
                let said = format!("`{dir}` starts with neither `~/` nor a variable (`$HOME`)");
                self.wrong(&format!("records.dirs.{nth}"), said);
            }
        }
        if records.file.is_empty() || records.file.contains('/') {
            self.wrong("records.file", "the name of a file, with `*` for any characters");
        }
        if records.depth > DEPTH_MAX {
            self.wrong("records.depth", format!("at most {DEPTH_MAX}"));
        }
        let says_nothing = |turn: &TurnRule| turn.all.iter().all(|text| text.trim().is_empty());
        if records.turns.is_empty() || records.turns.iter().any(says_nothing) {
            self.wrong("records.turns", "`all` says of each what a line of a user's turn holds");
        }
        if records.query.is_some() && (records.depth > 0 || records.file.contains('*')) {
            self.wrong("records.query", "is for one file: without `*`, and right in one of `dirs`");
        }
    }
}

/// True for a text that is in every text.
fn shows_nothing(text: &str) -> bool {
    text.trim().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "name = 'otter'\nmatch = ['otter']\n\n[composer]\nkind = 'always'\n\n\
                        [[working]]\nid = 'w'\nregion = 'bottom:3'\nany = ['busy']\n";

    fn faults(text: &str) -> Vec<(usize, String)> {
        read(text).unwrap_err().into_iter().map(|fault| (fault.line, fault.said)).collect()
    }

    #[test]
    fn what_types_refuse_has_its_line() {
        assert_eq!(read(GOOD).unwrap().name, "otter");
        for (from, to, line, word) in [
            ("match", "macht", 2, "macht"),
            ("'always'", "'sometimes'", 5, "sometimes"),
            ("bottom:3", "top:3", 9, "top:3"),
            ("['busy']", "[", 10, ""),
        ] {
            let found = faults(&GOOD.replace(from, to));
            assert_eq!((found.len(), found[0].0), (1, line), "{to}: {found:?}");
            assert!(found[0].1.contains(word), "{found:?}");
        }
        let keys = faults(&format!("{GOOD}\n[submit]\nkey = 'ctrl-enter'\n"));
        assert!(keys[0].0 == 13 && keys[0].1.contains("ctrl-enter"), "{keys:?}");
    }

    #[test]
    fn what_makes_no_sense_is_found_all_at_once_with_its_lines() {
        let text = GOOD.replace("any = ['busy']", "any = ['']")
            + "\n[[blocked]]\nid = 'w'\nregion = 'title'\n\n[busy]\nsteer = 'interrupt'\n\
               \n[session]\nresume_args = ['-i']\n\n[records]\ndirs = ['/tmp']\nfile = 'a/b'\ndepth = 9\n";
        let found = faults(&text);
        let lines: Vec<_> = found.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [10, 13, 12, 17, 20, 23, 24, 25, 22], "{found:#?}");
    }

    #[test]
    fn a_message_is_overdue_only_where_it_waits_and_a_key_is_known() {
        let busy = |lines: &str| format!("{GOOD}\n[busy]\n{lines}\n");
        assert!(read(&busy("overdue = 'enter'")).is_ok());
        assert!(read(&busy("overdue = 'tab'\nmax_wait_ms = 1000\nsteer = 'enter'")).is_ok());
        for (lines, line, word) in [
            ("queue = 'tab'\noverdue = 'enter'", 14, "`queue` names a key"),
            ("max_wait_ms = 1000", 13, "busy.overdue"),
            ("max_wait_ms = 0\noverdue = 'enter'", 13, "`queue`"),
            ("overdue = 'ctrl-enter'", 13, "ctrl-enter"),
            ("overdue = 'enter'\nmax_wait_ms = -1", 14, ""),
        ] {
            let found = faults(&busy(lines));
            assert_eq!((found.len(), found[0].0), (1, line), "{lines}: {found:?}");
            assert!(found[0].1.contains(word), "{lines}: {found:?}");
        }
        let plain =
            "name = 'otter'\nproof = 'consumed'\n[composer]\nkind = 'never'\n[busy]\noverdue = 'enter'\n";
        assert!(faults(plain)[0].1.contains("composer"), "{:?}", faults(plain));
    }

    #[test]
    fn proof_and_composer_go_together() {
        for (from, to, word) in [
            ("match", "proof = 'consumed'\nmatch", "consumed"),
            ("match", "proof = 'accepted'\nmatch", "[records]"),
            ("match", "becomes = 'x'\nmatch", "becomes"),
            ("always", "seen", "becomes"),
            ("always", "never", "consumed"),
            ("name = 'otter'", "name = 'ot ter'", "letters"),
            ("['otter']", "['/bin/otter']", "directories"),
            ("'always'", "'always'\nempty = ['Ask']", "go together"),
            ("'always'", "'always'\nregion = 'bottom:3'", "go together"),
            ("'always'", "'always'\nregion = 'bottom:3'\nempty = ['Ask', '']", "blank"),
            ("'always'", "'always'\npaste_marks = ['[Pasted', '']", "letter or digit"),
            ("'always'", "'always'\npaste_marks = ['───']", "letter or digit"),
            ("'busy'", "' '", "blank"),
        ] {
            let found = faults(&GOOD.replace(from, to));
            assert!(found.iter().any(|(_, said)| said.contains(word)), "{to}: {found:?}");
        }
    }

    #[test]
    fn a_record_says_what_a_turn_is_and_a_query_is_for_one_file() {
        let good = "[session]\nresume_args = ['-r', '{session}']\n\n[records]\ndirs = ['~/x']\nfile = 'x.db'\n\
                    turns = [{ all = ['user'], not = ['tool'] }]\nquery = 'SELECT 1'\n";
        assert!(read(&format!("{GOOD}\n{good}")).is_ok());
        for (from, to, line, word) in [
            ("all = ['user'], ", "", 18, "user's turn"),
            ("not = ['tool'] }", "not = ['tool'] }, { not = ['x'] }", 18, "user's turn"),
            ("x.db", "*.db", 19, "one file"),
            ("dirs", "depth = 1\ndirs", 20, "one file"),
            ("[records]", "recorded = { id = 'a', cwd = 'b' }\n[records]", 15, "without a query"),
        ] {
            let found = faults(&format!("{GOOD}\n{}", good.replace(from, to)));
            let hit = found.iter().find(|(_, said)| said.contains(word));
            assert_eq!(hit.map(|(line, _)| *line), Some(line), "{to}: {found:?}");
        }
    }

    #[test]
    fn autonomy_takes_a_choice_that_there_is() {
        let good = "[[blocked]]\nid = 'trust'\nregion = 'bottom:3'\nall = ['Trust?']\n\
                    answer = { yes = 'y' }\ngranted = { trust_cwd = 'yes' }\n";
        assert!(read(&format!("{GOOD}\n{good}")).is_ok());
        for (from, to, word) in [("'yes'", "'no'", "`no`"), ("trust_cwd", "ask", "grants nothing")] {
            let found = faults(&format!("{GOOD}\n{}", good.replace(from, to)));
            assert!(matches!(&found[..], [(17, said)] if said.contains(word)), "{to}: {found:?}");
        }
    }

    #[test]
    fn a_file_is_named_like_what_is_in_it() {
        assert!(read_file(Path::new("/x/otter.toml"), GOOD).is_ok());
        let wrong = read_file(Path::new("/x/heron.toml"), GOOD).unwrap_err();
        assert_eq!(wrong[0].line, 1);
        assert!(wrong[0].said.contains("otter.toml"));
    }

    #[test]
    fn tools_name_the_program_to_start() {
        let good = "[mcp]\nargs = ['--tools', '{broker}']\nenv = { TOOLS = 'on' }\n";
        assert!(read(&format!("{GOOD}\n{good}")).is_ok());
        for (from, to, line, word) in [
            ("{broker}", "{cwd}", 12, "{broker}"),
            ("TOOLS", "'TO=OLS'", 14, "environment variable"),
            ("[mcp]", "[mcp]\nstyle = 'file'", 13, "style"),
        ] {
            let found = faults(&format!("{GOOD}\n{}", good.replace(from, to)));
            let hit = found.iter().find(|(_, said)| said.contains(word));
            assert_eq!(hit.map(|(line, _)| *line), Some(line), "{to}: {found:?}");
        }
    }
}
