//! A redis-server of its own for each test.

use super::DEADLINE;
use redis::{Commands, Connection};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct Redis {
    dir: tempfile::TempDir,
    child: Child,
    pub port: u16,
    password: Option<String>,
    /// Of the command line, beside port, address and folder.
    args: Vec<String>,
}

/// A port that nobody has now, with another, 10 000 above it, as a cluster wants for itself.
pub fn free_port_of_a_cluster() -> u16 {
    loop {
        let port = free_port();
        if let Some(bus) = port.checked_add(10_000)
            && TcpListener::bind(("127.0.0.1", bus)).is_ok()
        {
            return port;
        }
    }
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
        let args = password.map_or(Vec::new(), |password| vec!["--requirepass".to_string(), password.into()]);
        let mut server = Self::start_args(|_| args.clone());
        server.password = password.map(Into::into);
        server
    }

    /// With arguments, which are made for its folder.
    pub fn start_args(args: impl Fn(&Path) -> Vec<String>) -> Self {
        Self::start_on(free_port, args)
    }

    /// A sentinel that watches a primary under that name; two must agree that it is gone.
    pub fn start_sentinel(name: &str, primary: u16) -> Self {
        Self::start_args(|dir| {
            let file = dir.join("sentinel.conf");
            let config = format!(
                "sentinel monitor {name} 127.0.0.1 {primary} 2\nsentinel down-after-milliseconds {name} 1000\n\
                 sentinel failover-timeout {name} 3000\n"
            );
            std::fs::write(&file, config).unwrap();
            vec![file.display().to_string(), "--sentinel".into()]
        })
    }

    /// On a port that is chosen so.
    pub fn start_on(port: impl Fn() -> u16, args: impl Fn(&Path) -> Vec<String>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        loop {
            let (port, args) = (port(), args(dir.path()));
            let mut child = spawn(dir.path(), port, &args);
            // Somebody else may have taken the port, or one of the arguments, meanwhile.
            if answers(&mut child, port) {
                return Self { dir, child, port, password: None, args };
            }
        }
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
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
            self.child = spawn(self.dir.path(), self.port, &self.args);
            if answers(&mut self.child, self.port) {
                return;
            }
            assert!(begin.elapsed() < DEADLINE, "redis-server does not start again on {}", self.port);
        }
    }

    pub fn connection(&self) -> Connection {
        self.connection_by(self.password.as_deref())
    }

    /// With a password that it was not told of.
    pub fn connection_with(&self, password: &str) -> Connection {
        self.connection_by(Some(password))
    }

    fn connection_by(&self, password: Option<&str>) -> Connection {
        let mut login = redis::RedisConnectionInfo::default();
        if let Some(password) = password {
            login = login.set_password(password);
        }
        let address = redis::ConnectionAddr::Tcp("127.0.0.1".into(), self.port);
        let info =
            redis::IntoConnectionInfo::into_connection_info(address).unwrap().set_redis_settings(login);
        let connection = redis::Client::open(info).unwrap().get_connection_with_timeout(DEADLINE).unwrap();
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

    /// All its keys with their values, without the epoch keys.
    pub fn contents(&self) -> BTreeMap<String, String> {
        let mut connection = self.connection();
        let mut keys: Vec<String> = connection.keys("*").unwrap();
        keys.retain(|key| !key.starts_with("cidstore:mirror:"));
        let mut contents = BTreeMap::new();
        for keys in keys.chunks(500) {
            let mut pipeline = redis::pipe();
            for key in keys {
                pipeline.cmd("GET").arg(key);
            }
            // Of a slot that moves, keys may be elsewhere by now.
            pipeline.ignore_errors();
            let replies: Vec<redis::RedisResult<Option<String>>> = pipeline.query(&mut connection).unwrap();
            let values = replies.into_iter().map(|reply| reply.ok().flatten());
            contents.extend(keys.iter().cloned().zip(values).filter_map(|(key, value)| Some((key, value?))));
        }
        contents
    }

    /// Whether it runs.
    pub fn lives(&self) -> bool {
        let pid = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        rustix::process::test_kill_process(pid).is_ok()
    }

    /// Value of the epoch key.
    pub fn epoch(&self) -> Option<u64> {
        let mut connection = self.connection();
        let keys: Vec<String> = connection.keys("cidstore:mirror:*").unwrap();
        let value: Option<String> = keys.first().and_then(|key| connection.get(key).unwrap());
        // Behind it there may be the form.
        value.and_then(|value| value.split(' ').next()?.parse().ok())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // A frozen one dies of SIGKILL, too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(dir: &Path, port: u16, args: &[String]) -> Child {
    let mut command = Command::new("redis-server");
    let port = port.to_string();
    // A file of settings comes first.
    let (file, args) = args.split_at(usize::from(args.first().is_some_and(|arg| !arg.starts_with('-'))));
    if let Some(file) = file.first() {
        command.arg(file).args(args).args(["--port", &port, "--bind", "127.0.0.1", "--dir"]).arg(dir);
        return command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null()).spawn().unwrap();
    }
    command
        .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        // Replicas have what they should have at once, and not after five seconds.
        .args(["--repl-diskless-sync-delay", "0"])
        .arg("--dir")
        .arg(dir)
        .args(args);
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
