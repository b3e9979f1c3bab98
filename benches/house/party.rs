//! Either of the two that are measured, with its engine and its children: the broker or the floor.

use std::{
    path::Path,
    process::{Child, Command},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    broker::Broker,
    child,
    child::Program,
    clock,
    engine::{Engine, Heard},
    sink::Sink,
};

/// Longer than any step takes that ever comes to an end.
const PATIENCE: Duration = Duration::from_secs(120);

/// The name of the n-th agent.
pub(crate) fn agent_name(agent: u64) -> String {
    format!("agent-{agent}")
}

/// One of the two.
pub(crate) struct Party {
    engine: Engine,
    sink: Sink,
    /// Messages that each agent has read so far.
    read: Vec<u64>,
    /// What each agent's mailbox is acked up to.
    acked: Vec<u64>,
    pub(crate) subject: Subject,
}

/// What is measured.
pub(crate) enum Subject {
    Broker(Broker),
    Floor(Child),
}

/// When the messages of one delivery were where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// The first byte left the engine.
    pub(crate) sent: u64,
    /// The last message was read by its child.
    pub(crate) read: u64,
    /// The engine had an ack for every message.
    pub(crate) acked: u64,
}

impl Party {
    /// A broker without agents.
    pub(crate) fn broker(dir: &Path) -> Result<Self> {
        let (engine, sink) = (Engine::start()?, Sink::open(dir)?);
        let mut broker = Broker::start(&dir.join("broker"), &engine.url())?;
        broker.listening()?;
        let party =
            Self { engine, sink, read: Vec::new(), acked: Vec::new(), subject: Subject::Broker(broker) };
        party.registered()?;
        Ok(party)
    }

    /// A floor program with so many agents.
    pub(crate) fn floor(dir: &Path, agents: u64) -> Result<Self> {
        let (engine, sink) = (Engine::start()?, Sink::open(dir)?);
        let child = Command::new(std::env::current_exe()?)
            .args(["floor", &engine.address().to_string(), &sink.path().display().to_string()])
            .arg(agents.to_string())
            .spawn()?;
        let count = usize::try_from(agents)?;
        let subject = Subject::Floor(child);
        let mut party = Self { engine, sink, read: vec![0; count], acked: vec![0; count], subject };
        party.registered()?;
        for _ in 0..agents {
            party.heard(|heard| matches!(heard, Heard::Agent))?;
        }
        party.deliver(0..agents)?;
        Ok(party)
    }

    /// Gives the broker one more agent that reads; answers how long the spawn took, in milliseconds.
    pub(crate) fn spawn(&mut self) -> Result<f64> {
        Ok(self.spawn_as(Program::Reader)?.1)
    }

    /// Gives the broker one more agent; answers its process id and how long the spawn took, in milliseconds.
    pub(crate) fn spawn_as(&mut self, program: Program) -> Result<(u32, f64)> {
        let agent = self.read.len() as u64;
        let report = self.sink.path().display().to_string();
        let args = [program.word(), &report, &agent.to_string()];
        let name = agent_name(agent);
        let spawned = self.as_broker()?.spawn(&name, &std::env::current_exe()?, &args, program.harness())?;
        self.read.push(0);
        self.acked.push(0);
        Ok(spawned)
    }

    pub(crate) fn as_broker(&self) -> Result<&Broker> {
        match &self.subject {
            Subject::Broker(broker) => Ok(broker),
            Subject::Floor(_) => bail!("the floor is no broker"),
        }
    }

    /// When the node registered.
    pub(crate) fn registered(&self) -> Result<u64> {
        self.heard(|heard| matches!(heard, Heard::Node))
    }

    fn heard(&self, wanted: impl Fn(&Heard) -> bool) -> Result<u64> {
        loop {
            let (at, heard) = self.engine.next(PATIENCE)?;
            if wanted(&heard) {
                return Ok(at);
            }
        }
    }

    /// Delivers one message to each of these agents, all at once, and waits until all are read and acked.
    /// Fails when one is lost, repeated or out of order.
    pub(crate) fn deliver(&mut self, to: impl Iterator<Item = u64>) -> Result<Times> {
        self.deliver_of(child::EVERYDAY, to)
    }

    /// The same with texts of so many bytes.
    pub(crate) fn deliver_of(&mut self, bytes: usize, to: impl Iterator<Item = u64>) -> Result<Times> {
        let names: Vec<_> = (0..self.read.len() as u64).map(agent_name).collect();
        let mut wanted = self.read.clone();
        let mut mail = Vec::new();
        for agent in to {
            let index = usize::try_from(agent)?;
            let number = wanted.get_mut(index).context("no such agent")?;
            *number += 1;
            mail.push((names[index].as_str(), child::text(*number, bytes)));
        }
        let mut left = mail.len();
        let sent = self.engine.deliver(mail.into_iter())?;
        let mut times = Times { sent, read: 0, acked: 0 };
        while left > 0 {
            let seen = self.sink.next(PATIENCE).with_context(|| format!("{left} messages are not read"))?;
            let last = &mut self.read[usize::try_from(seen.agent)?];
            ensure!(seen.number == *last + 1, "{} after {last} at agent {}", seen.number, seen.agent);
            *last = seen.number;
            times.read = times.read.max(seen.at);
            left -= 1;
        }
        while self.acked != wanted {
            let (at, heard) = self.engine.next(PATIENCE).context("not all messages are acked")?;
            if let Heard::Acked { agent, up_to } = heard {
                let index = names.iter().position(|name| *name == agent).context("an ack for a stranger")?;
                ensure!(up_to <= wanted[index], "an ack for what was not sent");
                self.acked[index] = self.acked[index].max(up_to);
                times.acked = at;
            }
        }
        Ok(times)
    }
}

impl Times {
    /// From the engine into the child, in microseconds.
    pub(crate) fn to_read_us(self) -> f64 {
        clock::ms(self.sent, self.read) * 1000.0
    }

    /// From the engine to the ack, in microseconds.
    pub(crate) fn to_acked_us(self) -> f64 {
        clock::ms(self.sent, self.acked) * 1000.0
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        if let Self::Floor(child) = self {
            // One that has ended already is no matter.
            child.kill().ok();
            child.wait().ok();
        }
    }
}
