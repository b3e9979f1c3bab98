//! The terminal model: what a person would see of an agent's output, and what a program may ask a terminal.
//!
//! A grid without scrollback (152 KiB at 120×40), fed with raw bytes. Rules read it only between frames: a
//! program that brackets its redraws with mode 2026 is never judged by half a picture. A panic in the parser
//! costs the picture, not the agent.

mod queries;
mod stand_in;

use std::{
    num::NonZeroU16,
    panic::{AssertUnwindSafe, catch_unwind},
};

use vt100::{Callbacks, MouseProtocolMode, Parser};

use self::stand_in::{StandIn, restored};
use crate::{
    escape::{self, Unit},
    messages::pty::TermSize,
};

/// The longest title kept, in characters.
const TITLE_MAX: usize = 256;
/// A control sequence that is longer than this is not waited for.
const SEQUENCE_MAX: usize = 64 << 10;

/// One agent's screen.
pub struct Screen {
    parser: Parser<Watch>,
    /// Total bytes fed.
    offset: u64,
    stand_in: StandIn,
    /// The character or control sequence that has begun and is not shown yet.
    begun: Vec<u8>,
    /// The parameters of the scrolling region, while it is not the whole screen.
    margins: Option<Vec<u8>>,
    bracketed_paste_seen: bool,
    /// The same, while no program had the whole screen to itself.
    shared_paste_seen: bool,
}

/// A part of the screen for a rule to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// All rows.
    All,
    /// The last so many rows that show anything.
    Bottom(u16),
    /// The cursor's row, so many above it and so many below.
    Cursor {
        /// Rows above.
        above: u16,
        /// Rows below.
        below: u16,
    },
    /// The window title.
    Title,
}

/// What the parser leaves to us.
#[derive(Default)]
struct Watch {
    title: String,
    in_frame: bool,
    answers: Vec<u8>,
}

impl Screen {
    /// An empty screen.
    pub fn new(size: TermSize) -> Self {
        Self {
            parser: parser(size, Watch::default()),
            offset: 0,
            stand_in: StandIn::default(),
            begun: Vec::new(),
            margins: None,
            bracketed_paste_seen: false,
            shared_paste_seen: false,
        }
    }

    /// Takes output in, in pieces of any size. Returns the bytes that a terminal would answer to queries in
    /// it; the caller types them.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let shown = self.stand_in.pass(bytes);
        let fed = catch_unwind(AssertUnwindSafe(|| self.parser.process(&shown)));
        self.offset += bytes.len() as u64;
        self.follow(bytes);
        if fed.is_err() {
            let title = std::mem::take(&mut self.parser.callbacks_mut().title);
            self.parser = parser(self.size(), Watch { title, ..Watch::default() });
        }
        self.bracketed_paste_seen |= self.bracketed_paste();
        self.shared_paste_seen |= self.bracketed_paste() && !self.alternate();
        std::mem::take(&mut self.parser.callbacks_mut().answers)
    }

    /// Keeps what the parser does not tell: where the last whole unit ended, and the margins.
    fn follow(&mut self, bytes: &[u8]) {
        self.begun.extend_from_slice(bytes);
        let mut whole = 0;
        for (unit, len) in escape::units(&self.begun) {
            whole += len;
            match unit {
                Unit::Csi(margins, b'r') if !margins.starts_with(b"?") => {
                    self.margins = (!margins.is_empty()).then(|| margins.to_vec());
                }
                Unit::Escape(b"\x1bc") => self.margins = None,
                _ => {}
            }
        }
        self.begun.drain(..whole);
        if self.begun.len() > SEQUENCE_MAX {
            self.begun.clear();
        }
    }

    /// Takes a new size. The picture is cut or padded; the program repaints it.
    pub fn resize(&mut self, size: TermSize) {
        // As terminals do.
        self.margins = None;
        let resized = catch_unwind(AssertUnwindSafe(|| {
            self.parser.set_size(cells(size.rows), cells(size.cols));
        }));
        if resized.is_err() {
            self.parser = parser(size, Watch::default());
        }
    }

    /// Its size.
    pub fn size(&self) -> TermSize {
        let (rows, cols) = self.parser.screen().size();
        TermSize { rows: rows.get(), cols: cols.get() }
    }

    /// Cursor row and column, first is 0.
    pub fn cursor(&self) -> (u16, u16) {
        let (row, col) = self.parser.screen().cursor_position();
        // After the last column the cursor stands on nothing until the next character wraps.
        (row, col.min(self.size().cols - 1))
    }

    /// The rows from the first to the cursor's, which ends where the cursor is.
    pub fn rows_to_cursor(&self) -> Vec<String> {
        // The column is one more than the last while a wrap is pending.
        let (row, edge) = self.parser.screen().cursor_position();
        let above = self.lines(self.size().cols).take(usize::from(row)).map(trimmed);
        above.chain(self.lines(edge).nth(usize::from(row))).collect()
    }

    /// True when the cursor is shown.
    pub fn cursor_visible(&self) -> bool {
        !self.parser.screen().hide_cursor()
    }

    /// The window title.
    pub fn title(&self) -> &str {
        &self.parser.callbacks().title
    }

    /// Total bytes fed.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Total bytes of whole characters and control sequences: what the screen shows. Output that goes on
    /// from here continues it.
    pub fn settled(&self) -> u64 {
        self.offset - self.begun.len() as u64
    }

    /// True between frames; false while a synchronised update is being drawn.
    pub fn is_complete(&self) -> bool {
        !self.parser.callbacks().in_frame
    }

    /// True when the program takes pastes between markers now.
    pub fn bracketed_paste(&self) -> bool {
        self.parser.screen().bracketed_paste()
    }

    /// True when it has done so after any piece of output.
    pub fn bracketed_paste_seen(&self) -> bool {
        self.bracketed_paste_seen
    }

    /// True when it has done so without having the whole screen to itself: it was no pager or editor that another
    /// program runs.
    pub fn shared_paste_seen(&self) -> bool {
        self.shared_paste_seen
    }

    /// True when the program has the whole screen to itself.
    pub fn alternate(&self) -> bool {
        self.parser.screen().alternate_screen()
    }

    /// True when the program wants arrow keys in application mode.
    pub fn application_cursor(&self) -> bool {
        self.parser.screen().application_cursor()
    }

    /// The modes that are on, by name.
    pub fn modes(&self) -> Vec<&'static str> {
        let screen = self.parser.screen();
        let mouse = screen.mouse_protocol_mode() != MouseProtocolMode::None;
        [
            (screen.bracketed_paste(), "bracketed_paste"),
            (screen.alternate_screen(), "alternate_screen"),
            (screen.hide_cursor(), "cursor_hidden"),
            (mouse, "mouse"),
            (screen.application_cursor(), "application_cursor"),
            (screen.application_keypad(), "application_keypad"),
            (!self.is_complete(), "synchronised_update"),
        ]
        .into_iter()
        .filter_map(|(on, name)| on.then_some(name))
        .collect()
    }

    /// The rows of a region, first to last, without trailing blanks; but blanks before the cursor are kept,
    /// since an empty prompt (`> `) ends in one.
    pub fn rows(&self, region: Region) -> Vec<String> {
        let (row, _) = self.cursor();
        let range = match region {
            Region::Title => return vec![self.title().to_owned()],
            Region::All | Region::Bottom(_) => 0..usize::MAX,
            Region::Cursor { above, below } => {
                usize::from(row.saturating_sub(above))..usize::from(row.saturating_add(below)) + 1
            }
        };
        let cols = self.size().cols;
        let rows = self.lines(cols).enumerate();
        let mut rows: Vec<String> = rows
            .skip(range.start)
            .take(range.end - range.start)
            .map(|(i, text)| if i == usize::from(row) { self.cursor_row(text) } else { trimmed(text) })
            .collect();
        if let Region::Bottom(most) = region {
            while rows.last().is_some_and(|row| row.trim().is_empty()) {
                rows.pop();
            }
            rows.drain(..rows.len().saturating_sub(usize::from(most)));
        }
        rows
    }

    /// A region as text, rows separated by line feeds.
    pub fn text(&self, region: Region) -> String {
        self.rows(region).join("\n")
    }

    /// All rows as text, each ended by a line feed.
    pub fn plain(&self) -> String {
        self.text(Region::All) + "\n"
    }

    /// The last screen for a record: no blank rows at the end, at most `max` characters and `lines` lines, the last ones.
    pub fn last_words(&self, max: usize, lines: usize) -> String {
        let text = self.text(Region::Bottom(u16::MAX));
        let start = text.rmatch_indices('\n').nth(lines.saturating_sub(1)).map_or(0, |(at, _)| at + 1);
        let text = &text[start..];
        let skip = text.chars().count().saturating_sub(max);
        text.chars().skip(skip).collect()
    }

    /// Bytes that repaint this screen on a terminal of the same size, modes and title included.
    pub fn ansi(&self) -> Vec<u8> {
        let screen = self.parser.screen();
        let mut bytes = Vec::with_capacity(8 << 10);
        bytes.extend_from_slice(b"\x1b[?1049l");
        if screen.alternate_screen() {
            bytes.extend_from_slice(self.below().as_bytes());
            bytes.extend_from_slice(b"\x1b[?1049h");
        }
        bytes.extend_from_slice(restored(screen.state_formatted()).as_bytes());
        if let Some(margins) = &self.margins {
            // Setting them moves the cursor home.
            bytes.extend_from_slice(&[b"\x1b7\x1b[", margins.as_slice(), b"r\x1b8"].concat());
        }
        bytes.extend_from_slice(format!("\x1b]2;{}\x1b\\", self.title()).as_bytes());
        bytes
    }

    /// Bytes that repaint what the program's own screen covers and leaves behind when it goes: no output paints that
    /// again.
    fn below(&self) -> String {
        let mut below = parser(self.size(), Watch::default());
        below.screen_mut().clone_from(self.parser.screen());
        below.process(b"\x1b[?1049l");
        restored(below.screen().contents_formatted())
    }

    /// The rows, first to last, up to this column.
    fn lines(&self, cols: u16) -> impl Iterator<Item = String> {
        self.parser.screen().rows(0, cols).map(restored)
    }

    fn cursor_row(&self, text: String) -> String {
        let (row, edge) = self.parser.screen().cursor_position();
        let kept = text.trim_end().len();
        let before = self.lines(edge).nth(usize::from(row)).map_or(0, |part| part.len());
        if kept == 0 { String::new() } else { text[..text.floor_char_boundary(kept.max(before))].to_owned() }
    }
}

fn trimmed(mut text: String) -> String {
    text.truncate(text.trim_end().len());
    text
}

fn parser(size: TermSize, watch: Watch) -> Parser<Watch> {
    Parser::new_with_callbacks(cells(size.rows), cells(size.cols), 0, watch)
}

fn cells(count: u16) -> NonZeroU16 {
    NonZeroU16::new(count).unwrap_or(NonZeroU16::MIN)
}

impl Callbacks for Watch {
    fn set_window_title(&mut self, _: &mut vt100::Screen, title: &[u8]) {
        let title = String::from_utf8_lossy(title);
        self.title =
            restored(title.into_owned()).chars().filter(|c| !c.is_control()).take(TITLE_MAX).collect();
    }

    fn unhandled_csi(
        &mut self,
        screen: &mut vt100::Screen,
        first: Option<u8>,
        second: Option<u8>,
        params: &[&[u16]],
        end: char,
    ) {
        if first == Some(b'?') && matches!(end, 'h' | 'l') && params.contains(&&[2026u16][..]) {
            self.in_frame = end == 'h';
            return;
        }
        let (row, col) = screen.cursor_position();
        let (rows, cols) = screen.size();
        let terminal = queries::Terminal {
            rows: rows.get(),
            cols: cols.get(),
            cursor: (row, col.min(cols.get() - 1)),
            modes: &[
                (1, screen.application_cursor()),
                (25, !screen.hide_cursor()),
                (1049, screen.alternate_screen()),
                (2004, screen.bracketed_paste()),
                (2026, self.in_frame),
            ],
        };
        let param = params.first().and_then(|p| p.first()).copied().unwrap_or(0);
        queries::csi([first, second], param, end, &terminal, &mut self.answers);
    }

    fn unhandled_osc(&mut self, screen: &mut vt100::Screen, params: &[&[u8]]) {
        match params {
            // A title with semicolons in it arrives in pieces.
            [b"0" | b"2", title @ ..] => self.set_window_title(screen, &title.join(&b';')),
            [code, b"?"] => queries::osc(code, &mut self.answers),
            _ => {}
        }
    }
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").field("offset", &self.offset).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn screen(bytes: &[u8]) -> Screen {
        let mut screen = Screen::new(TermSize { rows: 10, cols: 20 });
        screen.feed(bytes);
        screen
    }

    #[test]
    fn a_bare_prompt_keeps_its_blank_and_other_rows_lose_theirs() {
        let shown = screen(b"done   \r\n> ");
        assert_eq!(shown.rows(Region::Bottom(2)), ["done", "> "]);
        assert_eq!(shown.text(Region::Cursor { above: 0, below: 0 }), "> ");
        let padded = screen(b"hint\r\n>                  \x1b[2;3H");
        assert_eq!(padded.rows(Region::Bottom(1)), ["> "]);
    }

    #[test]
    fn regions_stay_inside_the_screen() {
        let shown = screen(b"a\r\nb\r\nc");
        assert_eq!(shown.rows(Region::Cursor { above: 9, below: 9 }).len(), 10);
        assert_eq!(shown.rows(Region::Cursor { above: 1, below: 0 }), ["b", "c"]);
        assert_eq!(shown.rows(Region::Bottom(2)), ["b", "c"]);
        assert_eq!(shown.rows(Region::Bottom(99)), ["a", "b", "c"]);
        assert!(screen(b"").rows(Region::Bottom(3)).is_empty());
    }

    #[test]
    fn modes_and_title_are_followed() {
        let mut shown = screen(b"\x1b[?2004h\x1b[?1049h\x1b[?25l\x1b[?1003h\x1b]0;work; more\x07");
        assert_eq!(shown.modes(), ["bracketed_paste", "alternate_screen", "cursor_hidden", "mouse"]);
        assert_eq!(shown.title(), "work; more");
        shown.feed(b"\x1b[?2004l\x1b[?1049l\x1b[?25h\x1b[?1003l\x1b]2;\xffbad\x1b\\");
        assert!(shown.modes().is_empty());
        assert!(shown.bracketed_paste_seen());
        assert_eq!(shown.title(), "\u{fffd}bad");
    }

    #[test]
    fn a_replacement_character_keeps_its_column_and_is_shown_as_it_was_drawn() {
        let drawn = "a\u{fffd}\u{fffc}b\r\n> \u{fffd}x";
        let shown = screen(format!("{drawn}\x1b]2;t\u{fffd}\x07").as_bytes());
        assert_eq!(shown.cursor(), (1, 4));
        assert_eq!(shown.rows(Region::Bottom(2)).join("\r\n"), drawn);
        assert_eq!(shown.rows_to_cursor().join("\r\n"), drawn);
        assert_eq!((shown.last_words(2, 1).as_str(), shown.title()), ("\u{fffd}x", "t\u{fffd}"));
        let repaint = String::from_utf8(shown.ansi()).unwrap();
        assert!(repaint.contains("a\u{fffd}\u{fffc}b"), "{repaint:?}");
        assert!(!repaint.contains('\u{fdd0}'), "{repaint:?}");
    }

    #[test]
    fn a_synchronised_update_is_one_frame() {
        let mut shown = screen(b"\x1b[?2026h");
        assert!(!shown.is_complete());
        shown.feed(b"half\x1b[?20");
        assert!(!shown.is_complete());
        shown.feed(b"26l");
        assert!(shown.is_complete());
    }

    #[test]
    fn queries_are_answered_from_the_screen_as_it_was_when_asked() {
        let mut shown = Screen::new(TermSize { rows: 10, cols: 20 });
        assert_eq!(shown.feed(b"ab\x1b[6n\r\n\x1b[6n"), b"\x1b[1;3R\x1b[2;1R");
        assert_eq!(shown.feed(b"\x1b[?2026$p"), b"\x1b[?2026;2$y");
        assert!(shown.feed(b"plain text").is_empty());
    }

    #[test]
    fn what_coding_programs_ask_at_their_start_is_answered_in_the_order_asked() {
        let mut shown = Screen::new(TermSize { rows: 10, cols: 20 });
        let asked = b"\x1b[c\x1b[5n\x1b[6n\x1b]10;?\x1b\\\x1b]11;?\x07\x1b[?u\x1b[14t\x1b[?2026$p\x1b[>c";
        // In pieces of any size: a question may arrive in two reads.
        let answers: Vec<u8> = asked.chunks(3).flat_map(|piece| shown.feed(piece)).collect();
        let wanted = "\x1b[?62;22c\x1b[0n\x1b[1;1R\x1b]10;rgb:e0e0/e0e0/e0e0\x1b\\\
                      \x1b]11;rgb:1010/1010/1010\x1b\\\x1b[?0u\x1b[4;160;160t\x1b[?2026;2$y\x1b[>0;0;0c";
        assert_eq!(String::from_utf8(answers).unwrap(), wanted);
        assert_eq!(shown.feed(b"\x1b[?2026h\x1b[?2026$p"), b"\x1b[?2026;1$y");
        let version = shown.feed(b"\x1b[>q\x1b[>0q");
        assert_eq!(version.windows(14).filter(|part| *part == b">|relay-broker").count(), 2);
        assert_eq!(shown.text(Region::All).trim(), "", "a question is not shown");
    }

    #[test]
    fn a_repaint_shows_the_same_screen() {
        let shown = screen(b"\x1b[?1049h\x1b[?2004h\x1b[3;4H\x1b[31mred\x1b[m\x1b]2;t\x07\x1b[?25l");
        let mut again = Screen::new(shown.size());
        again.feed(&shown.ansi());
        assert_eq!(again.plain(), shown.plain());
        assert_eq!(again.modes(), shown.modes());
        assert_eq!((again.cursor(), again.title()), (shown.cursor(), shown.title()));
    }

    #[test]
    fn a_repaint_and_the_output_after_it_come_to_the_same_screen() {
        let before = "\x1b[2;5r\x1b[5;1Hlast\x1b[3;2H\x1b[4mé";
        let after = "\u{20ac}\n\n\n\n\n\x1b[38;5;9mred\x1b[m\x1b]2;new\x07";
        let all = [before.as_bytes(), after.as_bytes()].concat();
        for cut in before.len()..all.len() {
            let mut shown = screen(&all[..cut]);
            let mut joined = Screen::new(shown.size());
            joined.feed(&shown.ansi());
            let from = usize::try_from(shown.settled()).unwrap();
            shown.feed(&all[cut..]);
            joined.feed(&all[from..]);
            assert_eq!(joined.ansi(), shown.ansi(), "cut at {cut}");
        }
    }

    #[test]
    fn a_repaint_knows_what_the_programs_own_screen_covers() {
        let mut shown = screen(b"one\r\n$ \x1b[31mvi\x1b[m\x1b[?1049h\x1b[2J\x1b[4;4H\x1b[7mtext\x1b[?25l");
        let mut joined = Screen::new(shown.size());
        joined.feed(&shown.ansi());
        assert_eq!(joined.ansi(), shown.ansi());
        let leaves = b"\x1b[?25h\x1b[m\x1b[?1049l\r\n$ ";
        shown.feed(leaves);
        joined.feed(leaves);
        assert_eq!(joined.text(Region::Bottom(9)), "one\n$ vi\n$ ");
        assert_eq!(joined.ansi(), shown.ansi());
    }

    #[test]
    fn a_sequence_without_end_is_waited_for_up_to_a_limit() {
        let mut shown = screen(b"a\x1b]0;");
        assert_eq!((shown.offset(), shown.settled()), (5, 1));
        shown.feed(&vec![b'x'; SEQUENCE_MAX]);
        assert_eq!(shown.offset(), shown.settled());
    }

    #[test]
    fn the_last_words_are_cut_between_characters() {
        let shown = screen("é".repeat(50).as_bytes());
        assert_eq!(shown.last_words(5, 40).chars().count(), 5);
        assert_eq!(screen(b"\r\nbye\r\n\r\n").last_words(100, 40), "\nbye");
        assert_eq!(screen(b"a\r\nb\r\nc").last_words(100, 2), "b\nc");
    }

    proptest! {
        #[test]
        fn any_output_in_any_pieces_leaves_a_screen(
            bytes in proptest::collection::vec(
                prop_oneof![
                    4 => any::<u8>(),
                    4 => proptest::sample::select(b"\x1b[]?;0123456789hlHJKmrLMPSTbXu\x07".to_vec()),
                ],
                0..600,
            ),
            cut in 1usize..40,
        ) {
            let mut shown = Screen::new(TermSize { rows: 10, cols: 20 });
            for piece in bytes.chunks(cut) {
                shown.feed(piece);
            }
            shown.resize(TermSize { rows: 12, cols: 33 });
            shown.feed(b"\x1b[H");
            prop_assert_eq!(shown.size(), TermSize { rows: 12, cols: 33 });
            prop_assert_eq!(shown.plain().lines().count(), 12);
        }
    }
}
