//! As much of a composer as the rules for any program with one go by: it takes pastes, draws what stands in it in
//! one synchronised frame, submits on Enter, and shows a long paste as a mark.

const START: &[u8] = b"\x1b[200~";
const END: &[u8] = b"\x1b[201~";
/// A longer text shows as a mark.
const SHOWN_MAX: usize = 800;

/// What it writes before anything else: pastes are welcome, and the box is empty.
pub(crate) const HELLO: &str = "\x1b[?2004h\x1b[2J\x1b[Hready\r\n> ";

/// The box.
#[derive(Default)]
pub(crate) struct Composer {
    text: Vec<u8>,
    /// What has come of a key that is not complete.
    pending: Vec<u8>,
    pasting: bool,
    turns: u64,
}

impl Composer {
    /// Takes input, and hands over each text that an Enter submits.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut submitted: impl FnMut(&[u8])) {
        for byte in bytes {
            self.pending.push(*byte);
            let marker = if self.pasting { END } else { START };
            if self.pending == marker {
                self.pasting = !self.pasting;
                self.pending.clear();
            } else if !marker.starts_with(&self.pending) {
                for byte in std::mem::take(&mut self.pending) {
                    self.key(byte, &mut submitted);
                }
            }
        }
    }

    fn key(&mut self, byte: u8, submitted: &mut impl FnMut(&[u8])) {
        if byte == b'\r' && !self.pasting {
            if !self.text.is_empty() {
                self.turns += 1;
                submitted(&std::mem::take(&mut self.text));
            }
        } else {
            self.text.push(if byte == b'\r' { b'\n' } else { byte });
        }
    }

    /// The frame that shows it now, the cursor at the end of the text.
    pub(crate) fn frame(&self) -> String {
        let text = String::from_utf8_lossy(&self.text);
        let shown = if text.len() > SHOWN_MAX {
            format!("[Pasted text #1 +{} lines]", text.lines().count())
        } else {
            text.replace('\n', "\r\n  ")
        };
        format!("\x1b[?2026h\x1b[2J\x1b[H{} turns\r\n> {shown}\x1b[?2026l", self.turns)
    }
}
