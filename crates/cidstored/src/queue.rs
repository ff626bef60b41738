//! The queue into the writer: what its bound is, and what is done when it is full.
//!
//! Requests and pushes have half of it each, so that neither takes the other's place: a pusher that
//! sends without a pause never makes a request be refused.

use crate::metrics::Metrics;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

/// Who put something in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// A request: it is refused when its half is full.
    Request,
    /// A push: it waits when its half is full.
    Push,
}

/// Why something was not put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The half is full.
    Full,
    /// The writer takes nothing any more.
    Closed,
}

/// An item and its cost.
struct Entry<T> {
    item: T,
    side: Side,
    bytes: usize,
}

#[derive(Default, Clone, Copy)]
struct Fill {
    items: usize,
    bytes: usize,
}

struct Inner<T> {
    entries: VecDeque<Entry<T>>,
    fill: [Fill; 2],
    closed: bool,
    /// The reader waits: a sender must wake it.
    reader_waits: bool,
    /// Something other than an entry wants the reader.
    poked: bool,
}

/// A bounded queue with many senders and one reader.
pub struct Queue<T> {
    inner: Mutex<Inner<T>>,
    filled: Condvar,
    emptied: Condvar,
    half: Fill,
    /// Whether there is something for the reader, as far as can be said without the lock.
    ready: AtomicBool,
    metrics: Arc<Metrics>,
}

impl<T> Queue<T> {
    /// A queue of at most `items_max` items and `bytes_max` bytes, half of each for either side. An
    /// item counts as half of that at most, so that two fit however large they are.
    pub fn new(items_max: usize, bytes_max: usize, metrics: Arc<Metrics>) -> Self {
        let half = Fill { items: (items_max / 2).max(1), bytes: bytes_max / 2 };
        let inner = Inner {
            entries: VecDeque::new(),
            fill: [Fill::default(); 2],
            closed: false,
            reader_waits: false,
            poked: false,
        };
        let (filled, emptied, ready) = (Condvar::new(), Condvar::new(), AtomicBool::new(false));
        Self { inner: Mutex::new(inner), filled, emptied, half, ready, metrics }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.metrics.queue_locked_total.one();
        match self.inner.try_lock() {
            Ok(inner) => inner,
            Err(TryLockError::WouldBlock) => {
                self.metrics.queue_contended_total.one();
                self.inner.lock().expect("a panic ends the process")
            }
            Err(TryLockError::Poisoned(_)) => unreachable!("a panic ends the process"),
        }
    }

    /// What an item counts for against the bound: two always fit, or a large one would be refused for
    /// any small one, and all others while it waits.
    fn counted(&self, bytes: usize) -> usize {
        bytes.min(self.half.bytes / 2)
    }

    fn has_room(&self, fill: Fill, bytes: usize) -> bool {
        let bytes = self.counted(bytes);
        fill.items < self.half.items && (fill.items == 0 || fill.bytes + bytes <= self.half.bytes)
    }

    /// Puts an item in.
    ///
    /// # Errors
    /// [`Refused`], with the item.
    pub fn try_push(&self, item: T, bytes: usize, side: Side) -> Result<(), (Refused, T)> {
        let mut inner = self.lock();
        if inner.closed {
            return Err((Refused::Closed, item));
        }
        if !self.has_room(inner.fill[side as usize], bytes) {
            return Err((Refused::Full, item));
        }
        let fill = &mut inner.fill[side as usize];
        fill.items += 1;
        fill.bytes += self.counted(bytes);
        inner.entries.push_back(Entry { item, side, bytes });
        self.ready.store(true, Ordering::Release);
        // Waking costs a system call: only where somebody sleeps.
        if std::mem::take(&mut inner.reader_waits) {
            drop(inner);
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Waits until there may be room for `bytes`, the queue is closed, or the time is over.
    pub fn wait_for_room(&self, bytes: usize, side: Side, at_most: Duration) {
        let inner = self.lock();
        let full = |inner: &mut Inner<T>| !inner.closed && !self.has_room(inner.fill[side as usize], bytes);
        drop(self.emptied.wait_timeout_while(inner, at_most, full).expect("a panic ends the process"));
    }

    /// Whether there is something for the reader, as far as can be said without the lock.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Looks for something, without sleeping, for at most that long: being woken takes a sleeper some
    /// 20 µs. Gives way to whoever wants the processor.
    pub fn spin(&self, at_most: Duration) {
        let start = Instant::now();
        while !self.is_ready() && start.elapsed() < at_most {
            std::thread::yield_now();
        }
    }

    /// Takes what there is, but at most `items_max` items, and no further one after `bytes_max`
    /// bytes, into `into`. Waits for something at most that long. `false` when the queue is closed
    /// and empty.
    pub fn take(&self, into: &mut Vec<T>, items_max: usize, bytes_max: usize, wait: Duration) -> bool {
        let mut inner = self.lock();
        if inner.entries.is_empty() && !inner.closed && !inner.poked && !wait.is_zero() {
            inner.reader_waits = true;
            let idle = |inner: &mut Inner<T>| inner.entries.is_empty() && !inner.closed && !inner.poked;
            inner = self.filled.wait_timeout_while(inner, wait, idle).expect("a panic ends the process").0;
            inner.reader_waits = false;
        }
        inner.poked = false;
        self.ready.store(false, Ordering::Release);
        let mut bytes = 0;
        let before = into.len();
        while into.len() - before < items_max && bytes < bytes_max {
            let Some(entry) = inner.entries.pop_front() else { break };
            bytes += entry.bytes;
            let fill = &mut inner.fill[entry.side as usize];
            fill.items -= 1;
            fill.bytes -= self.counted(entry.bytes);
            into.push(entry.item);
        }
        if !inner.entries.is_empty() {
            self.ready.store(true, Ordering::Release);
        }
        let open = !inner.closed || into.len() > before || !inner.entries.is_empty();
        drop(inner);
        if into.len() > before {
            self.emptied.notify_all();
        }
        open
    }

    /// Has the reader come back from its wait although nothing was put in.
    pub fn poke(&self) {
        let mut inner = self.lock();
        inner.poked = true;
        self.ready.store(true, Ordering::Release);
        if std::mem::take(&mut inner.reader_waits) {
            drop(inner);
            self.filled.notify_one();
        }
    }

    /// Refuses everything from now on; the reader still gets what is in.
    pub fn close(&self) {
        self.lock().closed = true;
        self.ready.store(true, Ordering::Release);
        self.filled.notify_all();
        self.emptied.notify_all();
    }

    /// Items in it.
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// How full its fuller half is, from 0 to 1.
    pub fn occupancy(&self) -> f64 {
        let inner = self.lock();
        let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
        let of =
            |fill: &Fill| share(fill.items, self.half.items).max(share(fill.bytes, self.half.bytes)).min(1.0);
        inner.fill.iter().map(of).fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(items: usize, bytes: usize) -> Queue<u32> {
        Queue::new(items, bytes, Arc::default())
    }

    const NO_WAIT: Duration = Duration::ZERO;
    const LONG: Duration = Duration::from_mins(1);

    #[test]
    fn each_side_has_its_half() {
        let queue = queue(4, 100);
        for i in 0..2 {
            queue.try_push(i, 10, Side::Push).unwrap();
        }
        assert_eq!(queue.try_push(9, 1, Side::Push), Err((Refused::Full, 9)));
        queue.try_push(2, 10, Side::Request).unwrap();
        let mut taken = Vec::new();
        assert!(queue.take(&mut taken, 10, 1000, NO_WAIT));
        assert_eq!(taken, [0, 1, 2]);
    }

    #[test]
    fn two_items_fit_however_large_they_are_and_small_ones_beside_one() {
        let queue = queue(20, 100);
        // 50 bytes are a half, of which an item counts for 25 at most.
        queue.try_push(0, 1000, Side::Request).unwrap();
        queue.try_push(1, 10, Side::Request).unwrap();
        assert_eq!(queue.try_push(9, 16, Side::Request), Err((Refused::Full, 9)));
        queue.try_push(2, 15, Side::Request).unwrap();
        assert!((queue.occupancy() - 1.0).abs() < 1e-9);
        assert_eq!(queue.try_push(9, 1, Side::Request), Err((Refused::Full, 9)));
        let mut taken = Vec::new();
        // A group counts all of it.
        assert!(queue.take(&mut taken, 10, 1000, NO_WAIT));
        assert_eq!(taken, [0]);
        queue.try_push(3, 1000, Side::Request).unwrap();
        assert!(queue.take(&mut taken, 10, 2000, NO_WAIT));
        assert_eq!(taken, [0, 1, 2, 3]);
        queue.try_push(4, 1000, Side::Request).unwrap();
        queue.try_push(5, 1000, Side::Request).unwrap();
    }

    #[test]
    fn a_group_ends_after_the_bytes_or_the_items() {
        let queue = queue(100, 1000);
        for i in 0..6 {
            queue.try_push(i, 10, Side::Request).unwrap();
        }
        let mut taken = Vec::new();
        queue.take(&mut taken, 2, 1000, NO_WAIT);
        assert_eq!(taken, [0, 1]);
        queue.take(&mut taken, 10, 15, NO_WAIT);
        assert_eq!(taken, [0, 1, 2, 3]);
    }

    #[test]
    fn closing_refuses_senders_and_lets_the_reader_finish() {
        let queue = queue(10, 1000);
        queue.try_push(1, 1, Side::Request).unwrap();
        queue.close();
        assert_eq!(queue.try_push(2, 1, Side::Request), Err((Refused::Closed, 2)));
        queue.wait_for_room(1 << 20, Side::Push, LONG);
        let mut taken = Vec::new();
        assert!(queue.take(&mut taken, 10, 1000, LONG));
        assert_eq!(taken, [1]);
        assert!(!queue.take(&mut taken, 10, 1000, LONG));
    }

    #[test]
    fn nothing_is_lost_between_threads_and_senders_wait_for_room() {
        let queue = Arc::new(queue(8, 80));
        let senders: Vec<_> = (0..2u32)
            .map(|from| {
                let queue = Arc::clone(&queue);
                std::thread::spawn(move || {
                    for i in 0..20_000 {
                        let mut item = i * 2 + from;
                        while let Err((_, back)) = queue.try_push(item, 10, Side::Push) {
                            item = back;
                            queue.wait_for_room(10, Side::Push, LONG);
                        }
                    }
                })
            })
            .collect();
        let (mut next, mut taken) = ([0, 0], Vec::new());
        while next != [20_000, 20_000] {
            assert!(queue.take(&mut taken, 3, 1000, LONG));
            assert!(!taken.is_empty(), "slept through an item with {next:?} taken");
            for item in taken.drain(..) {
                let from = item as usize % 2;
                assert_eq!(item / 2, next[from]);
                next[from] += 1;
            }
        }
        for sender in senders {
            sender.join().unwrap();
        }
    }

    #[test]
    fn spinning_ends_when_there_is_something() {
        let queue = Arc::new(queue(10, 1000));
        for what in ["item", "poke", "rest", "close"] {
            let (other, started) = (Arc::clone(&queue), Arc::new(std::sync::Barrier::new(2)));
            let spinning = {
                let started = Arc::clone(&started);
                std::thread::spawn(move || {
                    started.wait();
                    let start = Instant::now();
                    other.spin(LONG);
                    assert!(start.elapsed() < LONG);
                })
            };
            started.wait();
            let mut taken = Vec::new();
            match what {
                "item" => {
                    queue.try_push(1, 1, Side::Request).unwrap();
                    queue.try_push(2, 1, Side::Request).unwrap();
                }
                "poke" => queue.poke(),
                // What `take` left is there to be seen.
                "rest" => {}
                _ => queue.close(),
            }
            spinning.join().unwrap();
            queue.take(&mut taken, if what == "rest" { 10 } else { 1 }, 1000, NO_WAIT);
            if what == "poke" {
                assert_eq!(taken, [2]);
                queue.try_push(3, 1, Side::Request).unwrap();
                queue.try_push(4, 1, Side::Request).unwrap();
                queue.take(&mut taken, 1, 1000, NO_WAIT);
            }
        }
    }

    #[test]
    fn a_poke_ends_the_wait() {
        let queue = queue(10, 1000);
        queue.poke();
        let mut taken = Vec::new();
        assert!(queue.take(&mut taken, 10, 1000, LONG));
        assert!(taken.is_empty());
    }
}
