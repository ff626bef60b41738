//! The command `mirror`: what is asked of the mirror, and how it is, as the map of the reply.

use cidstore_mirror::{
    Category, Difference, MirrorState, Outcome, Report, VerificationReport, VerifyOptions,
};
use cidstore_proto::MirrorAction;
use cidstore_types::Seq;
use serde_json::{Map, Value, json};

/// What is asked of a mirror that is not there hears.
const IS_OFF: &str = "no mirror is configured: set REDIS_URL or REDIS_HOST (docs/redis.md), see that CIDSTORE_USE_REDIS is not 0, and start the daemon again";

/// Does what is asked, and tells everything as it is then. `log_last` is the newest mutation of the log, `now`
/// is in seconds since the epoch. `begun` in the reply to what begins something is whether this did.
///
/// # Errors
/// There is no mirror: what to do about that.
pub fn act(
    mirror: &MirrorState,
    action: MirrorAction,
    log_last: Seq,
    now: f64,
) -> Result<Map<String, Value>, &'static str> {
    if mirror.report(log_last, now).target.is_empty() {
        return Err(IS_OFF);
    }
    let begun = match action {
        MirrorAction::Status => None,
        MirrorAction::Rebuild => Some(("begun", mirror.want_rebuild())),
        MirrorAction::Verify { sample, repair } => {
            Some(("begun", mirror.verification.begin(VerifyOptions { sample, repair })))
        }
        MirrorAction::Cancel => Some(("cancelled", mirror.verification.cancel())),
    };
    let mut map = told(&mirror.report(log_last, now), log_last);
    let verification = |report: Option<VerificationReport>, with: bool| {
        report.map_or(Value::Null, |report| verified(&report, with))
    };
    map.insert("verify".into(), verification(mirror.verification.running(), false));
    map.insert("last_verify".into(), verification(mirror.verification.last(), true));
    map.extend(begun.map(|(name, begun)| (name.into(), begun.into())));
    Ok(map)
}

fn told(report: &Report, log_last: Seq) -> Map<String, Value> {
    let counters = &report.counters;
    let errors = Category::ALL.iter().zip(counters.errors);
    let errors: Map<_, _> =
        errors.map(|(category, count)| (category.as_str().into(), count.into())).collect();
    let last_error = report
        .last_error
        .as_ref()
        .map(|error| json!({"category": error.category.as_str(), "message": error.message, "at": error.at}));
    let rebuild = report.rebuilding.map(|rebuild| {
        json!({
            "started_at": rebuild.started_at,
            "rows": report.rebuilt_rows,
            "rows_about": rebuild.rows_about,
        })
    });
    let last_rebuild = report.rebuilt.map(
        |rebuilt| json!({"started_at": rebuilt.started_at, "seconds": rebuilt.seconds, "rows": rebuilt.rows}),
    );
    object(json!({
        "state": report.state.as_str(),
        "target": report.target,
        "servers": report.servers,
        "seq": log_last,
        "confirmed_seq": report.cursor,
        "lag": report.lag,
        "lag_seconds": report.lag_seconds,
        "rows_per_second": report.rate,
        "sets": counters.sets,
        "unlinks": counters.unlinks,
        "bytes": counters.bytes,
        "connects": counters.connects,
        "reconnects": counters.reconnects,
        "rebuilds": counters.rebuilds,
        "errors": errors,
        "last_error": last_error,
        "rebuild_wanted": report.rebuild_wanted,
        "rebuild": rebuild,
        "last_rebuild": last_rebuild,
    }))
}

/// A verification; the differences one by one only where that is wanted, since they may be many.
fn verified(report: &VerificationReport, with_differences: bool) -> Value {
    let mut map = object(json!({
        "started_at": report.started_at,
        "sample": report.options.sample,
        "seed": report.options.sample.map(|_| report.seed),
        "repair": report.options.repair,
        "rows": report.rows,
        "rows_about": report.rows_about,
        "checked": report.checked,
        "keys": report.keys,
        "missing": report.missing,
        "stale": report.stale,
        "foreign": report.foreign,
        "changing": report.changing,
        "repaired": report.repaired,
        "waiting": report.waiting,
    }));
    if let (Some(outcome), Some(ended_at)) = (&report.outcome, report.ended_at) {
        let why = if let Outcome::Failed(why) = outcome { Some(why) } else { None };
        map.insert("outcome".into(), outcome.as_str().into());
        map.insert("error".into(), json!(why));
        map.insert("seconds".into(), (ended_at - report.started_at).max(0.0).into());
        map.insert("equal".into(), json!(report.is_equal()));
    }
    if with_differences {
        let difference = |Difference { key, kind, what }: &Difference| json!({"key": key, "kind": kind.as_str(), "what": what});
        map.insert("differences".into(), report.differences.iter().map(difference).collect());
    }
    Value::Object(map)
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(map) = value else { unreachable!("a map was written") };
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_mirror_it_is_told_how_to_have_one() {
        let mirror = MirrorState::new();
        for action in [MirrorAction::Status, MirrorAction::Rebuild] {
            assert!(act(&mirror, action, 5, 0.0).unwrap_err().contains("REDIS_URL"));
        }
        assert!(!mirror.report(5, 0.0).rebuild_wanted);
    }
}
