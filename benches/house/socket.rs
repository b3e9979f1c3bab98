//! As much of RFC 6455 as the bench needs: whole text frames between programs that trust each other.

use std::io::{self, Read, Write};

/// A whole text frame.
pub(crate) const TEXT: u8 = 0x1;
/// The other side ends the connection.
pub(crate) const CLOSE: u8 = 0x8;
/// Wants a pong.
pub(crate) const PING: u8 = 0x9;
/// Answers a ping.
pub(crate) const PONG: u8 = 0xA;

/// Appends a frame. A client masks (here with zeros, which changes nothing), a server does not.
pub(crate) fn put(out: &mut Vec<u8>, opcode: u8, masked: bool, payload: &[u8]) {
    let mask_bit = if masked { 0x80 } else { 0 };
    out.push(0x80 | opcode);
    match payload.len() {
        short @ 0..126 => out.push(mask_bit | short as u8),
        medium @ 126..65536 => {
            out.push(mask_bit | 126);
            out.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            out.push(mask_bit | 127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    if masked {
        out.extend_from_slice(&[0; 4]);
    }
    out.extend_from_slice(payload);
}

/// Reads one frame: its opcode and its payload.
pub(crate) fn next(stream: &mut impl Read, payload: &mut Vec<u8>) -> io::Result<u8> {
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    let length = match head[1] & 0x7f {
        126 => {
            let mut length = [0; 2];
            stream.read_exact(&mut length)?;
            u64::from(u16::from_be_bytes(length))
        }
        127 => {
            let mut length = [0; 8];
            stream.read_exact(&mut length)?;
            u64::from_be_bytes(length)
        }
        short => u64::from(short),
    };
    let mut mask = [0; 4];
    if head[1] & 0x80 != 0 {
        stream.read_exact(&mut mask)?;
    }
    payload.resize(usize::try_from(length).map_err(io::Error::other)?, 0);
    stream.read_exact(payload)?;
    if mask != [0; 4] {
        for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= key;
        }
    }
    Ok(head[0] & 0x0f)
}

/// Reads the head of an HTTP message, up to and without its empty line.
pub(crate) fn http_head(stream: &mut impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    head.truncate(head.len() - 4);
    String::from_utf8(head).map_err(io::Error::other)
}

/// The value of a header.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Writes a frame at once.
pub(crate) fn send(stream: &mut impl Write, opcode: u8, masked: bool, payload: &[u8]) -> io::Result<()> {
    let mut out = Vec::with_capacity(payload.len() + 14);
    put(&mut out, opcode, masked, payload);
    stream.write_all(&out)
}
