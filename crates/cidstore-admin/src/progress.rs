//! How far an operation is: told to whoever watches it, who may stop it.

use std::ops::ControlFlow;

/// A moment of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage<'a> {
    /// What is done now, for people: `reading 000007.h5`.
    pub doing: &'a str,
    /// Bytes worked off.
    pub done: u64,
    /// Bytes to work off, as far as is known by now; 0 while nothing is known.
    pub total: u64,
}

/// Is told each stage. Where it breaks, the operation ends with an error as if it had been killed:
/// nothing is cleaned up, and it may be started again.
pub type Watch<'w> = dyn FnMut(Stage<'_>) -> ControlFlow<()> + 'w;

/// The watcher broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stopped before it was complete; start it again to go on")]
pub struct Stopped;

/// An operation's own side of a [`Watch`].
pub(crate) struct Progress<'a, 'w> {
    watch: &'a mut Watch<'w>,
    doing: String,
    done: u64,
    total: u64,
}

impl<'a, 'w> Progress<'a, 'w> {
    pub(crate) fn new(watch: &'a mut Watch<'w>) -> Self {
        Self { watch, doing: String::new(), done: 0, total: 0 }
    }

    /// So many bytes more are to be worked off.
    pub(crate) fn expect(&mut self, bytes: u64) {
        self.total += bytes;
    }

    /// Goes on to something else.
    pub(crate) fn begin(&mut self, doing: impl Into<String>) -> Result<(), Stopped> {
        self.now(doing.into());
        self.add(0)
    }

    /// Says what the next bytes are.
    pub(crate) fn now(&mut self, doing: String) {
        self.doing = doing;
    }

    /// So many bytes were worked off.
    pub(crate) fn add(&mut self, bytes: u64) -> Result<(), Stopped> {
        self.done += bytes;
        match (self.watch)(Stage { doing: &self.doing, done: self.done, total: self.total }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Stopped),
        }
    }
}
