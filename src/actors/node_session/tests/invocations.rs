//! What the engine asks for.

use super::*;

#[actix::test]
async fn an_invocation_goes_to_the_registry_and_its_result_back() {
    let (mut house, mut socket) = House::live(quick()).await;
    socket.say(json!({
        "v": 1, "type": "action.invoke", "invocation_id": "inv_1", "action": "spawn:plain",
        "input": {"name": "ann"}
    }));
    socket.say(json!({"v": 1, "type": "tide.turned", "height": 3}));
    socket.say(json!("not a frame"));
    let invoked = house.invoked().await;
    let Action::Spawn(spawn) = invoked.action else { panic!("{invoked:?}") };
    assert_eq!((spawn.name.as_deref(), spawn.cli.as_deref()), (Some("ann"), Some("plain")));
    let result = InvocationResult::Spawned { name: name("ann") };
    house.tell(InvocationEnded { invocation: invoked.invocation, result });
    let result = socket.frame("action.result").await;
    assert_eq!(result["output"], json!({"spawned": true, "name": "ann"}));
    assert!(result.get("error").is_none());
    house.shows("frames_in", |kinds| kinds.contains("unknown=1")).await;
    house.shows("frames_unreadable", |n| n == "1").await;
}
