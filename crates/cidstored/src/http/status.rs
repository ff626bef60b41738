//! The state of each part as JSON.

use crate::compaction::Sizes;
use crate::health::Work;
use crate::shared::{Shared, now};
use axum::Json;
use axum::extract::State;
use cidstore_mirror::State as MirrorState;
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Ok,
    Degraded,
    Unavailable,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Unavailable => "unavailable",
        }
    }
}

struct Check {
    name: &'static str,
    level: Level,
    output: String,
}

/// `GET /status`.
pub async fn status(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let checks = [storage(&shared), merging(&shared), wal(&shared), redis(&shared), sockets(&shared)];
    let worst = checks.iter().map(|check| check.level).max().unwrap_or(Level::Ok);
    let checks: Vec<Value> = checks
        .iter()
        .map(|check| json!({"name": check.name, "status": check.level.as_str(), "output": check.output}))
        .collect();
    Json(json!({"status": worst.as_str(), "version": "1.0", "checks": checks}))
}

fn storage(shared: &Shared) -> Check {
    let (level, output) = match shared.engine.get() {
        None => (Level::Unavailable, "recovering: opening the store".into()),
        Some(engine) => {
            let stats = engine.reader.stats();
            if shared.health.is_full() {
                (Level::Degraded, "no room: mutations are refused until there is".into())
            } else if let Some((work, error)) =
                Work::ALL.into_iter().find_map(|work| Some((work, shared.health.trouble(work)?)))
            {
                (Level::Degraded, format!("{} fails: {error}", work.name()))
            } else if stats.keys >= shared.config.idempotency_keys_max {
                let output = format!(
                    "{} idempotency keys are remembered, as many as may be: mutations with further ones are \
                     refused. Raise idempotency_keys_max, or shorten idempotency_ttl_s",
                    stats.keys
                );
                (Level::Degraded, output)
            } else if let Some(damage) = stats.damaged.first() {
                (Level::Degraded, format!("{} damaged run files; the first: {damage}", stats.damaged.len()))
            } else {
                let rows = stats.memory_rows + stats.file_rows;
                (
                    Level::Ok,
                    format!(
                        "{rows} rows in {} runs, sealed up to {}",
                        stats.memory_runs + stats.file_runs,
                        stats.sealed_seq
                    ),
                )
            }
        }
    };
    Check { name: "storage", level, output }
}

fn merging(shared: &Shared) -> Check {
    let (level, output) = match shared.engine.get() {
        None => (Level::Unavailable, "recovering: opening the store".into()),
        Some(engine) => {
            let stats = engine.reader.stats();
            let judged = shared.compaction.judge(Sizes::of(&stats), stats.small_files);
            let paused = shared.compaction.is_paused();
            // What waits for an end of the trouble is not what is under way, nor what a pause holds up.
            let trouble = |work| shared.health.trouble(work).filter(|_| !shared.compaction.is_merging());
            let trouble = trouble(Work::Merge).or_else(|| trouble(Work::Compact).filter(|_| !paused));
            let (degraded, output) = trouble.map_or(judged, |error| (true, format!("waiting: {error}")));
            (if degraded { Level::Degraded } else { Level::Ok }, output)
        }
    };
    Check { name: "merging", level, output }
}

fn wal(shared: &Shared) -> Check {
    let (level, output) = match (shared.health.latched(), shared.engine.get()) {
        (Some(why), _) => (Level::Unavailable, format!("read-only: {why}")),
        (None, None) => (Level::Unavailable, "recovering: opening the store".into()),
        (None, Some(engine)) => {
            let log = &engine.log;
            let output = format!(
                "mutations {} to {} in {} segments, {} bytes",
                log.first_seq(),
                log.last_seq(),
                log.segments(),
                log.bytes()
            );
            (Level::Ok, output)
        }
    };
    Check { name: "wal", level, output }
}

fn redis(shared: &Shared) -> Check {
    let last = shared.engine.get().map_or(0, |engine| engine.log.last_seq());
    let report = shared.mirror.report(last, now());
    let (level, output) = match report.state {
        MirrorState::Off => (Level::Ok, "no mirror is configured".into()),
        MirrorState::Live => (Level::Ok, format!("live, {} behind", report.lag)),
        state => {
            let why = report.last_error.map(|error| format!(": {}", error.message)).unwrap_or_default();
            let (name, lag, age) = (state.as_str(), report.lag, report.lag_seconds);
            (Level::Degraded, format!("{name}, {lag} mutations and {age:.1} s behind{why}"))
        }
    };
    Check { name: "redis-connection", level, output }
}

fn sockets(shared: &Shared) -> Check {
    let max = shared.config.connections_max as u64;
    let (level, output) = match shared.connections.get() {
        None => (Level::Unavailable, "not bound yet".into()),
        Some(connections) => {
            let (open, refused) = (connections.open(), connections.refused());
            let level = if open >= max { Level::Degraded } else { Level::Ok };
            (level, format!("{open} of {max} connections, {refused} refused since the start"))
        }
    };
    Check { name: "sockets", level, output }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::shared::Engine;
    use cidstore_disk::sim::SimDisk;
    use cidstore_engine::{Progress, Store, StoreOptions};
    use cidstore_proto::CompactAction;
    use std::path::Path;

    #[test]
    fn why_merging_waits_is_told_until_it_goes_on() {
        let shared = Shared::new(Config::default());
        let disk = Arc::new(SimDisk::new());
        let (store, _) = Store::open(disk, Path::new("/data/store.h5"), StoreOptions::default()).unwrap();
        assert!(shared.engine.set(Engine { reader: store.reader(), log: store.log() }).is_ok());
        assert!(merging(&shared).level == Level::Ok);
        let told = || (merging(&shared).level == Level::Degraded, merging(&shared).output);
        for work in [Work::Merge, Work::Compact] {
            shared.health.set_trouble(work, Some("no room. Free 7 bytes".into()));
            let (degraded, output) = told();
            assert!(degraded && output.contains("Free 7 bytes"), "{output}");
            // Another merge finds room.
            let begun = Progress::Begun { runs: 9, rows: 10, bytes: 5000 };
            shared.compaction.progress(begun, &|| false, &|| false);
            let (degraded, output) = told();
            assert!(!degraded && output.contains("merging 9 files"), "{output}");
            shared.compaction.step_ended(true);
            assert!(told().0);
            shared.compaction.act(CompactAction::Pause, Sizes::default());
            assert_eq!(told().0, work == Work::Merge, "a pause holds up what can wait");
            shared.compaction.act(CompactAction::Resume, Sizes::default());
            shared.health.set_trouble(work, None);
            assert!(!told().0);
        }
    }
}
