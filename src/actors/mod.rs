//! The rooms: one folder per actor. `mod.rs` is the actix shell; its siblings are pure rules that know no
//! actix, no clock and no I/O. A room imports no other room: the supervisor builds them all and hands each
//! the [`Post`](crate::supervision::Post)s it may send to.

pub mod agent_registry;
pub mod delivery_cursor;
pub mod event_hub;
pub mod node_session;
pub mod pty_worker;
pub mod supervisor;
pub mod token_mint;
