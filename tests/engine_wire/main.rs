//! The embedded engine over its wire: a real server on loopback, real sockets, real files.

mod bodies;
mod delivery;
mod frames;
mod harbour;
mod invocations;
mod lifetime;
mod nodes;
