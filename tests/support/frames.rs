//! WebSocket frames (RFC 6455 5.2). A server never masks them, a client always does.

use std::io::{self, Read};

/// A frame with its bytes as they came.
pub(crate) struct Frame {
    /// The whole frame; one that was masked, as it was before that.
    pub(crate) raw: Vec<u8>,
    header: usize,
}

impl Frame {
    const TEXT: u8 = 1;
    const CLOSE: u8 = 8;
    /// In the second byte.
    const MASKED: u8 = 0x80;

    /// Reads the next frame.
    pub(crate) fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut raw = vec![0; 2];
        from.read_exact(&mut raw)?;
        let extra = match raw[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        raw.resize(2 + extra, 0);
        from.read_exact(&mut raw[2..])?;
        let size = match extra {
            0 => u64::from(raw[1] & 0x7f),
            _ => raw[2..].iter().fold(0, |size, byte| size << 8 | u64::from(*byte)),
        };
        let header = raw.len();
        let mut key = [0; 4];
        if raw[1] & Self::MASKED != 0 {
            from.read_exact(&mut key)?;
            raw[1] &= !Self::MASKED;
        }
        // No room is made for a size that is only claimed.
        if from.by_ref().take(size).read_to_end(&mut raw)? as u64 != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        raw[header..].iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
        Ok(Self { raw, header })
    }

    /// A text frame.
    pub(crate) fn of_text(text: &str) -> Self {
        let size = text.len();
        let mut raw = vec![0x80 | Self::TEXT];
        match size {
            0..126 => raw.push(size as u8),
            126..=0xffff => {
                raw.push(126);
                raw.extend((size as u16).to_be_bytes());
            }
            _ => {
                raw.push(127);
                raw.extend((size as u64).to_be_bytes());
            }
        }
        let header = raw.len();
        raw.extend(text.as_bytes());
        Self { raw, header }
    }

    /// The text, of a text frame.
    pub(crate) fn text(&self) -> Option<&str> {
        let is_text = self.raw[0] & 0x0f == Self::TEXT;
        is_text.then(|| std::str::from_utf8(&self.raw[self.header..]).unwrap_or_default())
    }

    /// True for a goodbye.
    pub(crate) fn is_close(&self) -> bool {
        self.raw[0] & 0x0f == Self::CLOSE
    }
}

/// Reads the head of a request or an answer, up to and with the empty line.
pub(crate) fn read_head(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        from.read_exact(&mut byte)?;
        head.push(byte[0]);
        if head.len() > 64 << 10 {
            return Err(io::Error::other("a head without an end"));
        }
    }
    Ok(head)
}
