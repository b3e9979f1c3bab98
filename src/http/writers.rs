//! Who types into a terminal: one client at a time, for as long as its stream of keystrokes is open.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use actix_web::http::StatusCode;
use time::{OffsetDateTime, macros::format_description};

use super::error::ApiError;
use crate::ids::AgentName;

/// The longest description of a client, in characters.
const WHO_MAX: usize = 80;

/// All leases.
#[derive(Clone, Debug, Default)]
pub(super) struct Writers(Arc<Mutex<HashMap<AgentName, Holder>>>);

#[derive(Clone, Debug)]
struct Holder {
    who: String,
    since: SystemTime,
    /// It drives: the size of the terminal is its affair, too.
    drives: bool,
}

/// One terminal's lease; given back by being dropped.
#[derive(Debug)]
pub(super) struct WriterLease {
    name: AgentName,
    writers: Writers,
}

impl Writers {
    /// Takes the lease of a terminal, for a client that describes itself as `who`.
    ///
    /// # Errors
    /// 409 `input_leased`, with who has it and since when.
    pub(super) fn take(&self, name: &AgentName, who: &str, drives: bool) -> Result<WriterLease, ApiError> {
        let mut leases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(holder) = leases.get(name) {
            return Err(holder.refusal(name));
        }
        let who = who.chars().filter(|c| !c.is_control()).take(WHO_MAX).collect();
        leases.insert(name.clone(), Holder { who, since: SystemTime::now(), drives });
        Ok(WriterLease { name: name.clone(), writers: self.clone() })
    }

    /// Whether somebody without the lease may type now.
    ///
    /// # Errors
    /// As [`Writers::take`].
    pub(super) fn may_type(&self, name: &AgentName) -> Result<(), ApiError> {
        self.refuse(name, |_| true)
    }

    /// Whether somebody without the lease may change the size now.
    ///
    /// # Errors
    /// As [`Writers::take`].
    pub(super) fn may_resize(&self, name: &AgentName) -> Result<(), ApiError> {
        self.refuse(name, |holder| holder.drives)
    }

    fn refuse(&self, name: &AgentName, when: impl Fn(&Holder) -> bool) -> Result<(), ApiError> {
        let leases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        leases.get(name).filter(|holder| when(holder)).map_or(Ok(()), |holder| Err(holder.refusal(name)))
    }
}

impl Holder {
    fn refusal(&self, name: &AgentName) -> ApiError {
        let since = OffsetDateTime::from(self.since);
        let at = since.format(format_description!("[hour]:[minute]:[second]")).unwrap_or_default();
        let message = format!(
            "{} types into `{name}` since {at} UTC; wait until they detach, or watch without typing",
            self.who
        );
        ApiError::new(StatusCode::CONFLICT, "input_leased", message).retryable().about(name.as_str())
    }
}

impl Drop for WriterLease {
    fn drop(&mut self) {
        self.writers.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_types_and_the_others_are_told_who() {
        let writers = Writers::default();
        let (bob, eve) = (AgentName::parse("bob").unwrap(), AgentName::parse("eve").unwrap());
        let lease = writers.take(&bob, "ann\u{1b}@desk", false).unwrap();
        let refused = writers.take(&bob, "cat", true).unwrap_err();
        assert_eq!(refused.code(), "input_leased");
        assert!(refused.to_string().contains("ann@desk types into `bob` since "), "{refused}");
        assert!(writers.may_type(&bob).is_err());
        assert!(writers.may_resize(&bob).is_ok(), "it only types");
        assert!(writers.may_type(&eve).is_ok());
        drop(lease);
        let _lease = writers.take(&bob, "cat", true).unwrap();
        assert!(writers.may_resize(&bob).is_err());
    }
}
