//! Keys in words, and what a terminal sends for them: the one place that knows.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Keys, written as words with blanks between them: `enter`, `ctrl-c ctrl-c`, `/quit enter`.
///
/// A word is the name of a key (`enter tab esc space backspace delete up down left right home end pageup
/// pagedown`), a key with modifiers (`ctrl-c`, `alt-enter`, `shift-tab`, `shift-enter`), or text that is typed
/// as it stands. Text in single quotes is always typed as it stands: `'enter'`, `'two words'`. Each word is
/// one stroke, to be written on its own: programs judge text and Enter in the same read as a paste.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    words: String,
    strokes: Vec<String>,
}

/// A word that is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKeys {
    /// Nothing is in it.
    #[error("no key is named; write for example `enter` or `ctrl-c`")]
    Empty,
    /// A quote is not closed.
    #[error("a quote is not closed in the keys `{0}`")]
    OpenQuote(String),
    /// It looks like a key and is none that a terminal could send.
    #[error("no key `{0}`; put it in single quotes if it is text")]
    Unknown(String),
    /// A control character stands in text.
    #[error("text holds a control character; name its key instead, for example `ctrl-c` or `esc`")]
    Control,
}

/// Named keys, as a terminal sends them outside application modes.
const NAMED: [(&str, &str); 14] = [
    ("enter", "\r"),
    ("tab", "\t"),
    ("esc", "\x1b"),
    ("space", " "),
    ("backspace", "\x7f"),
    ("delete", "\x1b[3~"),
    ("up", "\x1b[A"),
    ("down", "\x1b[B"),
    ("right", "\x1b[C"),
    ("left", "\x1b[D"),
    ("home", "\x1b[H"),
    ("end", "\x1b[F"),
    ("pageup", "\x1b[5~"),
    ("pagedown", "\x1b[6~"),
];

impl Keys {
    /// The key that most programs submit with.
    pub fn enter() -> Self {
        Self { words: "enter".to_owned(), strokes: vec!["\r".to_owned()] }
    }

    /// One key or text after the other.
    pub fn strokes(&self) -> impl Iterator<Item = &str> {
        self.strokes.iter().map(String::as_str)
    }

    /// All that is sent, in a row.
    pub fn sent(&self) -> String {
        self.strokes.concat()
    }
}

impl FromStr for Keys {
    type Err = BadKeys;

    fn from_str(words: &str) -> Result<Self, BadKeys> {
        let mut strokes = Vec::new();
        let mut rest = words.trim_start();
        while !rest.is_empty() {
            let (stroke, left) = match rest.strip_prefix('\'') {
                Some(quoted) => {
                    let (text, left) =
                        quoted.split_once('\'').ok_or_else(|| BadKeys::OpenQuote(words.to_owned()))?;
                    (literal(text)?, left)
                }
                None => {
                    let (word, left) = rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()));
                    (stroke(word)?, left)
                }
            };
            strokes.push(stroke);
            rest = left.trim_start();
        }
        if strokes.iter().all(String::is_empty) {
            return Err(BadKeys::Empty);
        }
        Ok(Self { words: words.to_owned(), strokes })
    }
}

fn named(word: &str) -> Option<&'static str> {
    NAMED.iter().find(|(name, _)| *name == word).map(|(_, bytes)| *bytes)
}

fn literal(text: &str) -> Result<String, BadKeys> {
    if text.chars().any(char::is_control) { Err(BadKeys::Control) } else { Ok(text.to_owned()) }
}

fn stroke(word: &str) -> Result<String, BadKeys> {
    if let Some(bytes) = named(word) {
        return Ok(bytes.to_owned());
    }
    let Some((modifier @ ("ctrl" | "alt" | "shift"), key)) = word.split_once('-') else {
        return literal(word);
    };
    let unknown = || BadKeys::Unknown(word.to_owned());
    let mut letters = key.chars();
    let letter = letters.next().filter(|_| letters.next().is_none()).filter(char::is_ascii);
    match (modifier, key, letter) {
        // Of the keyboard protocol that programs switch on to tell it from a plain Enter.
        ("shift", "enter", _) => Ok("\x1b[13;2u".to_owned()),
        ("shift", "tab", _) => Ok("\x1b[Z".to_owned()),
        ("ctrl", "space", _) => Ok("\0".to_owned()),
        ("ctrl", _, Some(letter @ ('a'..='z' | '@' | '[' | '\\' | ']' | '^' | '_'))) => {
            // A control character is its letter without the two highest bits (ECMA-48).
            Ok(char::from(letter as u8 & 0x1f).to_string())
        }
        ("alt", _, Some(letter)) if letter.is_ascii_graphic() => Ok(format!("\x1b{letter}")),
        ("alt", ..) => named(key).map(|bytes| format!("\x1b{bytes}")).ok_or_else(unknown),
        _ => Err(unknown()),
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.words)
    }
}

impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(words: D) -> Result<Self, D::Error> {
        String::deserialize(words)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Keys {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strokes(words: &str) -> Vec<String> {
        words.parse::<Keys>().unwrap().strokes.clone()
    }

    #[test]
    fn words_become_what_a_terminal_sends() {
        for (words, bytes) in [
            ("enter", "\r"),
            ("ctrl-c", "\x03"),
            ("ctrl-u", "\x15"),
            ("ctrl-[", "\x1b"),
            ("esc", "\x1b"),
            ("shift-enter", "\x1b[13;2u"),
            ("shift-tab", "\x1b[Z"),
            ("alt-enter", "\x1b\r"),
            ("alt-b", "\x1bb"),
            ("down", "\x1b[B"),
            ("space", " "),
        ] {
            assert_eq!(strokes(words), [bytes], "{words}");
        }
    }

    #[test]
    fn each_word_is_a_stroke_and_quotes_keep_text_as_it_is() {
        assert_eq!(strokes("ctrl-c  ctrl-c"), ["\x03", "\x03"]);
        assert_eq!(strokes("/quit enter"), ["/quit", "\r"]);
        assert_eq!(strokes("'enter' enter"), ["enter", "\r"]);
        assert_eq!(strokes("'two words'tab"), ["two words", "\t"]);
        assert_eq!(strokes("a-b ctrl"), ["a-b", "ctrl"]);
        let keys: Keys = "/quit enter".parse().unwrap();
        assert_eq!((keys.sent(), keys.to_string()), ("/quit\r".to_owned(), "/quit enter".to_owned()));
    }

    #[test]
    fn what_no_keyboard_sends_is_refused() {
        for (words, why) in [
            ("", BadKeys::Empty),
            ("  ", BadKeys::Empty),
            ("''", BadKeys::Empty),
            ("'x", BadKeys::OpenQuote("'x".to_owned())),
            ("ctrl-", BadKeys::Unknown("ctrl-".to_owned())),
            ("ctrl-enter", BadKeys::Unknown("ctrl-enter".to_owned())),
            ("shift-x", BadKeys::Unknown("shift-x".to_owned())),
            ("alt-ä", BadKeys::Unknown("alt-ä".to_owned())),
            ("'a\x03'", BadKeys::Control),
            ("x\x1b[201~", BadKeys::Control),
            ("'\x1b[201~'", BadKeys::Control),
        ] {
            assert_eq!(words.parse::<Keys>(), Err(why), "{words:?}");
        }
    }
}
