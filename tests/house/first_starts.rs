//! Many brokers that start for the first time on one machine, all at once.

use std::{collections::BTreeSet, fs, thread};

use relay_broker::{
    config::env,
    ids::WorkspaceId,
    store::identity::{MachineSeed, SEED_FILE},
};

use crate::support::{House, TestEngine};

const BROKERS: usize = 20;

#[test]
fn twenty_first_starts_make_one_seed_and_twenty_nodes() {
    let engine = TestEngine::start();
    let data = tempfile::tempdir().unwrap();
    let houses: Vec<House> = thread::scope(|scope| {
        let start = || House::at(&engine).env(env::XDG_DATA_HOME, data.path().to_str().unwrap()).start();
        let starts: Vec<_> = (0..BROKERS).map(|_| scope.spawn(start)).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });

    let ours = data.path().join("agent-relay");
    let seeds = fs::read_dir(&ours).unwrap().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with(SEED_FILE)
    });
    assert_eq!(seeds.count(), 1, "a seed, and nothing that was to become one");
    let seed = MachineSeed::load_or_create(&ours).unwrap();
    let workspace = WorkspaceId::from(engine.get("/v1/workspace")["id"].as_str().unwrap());
    let nodes: BTreeSet<String> = houses
        .iter()
        .map(|house| {
            let (id, _) = house.until_live();
            let cwd = house.dir().join("work").canonicalize().unwrap();
            assert_eq!(id, seed.node_id(&cwd, &workspace).as_str(), "it is not of this seed");
            id
        })
        .collect();
    assert_eq!(nodes.len(), BROKERS);
}
