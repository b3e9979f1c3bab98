//! Splits a command line into words as a POSIX shell would, and does nothing else a shell does: no
//! variables, no globs, no substitution, no operators.

/// Why a line has no words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadLine {
    /// A quote is not closed.
    #[error("a quote is not closed")]
    OpenQuote,
    /// It ends in a backslash.
    #[error("it ends in a backslash")]
    OpenEscape,
}

/// The words of a line.
///
/// # Errors
/// [`BadLine`] when quoting is not complete.
pub(super) fn split(line: &str) -> Result<Vec<String>, BadLine> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(BadLine::OpenQuote)? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(BadLine::OpenQuote)? {
                        '"' => break,
                        '\\' => match chars.next().ok_or(BadLine::OpenQuote)? {
                            c @ ('"' | '\\' | '$' | '`') => word.push(c),
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                }
            }
            '\\' => {
                let escaped = chars.next().ok_or(BadLine::OpenEscape)?;
                word.get_or_insert_default().push(escaped);
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_would_and_nothing_is_expanded() {
        for (line, words) in [
            ("", &[][..]),
            ("  claude  ", &["claude"]),
            ("claude --model opus", &["claude", "--model", "opus"]),
            ("sh -c 'echo \"a b\"; $HOME'", &["sh", "-c", "echo \"a b\"; $HOME"]),
            (r#"x "a \"b\" \n $c" d\ e"#, &["x", r#"a "b" \n $c"#, "d e"]),
            ("a'b'\"c\"d", &["abcd"]),
            ("x '' \"\"", &["x", "", ""]),
            ("a;b|c&&d #e *", &["a;b|c&&d", "#e", "*"]),
        ] {
            assert_eq!(split(line).unwrap(), words, "{line}");
        }
    }

    #[test]
    fn incomplete_quoting_is_refused() {
        assert_eq!(split("a 'b"), Err(BadLine::OpenQuote));
        assert_eq!(split("a \"b\\"), Err(BadLine::OpenQuote));
        assert_eq!(split("a \\"), Err(BadLine::OpenEscape));
    }
}
