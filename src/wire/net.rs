//! What both clients share: where the engine is, TLS, TCP and headers.

use std::{
    fmt,
    net::IpAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::dev::Service;
use awc::http::{Uri, header::HeaderValue};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::net::TcpStream;

use crate::ids::{AgentToken, NodeToken, WorkspaceKey};

/// What this program calls itself to an engine.
pub(crate) const PRODUCT: &str = concat!("relay-broker/", env!("CARGO_PKG_VERSION"));
