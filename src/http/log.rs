//! `GET /api/spawned/{name}/log`: what an agent's terminal has shown, as an asciicast, also of an agent that has
//! ended lately.
//!
//! The recording's two files are one answer: the header of the older one, then the events of both. With
//! `follow=true` the answer goes on while the agent runs.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    time::Duration,
};

use actix_web::{
    HttpResponse,
    http::StatusCode,
    web::{self, Bytes, Data, Path, Query},
};
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::watch;

use super::{
    api::{Api, OpenStream},
    error::ApiError,
    socket::{self, ended},
};
use crate::{ids::AgentName, store};

/// The media type of asciicasts.
const ASCIICAST: &str = "application/x-asciicast";
/// Read at once.
const PIECE: usize = 64 << 10;
/// Between two looks for more.
const LOOK: Duration = Duration::from_millis(200);
/// The last event of a recording is shorter than this.
const LAST_MAX: usize = 256;

#[derive(Deserialize)]
pub(super) struct LogQuery {
    #[serde(default)]
    follow: bool,
}

/// `GET /api/spawned/{name}/log?follow=`
pub(super) async fn log(
    api: Data<Api>,
    name: Path<String>,
    query: Query<LogQuery>,
) -> Result<HttpResponse, ApiError> {
    let parsed = AgentName::parse(&name)?;
    let root = api.config.agents_dir.clone();
    let found = web::block(move || store::recordings(&root, &parsed)).await;
    let found =
        found.map_err(|_| unreadable(&"the broker is ending"))?.map_err(|error| unreadable(&error))?;
    if found.is_empty() {
        let message = "nothing is recorded of it: no agent of this name has run lately, or `record_output` \
                       is off in the broker's configuration";
        return Err(ApiError::new(StatusCode::NOT_FOUND, "no_recording", message).about(name.into_inner()));
    }
    let closing = api.streams.closing();
    socket::still_open(&closing)?;
    let reading = Reading { files: found.into(), open: None, last: Vec::new() };
    let open = query.follow.then(|| api.streams.open());
    let answer = Answer { reading: Some(reading), follow: query.follow, closing, _open: open };
    let body = stream::try_unfold(answer, Answer::next);
    Ok(HttpResponse::Ok().content_type(ASCIICAST).streaming(body))
}

fn unreadable(why: &dyn std::fmt::Display) -> ApiError {
    let message = format!("the recording cannot be read: {why}");
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
}

/// An answer under way.
struct Answer {
    /// `None` while a helper thread has it.
    reading: Option<Reading>,
    follow: bool,
    closing: watch::Receiver<bool>,
    _open: Option<OpenStream>,
}

impl Answer {
    /// The next piece; `None` at the end.
    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        while let Some(mut reading) = self.reading.take() {
            let read = web::block(move || reading.read().map(|piece| (piece, reading))).await;
            let (piece, reading) = read.map_err(io::Error::other)??;
            match piece {
                Piece::Some(bytes) => {
                    self.reading = Some(reading);
                    return Ok(Some((bytes, self)));
                }
                Piece::NoMore { ended } if !self.follow || ended => return Ok(None),
                Piece::NoMore { .. } => {
                    let closes = ended(&mut self.closing);
                    if tokio::time::timeout(LOOK, closes).await.is_ok() {
                        return Ok(None);
                    }
                    self.reading = Some(reading);
                }
            }
        }
        Ok(None)
    }
}

/// A place in a recording.
struct Reading {
    /// Files to come, oldest first. The last one is never taken out: what follows it has its name.
    files: VecDeque<PathBuf>,
    open: Option<File>,
    /// The end of what was read.
    last: Vec<u8>,
}

/// What reading has come to.
enum Piece {
    /// These bytes.
    Some(Bytes),
    /// Everything there is.
    NoMore {
        /// And there will not be more.
        ended: bool,
    },
}

impl Reading {
    /// Reads on. Blocks.
    fn read(&mut self) -> io::Result<Piece> {
        loop {
            let Some(file) = &mut self.open else {
                match self.open_next()? {
                    true => continue,
                    false => return Ok(Piece::NoMore { ended: true }),
                }
            };
            let mut bytes = vec![0; PIECE];
            let read = file.read(&mut bytes)?;
            bytes.truncate(read);
            if read > 0 {
                self.last.extend_from_slice(&bytes);
                self.last.drain(..self.last.len().saturating_sub(LAST_MAX));
                return Ok(Piece::Some(bytes.into()));
            }
            if self.files.len() <= 1 && !self.is_followed()? {
                return Ok(Piece::NoMore { ended: self.has_exit() });
            }
            self.open = None;
        }
    }

    /// Opens the next file; false when there is none. Only the first one's header is a part of the answer.
    fn open_next(&mut self) -> io::Result<bool> {
        let path = if self.files.len() > 1 && !self.last.is_empty() {
            self.files.pop_front();
            self.files.front()
        } else {
            self.files.front()
        };
        let Some(path) = path else { return Ok(false) };
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        if !self.last.is_empty() {
            skip_line(&mut file)?;
        }
        self.open = Some(file);
        Ok(true)
    }

    /// True when the open file has got another name, and a new one its own.
    fn is_followed(&self) -> io::Result<bool> {
        let (Some(file), Some(path)) = (&self.open, self.files.front()) else { return Ok(false) };
        match fs::metadata(path) {
            Ok(meta) => Ok(meta.ino() != file.metadata()?.ino()),
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn has_exit(&self) -> bool {
        let lines = self.last.strip_suffix(b"\n").unwrap_or(&self.last);
        let last = lines.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        serde_json::from_slice::<(f64, &str, &str)>(last).is_ok_and(|(_, code, _)| code == "x")
    }
}

fn skip_line(file: &mut File) -> io::Result<()> {
    let mut byte = [0];
    // A header is short.
    while file.read(&mut byte)? == 1 && byte[0] != b'\n' {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn all(reading: &mut Reading) -> (String, bool) {
        let mut text = Vec::new();
        loop {
            match reading.read().unwrap() {
                Piece::Some(bytes) => text.extend_from_slice(&bytes),
                Piece::NoMore { ended } => return (String::from_utf8(text).unwrap(), ended),
            }
        }
    }

    #[test]
    fn two_files_are_one_recording_and_a_third_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (before, current) = (dir.path().join("output.1.cast"), dir.path().join("output.cast"));
        fs::write(&before, "{\"header\":1}\n[0,\"o\",\"a\"]\n").unwrap();
        fs::write(&current, "{\"header\":2}\n[0,\"o\",\"b\"]\n").unwrap();
        let files = VecDeque::from([before.clone(), current.clone()]);
        let mut reading = Reading { files, open: None, last: Vec::new() };
        let whole = "{\"header\":1}\n[0,\"o\",\"a\"]\n[0,\"o\",\"b\"]\n";
        assert_eq!(all(&mut reading), (whole.to_owned(), false));

        let mut file = fs::OpenOptions::new().append(true).open(&current).unwrap();
        file.write_all(b"[0,\"o\",\"c\"]\n").unwrap();
        fs::rename(&current, &before).unwrap();
        fs::write(&current, "{\"header\":3}\n[0,\"x\",\"code 0\"]\n").unwrap();
        let rest = "[0,\"o\",\"c\"]\n[0,\"x\",\"code 0\"]\n";
        assert_eq!(all(&mut reading), (rest.to_owned(), true));
    }
}
