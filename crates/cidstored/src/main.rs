//! The daemon: configuration, threads, the three sockets, the HTTP sidecar.
//!
//! **Owns** when things happen: threads, sockets, clocks, signals, the order of start and end.
//!
//! **Knows nothing of** formats on disk; of bytes on the wire only through `cidstore-proto`; of
//! `ZeroMQ` only in the module `transport`.
//!
//! **Invariants**
//! - Every queue is bounded and its bound has a name in the settings: full means back-pressure for
//!   pushes, 429 for requests, counted loss for subscribers.
//! - A reply to a mutation leaves after the mutation is durable (as far as the operator chose) and
//!   visible; a notification leaves after that, in the order of sequence numbers.
//! - A panic in any thread ends the process.

mod compaction;
mod config;
mod daemon;
mod endpoints;
mod exit;
mod fair;
mod health;
mod http;
mod limits;
mod logging;
mod merging;
mod metrics;
mod mirror;
mod pool;
mod publisher;
mod pulse;
mod push;
mod queue;
mod reading;
mod reopening;
mod req;
mod resident;
mod retry;
mod scrubbing;
mod sealing;
mod service;
mod shared;
mod signals;
mod sockets;
mod transport;
mod visible;
mod writer;

use config::Action;
use exit::{Exit, Fatal};
use std::process::ExitCode;

fn main() -> ExitCode {
    // Clap's own exit code for a wrong command line is 2; ours is that of all wrong settings.
    let matches = config::command().try_get_matches().unwrap_or_else(|error| {
        let _ = error.print();
        std::process::exit(if error.use_stderr() { Exit::Usage as i32 } else { 0 })
    });
    let loaded = config::Environment::read(std::env::vars_os()).and_then(|env| config::load(&matches, &env));
    let loaded = match loaded {
        Ok((_, Action::ShowTable)) => {
            print!("{}", config::table());
            return Exit::Ok.into();
        }
        Ok((loaded, Action::ShowConfig)) => {
            print!("{}", config::effective(&loaded));
            return Exit::Ok.into();
        }
        Ok((loaded, Action::Run)) => loaded,
        Err(error) => {
            eprintln!("cidstored: {error}");
            return Exit::Usage.into();
        }
    };
    if let Err(error) = logging::start(&loaded.config) {
        eprintln!("cidstored: {error}");
        return Exit::Usage.into();
    }
    logging::panic_ends_the_process();
    match daemon::run(loaded) {
        Ok(()) => Exit::Ok.into(),
        Err(Fatal { exit, message }) => {
            tracing::error!(exit = exit as u8, "{message}");
            exit.into()
        }
    }
}
