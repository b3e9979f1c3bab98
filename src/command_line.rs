//! A command line as people type it, split into a program and its arguments as a POSIX shell would, and
//! nothing else that a shell does: no variables, no globs, no substitution, no operators.

/// Why a line names no program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadLine {
    /// A quote is not closed.
    #[error("a quote in the command line is not closed")]
    OpenQuote,
    /// It ends in a backslash.
    #[error("the command line ends in a backslash")]
    OpenEscape,
    /// Nothing is in it.
    #[error("the command line is empty")]
    Empty,
}

/// The program and its arguments.
///
/// # Errors
/// [`BadLine`] when quoting is not complete or there is no program.
pub fn split(line: &str) -> Result<(String, Vec<String>), BadLine> {
    let mut words = words(line)?.into_iter();
    let program = words.next().filter(|word| !word.is_empty()).ok_or(BadLine::Empty)?;
    Ok((program, words.collect()))
}

/// A word as it stands in a command line: quoted where a shell would take it for more than itself.
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn words(line: &str) -> Result<Vec<String>, BadLine> {
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
        for (line, expected) in [
            ("  claude  ", &["claude"][..]),
            ("claude --model opus", &["claude", "--model", "opus"]),
            ("sh -c 'echo \"a b\"; $HOME'", &["sh", "-c", "echo \"a b\"; $HOME"]),
            (r#"x "a \"b\" \n $c" d\ e"#, &["x", r#"a "b" \n $c"#, "d e"]),
            ("a'b'\"c\"d", &["abcd"]),
            ("x '' \"\"", &["x", "", ""]),
            ("a;b|c&&d #e *", &["a;b|c&&d", "#e", "*"]),
        ] {
            let (program, args) = split(line).unwrap();
            assert_eq!([vec![program], args].concat(), expected, "{line}");
        }
    }

    #[test]
    fn a_line_without_a_program_or_with_open_quoting_is_refused() {
        assert_eq!(split("   "), Err(BadLine::Empty));
        assert_eq!(split("'' x"), Err(BadLine::Empty));
        assert_eq!(split("a 'b"), Err(BadLine::OpenQuote));
        assert_eq!(split("a \"b\\"), Err(BadLine::OpenQuote));
        assert_eq!(split("a \\"), Err(BadLine::OpenEscape));
    }
}
