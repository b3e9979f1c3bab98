//! The node token on disk, so that a restart needs no new one.
//!
//! One file per node, `node-tokens/<id>.json`, one line of JSON:
//! `{"node_id","workspace_id","base_url","token","node_name","derived_id"}`. A token is used only where it was
//! minted: same node, same workspace, same engine. A file without `base_url` (written by other programs) is
//! accepted when the rest matches. The old token stays in the file until a new one replaces it whole: newer
//! engines mint again only for who shows the current one (spec/wire 1.5).
//!
//! All of this blocks: an actor calls it on a helper thread.

use std::{
    borrow::Cow,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    identity::hex_prefix,
    private_file::{private_dir, read_private, write_private},
};
use crate::ids::{NodeId, NodeName, NodeToken, WorkspaceId};

/// The directory of the token files, in the data directory.
pub const TOKEN_DIR: &str = "node-tokens";
/// Longest file name that is made of an id as it is.
const STEM_MAX: usize = 80;

/// Where a token belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The node id that this directory has: derived or pinned.
    pub node_id: NodeId,
    /// Its workspace.
    pub workspace: WorkspaceId,
    /// The engine.
    pub base_url: String,
}

/// What was enrolled.
#[derive(Clone, Debug)]
pub struct CachedToken {
    /// The node that the token opens: the scope's, unless enrolment had to take another.
    pub node_id: NodeId,
    /// The name it was enrolled under, if the file says.
    pub node_name: Option<NodeName>,
    /// The token.
    pub token: NodeToken,
}

/// The token file of one node.
#[derive(Clone, Debug)]
pub struct TokenCache {
    file: PathBuf,
    scope: Scope,
}

#[derive(Serialize, Deserialize)]
struct Record<'a> {
    node_id: Cow<'a, str>,
    workspace_id: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base_url: Option<Cow<'a, str>>,
    token: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node_name: Option<Cow<'a, str>>,
    /// The id of the directory, when the enrolled id is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    derived_id: Option<Cow<'a, str>>,
}

impl TokenCache {
    /// The file for this scope. Touches nothing yet.
    pub fn new(data_dir: &Path, scope: Scope) -> Self {
        let file = data_dir.join(TOKEN_DIR).join(format!("{}.json", stem(scope.node_id.as_str())));
        Self { file, scope }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// The token, if one was stored for exactly this scope. Blocks.
    ///
    /// # Errors
    /// Whatever the system says, except that there is no file; `InvalidData` when it cannot be understood.
    pub fn load(&self) -> io::Result<Option<CachedToken>> {
        let Some(bytes) = read_private(&self.file)? else { return Ok(None) };
        // The parser's own words could quote the token.
        let record: serde_json::Result<Record<'_>> = serde_json::from_slice(&bytes);
        let record = record.map_err(|_| io::Error::new(ErrorKind::InvalidData, "not a token file"))?;
        Ok(self.accept(record))
    }

    fn accept(&self, record: Record<'_>) -> Option<CachedToken> {
        let derived = record.derived_id.as_deref().unwrap_or(&record.node_id);
        let here = derived == self.scope.node_id.as_str()
            && record.workspace_id == self.scope.workspace.as_str()
            && record.base_url.as_deref().is_none_or(|url| same_engine(url, &self.scope.base_url))
            && !record.token.trim().is_empty();
        here.then(|| CachedToken {
            node_id: NodeId::from(record.node_id.as_ref()),
            node_name: record.node_name.as_deref().map(NodeName::from),
            token: NodeToken::from(record.token.trim()),
        })
    }

    /// Replaces what is stored. Blocks.
    ///
    /// # Errors
    /// Whatever the system says; what was stored before is intact then.
    pub fn store(&self, cached: &CachedToken) -> io::Result<()> {
        let other = cached.node_id != self.scope.node_id;
        let record = Record {
            node_id: cached.node_id.as_str().into(),
            workspace_id: self.scope.workspace.as_str().into(),
            base_url: Some(trimmed(&self.scope.base_url).into()),
            token: cached.token.expose().into(),
            node_name: cached.node_name.as_ref().map(|name| name.as_str().into()),
            derived_id: other.then(|| self.scope.node_id.as_str().into()),
        };
        let mut line = serde_json::to_vec(&record)?;
        line.push(b'\n');
        if let Some(dir) = self.file.parent() {
            private_dir(dir)?;
        }
        write_private(&self.file, &line)
    }
}

fn trimmed(url: &str) -> &str {
    url.trim_end_matches('/')
}

fn same_engine(a: &str, b: &str) -> bool {
    trimmed(a) == trimmed(b)
}

/// A file name for any id. An id that is not one as it stands gets a digest, so that no two share a file.
fn stem(id: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !id.is_empty() && id.len() <= STEM_MAX && id.chars().all(plain) {
        return id.to_owned();
    }
    let safe: String = id.chars().take(STEM_MAX / 2).map(|c| if plain(c) { c } else { '_' }).collect();
    format!("{safe}-{}", hex_prefix(&Sha256::digest(id.as_bytes()), 16))
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn scope(node: &str) -> Scope {
        Scope { node_id: node.into(), workspace: "ws1".into(), base_url: "http://engine:1/".to_owned() }
    }

    fn token(node: &str) -> CachedToken {
        CachedToken { node_id: node.into(), node_name: Some("quay".into()), token: "nt_live_1".into() }
    }

    #[test]
    fn a_stored_token_is_found_again_and_only_where_it_was_minted() {
        let dir = tempfile::tempdir().unwrap();
        let cache = TokenCache::new(dir.path(), scope("node_1"));
        assert!(cache.load().unwrap().is_none());
        cache.store(&token("node_1")).unwrap();
        let found = cache.load().unwrap().unwrap();
        assert_eq!(found.token.expose(), "nt_live_1");
        assert_eq!(found.node_name, Some("quay".into()));

        let same = Scope { base_url: "http://engine:1".to_owned(), ..scope("node_1") };
        assert!(TokenCache::new(dir.path(), same).load().unwrap().is_some());
        for elsewhere in [
            Scope { workspace: "ws2".into(), ..scope("node_1") },
            Scope { base_url: "http://engine:2".to_owned(), ..scope("node_1") },
            scope("node_2"),
        ] {
            assert!(TokenCache::new(dir.path(), elsewhere).load().unwrap().is_none());
        }
    }

    #[test]
    fn an_id_that_enrolment_had_to_take_is_found_under_the_directorys_own() {
        let dir = tempfile::tempdir().unwrap();
        let cache = TokenCache::new(dir.path(), scope("node_1"));
        cache.store(&token("node_taken")).unwrap();
        assert_eq!(cache.load().unwrap().unwrap().node_id.as_str(), "node_taken");
    }

    #[test]
    fn a_file_of_another_program_is_accepted_on_node_and_workspace() {
        let dir = tempfile::tempdir().unwrap();
        let cache = TokenCache::new(dir.path(), scope("node_1"));
        fs::create_dir(dir.path().join(TOKEN_DIR)).unwrap();
        let write = |text: &str| fs::write(cache.path(), text).unwrap();
        write(r#"{"node_id":"node_1","workspace_id":"ws1","token":"nt_live_2"}"#);
        assert_eq!(cache.load().unwrap().unwrap().token.expose(), "nt_live_2");
        assert_eq!(fs::metadata(cache.path()).unwrap().permissions().mode() & 0o777, 0o600);
        write(r#"{"node_id":"node_9","workspace_id":"ws1","token":"nt_live_2"}"#);
        assert!(cache.load().unwrap().is_none(), "a rotated node id");
        write(r#"{"node_id":"node_1","workspace_id":"ws1","token":" "}"#);
        assert!(cache.load().unwrap().is_none(), "an empty token");
        write("nt_live_secret");
        let error = cache.load().unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn hostile_ids_stay_inside_the_directory_and_apart() {
        let dir = tempfile::tempdir().unwrap();
        let long = "x".repeat(5000);
        let ids = ["../x", "..", "", "a/b", "a_b", "/etc/passwd", "é", "a\0b", ".", &long, "node_1"];
        let mut files = HashSet::new();
        for id in ids {
            let cache = TokenCache::new(dir.path(), scope(id));
            assert_eq!(cache.path().parent().unwrap(), dir.path().join(TOKEN_DIR), "{id:?}");
            cache.store(&token(id)).unwrap();
            assert!(cache.load().unwrap().is_some());
            assert!(files.insert(cache.path().to_owned()), "{id:?} shares a file");
        }
        assert_eq!(fs::read_dir(dir.path().join(TOKEN_DIR)).unwrap().count(), ids.len());
        assert!(TokenCache::new(dir.path(), scope("node_1")).path().ends_with("node_1.json"));
    }
}
