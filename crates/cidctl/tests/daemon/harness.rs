//! A real daemon on free ports and a temporary folder, and `cidctl` as a process.

use cidstore_client::Config;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// The program under test: `CIDSTORED_BIN`, or the workspace's own, built if it is not yet.
fn program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(path) = std::env::var_os("CIDSTORED_BIN") {
            return path.into();
        }
        let cidctl = PathBuf::from(env!("CARGO_BIN_EXE_cidctl"));
        let mut build = Command::new(env!("CARGO"));
        // All programs at once, as scripts/test does: chosen alone, dependencies may get other
        // features and be compiled once more.
        build.args(["build", "--quiet", "--workspace", "--bins"]);
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        if cidctl.parent().is_some_and(|folder| folder.ends_with("release")) {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo runs").success(), "cidstored does not build");
        cidctl.with_file_name("cidstored")
    })
}

pub struct Daemon {
    child: Child,
    pub folder: TempDir,
    /// Once it has listened somewhere, it is started there again.
    endpoints: Option<[String; 3]>,
    settings: Vec<(&'static str, &'static str)>,
}

impl Daemon {
    pub fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), &[])
    }

    /// On the data in `folder`, with settings of its own.
    pub fn start_in(folder: TempDir, settings: &[(&'static str, &'static str)]) -> Self {
        let child = spawn(&folder, None, settings);
        let mut daemon = Self { child, folder, endpoints: None, settings: settings.to_vec() };
        daemon.wait();
        daemon
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("endpoints.json")
    }

    fn wait(&mut self) {
        loop {
            if let Ok(text) = fs::read_to_string(self.file())
                && let Ok(map) = serde_json::from_str::<Value>(&text)
            {
                self.endpoints =
                    Some(["req", "push", "pub"].map(|name| map[name].as_str().unwrap().to_owned()));
                return;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                panic!("the daemon ended with {status}:\n{log}");
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGTERM; all is sealed then.
    pub fn stop(&mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
        let _ = fs::remove_file(self.file());
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let _ = fs::remove_file(self.file());
    }

    /// After [`Daemon::kill`]: the same data, the same endpoints.
    pub fn start_again(&mut self) {
        self.child = spawn(&self.folder, self.endpoints.as_ref(), &self.settings);
        self.wait();
    }

    pub fn config(&self) -> Config {
        let [request, push, subscribe] = self.endpoints.clone().unwrap();
        Config { request, push, subscribe, ..Config::default() }
    }

    /// `cidctl` for this daemon, whatever the environment of the tests says.
    pub fn cidctl(&self) -> Command {
        let [request, _, subscribe] = self.endpoints.as_ref().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_cidctl"));
        command.args(["--endpoint", request, "--pub-endpoint", subscribe]);
        command.args(["--timeout", "20"]);
        command
    }

    /// Runs `cidctl`; its standard output must be empty or UTF-8.
    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.cidctl().args(args), None)
    }

    /// Runs `cidctl --json` successfully; the values it printed.
    pub fn json(&self, args: &[&str]) -> Vec<Value> {
        let ran = self.run(&[args, &["--json"]].concat());
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
        ran.values()
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(folder: &TempDir, endpoints: Option<&[String; 3]>, settings: &[(&str, &str)]) -> Child {
    let mut command = Command::new(program());
    // Settings of the environment that the tests run in are not for this daemon.
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("CIDSTORE_") || name_text.starts_with("REDIS_") {
            command.env_remove(&name);
        }
    }
    command
        .env("CIDSTORE_DATA_PATH", folder.path().join("cidstore.h5"))
        .env("CIDSTORE_ENDPOINTS_FILE", folder.path().join("endpoints.json"))
        .env("CIDSTORE_PORT", "0")
        .env("CIDSTORE_USE_REDIS", "0")
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(folder.path().join("log")).unwrap());
    match endpoints {
        None => command
            .env("CIDSTORE_ZMQ_REQREP_PORT", "0")
            .env("CIDSTORE_ZMQ_PUSH_PORT", "0")
            .env("CIDSTORE_ZMQ_PUB_PORT", "0"),
        Some([request, push, publish]) => command
            .env("CIDSTORE_ZMQ_ENDPOINT", request)
            .env("CIDSTORE_PUSH_PULL_ADDR", push)
            .env("CIDSTORE_PUB_SUB_ADDR", publish),
    };
    command.spawn().expect("the daemon starts")
}

/// What a process left behind.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn of(command: &mut Command, input: Option<&[u8]>) -> Self {
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let writer = input.map(|input| {
            let (mut to, input) = (child.stdin.take().unwrap(), input.to_vec());
            thread::spawn(move || to.write_all(&input))
        });
        let ran = child.wait_with_output().unwrap().into();
        if let Some(writer) = writer {
            let _ = writer.join().unwrap();
        }
        ran
    }

    /// The lines of standard output, each a JSON value.
    pub fn values(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
