//! `hold`, `flush` and `auto`: keeping an agent's messages back, and letting them through.

use serde::{Deserialize, Serialize};

use super::{
    Exit, Failure, agent_name,
    client::{Answer, Api, block_on},
    find::Where,
    ui,
};
use crate::{config::Env, ids::AgentName, messages::hold::DeliveryMode};

/// Whose, and how the answer is shown.
#[derive(Debug, clap::Args)]
pub(super) struct Whose {
    /// Which agent.
    #[arg(value_parser = agent_name)]
    name: AgentName,
    /// Print the broker's answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Where,
}

/// `relay-broker flush`
#[derive(Debug, clap::Args)]
pub(super) struct FlushArgs {
    #[command(flatten)]
    whose: Whose,
    /// Only this one, by the id in the list.
    #[arg(conflicts_with = "list")]
    id: Option<String>,
    /// Let nothing through; show what is held.
    #[arg(long)]
    list: bool,
}

#[derive(Serialize)]
struct ModeRequest {
    mode: DeliveryMode,
}

#[derive(Deserialize)]
struct ModeReply {
    previous: DeliveryMode,
    flushed: usize,
}

#[derive(Serialize)]
struct FlushRequest<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery_id: Option<&'a str>,
}

#[derive(Deserialize)]
struct FlushReply {
    flushed: usize,
}

#[derive(Deserialize)]
struct Listing {
    pending: Vec<Pending>,
}

#[derive(Deserialize)]
struct Pending {
    delivery_id: String,
    from: String,
    target: String,
    body: String,
}

impl Whose {
    fn path(&self, what: &str) -> String {
        format!("/api/spawned/{}/{what}", self.name)
    }

    fn set(&self, mode: DeliveryMode, env: &Env) -> Result<Answer, Failure> {
        let broker = self.place.find(env)?;
        let path = self.path("delivery-mode");
        block_on(async { Api::new(broker).put(&path, &ModeRequest { mode }).await })
    }
}

/// Holds its messages back.
pub(super) fn hold(args: &Whose, env: &Env) -> Result<Exit, Failure> {
    let answer = args.set(DeliveryMode::ManualFlush, env)?;
    let name = &args.name;
    answer.show(args.json, || {
        let reply: ModeReply = answer.read()?;
        let already = if reply.previous == DeliveryMode::ManualFlush { " already" } else { "" };
        Ok(format!(
            "messages to {name} are{already} held; let them through with `relay-broker flush {name}`, and end \
             it with `relay-broker auto {name}`"
        ))
    })
}

/// Lets them through as they come, from now on.
pub(super) fn auto(args: &Whose, env: &Env) -> Result<Exit, Failure> {
    let answer = args.set(DeliveryMode::AutoInject, env)?;
    answer.show(args.json, || {
        let reply: ModeReply = answer.read()?;
        let let_through = match reply.flushed {
            0 => String::new(),
            n => format!("; {} on the way", messages(n)),
        };
        Ok(format!("messages to {} go in as they come{let_through}", args.name))
    })
}

/// Lets through what is held now, or shows it.
pub(super) fn flush(args: &FlushArgs, env: &Env) -> Result<Exit, Failure> {
    let FlushArgs { whose, id, list } = args;
    let broker = whose.place.find(env)?;
    if *list {
        let answer = block_on(async { Api::new(broker).get(&whose.path("pending")).await })?;
        return answer.show(whose.json, || Ok(table(answer.read()?)));
    }
    let request = FlushRequest { delivery_id: id.as_deref() };
    let answer = block_on(async { Api::new(broker).post(&whose.path("flush"), &request).await })?;
    let reply: FlushReply = answer.read()?;
    if let (Some(id), 0) = (id, reply.flushed) {
        let said = format!(
            "no message `{id}` is held for {0}; `relay-broker flush {0} --list` shows which are",
            whose.name
        );
        return Err(Failure::new(Exit::NotFound, said));
    }
    answer.show(whose.json, || {
        Ok(match reply.flushed {
            0 => format!("nothing is held for {}", whose.name),
            n => format!("{} let through", messages(n)),
        })
    })
}

fn messages(count: usize) -> String {
    if count == 1 { "1 message".to_owned() } else { format!("{count} messages") }
}

fn table(listing: Listing) -> String {
    if listing.pending.is_empty() {
        return "nothing is held".to_owned();
    }
    let row = |one: Pending| {
        vec![one.delivery_id, ui::plain(&one.from), ui::plain(&one.target), ui::shortened(&one.body)]
    };
    let rows: Vec<_> = listing.pending.into_iter().map(row).collect();
    ui::table(&["ID", "FROM", "TO", "TEXT"], &rows)
}
