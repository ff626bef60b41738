//! `watch`: changes as they happen, none left out.

use crate::args::Watch;
use crate::commands::print_change;
use crate::exit::Failure;
use cidstore_client::{Config, Error, Follower, Happening, Notification, Refusal};
use serde_json::json;
use std::io::{self, BufWriter, Write};
use std::time::Duration;

/// The daemon says each second that it lives; after this silence the user is told, once.
const SILENCE: Duration = Duration::from_secs(5);
/// With nothing more to print within this time, what is printed goes out.
const PAUSE: Duration = Duration::from_millis(20);

pub fn watch(config: &Config, args: &Watch, json: bool) -> Result<(), Failure> {
    let mut follower = Follower::start(config, args.since)?;
    if !json {
        eprintln!("cidctl: watching {} after seq {}", config.subscribe, follower.seq());
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut silent = false;
    while left > 0 {
        let mut happening = follower.next(PAUSE).map_err(missed)?;
        if happening.is_none() {
            out.flush()?;
            happening = follower.next(SILENCE).map_err(missed)?;
        }
        if happening.is_none() && !silent {
            eprintln!("cidctl: {} is silent; waiting for it", config.subscribe);
        }
        silent = happening.is_none();
        match happening {
            Some(Happening::Change(change)) => {
                print_change(&mut out, &change, json)?;
                left -= 1;
            }
            Some(Happening::Notice(notice)) => print_notice(&mut out, &notice, json)?,
            None => {}
        }
    }
    out.flush()?;
    Ok(())
}

fn missed(error: Error) -> Failure {
    match error {
        Error::Refused(Refusal { code: 410, message }) => {
            Failure::Missed(format!("changes were missed, the log no longer has them: {message}"))
        }
        error => error.into(),
    }
}

/// Notices are no changes: for people they go to standard error, for programs they are lines with a
/// `type`.
fn print_notice(out: &mut impl Write, notice: &Notification, json: bool) -> io::Result<()> {
    let (text, value) = match notice {
        Notification::Rejected { request_id, code, message } => (
            format!("a push was rejected: {message} (error {code})"),
            json!({"type": "rejected", "request_id": request_id, "error_code": code, "error_msg": message}),
        ),
        Notification::Mirror { state, lag } => (
            format!("mirror: {state}{}", lag.map_or(String::new(), |lag| format!(", {lag} behind"))),
            json!({"type": "mirror", "state": state, "lag": lag}),
        ),
        Notification::Heartbeat { .. } | Notification::Changes(_) => return Ok(()),
    };
    if json {
        writeln!(out, "{value}")
    } else {
        eprintln!("cidctl: {text}");
        Ok(())
    }
}
