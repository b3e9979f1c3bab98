//! Messages that cannot be put in: kept, listed with their reason, and put in after all when a person says so.

use std::fs;

use serde_json::{Value, json};

use crate::support::{
    House, TestEngine,
    agents::text,
    expect,
    house::{program, run},
    until,
};

/// Throws away unread whatever comes, while there is a file `$LOG.deaf`.
const MOODY: &str = "
import os, select, termios
log = os.environ['LOG']
while True:
    select.select([0], [], [])
    if os.path.exists(log + '.deaf'):
        termios.tcflush(0, termios.TCIFLUSH)
    else:
        with open(log, 'ab') as notes:
            notes.write(os.read(0, 65536))
";

/// The command, as a person would type it.
fn dead_letters(house: &House, args: &[&str]) -> (Option<i32>, String) {
    let mut command = program(house.dir());
    command.arg("dead-letters").arg("--state-dir").arg(house.connection_file().parent().unwrap()).args(args);
    let (code, said, error) = run(&mut command);
    (code, said + &error)
}

fn listed(house: &House) -> Vec<Value> {
    let list = house.get("/api/dead-letters");
    let letters = list["dead_letters"].as_array().unwrap().clone();
    assert_eq!(list["count"], letters.len());
    letters
}

#[test]
fn what_cannot_be_put_in_is_kept_with_its_reason_and_put_in_when_asked() {
    let engine = TestEngine::start();
    let mut house = House::at(&engine).start();
    let (_, node) = house.until_live();
    let sender = engine.person("sender");
    let deaf = house.dir().join("alice.notes.deaf");
    let spawn = |house: &House| {
        let mut body = house.spawn_request("alice", "", &[]);
        body["command"] = json!("python3");
        body["args"] = json!(["-c", MOODY]);
        let answer = house.call("POST", "/api/spawn", Some(&body));
        assert_eq!(answer.status, 200, "{}", answer.text);
    };
    assert_eq!(dead_letters(&house, &[]), (Some(0), "no dead letters\n".to_owned()));

    fs::write(&deaf, "").unwrap();
    spawn(&house);
    let lost: Vec<_> =
        ["fuel is low", "tide turns"].map(|body| engine.dm(&sender, "alice", &text(body))).into();
    until("both are dead letters", || {
        let letters = listed(&house);
        expect(letters.len() == 2, || format!("{letters:?}"))
    });
    until("the engine keeps them no longer", || {
        let acked = engine.acked(&node, "alice");
        expect(acked == Some(2), || format!("{acked:?}"))
    });
    assert_eq!(house.notes("alice").heard(), [""; 0]);

    // They outlive the broker that gave them up.
    house.kill();
    house.start_again();
    let letters = listed(&house);
    for (letter, (id, body)) in letters.iter().zip(lost.iter().zip(["fuel is low", "tide turns"])) {
        assert_eq!((&letter["name"], &letter["event_id"]), (&json!("alice"), &json!(id)), "{letter}");
        assert_eq!((&letter["from"], &letter["body"]), (&json!("sender"), &json!(text(body))), "{letter}");
        assert!(letter["reason"].as_str().unwrap().contains("throwing its input away"), "{letter}");
    }
    let first = letters[0]["id"].as_str().unwrap();
    let (code, table) = dead_letters(&house, &[]);
    assert_eq!(code, Some(0), "{table}");
    assert!([first, "alice", "throwing", "fuel is low"].iter().all(|part| table.contains(part)), "{table}");

    let again = |which: Value| house.call("POST", "/api/dead-letters/redeliver", Some(&which));
    assert_eq!(again(json!({ "id": "no-such" })).status, 404);
    let (code, said) = dead_letters(&house, &["redeliver", first]);
    assert!(
        code == Some(4) && said.contains("spawn it again"),
        "nobody is there to read it: {code:?} {said}"
    );
    assert_eq!(listed(&house).len(), 2);

    fs::remove_file(&deaf).unwrap();
    spawn(&house);
    let events = house.events();
    let (code, said) = dead_letters(&house, &["redeliver", first]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(house.notes("alice").hears(1), ["fuel is low"]);
    let told = events.wait("dead_letter_redelivered", "alice");
    assert_eq!((&told["delivery_id"], &told["event_id"]), (&json!(first), &json!(lost[0])), "{told}");

    let answer = again(json!({ "all": true }));
    assert_eq!((answer.status, &answer.json()["success"]), (200, &json!(true)), "{}", answer.text);
    assert_eq!(house.notes("alice").hears(2), ["fuel is low", "tide turns"]);
    until("none is left", || {
        let letters = listed(&house);
        expect(letters.is_empty(), || format!("{letters:?}"))
    });
    engine.dm(&sender, "alice", &text("all is well"));
    assert_eq!(house.notes("alice").hears(3).pop().unwrap(), "all is well");
    let lines = house.notes("alice").heard_lines();
    let marked: Vec<_> = lines.iter().map(|(_, line)| line.contains("redelivered")).collect();
    assert_eq!(marked, [true, true, false], "{lines:?}");
}
