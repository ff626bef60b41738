//! `mirror`: the copy in Redis, looked at, written anew and compared with the store by a running daemon.

use crate::args::{Mirror, MirrorVerify};
use crate::commands::say;
use crate::exit::Failure;
use crate::meter::{Meter, size};
use cidstore_client::{Client, MirrorAction};
use serde_json::Value;
use std::fmt::Write as _;
use std::time::Duration;

/// How often the daemon is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(200);

pub fn mirror(client: &mut Client, action: &Mirror, json: bool) -> Result<(), Failure> {
    match action {
        Mirror::Status => {
            let told = client.mirror(MirrorAction::Status)?;
            say(json, shown(&told).trim_end(), &told)
        }
        Mirror::Rebuild { no_wait, quiet } => rebuild(client, *no_wait, *quiet, json),
        Mirror::Verify(args) => verify(client, args, json),
        Mirror::Cancel => {
            let told = client.mirror(MirrorAction::Cancel)?;
            let text = if told["cancelled"] == true { "cancelled" } else { "no comparison was under way" };
            say(json, text, &told)
        }
    }
}

fn rebuild(client: &mut Client, no_wait: bool, quiet: bool, json: bool) -> Result<(), Failure> {
    let mut told = client.mirror(MirrorAction::Rebuild)?;
    let begun = told["begun"] == true;
    if no_wait {
        let text = if begun { "a rebuild is asked for" } else { "a rebuild is under way already" };
        return say(json, text, &told);
    }
    if !quiet {
        let what = if begun { "rebuilding" } else { "a rebuild is under way already: watching that one" };
        eprintln!("cidctl: {what}; Ctrl-C stops watching, not the rebuild");
    }
    let mut meter = Meter::new(!quiet);
    while told["rebuild_wanted"] == true || told["rebuild"].is_object() {
        meter.show(|_| rebuild_progress(&told));
        std::thread::sleep(ASK_EVERY);
        told = client.mirror(MirrorAction::Status)?;
    }
    meter.end();
    let last = &told["last_rebuild"];
    say(json, &rebuilt(last), last)
}

fn verify(client: &mut Client, args: &MirrorVerify, json: bool) -> Result<(), Failure> {
    let MirrorVerify { sample, repair, no_wait, quiet } = *args;
    let mut told = client.mirror(MirrorAction::Verify { sample, repair })?;
    let begun = told["begun"] == true;
    if no_wait {
        let text = if begun { "the comparison has begun" } else { "one is under way already" };
        return say(json, text, &told);
    }
    if !quiet {
        let what = if begun { "comparing" } else { "a comparison is under way already: watching that one" };
        eprintln!("cidctl: {what}; Ctrl-C stops watching, not the comparison (cidctl mirror cancel)");
    }
    let mut meter = Meter::new(!quiet);
    // It may be over by now.
    let of = |told: &Value| if told["verify"].is_object() { "verify" } else { "last_verify" };
    let which = told[of(&told)]["started_at"].clone();
    while told["verify"].is_object() && told["verify"]["started_at"] == which {
        meter.show(|_| verify_progress(&told["verify"]));
        std::thread::sleep(ASK_EVERY);
        told = client.mirror(MirrorAction::Status)?;
    }
    meter.end();
    let last = &told["last_verify"];
    if last["started_at"] != which {
        let what = format!(
            "{} was started anew meanwhile, and the comparison does not go on: start it again",
            client.endpoint()
        );
        return Err(Failure::Unreachable(what));
    }
    say(json, &verified(last), last)?;
    judge(last)
}

/// What a comparison that is over comes to.
fn judge(last: &Value) -> Result<(), Failure> {
    match (last["outcome"].as_str(), last["equal"].as_bool()) {
        (Some("cancelled"), _) => Err(Failure::Cancelled("the comparison was cancelled".into())),
        (_, Some(true)) => Ok(()),
        (_, Some(false)) => Err(Failure::Damaged),
        (Some("failed"), None) => Err(Failure::Local(text(&last["error"]).to_owned())),
        _ => Err(Failure::Local("not everything could be looked at".into())),
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn seconds(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

/// How much of about how much.
fn part(done: u64, about: u64) -> String {
    let percent = (done * 100).checked_div(about).map(|percent| format!(", {} %", percent.min(100)));
    format!("{done} of about {about}{}", percent.unwrap_or_default())
}

fn last_error(told: &Value) -> String {
    told["last_error"]["message"].as_str().map(|why| format!(": {why}")).unwrap_or_default()
}

fn rebuild_progress(told: &Value) -> String {
    let (state, rebuild) = (text(&told["state"]), &told["rebuild"]);
    let why = if state == "rebuilding" { String::new() } else { last_error(told) };
    if rebuild.is_null() {
        return format!("a rebuild is wanted, and begins when it can: the mirror is {state}{why}");
    }
    let rows = part(number(&rebuild["rows"]), number(&rebuild["rows_about"]));
    let mut line = format!("{rows} triples written, {:.0} a second", seconds(&told["rows_per_second"]));
    if state != "rebuilding" {
        write!(line, "; the mirror is {state}{why}").expect("into a string");
    }
    line
}

fn rebuilt(last: &Value) -> String {
    let (rows, took) = (number(&last["rows"]), seconds(&last["seconds"]));
    format!("{rows} triples written anew in {took:.1} s, {:.0} a second", rows as f64 / took.max(0.001))
}

fn differences(verify: &Value) -> String {
    let mut line = String::new();
    for kind in ["missing", "stale", "foreign", "changing", "repaired"] {
        let count = number(&verify[kind]);
        if count > 0 {
            write!(line, ", {count} {kind}").expect("into a string");
        }
    }
    line
}

fn verify_progress(verify: &Value) -> String {
    let (rows, about) = (number(&verify["rows"]), number(&verify["rows_about"]));
    let keys = number(&verify["keys"]);
    let mut line = match keys {
        0 => format!("{} triples", part(rows, about)),
        _ => format!("{rows} triples, {} keys", part(keys, verify["sample"].as_u64().unwrap_or(about))),
    };
    line += &differences(verify);
    if let Some(waiting) = verify["waiting"].as_str() {
        write!(line, "; waiting: {waiting}").expect("into a string");
    }
    line
}

fn summary(last: &Value) -> String {
    let found = match (last["outcome"].as_str(), last["equal"].as_bool()) {
        (Some("cancelled"), _) => "cancelled".to_owned(),
        (_, Some(true)) => "equal".to_owned(),
        (_, Some(false)) => "different".to_owned(),
        _ => format!(
            "not all could be compared{}",
            last["error"].as_str().map(|e| format!(": {e}")).unwrap_or_default()
        ),
    };
    let sample = match last["seed"].as_u64() {
        Some(seed) => format!(" (a sample, seed {seed})"),
        None => String::new(),
    };
    let (checked, keys) = (number(&last["checked"]), number(&last["keys"]));
    format!(
        "{found}{}: {checked} triples and {keys} keys{sample} in {:.1} s",
        differences(last),
        seconds(&last["seconds"]),
    )
}

/// The differences, a line for each that is kept, and what they come to.
fn verified(last: &Value) -> String {
    let mut lines = String::new();
    let kept = last["differences"].as_array().map(Vec::as_slice).unwrap_or_default();
    for one in kept {
        let (kind, key, what) = (text(&one["kind"]), text(&one["key"]), text(&one["what"]));
        writeln!(lines, "{kind:<8}{key}  {what}").expect("into a string");
    }
    let all = ["missing", "stale", "foreign"].map(|kind| number(&last[kind])).iter().sum::<u64>();
    if all > kept.len() as u64 {
        writeln!(lines, "… and {} more", all - kept.len() as u64).expect("into a string");
    }
    lines + &summary(last)
}

/// All of it, a line for each part.
fn shown(told: &Value) -> String {
    let mut lines = String::new();
    let mut line = |name: &str, value: String| {
        writeln!(lines, "{name:<12}{value}").expect("into a string");
    };
    line("state", text(&told["state"]).to_owned());
    line("target", text(&told["target"]).to_owned());
    let servers = told["servers"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !servers.is_empty() {
        line("servers", servers.iter().map(text).collect::<Vec<_>>().join(", "));
    }
    let (seq, confirmed, lag) = (number(&told["seq"]), number(&told["confirmed_seq"]), number(&told["lag"]));
    let behind = match lag {
        0 => "nothing behind".to_owned(),
        _ => format!("{lag} mutations and {:.1} s behind", seconds(&told["lag_seconds"])),
    };
    line("confirmed", format!("seq {confirmed} of {seq}, {behind}"));
    line("rate", format!("{:.0} triples a second", seconds(&told["rows_per_second"])));
    let (sets, unlinks) = (number(&told["sets"]), number(&told["unlinks"]));
    line("written", format!("{sets} triples, {unlinks} removed, {}", size(number(&told["bytes"]))));
    line("reconnects", number(&told["reconnects"]).to_string());
    let counts = told["errors"].as_object().into_iter().flatten();
    let errors: Vec<_> = counts
        .filter(|(_, count)| number(count) > 0)
        .map(|(category, count)| format!("{} {category}", number(count)))
        .collect();
    line("errors", if errors.is_empty() { "none".to_owned() } else { errors.join(", ") });
    if told["last_error"].is_object() {
        let error = &told["last_error"];
        line("last error", format!("{}: {}", text(&error["category"]), text(&error["message"])));
    }
    if told["rebuild_wanted"] == true || told["rebuild"].is_object() {
        line("rebuild", rebuild_progress(told));
    }
    if told["last_rebuild"].is_object() {
        line("rebuilt", rebuilt(&told["last_rebuild"]));
    }
    if told["verify"].is_object() {
        line("verify", verify_progress(&told["verify"]));
    }
    if told["last_verify"].is_object() {
        line("verified", summary(&told["last_verify"]));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn last() -> Value {
        json!({"outcome": "complete", "equal": false, "seconds": 1.25, "checked": 90, "keys": 91, "missing": 1,
            "stale": 1, "foreign": 0, "changing": 0, "repaired": 1, "sample": 100, "seed": 7, "error": null,
            "differences": [{"key": "ab", "kind": "stale", "what": "the key is no plain string"}]})
    }

    #[test]
    fn what_the_daemon_says_is_lines() {
        let told = json!({
            "state": "failing", "target": "h:6379/0", "servers": ["h:6379"], "seq": 900, "confirmed_seq": 400,
            "lag": 500, "lag_seconds": 2.04, "rows_per_second": 1234.5, "sets": 390, "unlinks": 10,
            "bytes": 2048, "reconnects": 3, "errors": {"network": 2, "auth": 0}, "rebuild_wanted": false,
            "last_error": {"category": "network", "message": "no reply from Redis in time; check"},
            "rebuild": {"rows": 30, "rows_about": 120}, "last_rebuild": null,
            "verify": {"rows": 5, "rows_about": 10, "keys": 0, "stale": 2, "waiting": "the mirror is failing"},
            "last_verify": last(),
        });
        let lines: Vec<_> = shown(&told).lines().map(str::to_owned).collect();
        assert_eq!(
            lines,
            [
                "state       failing",
                "target      h:6379/0",
                "servers     h:6379",
                "confirmed   seq 400 of 900, 500 mutations and 2.0 s behind",
                "rate        1234 triples a second",
                "written     390 triples, 10 removed, 2.0 KiB",
                "reconnects  3",
                "errors      2 network",
                "last error  network: no reply from Redis in time; check",
                "rebuild     30 of about 120, 25 % triples written, 1234 a second; the mirror is failing: no reply \
                 from Redis in time; check",
                "verify      5 of about 10, 50 % triples, 2 stale; waiting: the mirror is failing",
                "verified    different, 1 missing, 1 stale, 1 repaired: 90 triples and 91 keys (a sample, seed 7) in \
                 1.2 s",
            ]
        );
    }

    #[test]
    fn differences_are_listed_and_decide_how_it_ends() {
        let text = verified(&last());
        assert!(
            text.starts_with("stale   ab  the key is no plain string\n… and 1 more\ndifferent"),
            "{text}"
        );
        let ends = |outcome: &str, equal: Value| {
            let mut last = last();
            (last["outcome"], last["equal"]) = (outcome.into(), equal);
            judge(&last)
        };
        assert!(ends("complete", true.into()).is_ok());
        assert!(matches!(ends("complete", false.into()), Err(Failure::Damaged)));
        assert!(matches!(ends("failed", false.into()), Err(Failure::Damaged)));
        assert!(matches!(ends("failed", Value::Null), Err(Failure::Local(_))));
        assert!(matches!(ends("complete", Value::Null), Err(Failure::Local(_))));
        assert!(matches!(ends("cancelled", Value::Null), Err(Failure::Cancelled(_))));
    }
}
