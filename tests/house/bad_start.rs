//! Starts that cannot work, and engines that are no engines: a clear word, the right code, nothing half done.

use std::{fs, io::Write, net::TcpListener, time::Duration};

use nix::sys::signal::Signal;

use crate::support::{
    House, Proxy, TestEngine, expect,
    frames::read_head,
    house::{nothing_runs, program, run},
    until,
};

#[test]
fn a_state_directory_that_cannot_be_written_is_named_with_the_next_step() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("work")).unwrap();
    // A file where the directory should be: also root cannot write there.
    let file = dir.path().join("file");
    fs::write(&file, "mine").unwrap();
    for (command, wanted) in [("up", 1), ("init", 1)] {
        for state in [file.clone(), file.join("below")] {
            let mut start = program(dir.path());
            let (code, stdout, stderr) = run(start.arg(command).arg("--state-dir").arg(&state));
            assert_eq!(code, Some(wanted), "{command}: {stderr}");
            assert_eq!(stdout, "", "{command}");
            assert!(stderr.contains("--state-dir") && stderr.contains("file"), "{command}: {stderr}");
        }
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
}

#[test]
fn an_engine_that_is_not_there_is_waited_for_and_everybody_is_told() {
    let engine = TestEngine::start();
    let proxy = Proxy::to(engine.addr());
    proxy.block(true);
    let mut house = House::behind(&proxy, &engine).listening();
    until("it says what it waits for", || {
        let readyz = house.call("GET", "/readyz", None);
        assert_eq!(readyz.status, 503);
        expect(readyz.text.contains(&proxy.url()), || readyz.text.clone())
    });
    let spawn = house.call("POST", "/api/spawn", None);
    assert_eq!(spawn.status, 503, "{}", spawn.text);
    assert_eq!(house.call("GET", "/health", None).status, 200);

    house.signal(Signal::SIGTERM);
    let (status, took) = house.ends();
    assert_eq!(status.code(), Some(0), "{}", house.log());
    assert!(took < Duration::from_secs(5), "it took {took:?}");
    assert!(!house.connection_file().exists());
    nothing_runs(&house);
}

#[test]
fn an_engine_that_goes_away_and_comes_back_is_found_again() {
    let mut engine = TestEngine::start();
    let house = House::at(&engine).start();
    let listener = house.listener("alice");
    engine.stop();
    until("it notices", || {
        let readyz = house.call("GET", "/readyz", None);
        expect(readyz.status == 503, || readyz.text.clone())
    });
    let refused = house.try_send("alice", "too early");
    assert_eq!(refused.status, 503, "{}", refused.text);
    assert_eq!(refused.json()["retryable"], true, "{}", refused.text);
    assert_eq!(house.agents(), ["alice"]);
    engine.resume();
    house.until_live();
    house.send("alice", "hello again");
    assert_eq!(listener.hears(1), ["hello again"]);
}

#[test]
fn an_engine_that_talks_garbage_is_survived() {
    let garbage = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = garbage.local_addr().unwrap();
    std::thread::spawn(move || {
        let words: [&[u8]; 4] = [
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nnot JSON!",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"ok\":true}",
        ];
        for (stream, word) in garbage.incoming().zip(words.iter().cycle()) {
            let Ok(mut stream) = stream else { continue };
            // Whoever does not ask or listen to the end has heard enough.
            read_head(&mut stream).ok();
            stream.write_all(word).ok();
        }
    });
    let mut house = House::command(&["up"])
        .arg("--engine")
        .arg(&format!("http://{addr}"))
        .env("RELAY_WORKSPACE_KEY", "rk_live_some")
        .listening();
    until("it has been answered more than once", || {
        let tries = house.log().matches("not there yet").count();
        expect(tries >= 2, || house.log())
    });
    assert_eq!(house.call("GET", "/health", None).status, 200);
    assert_eq!(house.call("GET", "/api/spawned", None).status, 503);
    house.signal(Signal::SIGTERM);
    assert_eq!(house.wait().code(), Some(0));
}

#[test]
fn a_wrong_workspace_key_ends_the_start_with_the_next_step() {
    let engine = TestEngine::start();
    for (command, wanted) in [("up", 4), ("init", 1)] {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("work")).unwrap();
        let mut start = program(dir.path());
        start.arg(command).arg("--state-dir").arg(dir.path().join("state"));
        start.env("RELAYCAST_BASE_URL", format!("http://{}", engine.addr()));
        start.env("RELAY_WORKSPACE_KEY", "rk_live_00000000000000000000000000000000");
        let (code, _, stderr) = run(&mut start);
        assert_eq!(code, Some(wanted), "{command}: {stderr}");
        let last = stderr.lines().last().unwrap();
        assert!(last.contains("--workspace-key") && last.contains("RELAY_WORKSPACE_KEY"), "{stderr}");
        assert!(!stderr.contains("rk_live_0"), "the key is shown: {stderr}");
        assert!(!dir.path().join("state/connection.json").exists(), "{command}");
    }
}
