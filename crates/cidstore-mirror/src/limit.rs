//! Counting requests of clients in Redis, so that several daemons allow as many together as one would alone. One
//! script does it, and nothing comes between what it reads and what it writes.

use crate::connect::Connection;
use crate::failure::Failure;
use redis::{Cmd, Value};
use std::time::Duration;

const SCRIPT: &str = include_str!("limit.lua");
/// SHA-1 of it, by which a server that has seen it knows it: `sha1sum limit.lua`.
const SCRIPT_SHA1: &str = "3d70f89812897a3d37c8a063e9ed1dea00b73283";

/// What is said to one more request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is among those that are allowed, and counted.
    Allowed,
    /// It is one too many, and not counted: a later one, after so long, is not.
    TryAfter(Duration),
}

/// Where the requests of a client are counted.
pub(crate) fn key(client: &str) -> String {
    format!("cidstore:rate:{client}")
}

/// Counts a request, unless `most` came within `window`.
pub(crate) async fn count(
    connection: &Connection,
    key: &str,
    most: u64,
    window: Duration,
) -> Result<Verdict, Failure> {
    let command = |verb: &str, script: &str| -> Cmd {
        redis::cmd(verb).arg(script).arg(1).arg(key).arg(window.as_millis() as u64).arg(most).take()
    };
    let reply = match connection.run(&command("EVALSHA", SCRIPT_SHA1)).await {
        // Redis was started anew, or has not seen it yet: it keeps what comes in full.
        Err(failure) if failure.is_about_script() => connection.run(&command("EVAL", SCRIPT)).await,
        other => other,
    };
    match reply? {
        Value::Int(0) => Ok(Verdict::Allowed),
        Value::Int(ms) if ms > 0 => Ok(Verdict::TryAfter(Duration::from_millis(ms.unsigned_abs()))),
        other => Err(Failure::unexpected_reply("EVALSHA", &other)),
    }
}
