//! What a guard is told, a line each, and what it knows by that. Both ends keep the same book: so a guard that
//! takes another's place is told all of it again.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::{ids::SpawnId, pty::sweep::Leader};

/// One line. Far shorter than what a pipe takes whole (`PIPE_BUF`, 4096 bytes).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// The directory of all agents' cgroups.
    Groups(PathBuf),
    /// An agent that is about to be forked.
    Agent(SpawnId),
    /// Its leader: pid and start tick.
    Leader(SpawnId, Leader),
    /// It is over, and what it left behind is ended.
    Over(SpawnId),
}

/// Not a line of ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Groups(dir) => write!(f, "groups {}", dir.display()),
            Self::Agent(spawn) => write!(f, "agent {spawn}"),
            Self::Leader(spawn, Leader { pid, started }) => write!(f, "leader {spawn} {pid} {started}"),
            Self::Over(spawn) => write!(f, "over {spawn}"),
        }
    }
}

impl FromStr for Line {
    type Err = Unreadable;

    fn from_str(line: &str) -> Result<Self, Unreadable> {
        let (word, rest) = line.split_once(' ').ok_or(Unreadable)?;
        match word {
            "groups" => Ok(Self::Groups(rest.into())),
            "agent" => Ok(Self::Agent(rest.into())),
            "leader" => {
                let (spawn, numbers) = rest.split_once(' ').ok_or(Unreadable)?;
                let (pid, started) = numbers.split_once(' ').ok_or(Unreadable)?;
                let pid = pid.parse().map_err(|_| Unreadable)?;
                let started = started.parse().map_err(|_| Unreadable)?;
                Ok(Self::Leader(spawn.into(), Leader { pid, started }))
            }
            "over" => Ok(Self::Over(rest.into())),
            _ => Err(Unreadable),
        }
    }
}

/// What is to be ended when the broker is gone.
#[derive(Debug, Default)]
pub(super) struct Book {
    groups: Option<PathBuf>,
    /// Each agent with its leader, once that is known.
    agents: BTreeMap<SpawnId, Option<Leader>>,
}

impl Book {
    pub(super) fn note(&mut self, line: Line) {
        match line {
            Line::Groups(dir) => self.groups = Some(dir),
            Line::Agent(spawn) => drop(self.agents.insert(spawn, None)),
            Line::Leader(spawn, leader) => drop(self.agents.insert(spawn, Some(leader))),
            Line::Over(spawn) => drop(self.agents.remove(&spawn)),
        }
    }

    /// The lines by which another one comes to know the same.
    pub(super) fn lines(&self) -> impl Iterator<Item = Line> {
        let agent = |(spawn, leader): (&SpawnId, &Option<Leader>)| match leader {
            None => Line::Agent(spawn.clone()),
            Some(leader) => Line::Leader(spawn.clone(), *leader),
        };
        self.groups.iter().cloned().map(Line::Groups).chain(self.agents.iter().map(agent))
    }

    pub(super) fn groups(&self) -> Option<&Path> {
        self.groups.as_deref()
    }

    pub(super) fn agents(&self) -> &BTreeMap<SpawnId, Option<Leader>> {
        &self.agents
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &str) -> Book {
        let mut book = Book::default();
        lines.lines().filter_map(|line| line.parse().ok()).for_each(|line| book.note(line));
        book
    }

    fn written(book: &Book) -> Vec<String> {
        book.lines().map(|line| line.to_string()).collect()
    }

    #[test]
    fn what_is_left_in_the_book_is_told_again_in_the_same_words() {
        let book = read(
            "groups /sys/fs/cgroup/my scope/x\nagent a\nagent b\nleader b 12 120\nagent c\nleader c 13 130\nover b\n\
             over nobody\n",
        );
        let lines = ["groups /sys/fs/cgroup/my scope/x", "agent a", "leader c 13 130"];
        assert_eq!(written(&book), lines);
        assert_eq!(written(&read(&lines.join("\n"))), lines);
    }

    #[test]
    fn a_line_of_nobodys_is_passed_over() {
        for line in [
            "",
            "agent",
            "leader a",
            "leader a x",
            "leader",
            "leader a 1",
            "leader a 1 x",
            "kill all",
            " agent a",
        ] {
            assert_eq!(line.parse::<Line>(), Err(Unreadable), "{line}");
        }
    }
}
