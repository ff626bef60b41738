//! One history: from a seed, or as it is.

use crate::counts::Counts;
use crate::generate::{Action, End, Plan, plan};
use crate::schedule::Shared;
use crate::shrink;
use crate::world::World;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

/// Operations that a failure shows.
const TRACE_LINES: usize = 40;

/// A history that did not hold.
#[derive(Debug)]
pub struct Failure {
    /// What is wrong.
    pub what: String,
    /// The action during which it was noticed; the last one counts as the end.
    pub action: usize,
    /// The last operations of the disk.
    pub trace: Vec<String>,
}

/// What a whole history did.
#[derive(Debug)]
pub struct Passed {
    /// How much was tried.
    pub counts: Counts,
    /// Every operation of the disk, if it was asked for.
    pub trace: Vec<String>,
}

/// Lets a history happen. The last `trace_lines` operations are kept.
///
/// # Errors
/// What did not hold, and where.
pub fn run(plan: &Plan, trace_lines: usize) -> Result<Passed, Failure> {
    let mut world = None;
    let mut at = 0;
    let outcome = catch(|| {
        let shared = world.insert(Shared::new(World::begin(plan, trace_lines)));
        let mut end = End::Kill;
        for action in &plan.actions {
            shared.act(action, &mut end);
            at += 1;
        }
        let mut world = shared.lock();
        world.limit(None);
        world.compare_all();
        world.heal();
        world.restart(End::PowerCut(plan.last_cut));
        world.compare_all();
        let mut counts = world.counts();
        counts.add("histories", 1);
        counts
    });
    let trace = world.as_ref().map_or_else(Vec::new, |world| world.lock().disk.sim.trace());
    match outcome {
        Ok(counts) => Ok(Passed { counts, trace }),
        Err(what) => Err(Failure { what, action: at, trace }),
    }
}

/// Lets the history of a seed happen.
///
/// # Errors
/// The whole story: what did not hold, the shortest history that shows it, the disk's last operations.
pub fn run_seed(seed: u64) -> Result<Counts, String> {
    let whole = plan(seed);
    match run(&whole, 0) {
        Ok(passed) => Ok(passed.counts),
        Err(failure) => Err(story(seed, whole, failure)),
    }
}

fn story(seed: u64, whole: Plan, failure: Failure) -> String {
    let shortest = shrink::shortest(whole);
    let shown = run(&shortest, TRACE_LINES).err().unwrap_or(failure);
    let mark = |i| if i == shown.action { "-> " } else { "   " };
    let line = |(i, action): (usize, &Action)| format!("{}{i:>3}  {action:?}", mark(i));
    let mut lines = vec![
        format!("seed {seed} failed: {}", shown.what),
        format!("replay: cidstore-sim --seed {seed}"),
        format!("the shortest history that fails begins with {:?}", shortest.start),
        format!("files take room when they are written to: {}", shortest.allocates_late),
        format!("  {:?}", shortest.options),
    ];
    lines.extend(shortest.actions.iter().enumerate().map(line));
    lines.push(format!("    end  PowerCut({})", shortest.last_cut));
    lines.push("the disk's last operations:".to_owned());
    lines.extend(shown.trace);
    lines.join("\n")
}

/// Every operation of the disk in the history of a seed: the same each time.
pub fn trace_of(seed: u64) -> Vec<String> {
    match run(&plan(seed), usize::MAX) {
        Ok(passed) => passed.trace,
        Err(failure) => failure.trace,
    }
}

/// The actions of a seed, as text.
pub fn describe(seed: u64) -> String {
    let Plan { options, allocates_late, start, actions, last_cut } = plan(seed);
    let line = |(i, action): (usize, &Action)| format!("{i:>3}  {action:?}\n");
    let actions: String = actions.iter().enumerate().map(line).collect();
    format!("{start:?}, allocates late: {allocates_late}\n{options:?}\n{actions}end  PowerCut({last_cut})")
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    static CATCHING: RefCell<u32> = const { RefCell::new(0) };
}

/// Runs `work`, and prints nothing.
///
/// # Errors
/// Where it panics: what and where.
pub fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if CATCHING.with_borrow(|depth| *depth == 0) {
                return before(panic);
            }
            PANIC.with_borrow_mut(|kept| {
                // The first one is the cause.
                kept.get_or_insert_with(|| panic.to_string().replace('\n', " "));
            });
        }));
    });
    CATCHING.with_borrow_mut(|depth| *depth += 1);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    CATCHING.with_borrow_mut(|depth| *depth -= 1);
    let said = PANIC.with_borrow_mut(Option::take);
    outcome.map_err(|_| said.unwrap_or_default())
}
