//! Where a spawn goes.

use serde_json::Value;

/// A node as placement sees it.
#[derive(Debug, Clone)]
pub(in crate::engine) struct Candidate {
    pub(in crate::engine) id: String,
    pub(in crate::engine) name: String,
    pub(in crate::engine) capabilities: Vec<String>,
    /// Live, registered, and its handlers run.
    pub(in crate::engine) serving: bool,
    pub(in crate::engine) load: f64,
    pub(in crate::engine) agents: i64,
    /// 0 is unlimited.
    pub(in crate::engine) max_agents: i64,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum NoPlace {
    /// No node advertises what is wanted.
    NobodyCan,
    /// Those that do are offline or full.
    NobodyServes,
}

/// Which node a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) enum Target {
    /// None: any that can.
    Any,
    /// The node that the caller lives on.
    Own,
    /// The node of this name.
    Named(String),
}

/// The capability that a spawn's input asks for: `spawn:` and its `capability`, else its `cli`.
pub(in crate::engine) fn wanted(input: &Value) -> Option<String> {
    let named = text(input, "capability").or_else(|| text(input, "cli"))?;
    Some(if named.starts_with("spawn:") { named.to_owned() } else { format!("spawn:{named}") })
}

/// The node that a spawn's input asks for.
pub(in crate::engine) fn target(input: &Value) -> Target {
    match ["target_node", "node", "target"].iter().find_map(|key| text(input, key)) {
        None => Target::Any,
        Some("self") => Target::Own,
        Some(name) => Target::Named(name.to_owned()),
    }
}

/// The best node for `capability`: serving, with room, not tried before if there is such a one; then the
/// least load, the fewest agents, the first name.
pub(in crate::engine) fn place<'a>(
    nodes: &'a [Candidate],
    capability: &str,
    tried: &[String],
) -> Result<&'a Candidate, NoPlace> {
    let able: Vec<_> =
        nodes.iter().filter(|node| node.capabilities.iter().any(|known| known == capability)).collect();
    if able.is_empty() {
        return Err(NoPlace::NobodyCan);
    }
    able.into_iter()
        .filter(|node| node.serving && (node.max_agents == 0 || node.agents < node.max_agents))
        .min_by(|a, b| {
            let known = |node: &Candidate| tried.contains(&node.id);
            known(a)
                .cmp(&known(b))
                .then(a.load.total_cmp(&b.load))
                .then(a.agents.cmp(&b.agents))
                .then(a.name.cmp(&b.name))
        })
        .ok_or(NoPlace::NobodyServes)
}

fn text<'a>(input: &'a Value, key: &str) -> Option<&'a str> {
    input.get(key)?.as_str().map(str::trim).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, load: f64, agents: i64) -> Candidate {
        Candidate {
            id: format!("node_{name}"),
            name: name.to_owned(),
            capabilities: vec!["spawn:claude".to_owned()],
            serving: true,
            load,
            agents,
            max_agents: 0,
        }
    }

    fn placed(nodes: &[Candidate], tried: &[&str]) -> Result<String, NoPlace> {
        let tried: Vec<String> = tried.iter().map(|&id| id.to_owned()).collect();
        place(nodes, "spawn:claude", &tried).map(|node| node.name.clone())
    }

    #[test]
    fn the_least_loaded_then_emptiest_then_first_node_is_chosen() {
        assert_eq!(placed(&[node("b", 0.5, 0), node("a", 0.2, 9)], &[]), Ok("a".to_owned()));
        assert_eq!(placed(&[node("b", 0.2, 1), node("a", 0.2, 9)], &[]), Ok("b".to_owned()));
        assert_eq!(placed(&[node("b", 0.2, 1), node("a", 0.2, 1)], &[]), Ok("a".to_owned()));
    }

    #[test]
    fn an_untried_node_comes_before_a_better_one_that_failed() {
        let nodes = [node("a", 0.1, 0), node("b", 0.9, 8)];
        assert_eq!(placed(&nodes, &["node_a"]), Ok("b".to_owned()));
        assert_eq!(placed(&nodes[..1], &["node_a"]), Ok("a".to_owned()));
    }

    #[test]
    fn full_offline_and_incapable_nodes_are_told_apart() {
        let mut full = node("a", 0.0, 2);
        full.max_agents = 2;
        let mut dark = node("b", 0.0, 0);
        dark.serving = false;
        assert_eq!(placed(&[full.clone(), dark], &[]), Err(NoPlace::NobodyServes));
        full.capabilities.clear();
        assert_eq!(placed(&[full], &[]), Err(NoPlace::NobodyCan));
    }

    #[test]
    fn the_wanted_capability_and_node_are_read_from_the_input() {
        assert_eq!(wanted(&json!({"cli": "claude"})).as_deref(), Some("spawn:claude"));
        assert_eq!(wanted(&json!({"cli": "x", "capability": "spawn:sh"})).as_deref(), Some("spawn:sh"));
        assert_eq!(wanted(&json!({"cli": " "})), None);
        assert_eq!(target(&json!({"node": "self"})), Target::Own);
        assert_eq!(target(&json!({"target_node": "quay", "node": "self"})), Target::Named("quay".to_owned()));
        assert_eq!(target(&json!({})), Target::Any);
    }
}
