//! `cidctl`, the command line of cidstored.
//!
//! **Owns** the text that people and scripts see, terms as CIDs, the import of N-Triples, exit codes.
//!
//! **Knows nothing of** the daemon's insides: what is asked of a daemon goes over `cidstore-client`,
//! what is done to a store's files is done by `cidstore-admin`.

mod args;
mod backups;
mod commands;
mod compacting;
mod damage;
mod endpoints;
mod exit;
mod export;
mod import;
mod labels;
mod meter;
mod mirroring;
mod sealing;
mod terms;
mod watch;

use args::{Cli, Command};
use cidstore_client::{Client, Config};
use clap::Parser;
use exit::Failure;
use std::net::{TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // A query without a result is an answer; for programs it is one without rows.
            if !matches!(failure, Failure::NothingFound | Failure::Damaged | Failure::ReaderGone) {
                eprintln!("cidctl: {failure}");
            }
            failure.code()
        }
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let json = cli.json;
    match &cli.command {
        Command::Cid { terms, hex } => return commands::cid(terms, *hex, json),
        Command::Hash { triple } => return commands::hash(triple, json),
        Command::Verify(args) => return damage::verify(args, json),
        Command::Repair(args) => return damage::repair(args, json),
        Command::Backup(args) => return backups::backup(&cli.connection, args, json),
        Command::Export(args) => return export::export(&cli.connection, args, json),
        Command::Restore(args) => return backups::restore(args, json),
        _ => {}
    }
    let mut config = cli.connection.config().map_err(Failure::Usage)?;
    if matches!(cli.command, Command::Checkpoint) {
        config = sealing::patient(config);
    }
    wait_for_daemon(&config, Duration::from_secs_f64(cli.connection.wait))?;
    match &cli.command {
        Command::Watch(args) => return watch::watch(&config, args, json),
        Command::Import(args) => return import::import(&config, args, json),
        Command::Compact(args) => return compacting::compact(&config, args, json),
        _ => {}
    }
    let mut client = Client::connect(&config)?;
    match &cli.command {
        Command::Ping => commands::ping(&mut client, json),
        Command::Put(args) => commands::put(&mut client, args, json),
        Command::Delete(args) => commands::delete(&mut client, args, json),
        Command::Query(args) => commands::query(&mut client, args, json),
        Command::Count { pattern } => commands::count(&mut client, pattern, json),
        Command::Get(args) => commands::get(&mut client, args, json),
        Command::Changes(args) => commands::changes(&mut client, args, json),
        Command::Mirror { action } => mirroring::mirror(&mut client, action, json),
        Command::Stats { metrics } => commands::stats(&mut client, *metrics, json),
        Command::Checkpoint => commands::checkpoint(&mut client, json),
        Command::Cid { .. }
        | Command::Hash { .. }
        | Command::Verify(_)
        | Command::Repair(_)
        | Command::Backup(_)
        | Command::Restore(_)
        | Command::Export(_)
        | Command::Watch(_)
        | Command::Compact(_)
        | Command::Import(_) => Ok(()),
    }
}

/// Finds out whether anything listens, so that a daemon that is not there is reported at once and
/// with the system's reason: `ZeroMQ` itself would go on trying in silence.
fn wait_for_daemon(config: &Config, wait: Duration) -> Result<(), Failure> {
    let Some(address) = config.request.strip_prefix("tcp://") else { return Ok(()) };
    let start = Instant::now();
    loop {
        let Err(reason) = reach(address, config.timeout) else { return Ok(()) };
        if start.elapsed() >= wait {
            let what = format!("{}: {reason}; is cidstored running there?", config.request);
            return Err(Failure::Unreachable(what));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn reach(address: &str, timeout: Duration) -> std::io::Result<()> {
    let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "the host has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}
