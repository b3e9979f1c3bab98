//! What a person reads on standard output. Nothing else in the crate writes there.

use std::io::{self, Write};

/// How much of a text a table shows.
const TEXT_SHOWN: usize = 60;

/// Writes a text and a line break.
///
/// # Errors
/// Whatever the system says; a reader that went away becomes a silent end (see `Failure`).
pub(super) fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// Writes bytes as they are.
pub(super) fn bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Columns as wide as their widest cell; the last one is as wide as it likes.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(head.get(column).map(|cell| cell.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    let mut put = |cells: &[&str]| {
        let mut row = String::new();
        for (cell, width) in cells.iter().zip(&widths) {
            row.push_str(cell);
            let pad = width.saturating_sub(cell.chars().count()) + 2;
            row.extend(std::iter::repeat_n(' ', pad));
        }
        text.push_str(row.trim_end());
        text.push('\n');
    };
    put(head);
    for row in rows {
        put(&row.iter().map(String::as_str).collect::<Vec<_>>());
    }
    text
}

/// A span of time for a person: `850 ms`, `12 s`, `3 min`, `5 h`, `2 d`.
pub(super) fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{} s", ms / 1_000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        7_200_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} d", ms / 86_400_000),
    }
}

/// The text without anything that could steer the terminal it is printed on.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect()
}

/// The beginning of a text, on one line.
pub(super) fn shortened(text: &str) -> String {
    let line = plain(text.lines().next().unwrap_or_default());
    if line.chars().count() <= TEXT_SHOWN && !text.contains('\n') {
        return line;
    }
    line.chars().take(TEXT_SHOWN).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_its_columns_up() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["long".to_owned(), "22".to_owned()]];
        assert_eq!(table(&["NAME", "N"], &rows), "NAME  N\na     1\nlong  22\n");
    }

    #[test]
    fn spans_are_short() {
        let cases = [(0, "0 ms"), (999, "999 ms"), (1_500, "1 s"), (130_000, "2 min"), (7_300_000, "2 h")];
        for (ms, wanted) in cases {
            assert_eq!(span(ms), wanted);
        }
    }

    #[test]
    fn text_of_others_cannot_steer_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\u{9b}c"), "a\u{FFFD}[2Jb\u{FFFD}c");
    }

    #[test]
    fn a_long_text_is_shown_by_its_beginning() {
        assert_eq!(shortened("short"), "short");
        assert_eq!(shortened("one\ntwo"), "one…");
        assert_eq!(shortened(&"x".repeat(61)).chars().count(), TEXT_SHOWN + 1);
    }
}
