//! What the registry says to the engine over HTTP: the fallback registration, the channels of a new agent,
//! and the messages of the person at this broker, sent under an identity of the broker's own.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tracing::{info, warn};

use super::{RegistryConfig, location::Bound};
use crate::{
    ids::{AgentId, AgentName, AgentToken, MsgId, NodeName, WorkspaceId, WorkspaceKey},
    messages::{
        channels::{ChannelsRefused, Membership},
        send::{Recipient, SendRefused, Sent},
        session::Registration,
    },
    store::private_file::{read_private, write_private},
    wire::{
        api::{Binding, PostDm, PostMessage, PostReply},
        client::{ApiError, ApiErrorKind, EngineClient},
        codes::AGENT_EXISTS,
    },
};

/// For the engine to take a read receipt.
const READ_TIME: Duration = Duration::from_secs(2);
/// Names tried for the broker's own identity before giving up.
const NAMES_TRIED: u32 = 5;

/// The engine as the registry sees it.
pub(super) struct EngineSide {
    client: EngineClient,
    key: Option<WorkspaceKey>,
    workspace: Option<WorkspaceId>,
    /// The name wanted for the broker's own identity.
    instance: String,
    /// `human` unless configured otherwise.
    agent_type: String,
    /// Where that identity is kept over restarts.
    identity_file: PathBuf,
    /// Found or made by the first message; the lock makes it once for all who wait.
    identity: Mutex<Option<Identity>>,
}

/// Who the broker is at the engine when it speaks for a person.
#[derive(Clone)]
struct Identity {
    name: String,
    token: AgentToken,
}

/// The same on disk. Valid for one engine and one workspace alone.
#[derive(Serialize, Deserialize)]
struct StoredIdentity {
    base_url: String,
    workspace: Option<WorkspaceId>,
    name: String,
    agent_id: AgentId,
    token: String,
}

impl EngineSide {
    pub(super) fn new(config: &RegistryConfig) -> Self {
        Self {
            client: EngineClient::new(config.endpoint.clone()),
            key: config.workspace_key.clone(),
            workspace: config.workspace.clone(),
            instance: config.instance.clone(),
            agent_type: config.agent_type.clone(),
            identity_file: config.identity_file.clone(),
            identity: Mutex::new(None),
        }
    }

    /// Registers over HTTP and binds to this node: the fallback for a socket that is down. The second part
    /// of the answer is a warning when the agent exists but is not bound yet.
    pub(super) async fn register(
        &self,
        name: &AgentName,
        node: Option<&NodeName>,
    ) -> Result<(Registration, Option<String>), String> {
        let Some(key) = &self.key else { return Err("this broker has no workspace key".to_owned()) };
        let made = self.client.create_agent(key, name.as_str(), "agent").await.map_err(|e| e.to_string())?;
        let mut registration = Registration { agent_id: made.id, token: made.token, ack_seq: None };
        let Some(node) = node else {
            return Ok((registration, Some("not bound to this node until it is connected".to_owned())));
        };
        match self.client.bind_agent(key, node.as_str(), name.as_str(), None).await {
            Ok(binding) => {
                registration.ack_seq = binding.delivery_ack_seq;
                Ok((registration, None))
            }
            Err(error) => {
                warn!(agent = %name, %error, "registered over HTTP but not bound to this node");
                Ok((registration, Some(format!("not bound to this node until it is connected: {error}"))))
            }
        }
    }

    /// Says with the agent's own token that it has read a message. Never registers anything, never rotates
    /// the token: a refusal is only reported.
    pub(super) async fn mark_read(&self, token: &AgentToken, message: &MsgId) -> Result<(), String> {
        match tokio::time::timeout(READ_TIME, self.client.mark_read(token, message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {READ_TIME:?}")),
        }
    }

    /// The agents that the engine has on this node.
    pub(super) async fn bound_here(&self, node: &NodeName) -> Result<Vec<Bound>, String> {
        let Some(key) = &self.key else { return Err("this broker has no workspace key".to_owned()) };
        let bindings = self.client.list_node_agents(key, node.as_str()).await.map_err(|e| e.to_string())?;
        let bound = |binding: Binding| Bound { agent_id: binding.agent_id, name: binding.agent_name };
        Ok(bindings.into_iter().map(bound).collect())
    }

    /// Joins an agent's channels with its own token. A channel that cannot be joined costs that channel.
    pub(super) async fn join(&self, agent: &AgentName, token: &AgentToken, channels: &[String]) {
        for channel in channels {
            let channel = channel.trim_start_matches('#');
            if let Err(error) = self.join_one(agent, token, channel).await {
                warn!(%agent, channel, %error, "channel not joined");
            }
        }
    }

    async fn join_one(&self, agent: &AgentName, token: &AgentToken, channel: &str) -> Result<(), ApiError> {
        if let Err(error) = self.client.create_channel(token, channel).await
            && !error.is("channel_already_exists")
        {
            warn!(%agent, channel, %error, "channel not created");
        }
        self.client.join_channel(token, channel).await.map(drop)
    }

    /// Changes an agent's memberships with its own token, one after the other, up to the first that the engine
    /// refuses. Answers how many are changed.
    pub(super) async fn change_channels(
        &self,
        agent: &AgentName,
        token: &AgentToken,
        change: Membership,
        channels: &[String],
    ) -> (usize, Result<(), ChannelsRefused>) {
        for (done, channel) in channels.iter().enumerate() {
            let changed = match change {
                Membership::Join => self.join_one(agent, token, channel).await,
                Membership::Leave => self.client.leave_channel(token, channel).await,
            };
            if let Err(error) = changed {
                let (channel, why) = (channel.clone(), error.to_string());
                let refused = if error.is_retryable() {
                    ChannelsRefused::Unreachable { channel, why }
                } else {
                    ChannelsRefused::Engine { channel, why }
                };
                return (done, Err(refused));
            }
        }
        (channels.len(), Ok(()))
    }

    /// Sends a message for the person at this broker.
    pub(super) async fn send(
        &self,
        to: Recipient,
        text: String,
        mode: crate::messages::delivery::Mode,
        thread: Option<crate::ids::MsgId>,
    ) -> Result<Sent, SendRefused> {
        let who = self.identity().await.map_err(|error| refused(&error))?;
        let msg_id = match (to, thread) {
            (_, Some(thread)) => {
                let reply = PostReply { text, ..PostReply::default() };
                self.client.post_reply(&who.token, &thread, &reply).await.map(|message| message.id)
            }
            (Recipient::Direct(to), None) => {
                let dm = PostDm { to, text, mode: Some(mode), attachments: None };
                self.client.post_dm(&who.token, &dm).await.map(|sent| sent.id)
            }
            (Recipient::Channel(channel), None) => {
                let message = PostMessage::text(text, Some(mode));
                match self.client.post_message(&who.token, &channel, &message).await {
                    Err(error) if error.is("agent_not_in_channel") || error.is("forbidden") => {
                        self.client.join_channel(&who.token, &channel).await.map_err(|e| refused(&e))?;
                        self.client.post_message(&who.token, &channel, &message).await
                    }
                    posted => posted,
                }
                .map(|message| message.id)
            }
        };
        match msg_id {
            Ok(msg_id) => Ok(Sent { msg_id, from: who.name }),
            Err(error) => {
                if error.status == Some(401) {
                    // The identity was deleted or its token rotated: the next message makes a new one.
                    *self.identity.lock().await = None;
                    self.forget().await;
                }
                Err(refused(&error))
            }
        }
    }

    /// The broker's own identity: the one of this process, of an earlier one, or a new one. A taken name is
    /// never taken over; another one is chosen.
    async fn identity(&self) -> Result<Identity, ApiError> {
        let mut held = self.identity.lock().await;
        if let Some(identity) = &*held {
            return Ok(identity.clone());
        }
        let identity = match self.stored().await {
            Some(identity) => identity,
            None => self.create().await?,
        };
        *held = Some(identity.clone());
        Ok(identity)
    }

    async fn create(&self) -> Result<Identity, ApiError> {
        let key = self.key.as_ref().ok_or_else(|| ApiError {
            kind: ApiErrorKind::Unsendable,
            status: None,
            code: "no_workspace_key".to_owned(),
            message: "this broker has no workspace key, so it cannot speak for a person".to_owned(),
            retry_after: None,
        })?;
        let mut name = self.instance.clone();
        let mut tried = 1;
        let made = loop {
            match self.client.create_agent(key, &name, &self.agent_type).await {
                Err(error) if error.is(AGENT_EXISTS) && tried < NAMES_TRIED => {
                    tried += 1;
                    name = format!("{}-{:04x}", self.instance, rand::random::<u16>());
                }
                made => break made?,
            }
        };
        info!(name, "registered as a person at the engine");
        let stored = StoredIdentity {
            base_url: self.client.endpoint().base_url().to_owned(),
            workspace: self.workspace.clone(),
            name: name.clone(),
            agent_id: made.id,
            token: made.token.expose().to_owned(),
        };
        let kept = on_disk(&self.identity_file, move |file| {
            write_private(file, &serde_json::to_vec(&stored).map_err(io::Error::other)?)
        });
        if let Err(error) = kept.await {
            warn!(%error, "the broker's own identity is not kept over a restart");
        }
        Ok(Identity { name, token: made.token })
    }

    async fn stored(&self) -> Option<Identity> {
        let bytes = match on_disk(&self.identity_file, read_private).await {
            Ok(bytes) => bytes?,
            Err(error) => {
                warn!(%error, "the broker's own identity cannot be read; making a new one");
                return None;
            }
        };
        let stored: StoredIdentity = serde_json::from_slice(&bytes).ok()?;
        let here = stored.base_url == self.client.endpoint().base_url() && stored.workspace == self.workspace;
        here.then(|| Identity { name: stored.name, token: AgentToken::from(stored.token) })
    }

    async fn forget(&self) {
        if let Err(error) = on_disk(&self.identity_file, |file| std::fs::remove_file(file)).await
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(%error, "the broker's refused identity cannot be removed");
        }
    }
}

/// File work, on a thread that may wait for the disk.
async fn on_disk<T: Send + 'static>(
    file: &Path,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let file = file.to_owned();
    tokio::task::spawn_blocking(move || work(&file)).await.map_err(io::Error::other)?
}

fn refused(error: &ApiError) -> SendRefused {
    if error.is_retryable() {
        return SendRefused::Unreachable(error.to_string());
    }
    match error.code.as_str() {
        "agent_not_found" | "channel_not_found" | "message_not_found" => {
            SendRefused::NoSuchRecipient(error.message.clone())
        }
        _ => SendRefused::Engine { code: error.code.clone(), message: error.message.clone() },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::wire::client::EngineEndpoint;

    fn side(dir: &Path, base_url: &str, workspace: &str) -> EngineSide {
        EngineSide::new(&RegistryConfig {
            endpoint: EngineEndpoint::parse(base_url, None).unwrap(),
            workspace_key: None,
            workspace: Some(WorkspaceId::from(workspace)),
            instance: "me".into(),
            agent_type: "human".into(),
            identity_file: dir.join("identity.json"),
            cwd: dir.to_owned(),
            channels: Vec::new(),
            embedded: false,
            handlers: BTreeMap::new(),
            actions: BTreeMap::new(),
            result_url: "http://broker/api/agent-result".to_owned(),
        })
    }

    #[actix::test]
    async fn a_persons_identity_serves_one_engine_and_one_workspace_alone() {
        let dir = tempfile::tempdir().unwrap();
        let stored = StoredIdentity {
            base_url: "http://127.0.0.1:1".into(),
            workspace: Some(WorkspaceId::from("w1")),
            name: "me".into(),
            agent_id: AgentId::from("7"),
            token: "at_live_x".into(),
        };
        write_private(&dir.path().join("identity.json"), &serde_json::to_vec(&stored).unwrap()).unwrap();
        let here = side(dir.path(), "http://127.0.0.1:1", "w1");
        assert_eq!(here.stored().await.map(|found| found.name).as_deref(), Some("me"));
        assert!(side(dir.path(), "http://127.0.0.1:1", "w2").stored().await.is_none(), "another workspace");
        assert!(side(dir.path(), "http://127.0.0.1:2", "w1").stored().await.is_none(), "another engine");
        here.forget().await;
        assert!(here.stored().await.is_none());
    }
}
