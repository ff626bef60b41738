//! A daemon as a process of its own, and clients that know only the wire.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine; what fails, fails for another reason.
pub const LONG: Duration = Duration::from_mins(1);

/// Waits until something holds.
pub fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(start.elapsed() < LONG, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Addresses of a running daemon.
#[derive(Debug, Clone, serde::Deserialize)]
pub struct Endpoints {
    pub req: String,
    pub push: String,
    #[serde(rename = "pub")]
    pub publish: String,
    pub router_dealer: Option<String>,
    pub http: String,
    pub pid: u32,
}

/// A folder for a store.
pub struct Place {
    pub dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn data_path(&self) -> PathBuf {
        self.dir.path().join("cidstore.h5")
    }

    /// The command line of a daemon here: free ports, nothing from the environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cidstored"));
        command.env_clear().stdin(Stdio::null());
        for flag in ["--req-port", "--push-port", "--pub-port", "--http-port"] {
            command.args([flag, "0"]);
        }
        command.arg("--data-path").arg(self.data_path()).args(args);
        command
    }

    /// Starts a daemon and waits until it is ready.
    pub fn start(&self, args: &[&str]) -> Daemon {
        let mut command = self.command(args);
        command.arg("--endpoints-file").arg(self.endpoints_file());
        self.start_command(&mut command)
    }

    pub fn endpoints_file(&self) -> PathBuf {
        self.dir.path().join("endpoints.json")
    }

    /// Starts what writes the endpoints file in the end.
    pub fn start_command(&self, command: &mut Command) -> Daemon {
        let file = self.endpoints_file();
        let _ = std::fs::remove_file(&file);
        let log = self.dir.path().join("log");
        let stderr = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let mut child = command.stdin(Stdio::null()).stderr(stderr).spawn().unwrap();
        let endpoints = until("the daemon is ready", || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the daemon ended with {status}:\n{}", std::fs::read_to_string(&log).unwrap());
            }
            serde_json::from_slice(&std::fs::read(&file).ok()?).ok()
        });
        Daemon { child, endpoints, log }
    }
}

/// A running daemon; killed when dropped.
pub struct Daemon {
    child: Child,
    pub endpoints: Endpoints,
    log: PathBuf,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("log of the daemon:\n{}", self.log());
        }
    }
}

impl Daemon {
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    pub fn wait(&mut self) -> ExitStatus {
        until("the daemon ends", || self.child.try_wait().unwrap())
    }

    /// SIGTERM, and how it ended.
    pub fn stop(mut self) -> ExitStatus {
        self.signal("-TERM");
        self.wait()
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    pub fn req(&self) -> Client {
        Client::connect(zeromq::REQ, &self.endpoints.req)
    }

    pub fn dealer(&self) -> Client {
        Client::connect(zeromq::DEALER, &self.endpoints.req)
    }

    pub fn pusher(&self) -> Client {
        Client::connect(zeromq::PUSH, &self.endpoints.push)
    }

    /// A subscriber that the daemon knows of: it has had a heartbeat.
    pub fn subscriber(&self, topic: &[u8]) -> Client {
        let client = Client::unconnected(zeromq::SUB);
        client.socket.set_rcvhwm(1_000_000).unwrap();
        client.socket.set_subscribe(topic).unwrap();
        client.socket.connect(&self.endpoints.publish).unwrap();
        client
    }

    /// A TCP connection to one of the sockets.
    pub fn raw(endpoint: &str) -> TcpStream {
        let stream = TcpStream::connect(endpoint.strip_prefix("tcp://").unwrap()).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    }

    /// Status code, headers and body of an HTTP answer.
    pub fn http(&self, method: &str, path: &str, headers: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.endpoints.http.strip_prefix("http://").unwrap()).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            unchunk(body)
        } else {
            body.into()
        };
        (code, head.to_ascii_lowercase(), body)
    }

    /// A number from the metrics.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, _, text) = self.http("GET", "/metrics", "");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no metric {name} in\n{text}")).parse().unwrap()
    }
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        whole.push_str(&rest[..size]);
        body = rest.get(size + 2..).unwrap_or_default();
    }
    whole
}

/// How a client encodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Json,
    MsgPack,
}

impl Form {
    pub fn encode(self, value: &Value) -> Vec<u8> {
        match self {
            Self::Json => serde_json::to_vec(value).unwrap(),
            Self::MsgPack => rmp_serde::to_vec_named(value).unwrap(),
        }
    }

    pub fn decode(self, bytes: &[u8]) -> Value {
        match self {
            Self::Json => serde_json::from_slice(bytes).unwrap(),
            Self::MsgPack => rmp_serde::from_slice(bytes).unwrap(),
        }
    }
}

/// A socket of a client.
pub struct Client {
    pub socket: zeromq::Socket,
}

impl Client {
    pub fn unconnected(kind: zeromq::SocketType) -> Self {
        let socket = zeromq::Context::new().socket(kind).unwrap();
        socket.set_linger(0).unwrap();
        let ms = i32::try_from(LONG.as_millis()).unwrap();
        socket.set_rcvtimeo(ms).unwrap();
        socket.set_sndtimeo(ms).unwrap();
        Self { socket }
    }

    pub fn connect(kind: zeromq::SocketType, at: &str) -> Self {
        let client = Self::unconnected(kind);
        client.socket.connect(at).unwrap();
        client
    }

    /// Sends bytes and returns the reply's.
    pub fn ask_bytes(&self, request: &[u8]) -> Vec<u8> {
        self.socket.send(request, 0).unwrap();
        self.socket.recv_bytes(0).unwrap()
    }

    /// Asks in a form; the reply is in the same one.
    pub fn ask_in(&self, form: Form, request: &Value) -> Value {
        form.decode(&self.ask_bytes(&form.encode(request)))
    }

    pub fn ask(&self, request: &Value) -> Value {
        self.ask_in(Form::MsgPack, request)
    }

    /// Asks, and takes anything but success for a failure.
    pub fn ok(&self, request: &Value) -> Value {
        let reply = self.ask(request);
        assert!(reply.get("error_code").is_none(), "{request} was answered with {reply}");
        assert_eq!(reply["version"], "1.0");
        reply
    }

    pub fn code(&self, request: &Value) -> u64 {
        let reply = self.ask(request);
        reply["error_code"].as_u64().unwrap_or_else(|| panic!("{request} was answered with {reply}"))
    }

    pub fn count(&self) -> u64 {
        self.ok(&json!({"command": "count"}))["count"].as_u64().unwrap()
    }

    /// The next notification, decoded.
    pub fn notification(&self) -> Value {
        Form::MsgPack.decode(&self.socket.recv_bytes(0).unwrap())
    }

    /// The next notification of a type.
    pub fn notification_of(&self, kind: &str) -> Value {
        loop {
            let notification = self.notification();
            if notification["type"] == kind {
                return notification;
            }
        }
    }
}

/// A CID as text, different for each number.
pub fn cid(n: u64) -> String {
    format!("E({},{},0,{n})", n.wrapping_mul(0x9e37_79b9_7f4a_7c15), n ^ 7)
}

/// An insert of a small triple.
pub fn insert(n: u64) -> Value {
    json!({"command": "insert", "s": cid(n), "p": cid(1), "o": cid(n + 1)})
}

/// A connection after its handshake: ZMTP 3.0, mechanism NULL.
pub fn shake_hands(endpoint: &str, kind: &str) -> TcpStream {
    shake_hands_as(endpoint, kind, b"")
}

/// The same under a name of the client's own.
pub fn shake_hands_as(endpoint: &str, kind: &str, identity: &[u8]) -> TcpStream {
    let mut stream = Daemon::raw(endpoint);
    let mut greeting = vec![0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0];
    greeting.extend_from_slice(b"NULL");
    greeting.resize(64, 0);
    stream.write_all(&greeting).unwrap();
    stream.read_exact(&mut greeting).unwrap();
    let mut body = b"\x05READY".to_vec();
    for (name, value) in [("Socket-Type", kind.as_bytes()), ("Identity", identity)] {
        body.push(u8::try_from(name.len()).unwrap());
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
        body.extend_from_slice(value);
    }
    let mut ready = vec![4, u8::try_from(body.len()).unwrap()];
    ready.extend(body);
    stream.write_all(&ready).unwrap();
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    let mut body = vec![0; head[1].into()];
    stream.read_exact(&mut body).unwrap();
    stream
}

/// One frame of a message, short form.
pub fn frame(more: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![u8::from(more), u8::try_from(payload.len()).unwrap()];
    bytes.extend_from_slice(payload);
    bytes
}

/// Whether the other side ends the connection.
pub fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = [0; 4096];
    loop {
        match stream.read(&mut rest) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// The path of something in the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}
