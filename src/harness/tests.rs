//! Recorded screens through the real terminal model and the rules.

use std::{collections::BTreeSet, fs, path::Path};

use super::*;
use crate::{
    messages::pty::TermSize,
    screen::{Region, Screen},
};

/// Every recording with its file's name.
fn recordings() -> Vec<(String, Recording)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/harness");
    let mut found = Vec::new();
    for dir in fs::read_dir(root).unwrap() {
        let dir = dir.unwrap().path();
        for file in fs::read_dir(&dir).unwrap() {
            let file = file.unwrap().path();
            let recording: Recording = serde_json::from_str(&fs::read_to_string(&file).unwrap())
                .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            assert_eq!(dir.file_name().unwrap(), recording.harness.as_str(), "{}", file.display());
            found.push((format!("{}/{}", recording.harness, file.file_stem().unwrap().display()), recording));
        }
    }
    assert!(found.len() > 20, "the recordings were not found");
    found
}

/// The screen that a program would have to draw.
fn replay(recording: &Recording) -> Screen {
    let mut screen = Screen::new(TermSize { rows: recording.rows, cols: recording.cols });
    let mut drawn = String::new();
    for mode in &recording.modes {
        drawn += match mode.as_str() {
            "bracketed_paste" => "\x1b[?2004h",
            "alternate_screen" => "\x1b[?1049h",
            "cursor_hidden" => "\x1b[?25l",
            "mouse" => "\x1b[?1000h",
            "application_cursor" => "\x1b[?1h",
            "application_keypad" => "\x1b=",
            other => panic!("mode {other}"),
        };
    }
    drawn += &format!("\x1b]2;{}\x1b\\", recording.title);
    for (nth, row) in recording.screen.iter().enumerate() {
        drawn += &format!("\x1b[{};1H{row}", nth + 1);
    }
    drawn += &format!("\x1b[{};{}H", recording.cursor.0, recording.cursor.1);
    screen.feed(drawn.as_bytes());
    screen
}

fn look(screen: &Screen, place: Place) -> String {
    screen.text(match place {
        Place::Screen => Region::All,
        Place::Bottom(rows) => Region::Bottom(rows),
        Place::Cursor { above, below } => Region::Cursor { above, below },
        Place::Title => Region::Title,
    })
}

/// What the gate would make of it, time apart.
fn judged(harness: &Harness, recording: &Recording) -> String {
    let screen = replay(recording);
    let verdict = harness.judge(!recording.typed, |place| look(&screen, place));
    let composer = screen.bracketed_paste() || (screen.alternate() && !harness.ready.needs_paste);
    match verdict {
        Verdict { blocked: Some(dialog), .. } => format!("blocked:{}", dialog.rule.id),
        _ if !composer || !verdict.ready => "not_ready".to_owned(),
        Verdict { working: Some(_), .. } => "working".to_owned(),
        _ => "idle".to_owned(),
    }
}

#[test]
fn a_long_paste_is_known_by_what_stands_for_it() {
    let catalogue = Catalogue::built_in();
    let pasted: Vec<_> = recordings().into_iter().filter(|(name, _)| name.ends_with("/pasted")).collect();
    assert!(pasted.len() >= 3);
    for (name, recording) in pasted {
        let composer = &catalogue.entry(&recording.harness).unwrap().harness.composer;
        let row = look(&replay(&recording), Place::Cursor { above: 0, below: 0 });
        assert!(composer.paste_marks.iter().any(|mark| row.contains(mark)), "{name}: {row}");
    }
}

#[test]
fn words_in_a_composer_are_never_taken_for_none() {
    let has_words = |name: &str| ["/text-in-composer", "/pasted"].iter().any(|end| name.ends_with(end));
    let typed: Vec<_> = recordings().into_iter().filter(|(name, _)| has_words(name)).collect();
    assert!(typed.len() >= 6);
    for (name, recording) in typed {
        let composer = &Harness::by_name(&recording.harness).unwrap().composer;
        let Some(region) = composer.region else { continue };
        let seen = look(&replay(&recording), region);
        assert!(!composer.empty.iter().any(|text| seen.contains(text)), "{name}: {seen}");
    }
}

#[test]
fn every_recorded_screen_is_judged_as_it_must_be() {
    let catalogue = Catalogue::built_in();
    let mut wrong = Vec::new();
    for (name, recording) in recordings() {
        let harness = &catalogue.entry(&recording.harness).unwrap().harness;
        let judged = judged(harness, &recording);
        if judged != recording.state {
            wrong.push(format!("{name}: must be {}, is judged {judged}", recording.state));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_rule_matches_a_recorded_screen_or_says_that_it_was_never_seen() {
    let recordings = recordings();
    let mut wrong = Vec::new();
    for entry in Catalogue::built_in().entries() {
        // What is inherited is shown where it is written.
        let own: Harness = toml::from_str(&entry.text).unwrap();
        let screens: Vec<_> = recordings
            .iter()
            .filter(|(_, recording)| recording.harness == own.name)
            .map(|(_, recording)| replay(recording))
            .collect();
        for rule in own.rules() {
            let seen = screens.iter().any(|screen| rule.matches(|place| look(screen, place)));
            if seen == rule.unseen {
                wrong.push(format!("{}: rule `{}`: unseen is {}", own.name, rule.id, rule.unseen));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_placeholder_of_a_composer_stands_in_its_region() {
    let mut shown = BTreeSet::new();
    for (_, recording) in recordings() {
        let harness = Harness::by_name(&recording.harness).unwrap();
        let composer = &harness.composer;
        let Some(region) = composer.region else { continue };
        let seen = look(&replay(&recording), region);
        if composer.empty.iter().any(|text| seen.contains(text)) {
            shown.insert(harness.name.as_str());
        }
    }
    for entry in Catalogue::built_in().entries() {
        let harness = &entry.harness;
        let is_shown = harness.composer.empty.is_empty() || shown.contains(harness.name.as_str());
        assert!(is_shown, "{}: no screen shows its placeholder", harness.name);
    }
}
