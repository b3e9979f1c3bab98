//! Enrolment: how a node comes to a token without taking anybody else's.
//!
//! Old engines find a node by its *name*: who mints under a taken name rotates a stranger's token and gets a
//! stranger's id back. Newer ones find it by id, refuse a taken name, and ask for the current token as proof
//! (spec/wire 1.5). So:
//!
//! ```text
//! LookUp(name) --no row, or ours--> Mint --our id--> Done
//!      ^   `--a stranger's row--> another name --.   |--a stranger's id, name taken--> another name
//!      '-----------------------------------------'   |--proof wanted--> another id and name
//!                                                    `--the engine fails (id known under an older name?)--> List
//! ```
//!
//! Every way is bounded: names are only changed as often as there are spare suffixes.

use std::collections::VecDeque;

use sha2::{Digest, Sha256};

use crate::{
    ids::{NodeId, NodeName},
    store::identity::hex_prefix,
};

/// What our own state recorded about this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recorded {
    /// The id that was enrolled.
    pub(super) id: NodeId,
    /// The name it was enrolled under.
    pub(super) name: Option<NodeName>,
}

/// A node as the engine lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Its id.
    pub(super) id: NodeId,
    /// Its name.
    pub(super) name: NodeName,
    /// A broker serves it now.
    pub(super) live: bool,
}

/// The next call to make, or the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask for the node of this name.
    LookUp(NodeName),
    /// Ask for all nodes.
    List,
    /// Mint.
    Mint {
        /// For this id.
        id: NodeId,
        /// Under this name.
        name: NodeName,
    },
    /// Enrolled: the token of the last mint opens this node.
    Done {
        /// The node.
        id: NodeId,
        /// The name to register under.
        name: NodeName,
    },
    /// The engine's failure stands.
    Failed,
    /// A person must act.
    Stuck(String),
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The node of that name, if there is one.
    Found(Option<Row>),
    /// All nodes.
    Listed(Vec<Row>),
    /// A token, for the node of this id.
    Minted(NodeId),
    /// The name belongs to another node.
    NameTaken,
    /// The engine wants the current token, and has not been shown it.
    ProofWanted,
    /// The engine failed on its side (5xx).
    EngineFailed,
}

/// One enrolment.
#[derive(Clone, Debug)]
pub(super) struct Enrolment {
    /// The id of machine, directory and workspace, or the pinned one.
    own: NodeId,
    /// A pinned id is used verbatim.
    pinned: bool,
    /// What the user, or the default, calls this node.
    wish: NodeName,
    recorded: Option<Recorded>,
    /// Random words for other names and ids.
    spares: VecDeque<String>,
    id: NodeId,
    name: NodeName,
    /// The name to mint under, when the engine still has our row under an older one.
    under: Option<NodeName>,
    looked_up_recorded: bool,
    listed: bool,
    notes: Vec<String>,
}

impl Enrolment {
    /// An enrolment of `own` under the name `wish`. `spares` are random words: as many as names may be tried
    /// beyond the first.
    pub(super) fn new(
        own: NodeId,
        pinned: bool,
        wish: NodeName,
        recorded: Option<Recorded>,
        spares: impl IntoIterator<Item = String>,
    ) -> Self {
        let id = match &recorded {
            Some(recorded) if !pinned => recorded.id.clone(),
            _ => own.clone(),
        };
        let name = kept_name(&wish, recorded.as_ref()).unwrap_or_else(|| wish.clone());
        Self {
            own,
            pinned,
            wish,
            recorded,
            spares: spares.into_iter().collect(),
            id,
            name,
            under: None,
            looked_up_recorded: false,
            listed: false,
            notes: Vec::new(),
        }
    }

    /// What a person should know: names and ids that were changed, and why.
    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The first step.
    pub(super) fn begin(&self) -> Step {
        Step::LookUp(self.name.clone())
    }

    /// The step after this outcome.
    pub(super) fn step(&mut self, outcome: Outcome) -> Step {
        match outcome {
            Outcome::Found(row) => self.found(row),
            Outcome::Listed(rows) => self.listed(rows),
            Outcome::Minted(id) if id == self.id => {
                Step::Done { id: self.id.clone(), name: self.name.clone() }
            }
            Outcome::Minted(id) => {
                let why = format!(
                    "the name {} belongs to node {id}, whose token the engine has just replaced",
                    self.name
                );
                self.other_name(why)
            }
            Outcome::NameTaken => self.other_name(format!("the name {} is taken", self.name)),
            Outcome::ProofWanted => self.other_id(),
            // A global key violation on old engines: our id may stand there under a name we forgot.
            Outcome::EngineFailed if !self.listed => {
                self.listed = true;
                Step::List
            }
            Outcome::EngineFailed => Step::Failed,
        }
    }

    fn found(&mut self, row: Option<Row>) -> Step {
        let older_name = self.recorded.as_ref().and_then(|recorded| recorded.name.clone());
        let Some(row) = row else {
            return match older_name {
                Some(older) if older != self.name && !self.looked_up_recorded => {
                    self.looked_up_recorded = true;
                    self.under = Some(older.clone());
                    Step::LookUp(older)
                }
                _ => {
                    self.under = None;
                    self.mint()
                }
            };
        };
        let is_ours = row.id == self.id || row.id == self.own;
        if let Some(under) = &self.under
            && row.name == *under
        {
            // The look-up of the older name. A row that is not ours there is nobody's business.
            if is_ours {
                self.id = row.id;
            } else {
                self.under = None;
            }
            return self.mint();
        }
        if row.id == self.own {
            self.id = row.id;
            return self.mint();
        }
        if is_ours && !row.live {
            return self.mint();
        }
        // Somebody else's, or one that we took over once and that somebody serves now.
        self.id = self.own.clone();
        self.other_name(format!("the name {} belongs to node {}", self.name, row.id))
    }

    fn listed(&mut self, rows: Vec<Row>) -> Step {
        match rows.into_iter().find(|row| row.id == self.id) {
            Some(row) if self.under.as_ref() != Some(&row.name) && row.name != self.name => {
                self.notes.push(format!("node {} is known to the engine as {}", row.id, row.name));
                self.under = Some(row.name);
                self.mint()
            }
            _ => Step::Failed,
        }
    }

    fn mint(&self) -> Step {
        let name = self.under.as_ref().unwrap_or(&self.name);
        Step::Mint { id: self.id.clone(), name: name.clone() }
    }

    fn other_name(&mut self, why: String) -> Step {
        let Some(spare) = self.spares.pop_front() else {
            return Step::Stuck(format!(
                "{why}; every other name that was tried is taken too, set a node name"
            ));
        };
        self.name = suffixed(&self.wish, &spare);
        self.under = None;
        self.notes.push(format!("{why}; this node is called {} instead", self.name));
        Step::LookUp(self.name.clone())
    }

    fn other_id(&mut self) -> Step {
        let why = format!("the engine wants the current token of node {} and we do not have it", self.id);
        if self.pinned {
            return Step::Stuck(format!("{why}; set RELAY_NODE_TOKEN, or another RELAY_NODE_ID"));
        }
        let Some(spare) = self.spares.pop_front() else { return Step::Stuck(why) };
        let digest = Sha256::new().chain_update(self.own.as_str()).chain_update([0]).chain_update(&spare);
        self.id = NodeId::from(format!("node_{}", hex_prefix(&digest.finalize(), 32)));
        self.own = self.id.clone();
        self.name = suffixed(&self.wish, &spare);
        self.under = None;
        self.notes.push(format!("{why}; it is enrolled anew as {} ({})", self.name, self.id));
        Step::LookUp(self.name.clone())
    }
}

/// A name that is not the wish itself.
pub(super) fn suffixed(wish: &NodeName, spare: &str) -> NodeName {
    NodeName::from(format!("{wish}-{spare}"))
}

/// The recorded name, if it is the wish or the wish with a suffix; not one that the user has changed since.
pub(super) fn kept_name(wish: &NodeName, recorded: Option<&Recorded>) -> Option<NodeName> {
    let name = recorded?.name.as_ref()?;
    let rest = name.as_str().strip_prefix(wish.as_str())?;
    (rest.is_empty() || rest.starts_with('-')).then(|| name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spares() -> Vec<String> {
        ["aa11", "bb22", "cc33"].map(String::from).to_vec()
    }

    fn fresh() -> Enrolment {
        Enrolment::new("node_me".into(), false, "quay".into(), None, spares())
    }

    fn recorded(id: &str, name: &str) -> Option<Recorded> {
        Some(Recorded { id: id.into(), name: Some(name.into()) })
    }

    fn row(id: &str, name: &str, live: bool) -> Option<Row> {
        Some(Row { id: id.into(), name: name.into(), live })
    }

    fn look_up(name: &str) -> Step {
        Step::LookUp(name.into())
    }

    fn mint(id: &str, name: &str) -> Step {
        Step::Mint { id: id.into(), name: name.into() }
    }

    fn done(id: &str, name: &str) -> Step {
        Step::Done { id: id.into(), name: name.into() }
    }

    #[test]
    fn a_free_name_is_minted_after_it_was_looked_up() {
        let mut enrolment = fresh();
        assert_eq!(enrolment.begin(), look_up("quay"));
        assert_eq!(enrolment.step(Outcome::Found(None)), mint("node_me", "quay"));
        assert_eq!(enrolment.step(Outcome::Minted("node_me".into())), done("node_me", "quay"));
        assert!(enrolment.notes().is_empty());
    }

    #[test]
    fn our_own_row_is_rotated_whether_it_is_live_or_not() {
        for live in [false, true] {
            let step = fresh().step(Outcome::Found(row("node_me", "quay", live)));
            assert_eq!(step, mint("node_me", "quay"));
        }
    }

    #[test]
    fn a_strangers_name_is_left_alone() {
        for live in [false, true] {
            let mut enrolment = fresh();
            assert_eq!(enrolment.step(Outcome::Found(row("node_x", "quay", live))), look_up("quay-aa11"));
            assert_eq!(enrolment.step(Outcome::Found(None)), mint("node_me", "quay-aa11"));
            assert_eq!(enrolment.step(Outcome::Minted("node_me".into())), done("node_me", "quay-aa11"));
            assert_eq!(enrolment.notes().len(), 1);
        }
    }

    #[test]
    fn a_strangers_id_in_the_answer_and_a_taken_name_lead_to_another_name() {
        for outcome in [Outcome::Minted("node_x".into()), Outcome::NameTaken] {
            let mut enrolment = fresh();
            enrolment.step(Outcome::Found(None));
            assert_eq!(enrolment.step(outcome.clone()), look_up("quay-aa11"));
            assert_eq!(enrolment.step(Outcome::Found(None)), mint("node_me", "quay-aa11"));
            assert_eq!(enrolment.step(outcome.clone()), look_up("quay-bb22"), "suffixes do not pile up");
        }
    }

    #[test]
    fn an_id_that_we_took_once_is_kept_unless_somebody_serves_it() {
        let took =
            || Enrolment::new("node_me".into(), false, "quay".into(), recorded("node_x", "quay"), spares());
        assert_eq!(took().step(Outcome::Found(row("node_x", "quay", false))), mint("node_x", "quay"));
        let mut taken = took();
        assert_eq!(taken.step(Outcome::Found(row("node_x", "quay", true))), look_up("quay-aa11"));
        assert_eq!(taken.step(Outcome::Found(None)), look_up("quay"), "under its recorded name");
        assert_eq!(taken.step(Outcome::Found(row("node_x", "quay", true))), mint("node_me", "quay-aa11"));
    }

    #[test]
    fn a_new_name_for_a_known_node_is_minted_under_the_old_one() {
        let record = recorded("node_me", "old");
        let mut renamed = Enrolment::new("node_me".into(), false, "quay".into(), record, spares());
        assert_eq!(renamed.begin(), look_up("quay"));
        assert_eq!(renamed.step(Outcome::Found(None)), look_up("old"));
        assert_eq!(renamed.step(Outcome::Found(row("node_me", "old", false))), mint("node_me", "old"));
        assert_eq!(renamed.step(Outcome::Minted("node_me".into())), done("node_me", "quay"));
    }

    #[test]
    fn a_suffix_that_was_needed_once_is_kept() {
        let record = recorded("node_me", "quay-aa11");
        let kept = Enrolment::new("node_me".into(), false, "quay".into(), record, spares());
        assert_eq!(kept.begin(), look_up("quay-aa11"));
    }

    #[test]
    fn proof_that_we_do_not_have_leads_to_a_new_identity_and_for_a_pinned_one_to_a_person() {
        let mut enrolment = fresh();
        enrolment.step(Outcome::Found(row("node_me", "quay", false)));
        assert_eq!(enrolment.step(Outcome::ProofWanted), look_up("quay-aa11"));
        let Step::Mint { id, name } = enrolment.step(Outcome::Found(None)) else { panic!() };
        assert_ne!(id.as_str(), "node_me");
        assert_eq!(name.as_str(), "quay-aa11");
        assert_eq!(enrolment.step(Outcome::Minted(id.clone())), done(id.as_str(), "quay-aa11"));

        let mut pinned = Enrolment::new("node_me".into(), true, "quay".into(), None, spares());
        pinned.step(Outcome::Found(None));
        let Step::Stuck(why) = pinned.step(Outcome::ProofWanted) else { panic!() };
        assert!(why.contains("RELAY_NODE_TOKEN"), "{why}");
    }

    #[test]
    fn an_engine_that_fails_on_a_known_id_is_asked_once_what_it_calls_it() {
        let mut enrolment = fresh();
        enrolment.step(Outcome::Found(None));
        assert_eq!(enrolment.step(Outcome::EngineFailed), Step::List);
        let rows = [row("node_x", "x", true), row("node_me", "forgotten", false)];
        let listed = Outcome::Listed(rows.into_iter().flatten().collect());
        assert_eq!(enrolment.step(listed), mint("node_me", "forgotten"));
        assert_eq!(enrolment.clone().step(Outcome::Minted("node_me".into())), done("node_me", "quay"));
        assert_eq!(enrolment.step(Outcome::EngineFailed), Step::Failed);
        let mut unknown = fresh();
        unknown.step(Outcome::EngineFailed);
        assert_eq!(unknown.step(Outcome::Listed(vec![])), Step::Failed);
    }

    /// An engine that answers each step with something that fits it.
    fn answer(step: &Step, dice: u8) -> Outcome {
        match (step, dice % 8) {
            (Step::LookUp(_), 0..=3) => Outcome::Found(None),
            (Step::LookUp(name), 4) => Outcome::Found(row("node_me", name.as_str(), true)),
            (Step::LookUp(name), 5) => Outcome::Found(row("node_old", name.as_str(), false)),
            (Step::LookUp(name), _) => Outcome::Found(row("node_x", name.as_str(), dice > 100)),
            (Step::List, 0..=3) => Outcome::Listed(vec![]),
            (Step::List, _) => Outcome::Listed(row("node_me", "forgotten", false).into_iter().collect()),
            (Step::Mint { .. }, 0) => Outcome::Minted("node_x".into()),
            (Step::Mint { .. }, 1) => Outcome::NameTaken,
            (Step::Mint { .. }, 2) => Outcome::ProofWanted,
            (Step::Mint { .. }, 3..=5) => Outcome::EngineFailed,
            (Step::Mint { id, .. }, _) => Outcome::Minted(id.clone()),
            (end, _) => panic!("asked after the end: {end:?}"),
        }
    }

    proptest::proptest! {
        /// Whatever the engine answers, it is not asked for ever, and no name that was seen to be a
        /// stranger's is minted under.
        #[test]
        fn every_enrolment_ends_and_takes_no_strangers_name(dice in proptest::collection::vec(0u8.., 40)) {
            let record = recorded("node_old", "older");
            let mut enrolment = Enrolment::new("node_me".into(), false, "quay".into(), record, spares());
            let mut strangers = Vec::new();
            let mut step = enrolment.begin();
            let mut calls = 0;
            for dice in dice {
                if let Step::Mint { name, .. } = &step {
                    proptest::prop_assert!(!strangers.contains(name), "minted under {name}");
                }
                if matches!(step, Step::Done { .. } | Step::Failed | Step::Stuck(_)) {
                    break;
                }
                let outcome = answer(&step, dice);
                if let Outcome::Found(Some(found)) = &outcome && found.id.as_str() == "node_x" {
                    strangers.push(found.name.clone());
                }
                step = enrolment.step(outcome);
                calls += 1;
            }
            proptest::prop_assert!(calls <= 24, "{calls} calls, still at {step:?}");
        }
    }
}
