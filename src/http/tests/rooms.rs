//! What stands behind the API in place of the rooms: it keeps what it is asked, and says what a test wants.

use super::*;

/// What the rooms behind the API were asked, and what they shall say.
#[derive(Default)]
pub(super) struct Script {
    pub(super) spawns: Vec<SpawnSpec>,
    pub(super) releases: Vec<(String, bool)>,
    pub(super) sends: Vec<SendMessage>,
    pub(super) inputs: Vec<Vec<u8>>,
    pub(super) refuse_spawn: Option<SpawnRefused>,
    pub(super) refuse_send: Option<SendRefused>,
    pub(super) refuse_channels: Option<ChannelsRefused>,
    pub(super) letters: Vec<DeadLetter>,
    pub(super) delivery_mode: DeliveryMode,
    pub(super) pending: Vec<Pending>,
    /// Registry and worker take questions and never answer.
    pub(super) silent: bool,
    /// The agent's program has failed, and the next one does not run yet.
    pub(super) resting: bool,
    /// To hold messages back is done, and never answered.
    pub(super) hold_unanswered: bool,
    /// What the agent of [`RESULT_TOKEN`] handed in: data, final, metadata.
    pub(super) results: Vec<(String, bool, Option<String>)>,
    /// The ways to the sidecars that have registered, and their manifests.
    pub(super) sidecars: Vec<(mpsc::Sender<Call>, Manifest)>,
    pub(super) refuse_sidecar: Option<SidecarRefused>,
    /// What the sidecar's calls ended with.
    pub(super) ended_calls: Vec<(String, Result<String, String>)>,
    /// Of spawns, in words.
    pub(super) origins: Vec<String>,
}

pub(super) type Shared = Arc<Mutex<Script>>;

pub(super) fn lock(script: &Shared) -> MutexGuard<'_, Script> {
    script.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Stands for every room but the event hub.
pub(super) struct Rooms {
    pub(super) life: Lifeline,
    pub(super) script: Shared,
    pub(super) kept: Vec<Box<dyn std::any::Any>>,
    pub(super) agent: Option<AgentDoors>,
    pub(super) ends: mpsc::UnboundedSender<String>,
}

impl Actor for Rooms {
    type Context = Context<Self>;
}
impl Supervised for Rooms {}

macro_rules! handles {
    ($message:ty, |$rooms:ident, $asked:pat_param| $answer:expr) => {
        impl Handler<$message> for Rooms {
            type Result = ();
            fn handle(&mut self, $asked: $message, _: &mut Context<Self>) {
                let _turn = self.life.turn();
                let $rooms = self;
                $answer
            }
        }
    };
}

handles!(Spawn, |rooms, asked| {
    let refused = lock(&rooms.script).refuse_spawn.clone();
    let spawned = Spawned {
        name: asked.spec.name.clone(),
        agent_id: "ag_1".into(),
        pid: 4242,
        harness: "plain".into(),
        warning: None,
    };
    lock(&rooms.script).origins.push(format!("{:?}", asked.origin));
    lock(&rooms.script).spawns.push(asked.spec);
    asked.reply.send(refused.map_or(Ok(spawned), Err));
});
handles!(Release, |rooms, asked| {
    lock(&rooms.script).releases.push((asked.name.to_string(), asked.force));
    asked.reply.send(Released::Unknown);
});
handles!(SendMessage, |rooms, mut asked| {
    let refused = lock(&rooms.script).refuse_send.clone();
    let reply = std::mem::replace(&mut asked.reply, Reply::channel().0);
    lock(&rooms.script).sends.push(asked);
    reply.send(refused.map_or(Ok(Sent { msg_id: MsgId::from("m1"), from: "me".into() }), Err));
});
handles!(ListAgents, |rooms, asked| {
    if lock(&rooms.script).silent {
        rooms.kept.push(Box::new(asked));
    } else {
        asked.0.send(rooms.agent.iter().map(|doors| doors.view.clone()).collect());
    }
});
handles!(FindAgent, |rooms, asked| {
    if lock(&rooms.script).silent {
        rooms.kept.push(Box::new(asked));
    } else {
        let doors = rooms.agent.clone().filter(|doors| doors.view.spec.name == asked.name);
        let resting = lock(&rooms.script).resting;
        asked.reply.send(match doors {
            Some(_) if resting => Found::NoProgram(AgentPhase::Restarting),
            Some(doors) => Found::Doors(Box::new(doors)),
            None => Found::Nobody,
        });
    }
});
handles!(ChangeChannels, |rooms, asked| {
    let refused = lock(&rooms.script).refuse_channels.clone();
    let change = if asked.change == Membership::Join { "join" } else { "leave" };
    let channels = [&[change.to_owned()], &asked.channels[..]].concat();
    asked.reply.send(refused.map_or(Ok(channels), Err));
});
handles!(SubmitResult, |rooms, asked| {
    let is_its = asked.token.is(RESULT_TOKEN.as_bytes()) && asked.agent.is_none_or(|agent| agent == "al");
    let taken = is_its.then(|| {
        let metadata = asked.metadata.map(|metadata| metadata.get().to_owned());
        lock(&rooms.script).results.push((asked.data.get().to_owned(), asked.is_final, metadata));
        ResultTaken { name: name("al"), id: "r1".into() }
    });
    asked.reply.send(taken);
});
handles!(ListExits, |_rooms, asked| {
    asked.0.send(Vec::new());
});
handles!(ListDeadLetters, |rooms, asked| {
    asked.0.send(lock(&rooms.script).letters.clone());
});
handles!(RedeliverLetters, |rooms, asked| {
    let wanted = |letter: &&DeadLetter| match &asked.which {
        Letters::All => true,
        Letters::Of(id) => letter.delivery == *id,
    };
    let tried = |letter: &DeadLetter| Redelivery {
        delivery: letter.delivery.clone(),
        name: letter.name.clone(),
        outcome: if letter.name.as_str() == "al" { Ok(()) } else { Err(RedeliverRefused::NotLive) },
    };
    let tried = lock(&rooms.script).letters.iter().filter(wanted).map(tried).collect();
    asked.reply.send(tried);
});
handles!(RegisterSidecar, |rooms, asked| {
    let mut script = lock(&rooms.script);
    script.sidecars.push((asked.calls, asked.manifest));
    let id = SidecarId(script.sidecars.len() as u64);
    asked.reply.send(script.refuse_sidecar.clone().map_or(Ok(id), Err));
});
handles!(OfferHandlers, |rooms, asked| {
    asked.reply.send(lock(&rooms.script).refuse_sidecar.clone().map_or(Ok(()), Err));
});
handles!(EndCall, |rooms, asked| {
    lock(&rooms.script).ended_calls.push((asked.invocation.to_string(), asked.outcome));
    asked.reply.send(Ok(()));
});
handles!(SidecarGone, |rooms, asked| {
    rooms.ends.send(format!("sidecar {}", asked.sidecar)).unwrap();
    asked.reply.send(());
});
handles!(Input, |rooms, asked| {
    let taken = asked.bytes.len();
    lock(&rooms.script).inputs.push(asked.bytes);
    asked.reply.send(Ok(taken));
});
handles!(Resize, |_rooms, asked| {
    asked.reply.send(Ok(()));
});
handles!(AnswerDialog, |_rooms, asked| {
    asked.reply.send(Err(AnswerRefused::NoDialog));
});
handles!(TakeSnapshot, |_rooms, asked| {
    asked.0.send(Snapshot {
        size: TermSize::default(),
        cursor: (2, 1),
        plain: "$ hello\nworld\n".into(),
        ansi: b"\x1b[Hx".to_vec(),
        title: "t".into(),
        offset: 99,
        state: AgentState::Idle,
        modes: vec!["bracketed_paste"],
    });
});
handles!(ObserveCursor, |_rooms, asked| {
    asked.0.send(cursor());
});
handles!(SetDeliveryMode, |rooms, asked| {
    let mut script = lock(&rooms.script);
    let (previous, mode) = (script.delivery_mode, asked.mode);
    let conflict = asked.expect.filter(|expected| *expected != previous);
    let set = conflict.map_or(Ok(ModeSet { previous, mode, flushed: 2 }), |expected| {
        Err(ModeConflict { mode: previous, expected })
    });
    if set.is_ok() {
        script.delivery_mode = mode;
    }
    if script.hold_unanswered && mode == DeliveryMode::ManualFlush {
        rooms.kept.push(Box::new(asked));
    } else {
        asked.reply.send(set);
    }
});
handles!(GetDeliveryMode, |rooms, asked| {
    asked.0.send(lock(&rooms.script).delivery_mode);
});
handles!(ListPending, |rooms, asked| {
    asked.0.send(lock(&rooms.script).pending.clone());
});
handles!(Flush, |rooms, asked| {
    let pending = &lock(&rooms.script).pending;
    let is_meant = |one: &&Pending| asked.only.as_ref().is_none_or(|only| one.delivery == *only);
    asked.reply.send(pending.iter().filter(is_meant).count());
});
handles!(Shutdown, |rooms, asked| {
    rooms.ends.send(asked.reason).unwrap();
});
handles!(Resume, |rooms, _asked| {
    rooms.ends.send("resume".to_owned()).unwrap();
});

pub(super) fn cursor() -> CursorView {
    let last = LastDelivery {
        delivery_id: "d1".into(),
        msg_id: "m1".into(),
        seq: Seq(7),
        from: "bob".into(),
        queued_at_ms: 1_000,
        attempts: 2,
        rung: Some(Rung::Written),
        waiting_for: "the text to show in the composer".into(),
    };
    CursorView { received: Seq(7), acked: Seq(6), held: 1, last: Some(last), ..CursorView::default() }
}
