//! The person's own terminal: raw while an agent is attached, and as it was afterwards, however that ends.

use std::{
    io::{self, IsTerminal, Read, Write},
    os::fd::AsFd,
    thread,
    time::Duration,
};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use tokio::sync::mpsc;
use tracing::debug;

use crate::{
    cli::{Exit, Failure},
    messages::pty::TermSize,
    pty,
};

/// Pieces of output that may wait for the terminal.
const OUTPUT_WAITING: usize = 64;
/// Pieces of input that may wait for the broker.
const INPUT_WAITING: usize = 64;
/// Read at once.
const PIECE: usize = 4 << 10;

/// Puts margins, colours, origin, insert mode and character sets to their usual state, before a repaint and at
/// the end.
pub(super) const PICTURE_RESET: &str = "\x1b[r\x1b[m\x1b[?6l\x1b[4l\x1b(B\x0f\x1b[?7h";
/// Keyboard, mouse, reports and cursor.
pub(super) const INPUT_RESET: &str = "\x1b[?1l\x1b>\x1b[?9l\x1b[?1000l\x1b[?1001l\x1b[?1002l\x1b[?1003l\x1b[?1004l\
                                      \x1b[?1005l\x1b[?1006l\x1b[?1007l\x1b[?1015l\x1b[?1016l\x1b[?2004l\x1b[?2026l";
/// The window's title is put aside, and put back.
const TITLE_ASIDE: &str = "\x1b[22;0t";
const TITLE_BACK: &str = "\x1b[23;0t";

/// For the last words to a terminal that takes nothing.
const FAREWELL: Duration = Duration::from_millis(500);

/// The terminal, raw. Dropping it makes it what it was.
pub(super) struct Terminal {
    before: Termios,
    /// `None` once it is being given back.
    output: Option<mpsc::Sender<Vec<u8>>>,
    /// Ends when everything is shown, or the terminal has gone.
    shown: std::sync::mpsc::Receiver<()>,
    /// What the person types. Ends when the terminal has gone.
    pub(super) input: mpsc::Receiver<Vec<u8>>,
    /// It shows its other screen.
    pub(super) on_other_screen: bool,
}

/// The terminal is no longer there.
pub(super) struct Gone;

impl Terminal {
    /// Takes the terminal of this process over.
    ///
    /// # Errors
    /// When standard input or output is none.
    pub(super) fn take() -> Result<Self, Failure> {
        let (stdin, stdout) = (io::stdin(), io::stdout());
        if !stdin.is_terminal() || !stdout.is_terminal() {
            let said = "attach needs a terminal; `relay-broker logs` and `relay-broker snapshot` do not";
            return Err(Failure::new(Exit::Usage, said));
        }
        let before = tcgetattr(&stdin).map_err(io::Error::from)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        let (output, out) = mpsc::channel(OUTPUT_WAITING);
        let (typed, input) = mpsc::channel(INPUT_WAITING);
        let (end, shown) = std::sync::mpsc::channel();
        thread::Builder::new().name("screen".to_owned()).spawn(move || show(out, end))?;
        thread::Builder::new().name("keyboard".to_owned()).spawn(move || read(&typed))?;
        // From here on the drop restores it.
        let terminal = Self { before, output: Some(output), shown, input, on_other_screen: false };
        tcsetattr(&stdin, SetArg::TCSANOW, &raw).map_err(io::Error::from)?;
        Ok(terminal)
    }

    /// True when there is no terminal any more.
    pub(super) fn is_gone(&self) -> bool {
        self.output.as_ref().is_none_or(mpsc::Sender::is_closed)
    }

    /// Shows these bytes; waits while the terminal is busy.
    ///
    /// # Errors
    /// [`Gone`] when there is no terminal any more.
    pub(super) async fn show(&self, bytes: Vec<u8>) -> Result<(), Gone> {
        match &self.output {
            Some(output) => output.send(bytes).await.map_err(|_| Gone),
            None => Err(Gone),
        }
    }

    /// The size of its window, within what an agent's terminal may have; `None` when it does not say.
    pub(super) fn size() -> Option<TermSize> {
        let (rows, cols) =
            pty::window_size(io::stdout().as_fd()).ok().filter(|(rows, cols)| *rows > 0 && *cols > 0)?;
        TermSize::new(rows.clamp(10, 200), cols.clamp(20, 500)).ok()
    }

    /// What makes room for a picture: what is on the screen goes up.
    pub(super) fn room() -> Vec<u8> {
        let rows = Self::size().map_or(1, |size| size.rows);
        format!("{TITLE_ASIDE}{}", "\r\n".repeat(usize::from(rows))).into_bytes()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let rows = Self::size().map_or(1, |size| size.rows);
        // The other screen is left last: what was set on it must not act on the one before.
        let leave = if self.on_other_screen { "\x1b[?1049l" } else { "" };
        let end =
            format!("{INPUT_RESET}{PICTURE_RESET}\x1b[?25h\x1b[0 q\x1b[{rows};1H\r\n{leave}{TITLE_BACK}");
        // Through the one queue, so that nothing comes after it. A terminal that takes nothing gets nothing.
        let sent = self.output.take().is_some_and(|output| output.try_send(end.into_bytes()).is_ok());
        if sent {
            // It is answered by the end of the thread alone.
            self.shown.recv_timeout(FAREWELL).ok();
        }
        if let Err(error) = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.before) {
            debug!(%error, "the terminal cannot be restored");
        }
    }
}

/// `_end` is dropped with the last piece.
fn show(mut pieces: mpsc::Receiver<Vec<u8>>, _end: std::sync::mpsc::Sender<()>) {
    let mut out = io::stdout().lock();
    while let Some(piece) = pieces.blocking_recv() {
        if out.write_all(&piece).and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

fn read(typed: &mpsc::Sender<Vec<u8>>) {
    let mut stdin = io::stdin().lock();
    let mut piece = [0; PIECE];
    loop {
        match stdin.read(&mut piece) {
            Ok(0) => return,
            Ok(read) => {
                if typed.blocking_send(piece[..read].to_vec()).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
