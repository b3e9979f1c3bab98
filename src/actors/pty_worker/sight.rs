//! Where our text stands on the screen: in the composer, somewhere else, or nowhere.
//!
//! A composer folds text, frames it and indents it, so texts are compared without blanks and vertical borders. Some
//! (prompt_toolkit's) put their prompt before each row: what stands before our text's end may stand before its other
//! rows too. A text that is taller than the screen may show only in part: readline draws its beginning, and on the
//! lowest row its end.
//!
//! With a visible cursor, text stands in the composer when it ends where the cursor is. A program that hides
//! the cursor draws its own: there, text stands in the composer when it is the lowest one on the screen, and
//! it has left when it has moved away from the bottom or is gone.

use crate::screen::{Region, Screen};

/// So many characters at the end of a text identify it (spec/pty 7.5).
const TAIL: usize = 24;
/// With a hidden cursor: the composer is within so many rows of the lowest one that shows anything.
const HIDDEN_ROWS: u16 = 16;

/// The lower border of a composer and what stands below it. A text that was submitted has at least a whole composer
/// below it.
const FRAME_ROWS: usize = 4;
/// The longest prompt that stands before each row of a composer, in bytes.
const ROW_PROMPT_MAX: usize = 24;

/// Where the text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It ends at the cursor, or stands where it landed.
    Composer,
    /// There, but with something that a person has typed.
    Mixed,
    /// It is on the screen.
    Elsewhere,
    /// It is not.
    Nowhere,
}

/// What to look for.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    text: String,
    tail: String,
    marks: Vec<String>,
    /// Rows between the bottom and such a text that stood there before ours was typed.
    before: Option<usize>,
    /// Rows between the bottom and ours, where it landed.
    landed: Option<usize>,
    /// What stood before the cursor before ours was typed: the prompt.
    prompt: String,
}

impl Trace {
    /// The trace of this text; any of `marks` may stand for it when it is long.
    pub(super) fn new(text: &str, marks: &[String]) -> Self {
        let bare = bare(text);
        let skip = bare.chars().count().saturating_sub(TAIL);
        Self {
            tail: bare.chars().skip(skip).collect(),
            marks: marks.iter().map(|mark| self::bare(mark)).collect(),
            before: None,
            landed: None,
            prompt: String::new(),
            text: bare,
        }
    }

    /// Notes what is on the screen before the text is typed.
    pub(super) fn note_before(&mut self, screen: &Screen) {
        self.before = self.height(screen);
        self.landed = None;
        self.prompt = before_cursor(screen);
    }

    /// Looks for the text after so many presses of the submit key, each of which may have made a new line
    /// instead, and after so many bytes that a person typed beside it.
    pub(super) fn place(&mut self, screen: &Screen, presses: u8, beside: usize) -> Place {
        let here = if screen.cursor_visible() {
            self.ends_at_cursor(screen, usize::from(presses.max(1)))
        } else {
            self.is_lowest(screen, usize::from(presses))
        };
        if here && (beside == 0 || self.is_alone(screen)) {
            Place::Composer
        } else if here || (beside > 0 && self.is_followed(screen, beside)) {
            Place::Mixed
        } else if bare(&screen.plain()).contains(&self.tail) || self.is_behind_prompts(screen) {
            Place::Elsewhere
        } else {
            Place::Nowhere
        }
    }

    fn ends_at_cursor(&self, screen: &Screen, blank_rows: usize) -> bool {
        let mut rows = screen.rows_to_cursor();
        if self.is_continued(&rows, blank_rows) || self.fills(&rows, screen) {
            return true;
        }
        let mut blank = 0;
        while rows.last().is_some_and(|row| bare(row).is_empty()) {
            if blank == blank_rows || rows.last().is_some_and(|row| row.contains(is_horizontal)) {
                return false;
            }
            blank += 1;
            rows.pop();
        }
        let rows: Vec<_> = rows.iter().map(|row| bare(row)).collect();
        let last = rows.last().map_or("", String::as_str);
        rows.concat().ends_with(&self.tail)
            || self.row_prompt(&rows).is_some()
            || self.marks.iter().any(|mark| last.contains(mark))
    }

    /// What stands before the end of our text, when that is the end of these rows and the same stands before each other
    /// row that it is seen by.
    fn row_prompt<'a>(&self, rows: &'a [String]) -> Option<&'a str> {
        let last = rows.last()?;
        let equal =
            last.chars().rev().zip(self.text.chars().rev()).take_while(|(one, two)| one == two).count();
        let ours = last.char_indices().rev().take(equal);
        let prompts = ours.map(|(at, _)| &last[..at]).filter(|prompt| !prompt.is_empty());
        // The text itself may have a prompt's sign before that row.
        prompts.filter(|prompt| prompt.len() <= ROW_PROMPT_MAX).find(|prompt| self.is_behind(prompt, rows))
    }

    /// True when it is the end of these rows, each of which begins with this prompt.
    fn is_behind(&self, prompt: &str, rows: &[String]) -> bool {
        let mut seen = String::new();
        for row in rows.iter().rev().map_while(|row| row.strip_prefix(prompt)) {
            seen.insert_str(0, row);
            if seen.ends_with(&self.tail) {
                return true;
            }
        }
        false
    }

    /// True when all of it that the screen has room for stands behind a prompt in more than one row, and below it so
    /// many rows at most that the prompt alone stands in.
    fn is_continued(&self, rows: &[String], prompt_rows: usize) -> bool {
        let mut rows = rows.iter().rev().map(|row| bare(row)).peekable();
        let Some(prompt) = rows.peek().cloned().filter(|row| (1..=ROW_PROMPT_MAX).contains(&row.len()))
        else {
            return false;
        };
        let mut below = 0;
        while rows.next_if_eq(&prompt).is_some() {
            below += 1;
        }
        let (mut seen, mut count) = (String::new(), 0);
        for row in rows {
            let Some(row) = row.strip_prefix(&prompt) else { return false };
            seen.insert_str(0, row);
            count += 1;
            if seen.len() >= self.text.len() {
                break;
            }
        }
        below <= prompt_rows && count > 1 && self.text.ends_with(&seen)
    }

    /// True when the whole screen down to the cursor shows nothing but ours, its end behind a part of what comes before:
    /// what the screen has no room for was left out.
    fn fills(&self, rows: &[String], screen: &Screen) -> bool {
        let Some((last, above)) = rows.split_last() else { return false };
        let last = bare(last);
        let above: String = above.iter().map(|row| bare(row)).collect();
        let is_full = rows.len() == usize::from(screen.size().rows) && above.chars().count() >= TAIL;
        let before = self.text.strip_suffix(&last).filter(|_| is_full && !last.is_empty());
        before.is_some_and(|before| before.contains(&above))
    }

    /// True when it ends in any row, with a prompt before each of its rows.
    fn is_behind_prompts(&self, screen: &Screen) -> bool {
        let rows: Vec<_> = screen.rows(Region::All).iter().map(|row| bare(row)).collect();
        (1..=rows.len()).any(|end| self.row_prompt(&rows[..end]).is_some())
    }

    /// True when nothing but the prompt stands before ours, and nothing after it.
    fn is_alone(&self, screen: &Screen) -> bool {
        self.views(screen).iter().any(|rows| self.is_alone_in(rows, screen))
    }

    fn is_alone_in(&self, rows: &[String], screen: &Screen) -> bool {
        let visible = screen.cursor_visible();
        let (text, ends) = joined(rows);
        let ours = |wanted: &String| text.rfind(wanted.as_str()).map(|from| (from, from + wanted.len()));
        let whole = ours(&self.text);
        let Some((from, to)) = whole.or_else(|| self.marks.iter().find_map(ours)) else { return false };
        let row_of = |at: usize| ends.iter().position(|end| at <= *end).unwrap_or(0);
        let row_start = row_of(from + 1).checked_sub(1).map_or(0, |above| ends[above]);
        let before = text.get(row_start..from).unwrap_or_default();
        // What a program without a cursor prompts with is a sign or two.
        let only_prompt = if visible { before == self.prompt } else { before.chars().count() <= 2 };
        let row_end = if visible { text.len() } else { ends.get(row_of(to)).copied().unwrap_or(text.len()) };
        let after = text.get(to..row_end).unwrap_or_default();
        let placeholder_ends = whole.is_none() && after.find(']').is_some_and(|at| at + 1 == after.len());
        only_prompt && (after.is_empty() || placeholder_ends) && (!visible || is_row_end(screen))
    }

    /// True when no more follows ours up to the cursor, or in its row, than a person has typed.
    fn is_followed(&self, screen: &Screen, beside: usize) -> bool {
        let visible = screen.cursor_visible();
        self.views(screen).iter().any(|rows| self.is_followed_in(rows, visible, beside))
    }

    fn is_followed_in(&self, rows: &[String], visible: bool, beside: usize) -> bool {
        let (text, ends) = joined(rows);
        let Some(to) = text.rfind(&self.tail).map(|at| at + self.tail.len()) else { return false };
        let end = if visible { Some(text.len()) } else { ends.iter().copied().find(|end| to <= *end) };
        let after = text.get(to..end.unwrap_or(to)).unwrap_or_default();
        !after.is_empty() && after.len() <= beside
    }

    /// The rows in which a composer may be: as they are, and without what stands before each row of it but the first.
    fn views(&self, screen: &Screen) -> [Vec<String>; 2] {
        if !screen.cursor_visible() {
            return [screen.rows(Region::Bottom(HIDDEN_ROWS)), Vec::new()];
        }
        let rows = screen.rows_to_cursor();
        let bare: Vec<_> = rows.iter().map(|row| bare(row)).collect();
        let mut inner = bare.clone();
        if !self.prompt.is_empty() {
            for (row, pair) in inner.iter_mut().skip(1).zip(bare.windows(2)) {
                if let (true, Some(rest)) =
                    (pair[0].starts_with(&self.prompt), pair[1].strip_prefix(&self.prompt))
                {
                    rest.clone_into(row);
                }
            }
        }
        [rows, inner]
    }

    /// Before anybody has pressed anything: a text that has moved by no more than what stands below a composer was
    /// first seen while the program was still drawing, and stands where it is now. With a visible cursor nothing
    /// needs to be followed.
    pub(super) fn follow(&mut self, screen: &Screen) {
        if let (Some(landed), Some(height)) = (self.landed, self.height(screen))
            && height <= landed + FRAME_ROWS
        {
            self.landed = Some(height);
        }
    }

    fn is_lowest(&mut self, screen: &Screen, presses: usize) -> bool {
        let Some(height) = self.height(screen) else { return false };
        match self.landed {
            Some(landed) => height <= landed + presses,
            None if self.before.is_none_or(|before| height < before) => {
                self.landed = Some(height);
                true
            }
            None => false,
        }
    }

    /// Rows that show anything below the lowest place of the text.
    fn height(&self, screen: &Screen) -> Option<usize> {
        let rows = screen.rows(Region::Bottom(HIDDEN_ROWS));
        let (text, ends) = joined(&rows);
        let lowest = |wanted: &String| text.rfind(wanted.as_str()).map(|at| at + wanted.len());
        let end = std::iter::once(&self.tail).chain(&self.marks).filter_map(lowest).max()?;
        let row = ends.iter().position(|row_end| end <= *row_end)?;
        Some(rows[row + 1..].iter().filter(|row| !row.trim().is_empty()).count())
    }
}

/// What stands before the cursor in its row, as texts are compared.
pub(super) fn before_cursor(screen: &Screen) -> String {
    screen.rows_to_cursor().last().map(|row| bare(row)).unwrap_or_default()
}

/// True when nothing stands in the cursor's row from the cursor on.
fn is_row_end(screen: &Screen) -> bool {
    let row = screen.rows(Region::Cursor { above: 0, below: 0 }).pop().unwrap_or_default();
    bare(&row) == before_cursor(screen)
}

/// Rows as one text, and where each ends in it.
fn joined(rows: &[String]) -> (String, Vec<usize>) {
    let (mut text, mut ends) = (String::new(), Vec::with_capacity(rows.len()));
    for row in rows {
        text.push_str(&bare(row));
        ends.push(text.len());
    }
    (text, ends)
}

/// Text without what a composer adds (blanks, borders, a drawn cursor) and without what the screen shows
/// otherwise: the character that stands for one that must not be typed, and a tab that is drawn as `^I`.
fn bare(text: &str) -> String {
    let is_text = |c: &char| {
        let is_drawn = c.is_whitespace() || is_vertical(*c) || is_horizontal(*c);
        !is_drawn && *c != char::REPLACEMENT_CHARACTER
    };
    text.replace("^I", "").chars().filter(is_text).collect()
}

fn is_vertical(c: char) -> bool {
    matches!(c, '|' | '│' | '┃' | '║' | '╎' | '╏' | '┆' | '┇' | '┊' | '┋' | '█'..='▐' | '▕')
}

fn is_horizontal(c: char) -> bool {
    matches!(c, '─' | '━' | '═' | '╌' | '╍' | '┄' | '┅' | '┈' | '┉' | '┌'..='╋' | '╒'..='╰' | '▀' | '▁' | '▂' | '▃' | '▄')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::pty::TermSize;

    const TEXT: &str = "[relay DM from Alice · msg 1]\nplease look at the failing build";

    fn screen(bytes: &str) -> Screen {
        let mut screen = Screen::new(TermSize { rows: 20, cols: 40 });
        screen.feed(bytes.as_bytes());
        screen
    }

    fn trace() -> Trace {
        Trace::new(TEXT, &["[Pasted text #".to_owned()])
    }

    #[test]
    fn text_that_ends_at_the_cursor_is_in_the_composer() {
        let plain = "$ [relay DM from Alice · msg 1]\r\nplease look at the failing build";
        assert_eq!(trace().place(&screen(plain), 0, 0), Place::Composer);
        let boxed = "╭──────╮\r\n│ > please look at   │\r\n│   the failing build │\r\n╰──────╯\x1b[3;22H";
        assert_eq!(trace().place(&screen(boxed), 0, 0), Place::Composer);
        let pasted = "> [Pasted text #1 +30 lines]";
        assert_eq!(trace().place(&screen(pasted), 0, 0), Place::Composer);
    }

    #[test]
    fn a_text_that_is_taller_than_the_screen_may_be_left_out_in_the_middle() {
        let lines: Vec<_> = (0..60).map(|n| format!("line {n}")).collect();
        let text = format!("[relay DM from Alice · msg 1]\n{}", lines.join("\n"));
        let mut trace = Trace::new(&text, &[]);
        trace.note_before(&screen("$ "));
        let first = lines[..19].join("\r\n");
        // As readline leaves it: what stood behind the cursor in its row belongs to no text.
        let drawn = format!("{first}\r\nline 59 of the others\x1b[20;8H");
        assert_eq!(trace.place(&screen(&drawn), 0, 0), Place::Composer);
        assert_eq!(
            trace.place(&screen(&drawn), 0, 1),
            Place::Mixed,
            "what a person did to it cannot be seen"
        );
        for other in [format!("{first}\r\nline 58"), format!("{first}\r\n$ "), format!("{first}\r\n")] {
            assert_ne!(trace.place(&screen(&other), 0, 0), Place::Composer, "{other}");
        }
        let foreign = format!("{}\r\nsomething else\r\nline 59", lines[..18].join("\r\n"));
        assert_ne!(trace.place(&screen(&foreign), 0, 0), Place::Composer);
        let short = "line 57\r\nline 59";
        assert_ne!(trace.place(&screen(short), 0, 0), Place::Composer, "there was room for all of it");
    }

    #[test]
    fn text_is_found_where_the_prompt_stands_before_each_of_its_rows() {
        for (prompt, text) in [
            ("> ", "[relay DM from Alice · msg 1]\nyes\n\nor no"),
            ("> ", "a <b>\n> or no"),
            ("ask> ", "[relay DM from Alice · msg 1]\nyes>\nor no>"),
            ("> ", "[relay DM from Alice · msg 1]\n\tif so:\n\t\tno"),
        ] {
            let drawn = text.replace('\t', "^I").replace('\n', &format!("\r\n{prompt}"));
            let mut trace = Trace::new(text, &[]);
            trace.note_before(&screen(prompt));
            let mut place = |bytes: &str, presses, beside| trace.place(&screen(bytes), presses, beside);
            assert_eq!(place(&format!("{prompt}{drawn}"), 0, 0), Place::Composer, "{text}");
            assert_eq!(place(&format!("{prompt}{drawn}"), 0, 1), Place::Composer, "{text}");
            assert_eq!(place(&format!("{prompt}{drawn} hm"), 0, 3), Place::Mixed, "{text}");
            assert_eq!(place(&format!("{prompt}oh {drawn}"), 0, 3), Place::Mixed, "{text}");
            assert_eq!(
                place(&format!("{prompt}{drawn}\r\nso be it\r\n{prompt}"), 1, 0),
                Place::Elsewhere,
                "{text}"
            );
            assert_eq!(
                place(&format!("{prompt}{drawn}\r\nAdd it? [Yes]: "), 1, 0),
                Place::Elsewhere,
                "{text}"
            );
            assert_eq!(place(prompt, 1, 0), Place::Nowhere, "{text}");
            let new_line = format!("{prompt}{drawn}\r\n{prompt}");
            assert_eq!(place(&new_line, 1, 0), Place::Composer, "an Enter that made a new line: {text}");
        }
        let silent = "> please look at the failing build\r\n> ";
        assert_eq!(trace().place(&screen(silent), 1, 0), Place::Elsewhere, "it was one row");
    }

    #[test]
    fn text_with_replaced_characters_is_found() {
        let text = "# x \u{fffd}[201~\u{fffd}touch it\u{fffd}";
        let mut trace = Trace::new(text, &[]);
        assert_eq!(trace.place(&screen(&format!("> {text}")), 0, 0), Place::Composer);
    }

    #[test]
    fn text_above_a_fresh_prompt_has_left_the_composer() {
        let shell = "$ please look at the failing build\r\nbash: please: not found\r\n$ ";
        assert_eq!(trace().place(&screen(shell), 1, 0), Place::Elsewhere);
        let transcript = "> please look at the failing build\r\n╭────╮\r\n│    │\r\n╰────╯\x1b[3;3H";
        assert_eq!(trace().place(&screen(transcript), 1, 0), Place::Elsewhere);
        assert_eq!(trace().place(&screen("> "), 1, 0), Place::Nowhere);
    }

    #[test]
    fn an_enter_that_made_a_new_line_is_not_taken_for_a_submit() {
        let one = "│ > please look at the failing build │\r\n│   │\x1b[2;5H";
        assert_eq!(trace().place(&screen(one), 1, 0), Place::Composer);
        let two = "> please look at the failing build\r\n\r\n\r\n";
        assert_eq!(trace().place(&screen(two), 1, 0), Place::Elsewhere);
        assert_eq!(trace().place(&screen(two), 3, 0), Place::Composer);
    }

    #[test]
    fn with_a_hidden_cursor_the_text_lands_low_and_leaves_upwards() {
        let composer = |above: &str, text: &str| {
            screen(&format!("\x1b[?25l{above}╭───╮\r\n│ > {text} │\r\n╰───╯\r\n  help"))
        };
        let mut trace = trace();
        trace.note_before(&composer("", ""));
        assert_eq!(trace.place(&composer("", ""), 0, 0), Place::Nowhere);
        let text = "please look at the failing build";
        assert_eq!(trace.place(&composer("", text), 0, 0), Place::Composer);
        let new_line = screen(&format!("\x1b[?25l╭───╮\r\n│ > {text} │\r\n│   │\r\n╰───╯\r\n  help"));
        assert_eq!(trace.place(&new_line, 1, 0), Place::Composer);
        assert_eq!(trace.place(&composer(&format!("{text}\r\n\r\n"), ""), 1, 0), Place::Elsewhere);
    }

    #[test]
    fn an_equal_message_in_the_transcript_is_not_ours() {
        let text = "please look at the failing build";
        let old = screen(&format!("\x1b[?25l{text}\r\n\r\n╭───╮\r\n│ >  │\r\n╰───╯"));
        let mut trace = trace();
        trace.note_before(&old);
        assert_eq!(trace.place(&old, 0, 0), Place::Elsewhere);
        let both = screen(&format!("\x1b[?25l{text}\r\n\r\n╭───╮\r\n│ > {text} │\r\n╰───╯"));
        assert_eq!(trace.place(&both, 0, 0), Place::Composer);
    }

    #[test]
    fn what_a_person_types_beside_ours_is_seen() {
        let text = "please look at the failing build";
        let mut trace = trace();
        trace.note_before(&screen("> "));
        let place = |bytes: &str, beside| trace.clone().place(&screen(bytes), 0, beside);
        let ours = TEXT.replace('\n', "\r\n");
        assert_eq!(place(&format!("> {ours}"), 3), Place::Composer, "they moved about");
        assert_eq!(place(&format!("> {ours} no"), 3), Place::Mixed);
        assert_eq!(place(&format!("> oh {ours}"), 3), Place::Mixed);
        assert_eq!(place(&format!("> {ours}\x1b[31mX\x1b[D"), 1), Place::Mixed, "it stands after the cursor");
        assert_eq!(place(&format!("> {ours}\r\nthinking\r\n> no"), 3), Place::Elsewhere);
        assert_eq!(place("> [Pasted text #1 +30 lines]", 3), Place::Composer);
        assert_eq!(place("> hm [Pasted text #1 +30 lines]", 3), Place::Mixed);
        let hidden = |text: &str, beside| {
            let screen = screen(&format!("\x1b[?25l╭───╮\r\n│ > {text} │\r\n╰───╯\r\n  help"));
            Trace::new("please look at the failing build", &[]).place(&screen, 0, beside)
        };
        assert_eq!(hidden(text, 2), Place::Composer);
        assert_eq!(hidden(&format!("{text} no"), 2), Place::Mixed);
        assert_eq!(hidden(&format!("oh no {text}"), 5), Place::Mixed);
    }
}
