//! The session against an engine on loopback that says what each test makes it say, and ears in place of the other
//! rooms.

mod connecting;
mod deliveries;
mod engine;
mod house;
mod invocations;
mod leaving;
mod liveness;
mod offers;
mod registrations;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, http::StatusCode, web};
use actix_ws::{CloseReason, Message};
use futures_util::{StreamExt, future::Either};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::sleep,
};

use self::{
    engine::{Do, Engine, Said, Socket},
    house::{Die, Ears, House, Told, post, quick, registered},
};
use super::*;
use crate::{
    ids::{AgentId, Generation, NodeToken, Seq},
    messages::{
        Answer,
        delivery::{Content, Deliver, LANE_FRAMES_MAX, Lane},
        invoke::{Action, InvocationResult},
        lifecycle::{ActorId, ActorKind},
        session::Registration,
    },
    supervision::{Child, Detail, Directory, Probe, Seat},
    testing::{PATIENCE, name, until, until_holds, within},
};
