//! What is read out of names and texts.

/// The names that a text mentions: `@` and word characters, each once, in order (spec/wire 1.8).
pub(in crate::engine) fn mentions(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for part in text.split('@').skip(1) {
        let end = part.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(part.len());
        let name = &part[..end];
        if !name.is_empty() && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// `^[a-z0-9][a-z0-9-]*$`, the names of channels (spec/wire 1.7).
pub(in crate::engine) fn is_channel_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.starts_with(plain) && name.chars().all(|c| plain(c) || c == '-')
}

/// What can be the name of an agent or a node: it must fit into a URL's path and onto a line.
pub(in crate::engine) fn is_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name.trim() == name
        && !name.chars().any(|c| c == '/' || c.is_control())
        && !matches!(name, "." | "..")
}

/// Every character that is not a letter or digit becomes `_`: the event part of a seq-0 delivery id.
pub(in crate::engine) fn event_key(event: &str) -> String {
    event.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mention_ends_at_the_first_character_that_is_no_word() {
        assert_eq!(mentions("@skipper please, @look_out2! a@b @skipper @"), ["skipper", "look_out2", "b"]);
        assert_eq!(mentions("@code-review"), ["code"]);
        assert!(mentions("nobody").is_empty());
    }

    #[test]
    fn channel_names_are_lower_case_words_with_dashes() {
        for good in ["general", "a", "0-x", "dock-yard-7"] {
            assert!(is_channel_name(good), "{good}");
        }
        for bad in ["", "-a", "Dock", "a b", "a_b", "é"] {
            assert!(!is_channel_name(bad), "{bad}");
        }
    }

    #[test]
    fn names_fit_into_a_path_and_onto_a_line() {
        for good in ["skipper", "Quay 7", "é", "a.b-c_d"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", " a", "a/b", "a\nb", "..", &"x".repeat(129)] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn an_event_key_has_no_punctuation() {
        assert_eq!(event_key("message.read"), "message_read");
    }
}
