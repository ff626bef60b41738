//! A queue whose clients take turns.
//!
//! One that asks for much waits for itself: a client that has just come is served after one request of
//! each of the others, however many each of them has waiting.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard};

struct Inner<T> {
    /// Clients that have something waiting, in the order of their turns.
    turns: VecDeque<Box<[u8]>>,
    waiting: HashMap<Box<[u8]>, VecDeque<T>>,
    len: usize,
    closed: bool,
}

/// A bounded queue from many clients to some threads.
pub struct Fair<T> {
    inner: Mutex<Inner<T>>,
    filled: Condvar,
    max: usize,
}

impl<T> Fair<T> {
    /// A queue of at most `max` items.
    pub fn new(max: usize) -> Self {
        let inner = Inner { turns: VecDeque::new(), waiting: HashMap::new(), len: 0, closed: false };
        Self { inner: Mutex::new(inner), filled: Condvar::new(), max }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().expect("a panic ends the process")
    }

    /// Puts an item of a client in.
    ///
    /// # Errors
    /// The item, when the queue is full or closed.
    pub fn push(&self, client: &[u8], item: T) -> Result<(), T> {
        let mut inner = self.lock();
        if inner.closed || inner.len >= self.max {
            return Err(item);
        }
        inner.len += 1;
        if let Some(own) = inner.waiting.get_mut(client) {
            own.push_back(item);
        } else {
            inner.waiting.insert(client.into(), VecDeque::from([item]));
            inner.turns.push_back(client.into());
        }
        drop(inner);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits for an item: the oldest one of the client whose turn it is. `None` when the queue is
    /// closed, also where something is left in it.
    pub fn take(&self) -> Option<T> {
        let waited = self.filled.wait_while(self.lock(), |inner| inner.len == 0 && !inner.closed);
        let mut inner = waited.expect("a panic ends the process");
        if inner.closed {
            return None;
        }
        let client = inner.turns.pop_front()?;
        let own = inner.waiting.get_mut(&client)?;
        let item = own.pop_front();
        if own.is_empty() {
            inner.waiting.remove(&client);
        } else {
            inner.turns.push_back(client);
        }
        inner.len -= 1;
        item
    }

    /// Ends every wait. What is left is dropped with the queue.
    pub fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn clients_take_turns_and_each_keeps_its_order() {
        let queue = Fair::new(10);
        for (client, item) in [("a", 1), ("a", 2), ("a", 3), ("b", 4), ("b", 5)] {
            queue.push(client.as_bytes(), item).unwrap();
        }
        assert_eq!(queue.take(), Some(1));
        // Who comes last waits for one of each.
        queue.push(b"c", 6).unwrap();
        let taken: Vec<_> = (0..5).map_while(|_| queue.take()).collect();
        assert_eq!(taken, [4, 2, 6, 5, 3]);
        queue.push(b"a", 7).unwrap();
        assert_eq!(queue.take(), Some(7), "and who had left comes back");
    }

    #[test]
    fn its_bound_is_that_of_all_clients_together() {
        let queue = Fair::new(2);
        queue.push(b"a", 1).unwrap();
        queue.push(b"b", 2).unwrap();
        assert_eq!(queue.push(b"c", 3), Err(3));
        assert_eq!(queue.take(), Some(1));
        queue.push(b"c", 3).unwrap();
    }

    #[test]
    fn a_closed_queue_hands_nothing_out_and_wakes_who_waits() {
        let queue = Arc::new(Fair::new(2));
        let waits = Arc::clone(&queue);
        let thread = std::thread::spawn(move || waits.take());
        queue.close();
        assert_eq!(thread.join().unwrap(), None);
        assert_eq!(queue.push(b"a", 1), Err(1));
        let queue = Fair::new(2);
        queue.push(b"a", 1).unwrap();
        queue.close();
        assert_eq!(queue.take(), None);
    }
}
