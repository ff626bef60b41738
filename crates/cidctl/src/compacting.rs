//! `compact`: compaction and merging of a running daemon, asked for and watched.

use crate::args::Compact;
use crate::commands::say;
use crate::exit::Failure;
use crate::meter::{Meter, size};
use crate::sealing::patient;
use cidstore_client::{Client, CompactAction, Config, Error};
use serde_json::Value;
use std::fmt::Write as _;
use std::time::Duration;

/// How often the daemon is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// How often it is asked for what is pending, which it finds out when it is asked.
const PENDING_TRIES: u32 = 25;

pub fn compact(config: &Config, args: &Compact, json: bool) -> Result<(), Failure> {
    let mut client = Client::connect(config)?;
    let instead = &args.instead;
    let told = if instead.status {
        status(&mut client)?
    } else if instead.cancel {
        cancel(&mut client)?
    } else if instead.pause {
        client.compact(CompactAction::Pause)?
    } else if instead.resume {
        client.compact(CompactAction::Resume)?
    } else if let Some(rate) = instead.rate {
        client.compact(CompactAction::Rate(rate))?
    } else {
        seal(config)?;
        let started = client.compact(CompactAction::Start)?;
        if !instead.start {
            return watch(&mut client, &started, args.quiet, json);
        }
        started
    };
    let mut text = shown(&told);
    if instead.cancel && told["cancelled"].is_null() {
        text += "cancelled   nothing: no compaction was under way";
    }
    say(json, text.trim_end(), &told)
}

/// Has the daemon seal everything: a compaction takes what is sealed. It goes without that where there is
/// no room, since it may make some.
fn seal(config: &Config) -> Result<(), Failure> {
    match Client::connect(&patient(config.clone()))?.checkpoint() {
        Ok(_) => Ok(()),
        Err(Error::Refused(refusal)) => {
            eprintln!("cidctl: what is in memory is not sealed, and is not compacted: {refusal}");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Has the compaction under way not go on. `cancelled` is null in what is returned where there was none.
fn cancel(client: &mut Client) -> Result<Value, Failure> {
    // The daemon tells which one was cancelled last, whenever that was.
    let before = client.compact(CompactAction::Status)?;
    let mut told = client.compact(CompactAction::Cancel)?;
    if told["cancelled"] == before["cancelled"] {
        told["cancelled"] = Value::Null;
    }
    Ok(told)
}

fn status(client: &mut Client) -> Result<Value, Failure> {
    for _ in 0..PENDING_TRIES {
        let told = client.compact(CompactAction::Status)?;
        if !told["pending"].is_null() || told["state"] == "running" {
            return Ok(told);
        }
        std::thread::sleep(ASK_EVERY);
    }
    Ok(client.compact(CompactAction::Status)?)
}

/// Until the compaction is done that was under way in `started`.
fn watch(client: &mut Client, started: &Value, quiet: bool, json: bool) -> Result<(), Failure> {
    let mut meter = Meter::new(!quiet);
    if !quiet {
        eprintln!("cidctl: compacting; Ctrl-C stops watching, not the compaction");
    }
    let which = &started["compaction"]["started_at"];
    let mut told = started.clone();
    while told["compaction"].is_object() && told["compaction"]["started_at"] == *which {
        meter.show(|_| progress(&told));
        std::thread::sleep(ASK_EVERY);
        told = client.compact(CompactAction::Status)?;
    }
    meter.end();
    if told["cancelled"]["started_at"] == *which {
        return Err(Failure::Cancelled(cancelled(&told["cancelled"])));
    }
    let last = &told["last"];
    if last["started_at"] != *which {
        let what = format!(
            "{} was started anew meanwhile, and the compaction does not go on: start it again",
            client.endpoint()
        );
        return Err(Failure::Unreachable(what));
    }
    say(json, &summary(last), last)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn bytes(value: &Value) -> String {
    size(number(value))
}

fn progress(told: &Value) -> String {
    let (compaction, merge) = (&told["compaction"], &told["merge"]);
    let mut text = format!(
        "{} run files of {} at first, {} written",
        number(&told["files"]),
        number(&compaction["files_before"]),
        bytes(&compaction["bytes_written"]),
    );
    if told["state"] == "paused" {
        text += "; paused (cidctl compact --resume)";
    } else if merge.is_object() {
        let (files, total) = (number(&merge["files"]), bytes(&merge["bytes_total"]));
        write!(text, "; merging {files}, {} of {total}", bytes(&merge["bytes_done"])).expect("into a string");
    }
    text
}

fn summary(last: &Value) -> String {
    format!(
        "compacted {} run files into {} in {:.1} s: {} are {} now, {} rows {}; {} read, {} written",
        number(&last["files_before"]),
        number(&last["files_after"]),
        last["seconds"].as_f64().unwrap_or_default(),
        bytes(&last["file_bytes_before"]),
        bytes(&last["file_bytes_after"]),
        number(&last["rows_before"]),
        number(&last["rows_after"]),
        bytes(&last["bytes_read"]),
        bytes(&last["bytes_written"]),
    )
}

fn cancelled(told: &Value) -> String {
    format!(
        "the compaction was cancelled after {:.1} s and {} merges: what it had finished stays",
        told["seconds"].as_f64().unwrap_or_default(),
        number(&told["merges"]),
    )
}

/// All of it, a line for each part.
fn shown(told: &Value) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        writeln!(text, "{name:<12}{value}").expect("writing to a string");
    };
    line("state", told["state"].as_str().unwrap_or("?").to_owned());
    let rate = match number(&told["bytes_per_second"]) {
        0 => "no limit".to_owned(),
        rate => format!("{} a second", size(rate)),
    };
    line("rate", rate);
    let (files, rows) = (number(&told["files"]), number(&told["rows"]));
    line("run files", format!("{files}, {}, {rows} rows", bytes(&told["file_bytes"])));
    if told["overdue"] == true {
        line("overdue", "too many small files: merging goes on in spite of pause and rate".to_owned());
    }
    let merge = &told["merge"];
    if merge.is_object() {
        let (files, cause) = (number(&merge["files"]), merge["cause"].as_str().unwrap_or("?"));
        let (done, total) = (bytes(&merge["bytes_done"]), bytes(&merge["bytes_total"]));
        line("merge", format!("{files} files ({cause}), {done} of {total}"));
    }
    if told["compaction"].is_object() {
        line("compaction", progress(told));
    }
    if told["last"].is_object() {
        line("last", summary(&told["last"]));
    }
    if told["cancelled"].is_object() {
        line("cancelled", cancelled(&told["cancelled"]));
    }
    let pending = &told["pending"];
    if pending.is_object() {
        let (files, rows) = (number(&pending["files"]), number(&pending["rows"]));
        line(
            "pending",
            match files {
                0 => "nothing to gain".to_owned(),
                _ => format!("{files} files to rewrite, {}, {rows} rows", bytes(&pending["file_bytes"])),
            },
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_daemon_says_is_lines() {
        let told = json!({
            "state": "running", "bytes_per_second": 50 << 20, "overdue": false,
            "files": 12, "rows": 3000, "file_bytes": 3_u64 << 30,
            "merge": {"cause": "compaction", "files": 2, "rows": 9, "bytes_done": 512, "bytes_total": 2048},
            "compaction": {"files_before": 20, "bytes_written": 1 << 20},
            "last": null, "pending": null,
        });
        let lines: Vec<_> = shown(&told).lines().map(str::to_owned).collect();
        assert_eq!(
            lines,
            [
                "state       running",
                "rate        50.0 MiB a second",
                "run files   12, 3.0 GiB, 3000 rows",
                "merge       2 files (compaction), 512 bytes of 2.0 KiB",
                "compaction  12 run files of 20 at first, 1.0 MiB written; merging 2, 512 bytes of 2.0 KiB",
            ]
        );
        let told = json!({
            "state": "paused", "bytes_per_second": 0, "overdue": true,
            "files": 170, "rows": 3000, "file_bytes": 1024,
            "merge": null, "compaction": {"files_before": 20, "bytes_written": 0},
            "last": {"files_before": 5, "files_after": 1, "seconds": 1.25, "file_bytes_before": 4096,
                "file_bytes_after": 1024, "rows_before": 90, "rows_after": 30, "bytes_read": 4000,
                "bytes_written": 1000},
            "cancelled": {"seconds": 61.04, "merges": 3},
            "pending": {"files": 0, "rows": 0, "file_bytes": 0},
        });
        let text = shown(&told);
        for part in [
            "rate        no limit\n",
            "overdue",
            "paused (cidctl compact --resume)",
            "compacted 5 run files into 1 in 1.2 s: 4.0 KiB are 1.0 KiB now, 90 rows 30; 3.9 KiB read",
            "cancelled   the compaction was cancelled after 61.0 s and 3 merges: what it had finished stays\n",
            "pending     nothing to gain\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }
}
