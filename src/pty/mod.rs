//! The kernel: terminals, processes, exit, process groups. Nothing else in the crate creates a process that
//! is an agent, holds a PTY master or reads an exit status, so that a keeper process can do it later.
//!
//! ```text
//! Terminal::open -> (Terminal, Slave) ; launch(Launch, Slave, Guard) -> Process
//! Process::exited -> ExitStatus        ; ladder -> Process::signal_groups -> sweep
//! the broker is killed                 ; Guard -> sweep
//! ```
//!
//! Linux alone (5.4 and later): peers by `TIOCGPTPEER`, exits by pidfd, escapees by `/proc` and a child
//! subreaper. Everything here must be called inside a tokio runtime, on a thread that lives as long as the
//! process: the parent-death signal of a child follows the *thread* that forked it.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "relay-broker runs agents on Linux alone: pidfd, TIOCGPTPEER and /proc have no equal elsewhere"
);

mod capacity;
mod cgroup;
mod env;
#[cfg(test)]
mod fixture;
mod guard;
pub mod ladder;
mod launch;
mod memory;
mod process;
mod sweep;
mod sys;
mod terminal;

pub use capacity::{Capacity, capacity};
pub use env::{Environment, clean_env};
pub use guard::{Guard, stand_guard};
pub use launch::{Launch, LaunchError, SPAWN_ID_VAR, launch};
pub use memory::{oom_kills, peak_memory};
pub use nix::{sys::signal::Signal, unistd::Pid};
pub use process::{ExitStatus, Process};
pub use sweep::{Swept, become_subreaper, reap_adopted, start_tick, sweep, sweep_abandoned, sweep_leftover};
pub use terminal::{IN_FLIGHT_MAX, LineMode, ReadOutcome, Slave, Terminal, window_size};
