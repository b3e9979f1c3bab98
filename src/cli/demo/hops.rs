//! The broker's event stream, told to a person hop by hop.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use awc::{Client, ws};
use futures_util::StreamExt;
use serde::Deserialize;

use crate::cli::{Exit, Failure, find::Found, ui};

/// Events for which a stream was opened come at once.
const CONNECT: Duration = Duration::from_secs(5);

type Frames = actix_codec::Framed<awc::BoxedSocket, ws::Codec>;

/// The stream, and what it has told so far.
pub(super) struct Hops {
    frames: Frames,
    began: Instant,
    /// Text by message.
    texts: HashMap<String, String>,
    acked: HashSet<String>,
}

/// What is read of an event; most have more, and many have less.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Event {
    kind: String,
    name: String,
    event_id: String,
    delivery_id: String,
    from: String,
    target: String,
    body: String,
    rung: String,
    evidence: String,
    verification: String,
    reason: String,
}

impl Hops {
    /// Opens the stream from its beginning.
    pub(super) async fn listen(broker: &Found, began: Instant) -> Result<Self, Failure> {
        let lost = |error: String| Failure::new(Exit::Failed, format!("no event stream: {error}"));
        let url = format!("{}/ws?sinceSeq=0", broker.url);
        let began_asking = Instant::now();
        loop {
            let client = Client::builder().timeout(CONNECT).disable_redirects().finish();
            let opening = client.ws(&url).header("x-api-key", broker.api_key.expose()).connect();
            match opening.await {
                Ok((_, frames)) => {
                    return Ok(Self { frames, began, texts: HashMap::new(), acked: HashSet::new() });
                }
                // The house is still being built.
                Err(awc::error::WsClientError::InvalidResponseStatus(status))
                    if status.as_u16() == 503 && began_asking.elapsed() < CONNECT =>
                {
                    actix_rt::time::sleep(Duration::from_millis(10)).await;
                }
                Err(error) => return Err(lost(error.to_string())),
            }
        }
    }

    /// Prints what happens until this many deliveries are acked.
    pub(super) async fn print_until_acked(&mut self, wanted: usize) -> Result<(), Failure> {
        while self.acked.len() < wanted {
            let frame = match self.frames.next().await {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    return Err(Failure::new(Exit::Failed, format!("the event stream broke: {error}")));
                }
                None => return Err(Failure::new(Exit::Failed, "the event stream ended too early")),
            };
            if let ws::Frame::Text(text) = frame
                && let Ok(event) = serde_json::from_slice::<Event>(&text)
                && let Some(line) = self.tell(event)
            {
                ui::line(&format!("{:>6} ms  {line}", self.began.elapsed().as_millis()))?;
            }
        }
        Ok(())
    }

    /// The event in words; `None` for what is no hop of a message.
    fn tell(&mut self, event: Event) -> Option<String> {
        let agent = ui::plain(&event.name);
        match event.kind.as_str() {
            "relay_inbound" => {
                let text = ui::plain(&event.body);
                let line = format!("{} -> {}: {text}", ui::plain(&event.from), ui::plain(&event.target));
                self.texts.insert(event.event_id, text);
                Some(line)
            }
            "delivery_queued" => {
                let text = self.texts.get(&event.event_id).map(|text| format!(" ({text})"));
                Some(format!("    queued for {agent}{}", text.unwrap_or_default()))
            }
            "delivery_injected" => {
                Some(format!("    injected into {agent}'s terminal, rung `{}`", event.rung))
            }
            "delivery_verified" => Some(format!("    proven: {}", proof(&event.verification, &agent))),
            "delivery_ack" => {
                self.acked.insert(event.delivery_id);
                let proof = ui::plain(&event.evidence);
                Some(format!("    acked to the engine, proof `{proof}` is on disk"))
            }
            "message_delivery_failed" | "delivery_dropped" | "dead_letter_added" => {
                Some(format!("    not delivered to {agent}: {}", ui::plain(&event.reason)))
            }
            "worker_ready" => Some(format!("    {agent} is ready for its first message")),
            "agent_exited" => Some(format!("{agent} has ended: {}", ui::plain(&event.reason))),
            _ => None,
        }
    }
}

/// What a rung means (docs/delivery.md).
fn proof(rung: &str, agent: &str) -> String {
    match rung {
        "consumed" => format!("{agent}'s process has read it, `consumed`"),
        "submitted" => format!("{agent}'s composer took it, `submitted`"),
        "accepted" => format!("{agent} shows it as a turn, `accepted`"),
        other => format!("`{}`", ui::plain(other)),
    }
}
