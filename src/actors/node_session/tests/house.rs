//! The session between that engine and ears in place of the other rooms.

use super::*;

/// Hears what the session tells, and answers as the mint would.
pub(super) struct Ears {
    told: UnboundedSender<Told>,
    tokens: u64,
}

pub(super) enum Told {
    Token(Option<Generation>),
    Enrol(String),
    Up(SessionUp),
    Invoked(Invoke),
    Conflict,
    Delivered(Deliver),
    Epoch(Epoch),
}

impl Actor for Ears {
    type Context = Context<Self>;
}

impl Ears {
    /// Ears, and what they are told.
    pub(super) fn open() -> (actix::Addr<Self>, UnboundedReceiver<Told>) {
        let (tx, told) = unbounded_channel();
        (Self { told: tx, tokens: 0 }.start(), told)
    }

    fn grant(&mut self) -> TokenGrant {
        let generation = Generation(self.tokens);
        self.tokens += 1;
        TokenGrant {
            token: NodeToken::from(format!("nt_live_{generation}")),
            generation,
            node_id: "node_1".into(),
            node_name: "quay".into(),
        }
    }
}

macro_rules! hears {
    ($($message:ty, $self:ident, $told:ident => $heard:expr;)+) => {
        $(impl Handler<$message> for Ears {
            type Result = ();

            fn handle(&mut $self, $told: $message, _: &mut Self::Context) {
                let heard = $heard;
                $self.told.send(heard).ok();
            }
        })+
    };
}
hears! {
    GetToken, self, asked => { asked.reply.send(Ok(self.grant())); Told::Token(asked.rejected) };
    EnrolAgain, self, asked => { asked.reply.send(Ok(self.grant())); Told::Enrol(asked.code) };
    SessionUp, self, up => Told::Up(up);
    Invoke, self, invoke => Told::Invoked(invoke);
    LocationConflict, self, _conflict => Told::Conflict;
    Deliver, self, deliver => Told::Delivered(deliver);
    EpochStarted, self, started => Told::Epoch(started.epoch);
}

impl Handler<Publish> for Ears {
    type Result = ();

    fn handle(&mut self, _: Publish, _: &mut Self::Context) {}
}

/// Ends the ears.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(super) struct Die;

impl Handler<Die> for Ears {
    type Result = ();

    fn handle(&mut self, _: Die, ctx: &mut Self::Context) {
        actix::ActorContext::stop(ctx);
    }
}

pub(super) struct House {
    pub(super) engine: Engine,
    pub(super) session: Child<NodeSession>,
    ears: actix::Addr<Ears>,
    pub(super) told: UnboundedReceiver<Told>,
}

pub(super) fn quick() -> Timings {
    Timings {
        heartbeat: Duration::from_millis(100),
        silence: Duration::from_secs(30),
        sync: Duration::from_secs(30),
        register: Duration::from_secs(10),
        agent_register: Duration::from_secs(10),
        healthy: Duration::from_millis(100),
        ..Timings::default()
    }
}

pub(super) fn post<M>(ears: &actix::Addr<Ears>) -> Post<M>
where
    M: actix::Message<Result = ()> + Send + 'static,
    Ears: Handler<M>,
{
    Post::new(ears.clone().recipient(), Probe::new(ActorId::of(ActorKind::EventHub, "ears")))
}

impl House {
    pub(super) async fn start(timings: Timings) -> Self {
        Self::at(Engine::start().await, timings)
    }

    /// One whose session is live, and its socket.
    pub(super) async fn live(timings: Timings) -> (Self, Socket) {
        let mut house = Self::start(timings).await;
        let socket = house.engine.live().await;
        house.up().await;
        (house, socket)
    }

    pub(super) fn at(engine: Engine, timings: Timings) -> Self {
        let (ears, told) = Ears::open();
        let (session, seat) = Seat::reserve(ActorId::sole(ActorKind::NodeSession), &Directory::default());
        let config = SessionConfig {
            endpoint: engine.endpoint.clone(),
            harnesses: vec!["plain".to_owned()],
            actions: vec![],
            max_agents: 4,
            tags: vec![],
            timings,
        };
        let doors = SessionDoors {
            get_token: post(&ears),
            enrol: post(&ears),
            session_up: post(&ears),
            invoke: post(&ears),
            conflict: post(&ears),
            publish: post(&ears),
        };
        seat.start(None, move |_, life| NodeSession::new(life, config, doors));
        Self { engine, session, ears, told }
    }

    pub(super) fn tell<M>(&self, message: M)
    where
        M: actix::Message<Result = ()> + Send + 'static,
        NodeSession: Handler<M>,
    {
        self.session.post().tell(message).unwrap();
    }

    pub(super) fn route(&self, id: &str, agent: &str) -> Arc<Lane> {
        self.route_to(&self.ears, id, agent)
    }

    pub(super) fn route_to(&self, ears: &actix::Addr<Ears>, id: &str, agent: &str) -> Arc<Lane> {
        let lane = Lane::new(Arc::default());
        self.tell(Route {
            agent_id: id.into(),
            name: name(agent),
            cursor: post(ears),
            epochs: post(ears),
            lane: lane.clone(),
        });
        lane
    }

    pub(super) fn register(
        &self,
        agent: &str,
        known_id: Option<AgentId>,
    ) -> Answer<Result<Registration, RegisterRefused>> {
        let name = name(agent);
        self.session.post::<RegisterAgent>().ask(|reply| RegisterAgent {
            name,
            invocation: None,
            session_ref: None,
            known_id,
            reply,
        })
    }

    pub(super) async fn told(&mut self) -> Told {
        within("something is told", self.told.recv()).await.unwrap()
    }

    /// The first that is picked of what is told from now on.
    pub(super) async fn told_of<T>(&mut self, pick: impl Fn(Told) -> Option<T>) -> T {
        loop {
            if let Some(picked) = pick(self.told().await) {
                return picked;
            }
        }
    }

    pub(super) async fn up(&mut self) -> SessionUp {
        self.told_of(|told| if let Told::Up(up) = told { Some(up) } else { None }).await
    }

    pub(super) async fn delivered(&mut self) -> Deliver {
        self.told_of(|told| if let Told::Delivered(deliver) = told { Some(deliver) } else { None }).await
    }

    pub(super) async fn epoch(&mut self) -> Epoch {
        self.told_of(|told| if let Told::Epoch(epoch) = told { Some(epoch) } else { None }).await
    }

    pub(super) async fn invoked(&mut self) -> Invoke {
        self.told_of(|told| if let Told::Invoked(invoke) = told { Some(invoke) } else { None }).await
    }

    /// How many of these were told so far.
    pub(super) fn count(&mut self, is_one: impl Fn(&Told) -> bool) -> usize {
        std::iter::from_fn(|| self.told.try_recv().ok()).filter(is_one).count()
    }

    /// What the debug page says of this fact.
    fn fact(&self, fact: &str) -> Option<String> {
        let Detail::Facts(facts) = self.session.probe().view().detail else { return None };
        facts.into_iter().find(|(name, _)| *name == fact).map(|(_, value)| value)
    }

    pub(super) fn tally(&self, fact: &str) -> u64 {
        self.fact(fact).map_or(0, |value| value.parse().unwrap())
    }

    pub(super) fn resume(&self) {
        self.session.handle().resume();
    }

    /// Waits until the debug page shows this, and answers the value.
    pub(super) async fn shows(&self, fact: &str, want: impl Fn(&str) -> bool) -> String {
        until(fact, async || {
            let shown = self.fact(fact);
            shown.filter(|value| want(value)).ok_or_else(|| format!("{:?}", self.session.probe().view()))
        })
        .await
    }

    /// Waits for the next end of a life and answers its reason.
    pub(super) async fn ended(&self, before: usize) -> String {
        until("the end of a life", async || {
            let view = self.session.probe().view();
            view.restarts.get(before).map(|end| end.reason.clone()).ok_or_else(|| format!("{view:?}"))
        })
        .await
    }
}

pub(super) fn registered(id: &str, agent: &str) -> Value {
    json!({"agent_id": id, "token": "at_live_1", "name": agent})
}
