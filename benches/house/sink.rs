//! Where the children report what they have read.

use std::{
    io::{BufReader, Read},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

/// A child has read a message to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Which child.
    pub(crate) agent: u64,
    /// The text's number.
    pub(crate) number: u64,
    /// When.
    pub(crate) at: u64,
}

/// The reports of all children.
pub(crate) struct Sink {
    path: PathBuf,
    seen: Receiver<Seen>,
}

impl Sink {
    /// A sink in this directory.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let path = dir.join("reports");
        let listener = UnixListener::bind(&path)?;
        let (tell, seen) = channel();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let tell = tell.clone();
                // A child that ends ends its reports.
                thread::spawn(move || take(stream, &tell).ok());
            }
        });
        Ok(Self { path, seen })
    }

    /// Where to connect to.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The next report.
    pub(crate) fn next(&self, patience: Duration) -> Result<Seen> {
        self.seen.recv_timeout(patience).context("the children read nothing more")
    }
}

fn take(stream: UnixStream, tell: &Sender<Seen>) -> Result<()> {
    let mut stream = BufReader::new(stream);
    let mut number = || -> Result<u64> {
        let mut bytes = [0; 8];
        stream.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    };
    let agent = number()?;
    loop {
        let (at, number) = (number()?, number()?);
        tell.send(Seen { agent, number, at })?;
    }
}
