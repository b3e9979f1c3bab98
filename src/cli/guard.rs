//! `guard`: what ends a killed broker's agents for good. The broker starts it for itself.

use super::Exit;
use crate::pty;

/// Hears the broker on standard input until that ends.
pub fn run() -> Exit {
    // For lists of processes, where it is called `exe` without, after /proc/self/exe.
    nix::sys::prctl::set_name(c"relay-guard").ok();
    pty::stand_guard(std::io::stdin().lock());
    Exit::Ok
}
