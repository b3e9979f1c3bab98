//! `/v1/node/ws`: one task per socket, reading and writing side by side.
//!
//! The reader hands frames to the core thread without waiting for each; a bounded number may be under way.
//! The writer drains the link's queue and says when there is room again.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use actix_ws::{AggregatedMessage, AggregatedMessageStream, CloseCode, CloseReason, Session};
use futures_util::future::{Either, select};
use tokio::{sync::Semaphore, time::timeout};
use tracing::{debug, info, warn};

use super::{BODY_MAX, Shared};
use crate::{
    engine::{
        core::{CoreHandle, Durability},
        error::Failure,
        hub::{LinkId, Outflow, Outgoing, write_queue},
    },
    wire::frames::BrokerFrame,
};

/// Frames of one socket that may be on their way through the core thread.
const UNDER_WAY: usize = 256;
/// A socket that takes nothing for this long is dead.
const WRITE_STALL: Duration = Duration::from_secs(10);
/// How long a peer has to answer our close.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

pub(super) async fn open(
    request: HttpRequest,
    payload: web::Payload,
    shared: web::Data<Shared>,
) -> Result<HttpResponse, actix_web::Error> {
    let token = token(&request);
    let node = match token {
        Some(token) => shared.core.run(move |core| core.node_of_token(&token)).await?,
        None => None,
    };
    let Some(node) = node else {
        // The contract: no body, and the connection ends.
        return Ok(HttpResponse::Unauthorized().force_close().finish());
    };
    let (response, session, stream) = actix_ws::handle(&request, payload)?;
    let stream = stream.max_frame_size(BODY_MAX).aggregate_continuations().max_continuation_size(BODY_MAX);
    let link = shared.links.fetch_add(1, Relaxed);
    actix_web::rt::spawn(live(shared.core.clone(), link, node.id.into(), session, stream));
    Ok(response)
}

/// The query parameter is looked at first, and the scheme of the header in any case (spec/wire 2.2).
fn token(request: &HttpRequest) -> Option<String> {
    let query = web::Query::<Vec<(String, String)>>::from_query(request.query_string()).ok()?;
    if let Some((_, token)) = query.iter().find(|(key, _)| key == "token") {
        return Some(token.clone());
    }
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

async fn live(
    core: CoreHandle,
    link: LinkId,
    node: Arc<str>,
    session: Session,
    stream: AggregatedMessageStream,
) {
    let (outbox, outflow) = write_queue();
    let here = Arc::clone(&node);
    if let Err(failure) = core.run(move |core| core.attach(link, &here, outbox)).await {
        // Dropping the session ends the connection.
        warn!(node = &*node, link, %failure, "a node socket could not be taken");
        return;
    }
    info!(node = &*node, link, "node socket open");
    let reader = Box::pin(read(core.clone(), link, Arc::clone(&node), session.clone(), stream));
    let writer = Box::pin(write(core.clone(), session, outflow));
    match select(reader, writer).await {
        Either::Left(((), _)) => {}
        Either::Right((Ended::Closed, reader)) => {
            // A peer that answers our close ends the connection in good order; one that does not, loses it.
            timeout(CLOSE_WAIT, reader).await.ok();
        }
        Either::Right((Ended::Stalled, _)) => {
            debug!(node = &*node, link, "the socket takes nothing any more")
        }
    }
    info!(node = &*node, link, "node socket closed");
    core.post(
        Durability::Process,
        move |core| core.detach(link, &node),
        |outcome: Result<(), Failure>| {
            if let Err(failure) = outcome {
                debug!(%failure, "a node was not marked offline; the liveness sweep will");
            }
        },
    );
}

async fn read(
    core: CoreHandle,
    link: LinkId,
    node: Arc<str>,
    mut session: Session,
    mut stream: AggregatedMessageStream,
) {
    let under_way = Arc::new(Semaphore::new(UNDER_WAY));
    while let Some(Ok(message)) = stream.recv().await {
        let frame = match message {
            AggregatedMessage::Text(text) => BrokerFrame::decode_extended(&text),
            // Not used by the protocol; it is refused like any unreadable frame.
            AggregatedMessage::Binary(_) => BrokerFrame::decode_extended(""),
            AggregatedMessage::Ping(bytes) => {
                if session.pong(&bytes).await.is_err() {
                    return;
                }
                continue;
            }
            AggregatedMessage::Pong(_) => continue,
            AggregatedMessage::Close(_) => return,
        };
        let Ok(permit) = Arc::clone(&under_way).acquire_owned().await else { return };
        let node = Arc::clone(&node);
        let durability = match &frame {
            Ok(BrokerFrame::DeliveryAck(_) | BrokerFrame::NodeHeartbeat(_)) => Durability::Process,
            _ => Durability::Disk,
        };
        core.post(
            durability,
            move |core| {
                core.on_frame(link, &node, frame);
                Ok(())
            },
            move |_: Result<(), Failure>| drop(permit),
        );
    }
}

/// How a socket's writer ended.
enum Ended {
    /// We have said goodbye.
    Closed,
    /// The peer takes nothing, or the link is gone.
    Stalled,
}

async fn write(core: CoreHandle, mut session: Session, mut outflow: Outflow) -> Ended {
    while let Some(outgoing) = outflow.next().await {
        match outgoing {
            Outgoing::Text(frame) => {
                let bytes = frame.len();
                if !matches!(timeout(WRITE_STALL, session.text(frame)).await, Ok(Ok(()))) {
                    return Ended::Stalled;
                }
                if outflow.written(bytes) {
                    core.feed();
                }
            }
            Outgoing::Close(reason) => {
                let reason = CloseReason { code: CloseCode::Normal, description: Some(reason.to_owned()) };
                return match timeout(WRITE_STALL, session.close(Some(reason))).await {
                    Ok(Ok(())) => Ended::Closed,
                    _ => Ended::Stalled,
                };
            }
        }
    }
    Ended::Stalled
}
