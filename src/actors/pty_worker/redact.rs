//! Secrets blotted out of a screen that is kept (spec/pty 12).
//!
//! A secret may be folded over several rows, so line ends inside of one are looked past.

/// What stands in the place of a secret.
const BLOT: &str = "[redacted]";
/// How tokens of this system begin: agents, workspaces, nodes.
const FAMILIES: [&str; 3] = ["at_live_", "rk_live_", "nt_live_"];
/// A shorter value is a word that a screen may well show for other reasons.
const SECRET_MIN: usize = 8;

/// The text without these secrets and without anything that looks like a token of this system.
pub(super) fn redact<'a>(text: &str, secrets: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = text.to_owned();
    for secret in secrets.into_iter().filter(|secret| secret.len() >= SECRET_MIN) {
        text = blot(&text, |rest| starts_with(rest, secret));
    }
    for family in FAMILIES {
        text = blot(&text, |rest| {
            let head = starts_with(rest, family)?;
            let tail = rest[head..].find(|c: char| !(c.is_ascii_alphanumeric() || "_-\n".contains(c)));
            let token = &rest[..tail.map_or(rest.len(), |tail| head + tail)];
            // The rows below a token that ends at a line's end may go with it; a blank row never does.
            Some(token.find("\n\n").unwrap_or(token.trim_end_matches('\n').len()))
        });
    }
    text
}

/// Replaces whatever `find` finds at the start of the rest of the text; it says how long that is.
fn blot(text: &str, find: impl Fn(&str) -> Option<usize>) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        match find(rest).filter(|len| *len > 0) {
            Some(len) => {
                kept.push_str(BLOT);
                rest = &rest[len..];
            }
            None => {
                kept.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    kept
}

/// The length of `secret` at the start of a text, line ends inside of it counted.
fn starts_with(text: &str, secret: &str) -> Option<usize> {
    let mut wanted = secret.chars();
    let mut next = wanted.next()?;
    for (at, c) in text.char_indices() {
        if c == '\n' && at > 0 {
            continue;
        }
        if c != next {
            return None;
        }
        match wanted.next() {
            Some(more) => next = more,
            None => return Some(at + c.len_utf8()),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_tokens_are_blotted_out_wherever_they_stand() {
        let secrets = ["hunter2-password", "short"];
        for (text, expected) in [
            ("", ""),
            ("nothing to hide é", "nothing to hide é"),
            ("pw=hunter2-password!", "pw=[redacted]!"),
            ("hunter2-passwordhunter2-password", "[redacted][redacted]"),
            ("hunter2-pass\nword.", "[redacted]."),
            ("hunter2-pass", "hunter2-pass"),
            ("a short word", "a short word"),
            ("token at_live_0a9-_Z, rk_live_1", "token [redacted], [redacted]"),
            ("nt_live_abc\ndef rest", "[redacted] rest"),
            ("at_live_abc\n\n$ ls", "[redacted]\n\n$ ls"),
            ("at_live_abc\n", "[redacted]\n"),
        ] {
            assert_eq!(redact(text, secrets), expected, "{text:?}");
        }
    }
}
