//! The floor: the least that a program can do to bring a frame from a socket into a terminal. One thread,
//! blocking calls, no order, no proof, no journal, no supervision.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufReader, Write},
    net::TcpStream,
    os::fd::AsFd,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    pty::openpty,
};
use relay_broker::{
    ids::Seq,
    wire::frames::{AgentRegister, BrokerFrame, DeliveryAck, EngineFrame, NodeRegister},
};
use serde::Deserialize;

use crate::{party::agent_name, socket};

/// Of a payload, what a terminal is shown.
#[derive(Deserialize)]
struct Payload {
    data: Text,
}

#[derive(Deserialize)]
struct Text {
    text: String,
}

struct Terminal {
    master: File,
    acked: u64,
    written: u64,
}

/// Serves agents until the engine ends the connection.
pub(crate) fn run(engine: &str, report: &str, agents: u64) -> Result<()> {
    let stream = TcpStream::connect(engine)?;
    stream.set_nodelay(true)?;
    let mut writing = stream.try_clone()?;
    let mut reading = BufReader::with_capacity(64 << 10, stream);
    write!(
        writing,
        "GET /v1/node/ws HTTP/1.1\r\nHost: {engine}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )?;
    socket::http_head(&mut reading)?;
    let mut send = |frame: BrokerFrame| {
        socket::send(&mut writing, socket::TEXT, true, frame.encode().as_bytes())
            .context("the engine is gone")
    };
    let node = NodeRegister {
        name: "floor".to_owned(),
        node_id: "node_floor".to_owned(),
        ..NodeRegister::default()
    };
    send(BrokerFrame::NodeRegister(node))?;
    let mut terminals = HashMap::new();
    for agent in 0..agents {
        let name = agent_name(agent);
        terminals.insert(name.clone(), terminal(report, agent)?);
        send(BrokerFrame::AgentRegister(AgentRegister { name, ..AgentRegister::default() }))?;
    }

    let mut payload = Vec::new();
    while let Ok(opcode) = socket::next(&mut reading, &mut payload) {
        if opcode != socket::TEXT {
            continue;
        }
        let EngineFrame::Deliver(frame) = EngineFrame::decode_tolerant(std::str::from_utf8(&payload)?)?
        else {
            continue;
        };
        let Payload { data: Text { mut text } } = serde_json::from_str(frame.payload.get())?;
        text.push('\r');
        let terminal = terminals.get_mut(&frame.agent).context("mail for a stranger")?;
        terminal.master.write_all(text.as_bytes())?;
        terminal.written = frame.seq.0;
        if reading.buffer().is_empty() {
            for (name, terminal) in &mut terminals {
                if terminal.written > terminal.acked {
                    terminal.acked = terminal.written;
                    let up_to_seq = Seq(terminal.acked);
                    send(BrokerFrame::DeliveryAck(DeliveryAck { id: None, agent: name.clone(), up_to_seq }))?;
                }
            }
        }
    }
    Ok(())
}

fn terminal(report: &str, agent: u64) -> Result<Terminal> {
    let pair = openpty(None, None)?;
    fcntl(pair.master.as_fd(), FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    let slave = || pair.slave.try_clone().map(Stdio::from);
    // Ends when its terminal goes away with this process.
    Command::new(std::env::current_exe()?)
        .args(["reader", report, &agent.to_string()])
        .stdin(slave()?)
        .stdout(slave()?)
        .spawn()?;
    Ok(Terminal { master: pair.master.into(), acked: 0, written: 0 })
}
