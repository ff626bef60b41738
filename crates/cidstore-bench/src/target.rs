//! What is measured: a daemon of its own on a fresh folder, or one that runs already.

use crate::args::Cli;
use crate::daemon::{Daemon, Endpoints};
use crate::watch::Watch;
use anyhow::{Context as _, Result};
use cidstore_bench::report::{Report, Unit};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What a single measurement talks to.
pub struct Target {
    own: Option<Subject>,
    /// Where it listens.
    pub endpoints: Endpoints,
    watch: Option<Watch>,
}

impl Target {
    /// As the command line says.
    ///
    /// # Errors
    /// When a daemon of its own does not start.
    pub fn of(cli: &Cli) -> Result<Self> {
        if cli.daemon.is_none() {
            let endpoints = Endpoints { request: cli.endpoint.clone(), push: cli.push.clone() };
            return Ok(Self { own: None, endpoints, watch: cli.pid.map(|pid| Watch::start(pid, None)) });
        }
        let own = Subject::fresh(cli)?;
        let (endpoints, watch) = (own.endpoints().clone(), own.watch());
        Ok(Self { own: Some(own), endpoints, watch: Some(watch) })
    }

    /// Whether it was started for this measurement, with nothing in it.
    pub fn is_fresh(&self) -> bool {
        self.own.is_some()
    }

    /// Greatest memory so far, where the process is known.
    pub fn report_memory(&self, report: &mut Report, when: &str) {
        if let Some(watch) = &self.watch {
            report_memory(report, watch, when);
        }
    }
}

/// Greatest memory that was seen.
pub fn report_memory(report: &mut Report, watch: &Watch, when: &str) {
    report.add(&format!("{when}: peak RSS"), Unit::Mebibytes, watch.peak.resident_mib(), None);
    report.add(&format!("{when}: peak anonymous"), Unit::Mebibytes, watch.peak.anonymous_mib(), None);
}

/// A daemon with its folder, which is removed at the end.
pub struct Subject {
    // Before the folder: it is dropped, and so killed, first.
    daemon: Option<Daemon>,
    program: PathBuf,
    folder: TempDir,
}

impl Subject {
    /// A new one, started.
    ///
    /// # Errors
    /// Without `--daemon`; as [`Daemon::start`].
    pub fn fresh(cli: &Cli) -> Result<Self> {
        let program = cli.daemon.clone().context("--daemon PROGRAM is missing")?;
        let folder = tempfile::Builder::new().prefix("cidstore-bench-").tempdir_in(cli.folder())?;
        let daemon = Some(Daemon::start(&program, folder.path(), &[])?);
        Ok(Self { daemon, program, folder })
    }

    /// The daemon.
    ///
    /// # Panics
    /// Between [`Subject::end`] and [`Subject::start`].
    pub fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("it was not ended")
    }

    /// Where it listens.
    pub fn endpoints(&self) -> &Endpoints {
        &self.daemon().endpoints
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its catalog file.
    pub fn catalog(&self) -> PathBuf {
        self.folder.path().join("cidstore.h5")
    }

    /// Looks at its memory and its folder from now on.
    pub fn watch(&self) -> Watch {
        Watch::start(self.daemon().pid(), Some(self.folder.path()))
    }

    /// Ends the daemon.
    ///
    /// # Errors
    /// As [`Daemon::end`].
    pub fn end(&mut self, signal: Signal) -> Result<()> {
        self.daemon.take().map_or(Ok(()), |daemon| daemon.end(signal))
    }

    /// Starts it again on what is there.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn start(&mut self, settings: &[(&str, String)]) -> Result<()> {
        self.daemon = Some(Daemon::start(&self.program, self.folder.path(), settings)?);
        Ok(())
    }
}
