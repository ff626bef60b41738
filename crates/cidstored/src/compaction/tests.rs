use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

const MOVED: Progress = Progress::Moved { read: 600, written: 400 };

/// Somebody who moves bytes, and whether he is through.
fn mover(compaction: &Arc<Compaction>, overdue: bool) -> JoinHandle<()> {
    let compaction = Arc::clone(compaction);
    std::thread::spawn(move || {
        compaction.progress(MOVED, &|| overdue, &|| false);
    })
}

/// Somebody who moves bytes while nothing is overdue, and says whether the merge is wanted then; and what
/// hears each time that he is about to wait. The second time he has waited, and was not through by that.
fn waiter(
    compaction: &Arc<Compaction>,
    progress: Progress,
    lacks_room: fn() -> bool,
) -> (JoinHandle<bool>, Receiver<()>) {
    let (compaction, (about_to_wait, waits)) = (Arc::clone(compaction), channel());
    let waiting = std::thread::spawn(move || {
        let is_overdue = || {
            let _ = about_to_wait.send(());
            false
        };
        compaction.progress(progress, &is_overdue, &lacks_room)
    });
    (waiting, waits)
}

fn act(compaction: &Compaction, action: CompactAction) {
    compaction.act(action, Sizes::default());
}

fn status(compaction: &Compaction, sizes: Sizes) -> Map<String, Value> {
    compaction.act(CompactAction::Status, sizes)
}

#[test]
fn a_rate_is_kept_and_a_new_one_holds_at_once() {
    let compaction = Arc::new(Compaction::new(100_000));
    let start = Instant::now();
    for _ in 0..20 {
        compaction.progress(MOVED, &|| false, &|| false);
    }
    // The first thousand has nothing to wait for but itself.
    assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
    // A thousand bytes would take a quarter of an hour now.
    act(&compaction, CompactAction::Rate(1));
    let waiting = mover(&compaction, false);
    act(&compaction, CompactAction::Rate(0));
    waiting.join().unwrap();
}

#[test]
fn a_pause_holds_up_until_it_is_over_or_merging_is_overdue_or_the_end() {
    let compaction = Arc::new(Compaction::new(0));
    act(&compaction, CompactAction::Pause);
    let (waiting, waits) = waiter(&compaction, MOVED, || false);
    waits.recv().unwrap();
    waits.recv().unwrap();
    mover(&compaction, true).join().unwrap();
    assert!(!waiting.is_finished(), "it did not wait");
    act(&compaction, CompactAction::Resume);
    waiting.join().unwrap();
    act(&compaction, CompactAction::Pause);
    act(&compaction, CompactAction::Rate(1));
    let waiting = mover(&compaction, false);
    compaction.end();
    waiting.join().unwrap();
}

#[test]
fn a_half_written_file_does_not_wait_while_the_daemon_lacks_room() {
    let compaction = Arc::new(Compaction::new(0));
    act(&compaction, CompactAction::Pause);
    compaction.progress(MOVED, &|| false, &|| true);
    assert!(!compaction.step_ended(true), "that is not in spite of the pause");
    // It waits once, not with each piece, as long as the daemon lacks room.
    compaction.progress(Progress::Begun { runs: 9, rows: 10, bytes: 5000 }, &|| true, &|| true);
    let (asked, waits) = (AtomicU64::new(0), AtomicU64::new(0));
    let is_overdue = || {
        waits.fetch_add(1, Ordering::SeqCst);
        false
    };
    let lacks_room = || asked.fetch_add(1, Ordering::SeqCst) < 20;
    while asked.load(Ordering::SeqCst) < 20 {
        compaction.progress(MOVED, &is_overdue, &lacks_room);
    }
    let waits = waits.into_inner();
    assert!((1..10).contains(&waits), "{waits} waits");
    // There is room again: it waits.
    let (waiting, waits) = waiter(&compaction, MOVED, || false);
    waits.recv().unwrap();
    waits.recv().unwrap();
    act(&compaction, CompactAction::Resume);
    assert!(waiting.join().unwrap());
    act(&compaction, CompactAction::Pause);
    // What is only read holds no room.
    let only_read = Progress::Moved { read: 600, written: 0 };
    let (reading, waits) = waiter(&compaction, only_read, || panic!("asked"));
    waits.recv().unwrap();
    waits.recv().unwrap();
    act(&compaction, CompactAction::Resume);
    reading.join().unwrap();
}

#[test]
fn what_a_pause_cannot_hold_up_is_told() {
    let compaction = Compaction::new(0);
    let sizes = |overdue| Sizes { files: 200, overdue, ..Sizes::default() };
    assert_eq!(compaction.judge(sizes(true), 170), (false, "idle; 200 run files, 170 of them small".into()));
    act(&compaction, CompactAction::Rate(1000));
    assert!(!compaction.judge(sizes(false), 20).0);
    let (degraded, text) = compaction.judge(sizes(true), 170);
    assert!(degraded && text.contains("170") && text.contains("raise it"), "{text}");
    act(&compaction, CompactAction::Pause);
    assert_eq!(compaction.judge(sizes(false), 20), (false, "paused; 200 run files, 20 of them small".into()));
    assert!(compaction.judge(sizes(true), 170).1.contains("resume it"));
    // The pause came when this merge had nothing to wait for any more.
    assert!(!compaction.step_ended(true));
    assert!(!compaction.judge(sizes(false), 20).0);
    let merge = |merged| {
        compaction.progress(Progress::Begun { runs: 9, rows: 10, bytes: 5000 }, &|| true, &|| false);
        compaction.step_ended(merged)
    };
    assert!(!merge(false));
    assert!(merge(true) && !merge(true), "told once");
    let (degraded, text) = compaction.judge(sizes(false), 20);
    assert!(degraded && text.contains("2 merges"), "{text}");
    compaction.progress(MOVED, &|| true, &|| false);
    act(&compaction, CompactAction::Resume);
    assert!(!compaction.step_ended(true), "it is over before the merge");
    act(&compaction, CompactAction::Pause);
    assert!(!compaction.judge(sizes(false), 20).0);
}

#[test]
fn a_compaction_is_one_until_it_is_done() {
    let compaction = Compaction::new(0);
    let sizes = |files| Sizes { files, rows: 10, bytes: 1000, overdue: false };
    assert!(!compaction.is_wanted() && compaction.done(sizes(3)).is_none());
    let started = compaction.act(CompactAction::Start, sizes(9));
    assert_eq!(started["compaction"]["files_before"], 9);
    let again = compaction.act(CompactAction::Start, sizes(8));
    assert_eq!(again["compaction"]["started_at"], started["compaction"]["started_at"]);
    assert!(compaction.is_wanted());
    assert_eq!(status(&compaction, sizes(9))["state"], "running");
    compaction.begin(Cause::Compaction);
    compaction.progress(Progress::Begun { runs: 9, rows: 10, bytes: 5000 }, &|| false, &|| false);
    compaction.progress(MOVED, &|| false, &|| false);
    let shown = status(&compaction, sizes(9));
    assert_eq!(
        (&shown["merge"]["bytes_done"], &shown["merge"]["cause"]),
        (&json!(1000), &json!("compaction"))
    );
    compaction.step_ended(true);
    // What settles meanwhile is not its work.
    compaction.begin(Cause::Settling);
    compaction.progress(MOVED, &|| false, &|| false);
    compaction.step_ended(true);
    act(&compaction, CompactAction::Pause);
    assert!(compaction.is_started() && !compaction.is_wanted());
    assert_eq!(status(&compaction, sizes(9))["state"], "paused");
    act(&compaction, CompactAction::Resume);
    compaction.done(sizes(1)).unwrap();
    let shown = status(&compaction, sizes(1));
    let last = &shown["last"];
    for (name, value) in
        [("files_before", 9), ("files_after", 1), ("bytes_read", 600), ("bytes_written", 400), ("merges", 1)]
    {
        assert_eq!(last[name], value, "{name} of {shown:?}");
    }
    assert_eq!((&shown["state"], &shown["compaction"]), (&json!("idle"), &Value::Null));
    assert_eq!(shown["pending"]["files"], 0);
    assert_eq!(status(&compaction, sizes(2))["pending"], Value::Null, "of other files nothing is known");
}

#[test]
fn a_cancelled_one_ends_its_merge_and_is_none_and_the_next_begins_anew() {
    let compaction = Arc::new(Compaction::new(0));
    act(&compaction, CompactAction::Cancel);
    assert!(!compaction.takes_cancel(), "there was none");
    act(&compaction, CompactAction::Start);
    act(&compaction, CompactAction::Pause);
    compaction.begin(Cause::Compaction);
    compaction.progress(Progress::Begun { runs: 9, rows: 10, bytes: 5000 }, &|| true, &|| false);
    let (merging, waits) = waiter(&compaction, MOVED, || false);
    waits.recv().unwrap();
    let shown = compaction.act(CompactAction::Cancel, Sizes::default());
    assert!(!merging.join().unwrap(), "it goes on");
    assert_eq!((&shown["compaction"], &shown["last"]), (&Value::Null, &Value::Null), "{shown:?}");
    assert_eq!(shown["cancelled"]["bytes_read"], 600);
    // Started anew before who merges has heard of it: what it was at is not done for that one.
    let again = compaction.act(CompactAction::Start, Sizes::default());
    assert!(!compaction.progress(MOVED, &|| false, &|| false));
    compaction.step_ended(true);
    assert!(compaction.done(Sizes::default()).is_none());
    let shown = status(&compaction, Sizes::default());
    for (name, value) in [("started_at", &again["compaction"]["started_at"]), ("merges", &json!(0))] {
        assert_eq!(shown["compaction"][name], *value, "{name} of {shown:?}");
    }
    assert_eq!(shown["compaction"]["bytes_read"], 0);
    assert!(compaction.takes_cancel() && !compaction.takes_cancel(), "told once");
    act(&compaction, CompactAction::Resume);
    assert!(compaction.progress(MOVED, &|| false, &|| false));
    assert!(compaction.done(Sizes::default()).is_some());
    // What must be merged goes on, whatever is cancelled.
    act(&compaction, CompactAction::Start);
    compaction.begin(Cause::Needed);
    act(&compaction, CompactAction::Cancel);
    assert!(compaction.progress(MOVED, &|| false, &|| false));
}
