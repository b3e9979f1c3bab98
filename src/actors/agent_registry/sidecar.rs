//! Which sidecar is here, and what is offered for it: the rules.
//!
//! ```text
//! free --register--> known --offer--> offering --offer--> offering
//!   ^------- leave ----'------------------'
//! ```
//!
//! There is one at a time: two programs that answer for the same node would have to share names, limits and the
//! blame. What the broker's configuration declares stays the configuration's: a program that comes and goes
//! does not decide what else runs on this machine.

use std::collections::{BTreeMap, HashSet};

use tokio::sync::mpsc;

use crate::{
    config::{CommandLine, DeclaredAction},
    ids::SidecarId,
    messages::sidecar::{Call, HandlerSpec, Manifest, Offer, SidecarRefused},
};

/// Handlers in one manifest.
const HANDLERS_MAX: usize = 64;
/// A handler's name, in bytes.
const NAME_MAX: usize = 128;
/// What is said about one handler, in bytes: engines keep it and show it in every list of nodes.
const METADATA_MAX: usize = 4 << 10;
/// Words about the node.
const TAGS_MAX: usize = 32;

/// What the configuration declares.
#[derive(Clone, Copy, Debug)]
pub(super) struct Declared<'a> {
    /// By harness.
    pub(super) handlers: &'a BTreeMap<String, CommandLine>,
    /// By name.
    pub(super) actions: &'a BTreeMap<String, DeclaredAction>,
}

impl Declared<'_> {
    fn has(&self, name: &str) -> bool {
        match name.strip_prefix("spawn:") {
            Some(harness) => self.handlers.contains_key(harness),
            None => self.actions.contains_key(name),
        }
    }
}

/// The place of a sidecar, which is free or taken.
#[derive(Debug, Default)]
pub(super) struct Place {
    newest: SidecarId,
    taken: Option<Sidecar>,
}

#[derive(Debug)]
struct Sidecar {
    id: SidecarId,
    manifest: Manifest,
    calls: mpsc::Sender<Call>,
    /// Of the manifest, those that are ready.
    offered: HashSet<String>,
}

impl Place {
    /// Takes a sidecar in.
    ///
    /// # Errors
    /// When there is one, or when its manifest cannot be offered.
    pub(super) fn register(
        &mut self,
        manifest: Manifest,
        calls: mpsc::Sender<Call>,
        declared: Declared<'_>,
    ) -> Result<SidecarId, SidecarRefused> {
        if let Some(known) = &self.taken {
            return Err(SidecarRefused::Occupied { name: known.manifest.name.clone() });
        }
        check(&manifest, declared)?;
        self.newest = self.newest.next();
        self.taken = Some(Sidecar { id: self.newest, manifest, calls, offered: HashSet::new() });
        Ok(self.newest)
    }

    /// Takes these handlers as ready, and no others.
    ///
    /// # Errors
    /// When one is not in its manifest, or it is not here any more.
    pub(super) fn offer(&mut self, id: SidecarId, names: Vec<String>) -> Result<(), SidecarRefused> {
        let sidecar = self.of_mut(id).ok_or(SidecarRefused::NotRegistered)?;
        let known = |name: &String| sidecar.manifest.handlers.iter().any(|handler| handler.name == *name);
        if let Some(stranger) = names.iter().find(|name| !known(name)) {
            return Err(SidecarRefused::NotInManifest(stranger.clone()));
        }
        sidecar.offered = names.into_iter().collect();
        Ok(())
    }

    /// Frees the place; true when it was this one's.
    pub(super) fn leave(&mut self, id: SidecarId) -> bool {
        self.taken.take_if(|sidecar| sidecar.id == id).is_some()
    }

    /// What the node offers now. Only what is ready is ever offered: an engine makes workspace-wide actions of it.
    pub(super) fn offered(&self) -> Offer {
        let Some(sidecar) = self.taken.as_ref().filter(|sidecar| !sidecar.offered.is_empty()) else {
            return Offer::default();
        };
        let ready = |handler: &&HandlerSpec| sidecar.offered.contains(&handler.name);
        Offer {
            handlers: sidecar.manifest.handlers.iter().filter(ready).cloned().collect(),
            max_agents: sidecar.manifest.max_agents,
            tags: sidecar.manifest.tags.clone(),
        }
    }

    /// The one that is here but for its socket: it ended before it could be told so.
    pub(super) fn lost(&self) -> Option<SidecarId> {
        self.taken.as_ref().filter(|sidecar| sidecar.calls.is_closed()).map(|sidecar| sidecar.id)
    }

    /// Who runs the handler of this name.
    pub(super) fn runs(&self, handler: &str) -> Option<SidecarId> {
        let sidecar = self.taken.as_ref()?;
        sidecar.offered.contains(handler).then_some(sidecar.id)
    }

    /// The way to it, while it is this one.
    pub(super) fn calls(&self, id: SidecarId) -> Option<&mpsc::Sender<Call>> {
        self.taken.as_ref().filter(|sidecar| sidecar.id == id).map(|sidecar| &sidecar.calls)
    }

    /// Whether it is this one.
    pub(super) fn is(&self, id: SidecarId) -> bool {
        self.taken.as_ref().is_some_and(|sidecar| sidecar.id == id)
    }

    /// Its name, for the debug page.
    pub(super) fn name(&self) -> &str {
        self.taken.as_ref().map_or("none", |sidecar| sidecar.manifest.name.as_str())
    }

    /// The names of what is offered, for the debug page.
    pub(super) fn offered_names(&self) -> String {
        let handlers = self.offered().handlers.into_iter();
        handlers.map(|handler| handler.name).collect::<Vec<_>>().join(", ")
    }

    fn of_mut(&mut self, id: SidecarId) -> Option<&mut Sidecar> {
        self.taken.as_mut().filter(|sidecar| sidecar.id == id)
    }
}

fn check(manifest: &Manifest, declared: Declared<'_>) -> Result<(), SidecarRefused> {
    let (handlers, tags) = (manifest.handlers.len(), manifest.tags.len());
    if handlers > HANDLERS_MAX || tags > TAGS_MAX {
        return Err(SidecarRefused::InvalidManifest(format!(
            "a manifest has at most {HANDLERS_MAX} handlers and {TAGS_MAX} tags, not {handlers} and {tags}"
        )));
    }
    if let Some(long) = [&manifest.name].into_iter().chain(&manifest.tags).find(|text| !is_word(text)) {
        let shown: String = long.chars().take(NAME_MAX).collect();
        return Err(SidecarRefused::InvalidManifest(format!(
            "`{}` is no name or tag: 1 to {NAME_MAX} bytes without control characters",
            shown.escape_debug()
        )));
    }
    let mut seen = HashSet::new();
    for handler in &manifest.handlers {
        let name = &handler.name;
        if let Some(why) = wrong(handler) {
            let name = name.chars().take(NAME_MAX).collect();
            return Err(SidecarRefused::InvalidHandler { name, why });
        }
        if declared.has(name) {
            return Err(SidecarRefused::Declared(name.clone()));
        }
        if !seen.insert(name) {
            return Err(SidecarRefused::Duplicate(name.clone()));
        }
    }
    Ok(())
}

/// What an engine or this broker would understand as something else is refused (spec/wire 4.7).
fn wrong(handler: &HandlerSpec) -> Option<&'static str> {
    let name = handler.name.as_str();
    match name {
        _ if !is_word(name) => Some("a name has 1 to 128 bytes and no control characters"),
        "spawn" => Some("would draw every spawn of the workspace to this node; name `spawn:<harness>`"),
        "spawn:" => Some("names no harness"),
        "release" => Some("is the broker's own"),
        _ if name.starts_with("relay:") => Some("`relay:` is the engine's own"),
        _ if handler.metadata.as_ref().is_some_and(|text| text.len() > METADATA_MAX) => {
            Some("has more than 4 KiB of metadata")
        }
        _ => None,
    }
}

fn is_word(text: &str) -> bool {
    !text.trim().is_empty()
        && text.trim() == text
        && text.len() <= NAME_MAX
        && !text.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handler(name: &str) -> HandlerSpec {
        HandlerSpec { name: name.to_owned(), metadata: None }
    }

    fn manifest(handlers: &[&str]) -> Manifest {
        let handlers = handlers.iter().map(|name| handler(name)).collect();
        Manifest { name: "quay".to_owned(), handlers, ..Manifest::default() }
    }

    fn register(place: &mut Place, manifest: Manifest) -> Result<SidecarId, SidecarRefused> {
        let command = || CommandLine { program: "true".into(), args: Vec::new() };
        let timeout = std::time::Duration::from_secs(1);
        let handlers = BTreeMap::from([("heron".to_owned(), command())]);
        let actions = BTreeMap::from([("tide".to_owned(), DeclaredAction { command: command(), timeout })]);
        let declared = Declared { handlers: &handlers, actions: &actions };
        place.register(manifest, mpsc::channel(1).0, declared)
    }

    fn names(place: &Place) -> Vec<String> {
        place.offered().handlers.into_iter().map(|handler| handler.name).collect()
    }

    #[test]
    fn only_what_is_ready_is_offered_and_only_while_its_sidecar_is_here() {
        let mut place = Place::default();
        let asked =
            Manifest { max_agents: Some(3), tags: vec!["dry".into()], ..manifest(&["echo", "spawn:otter"]) };
        let id = register(&mut place, asked).unwrap();
        assert_eq!(place.offered(), Offer::default(), "nothing is ready yet");
        assert_eq!(place.runs("echo"), None);

        place.offer(id, vec!["spawn:otter".into(), "spawn:otter".into()]).unwrap();
        assert_eq!(names(&place), ["spawn:otter"]);
        assert_eq!((place.offered().max_agents, place.offered().tags), (Some(3), vec!["dry".to_owned()]));
        assert_eq!((place.runs("spawn:otter"), place.runs("echo")), (Some(id), None));
        place.offer(id, vec!["echo".into()]).unwrap();
        assert_eq!(names(&place), ["echo"], "no others any more");

        assert!(place.leave(id));
        assert_eq!((place.offered(), place.runs("echo")), (Offer::default(), None));
    }

    #[test]
    fn a_second_sidecar_is_refused_and_a_late_word_of_a_former_one_changes_nothing() {
        let mut place = Place::default();
        let first = register(&mut place, manifest(&["echo"])).unwrap();
        assert_eq!(
            register(&mut place, manifest(&["other"])),
            Err(SidecarRefused::Occupied { name: "quay".into() })
        );
        place.leave(first);
        let second = register(&mut place, manifest(&["echo"])).unwrap();
        assert_ne!(first, second);
        assert!(!place.leave(first));
        assert_eq!(place.offer(first, vec!["echo".into()]), Err(SidecarRefused::NotRegistered));
        assert!(place.is(second) && place.calls(second).is_some() && place.calls(first).is_none());
    }

    #[test]
    fn what_cannot_be_offered_is_refused_by_its_name_and_leaves_the_place_free() {
        let invalid = |name: &str, why| SidecarRefused::InvalidHandler { name: name.to_owned(), why };
        let long = "x".repeat(NAME_MAX + 1);
        for (handlers, refused) in [
            (vec!["echo", "spawn:heron"], SidecarRefused::Declared("spawn:heron".into())),
            (vec!["tide"], SidecarRefused::Declared("tide".into())),
            (vec!["echo", "echo"], SidecarRefused::Duplicate("echo".into())),
            (
                vec!["spawn"],
                invalid(
                    "spawn",
                    "would draw every spawn of the workspace to this node; name `spawn:<harness>`",
                ),
            ),
            (vec!["spawn:"], invalid("spawn:", "names no harness")),
            (vec!["release"], invalid("release", "is the broker's own")),
            (vec!["relay:cursor"], invalid("relay:cursor", "`relay:` is the engine's own")),
            (vec![" "], invalid(" ", "a name has 1 to 128 bytes and no control characters")),
            (vec!["a\nb"], invalid("a\nb", "a name has 1 to 128 bytes and no control characters")),
            (vec![&long], invalid(&long[1..], "a name has 1 to 128 bytes and no control characters")),
        ] {
            let mut place = Place::default();
            assert_eq!(register(&mut place, manifest(&handlers)), Err(refused), "{handlers:?}");
            register(&mut place, manifest(&["tide.table", "spawn:tide", "team:notify"])).unwrap();
        }
        let talks = HandlerSpec { metadata: Some("x".repeat(METADATA_MAX + 1)), ..handler("echo") };
        let many: Vec<_> = (0..=HANDLERS_MAX).map(|n| handler(&format!("h{n}"))).collect();
        for asked in [
            Manifest { handlers: vec![talks], ..manifest(&[]) },
            Manifest { handlers: many, ..manifest(&[]) },
            Manifest { tags: vec!["t".into(); TAGS_MAX + 1], ..manifest(&[]) },
            Manifest { tags: vec!["\u{1b}[2J".into()], ..manifest(&[]) },
            Manifest { name: String::new(), ..manifest(&[]) },
        ] {
            assert!(register(&mut Place::default(), asked.clone()).is_err(), "{asked:?}");
        }
    }

    #[test]
    fn a_handler_is_ready_only_if_the_manifest_has_it() {
        let mut place = Place::default();
        let id = register(&mut place, manifest(&["echo"])).unwrap();
        place.offer(id, vec!["echo".into()]).unwrap();
        assert_eq!(
            place.offer(id, vec!["echo".into(), "dance".into()]),
            Err(SidecarRefused::NotInManifest("dance".into()))
        );
        assert_eq!(names(&place), ["echo"], "a refusal changes nothing");
    }
}
