//! A redis-server of its own for each test.

use super::DEADLINE;
use redis::{Commands, Connection};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct Redis {
    dir: tempfile::TempDir,
    child: Child,
    pub port: u16,
    password: Option<String>,
}

/// Whether tests that need redis-server can run. Without it they fail, unless that is allowed.
pub fn available() -> bool {
    if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_ok() {
        return true;
    }
    assert!(
        std::env::var_os("CIDSTORED_TESTS_ALLOW_SKIP").is_some(),
        "redis-server is not installed (apt-get install redis-server); CIDSTORED_TESTS_ALLOW_SKIP=1 passes over the tests that need it"
    );
    eprintln!("SKIPPED: redis-server is not installed");
    false
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Redis {
    pub fn start() -> Self {
        Self::start_with(None)
    }

    pub fn start_with(password: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        loop {
            let port = free_port();
            let mut child = spawn(dir.path(), port, password);
            // Somebody else may have taken the port meanwhile.
            if answers(&mut child, port) {
                return Self { dir, child, port, password: password.map(Into::into) };
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Stops it in its tracks: the kernel takes connections and bytes, nobody answers.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends it without a chance to save.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on the same port, with the data it saved, if any.
    pub fn restart(&mut self) {
        let begin = Instant::now();
        loop {
            self.child = spawn(self.dir.path(), self.port, self.password.as_deref());
            if answers(&mut self.child, self.port) {
                return;
            }
            assert!(begin.elapsed() < DEADLINE, "redis-server does not start again on {}", self.port);
        }
    }

    pub fn connection(&self) -> Connection {
        let user = self.password.as_ref().map_or(String::new(), |password| format!(":{password}@"));
        let url = format!("redis://{user}127.0.0.1:{}/0", self.port);
        let connection = redis::Client::open(url).unwrap().get_connection_with_timeout(DEADLINE).unwrap();
        connection.set_read_timeout(Some(DEADLINE)).unwrap();
        connection
    }

    /// Runs a command given as words.
    pub fn command(&self, words: &str) -> redis::Value {
        let mut words = words.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            command.arg(word);
        });
        command.query(&mut self.connection()).unwrap()
    }

    /// All keys with their values, without the epoch keys.
    pub fn contents(&self) -> BTreeMap<String, String> {
        let mut connection = self.connection();
        let mut keys: Vec<String> = connection.keys("*").unwrap();
        keys.retain(|key| !key.starts_with("cidstore:mirror:"));
        let mut contents = BTreeMap::new();
        for keys in keys.chunks(500) {
            let values: Vec<Option<String>> = connection.mget(keys).unwrap();
            contents.extend(keys.iter().cloned().zip(values).filter_map(|(key, value)| Some((key, value?))));
        }
        contents
    }

    /// Value of the epoch key.
    pub fn epoch(&self) -> Option<u64> {
        let mut connection = self.connection();
        let keys: Vec<String> = connection.keys("cidstore:mirror:*").unwrap();
        keys.first().and_then(|key| connection.get(key).unwrap())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // A frozen one dies of SIGKILL, too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(dir: &std::path::Path, port: u16, password: Option<&str>) -> Child {
    let mut command = Command::new("redis-server");
    let port = port.to_string();
    command
        .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .arg("--dir")
        .arg(dir);
    if let Some(password) = password {
        command.args(["--requirepass", password]);
    }
    command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null()).spawn().unwrap()
}

fn answers(child: &mut Child, port: u16) -> bool {
    let begin = Instant::now();
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap();
    while begin.elapsed() < DEADLINE {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if let Ok(mut connection) = client.get_connection_with_timeout(Duration::from_secs(1)) {
            let reply: redis::RedisResult<redis::Value> = redis::cmd("PING").query(&mut connection);
            let text = format!("{reply:?}");
            if reply.is_ok() || text.contains("NOAUTH") {
                return true;
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}
