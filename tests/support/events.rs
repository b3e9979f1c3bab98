//! The broker's event stream (`/ws`), read by a thread until it ends.

use std::{
    io::{BufReader, Write},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use serde_json::Value;

use super::{
    frames::{Frame, read_head},
    until,
};

/// What has been said on the stream so far.
pub(crate) struct Events {
    seen: Arc<Mutex<Vec<Value>>>,
    stream: TcpStream,
    reader: Option<JoinHandle<()>>,
}

impl Events {
    /// Listens from now on.
    pub(crate) fn listen(addr: SocketAddr, key: &str) -> Self {
        let mut stream = TcpStream::connect(addr).unwrap();
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: {addr}\r\nX-API-Key: {key}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut incoming = BufReader::new(stream.try_clone().unwrap());
        let head = String::from_utf8(read_head(&mut incoming).unwrap()).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let reader = std::thread::spawn({
            let seen = Arc::clone(&seen);
            move || {
                while let Ok(frame) = Frame::read(&mut incoming) {
                    if frame.is_close() {
                        return;
                    }
                    if let Some(event) = frame.text().and_then(|text| serde_json::from_str(text).ok()) {
                        seen.lock().unwrap().push(event);
                    }
                }
            }
        });
        Self { seen, stream, reader: Some(reader) }
    }

    /// The events of a kind, oldest first.
    pub(crate) fn of(&self, kind: &str) -> Vec<Value> {
        self.seen.lock().unwrap().iter().filter(|event| event["kind"] == kind).cloned().collect()
    }

    /// Waits for the first event of a kind about an agent.
    pub(crate) fn wait(&self, kind: &str, name: &str) -> Value {
        until(&format!("a {kind} of {name}"), || {
            let found = self.of(kind).into_iter().find(|event| event["name"] == name);
            found.ok_or_else(|| format!("{:?}", self.of(kind)))
        })
    }

    /// Everything up to the end of the stream, which must be near: the broker has ended.
    pub(crate) fn finish(mut self, kind: &str) -> Vec<Value> {
        self.join();
        self.of(kind)
    }

    fn join(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // It may have ended already.
        self.stream.shutdown(std::net::Shutdown::Both).ok();
        self.join();
    }
}
