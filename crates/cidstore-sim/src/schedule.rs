//! Who does what when: the actions of a history, and what happens beside the maintainer's I/O.

use crate::generate::{Action, End, Live};
use crate::world::World;
use cidstore_engine::Step;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A world that the maintainer's disk reaches, too.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<World>>);

/// Whose I/O it is.
#[derive(Clone, Copy, PartialEq)]
enum Turn {
    Sealer,
    Merger,
}

impl Shared {
    pub fn new(world: World) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    pub fn lock(&self) -> MutexGuard<'_, World> {
        // A panic is the end of a history, and is told as it is.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The maintainer works; before the n-th operation of its I/O something else happens.
    fn maintain<T>(&self, turn: Turn, beside: &[(u64, Live)], work: impl FnOnce() -> T) -> T {
        let disk = self.lock().disk.clone();
        let mut queue: Vec<(u64, Live)> = beside.to_vec();
        queue.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        let (within, mut operations) = (self.clone(), 0);
        let hook = move |path: &Path| {
            // There is one sealer and one merger. While one of them replaces the catalog, the other
            // waits where it would do so.
            let catalog = path.to_str().is_some_and(|path| !path.contains(".runs"));
            let waits = |live: &Live| match live {
                Live::Seal => catalog || turn == Turn::Sealer,
                Live::Merge(_) => catalog || turn == Turn::Merger,
                _ => false,
            };
            while let Some((_, live)) = queue.pop_if(|(at, live)| *at <= operations && !waits(live)) {
                within.lock().live(&live);
            }
            operations += 1;
        };
        disk.with_hook(hook, work)
    }

    /// Does all this until the disk's end, if there is one. Whether there was.
    pub fn act_until_stopped(&self, actions: &[Action]) -> bool {
        let stopped = || self.lock().disk.sim.has_stopped();
        for action in actions {
            self.do_it(action, &mut End::Kill);
            if stopped() {
                return true;
            }
        }
        false
    }

    /// Does what comes next. `end` is how the process ends where it was told to stop.
    pub fn act(&self, action: &Action, end: &mut End) {
        self.do_it(action, end);
        let mut world = self.lock();
        if world.disk.sim.has_stopped() {
            world.restart(*end);
        }
        world.compare("after an action");
        world.check_lookers();
    }

    fn do_it(&self, action: &Action, end: &mut End) {
        match action {
            Action::Live(live) => self.lock().live(live),
            Action::Step(beside) => {
                let (mut sealer, _) = self.lock().maintainer().split();
                let step = self.maintain(Turn::Sealer, beside, || sealer.step());
                self.lock().note_step(step);
            }
            Action::Checkpoint(beside) => {
                let visible = self.lock().oracle.visible();
                let (mut sealer, _) = self.lock().maintainer().split();
                let sealed = self.maintain(Turn::Sealer, beside, || sealer.checkpoint());
                if let Ok(sealed) = &sealed {
                    assert!(*sealed >= visible, "a checkpoint of {visible} ended at {sealed}");
                    self.lock().counts.add("checkpoints", 1);
                }
                self.lock().note_step(sealed.map(|_| Step::Idle));
            }
            Action::Merge(merging, beside) => {
                let (_, mut merger) = self.lock().maintainer().split();
                let step = self.maintain(Turn::Merger, beside, || merger.step(*merging));
                self.lock().note_step(step);
            }
            Action::Close(seal) => self.lock().close(*seal),
            Action::End(end) => self.lock().restart(*end),
            Action::EndAt(n, how) => {
                *end = *how;
                self.lock().disk.sim.stop_at(*n);
            }
            Action::CutStarts(cuts) => self.lock().cut_starts(cuts),
            Action::FailStart(n, fault) => self.lock().fail_start(*n, *fault),
            Action::Fail(n, fault) => self.lock().plan_fault(*n, *fault),
            Action::Room(more) => self.lock().limit(*more),
            Action::Rot(seed) => self.lock().rot(*seed),
        }
    }
}
