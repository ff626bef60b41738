//! An exact feed of changes: notifications while they come without a hole, the log where they do
//! not. This is the protocol's recovery: a subscriber may lose notifications (it was slow, or away);
//! the log has them.

use crate::{Change, Client, Config, Error, Notification, Subscriber};
use cidstore_types::Seq;
use std::collections::VecDeque;
use std::time::Duration;

/// Changes asked for at a time while catching up. Bounds the memory of a follower.
const PAGE_CHANGES: u64 = 10_000;

/// What a follower hands out.
#[derive(Debug, Clone, PartialEq)]
pub enum Happening {
    /// A mutation of one triple.
    Change(Change),
    /// Something else the daemon announced: a rejected push, the mirror's state. These are in no
    /// log; one that is missed stays missed.
    Notice(Notification),
}

/// Follows the store from one seq on.
pub struct Follower {
    client: Client,
    subscriber: Subscriber,
    state: State,
}

/// What is known and owed; free of sockets, so that it can be tested as a table.
#[derive(Debug, Default)]
struct State {
    /// Everything up to here was handed out or stands in `ready`.
    last: Seq,
    ready: VecDeque<Change>,
    /// Whether the log may hold something beyond `last` that no notification will bring.
    behind: bool,
}

impl State {
    /// Takes a notification; answers it when it is a notice for the caller.
    fn take(&mut self, notification: Notification) -> Option<Notification> {
        match notification {
            // One with less may be older than what the log gave; or the store has lost its end, which
            // the answer to the next request tells.
            Notification::Heartbeat { seq, .. } => self.behind |= seq != self.last,
            Notification::Changes(changes) => {
                let first = changes.first()?;
                if first.seq > self.last + 1 {
                    // A hole. What came is in the log too, behind what is missing.
                    self.behind = true;
                } else {
                    self.append(changes);
                }
            }
            other => return Some(other),
        }
        None
    }

    /// Appends consecutive changes, leaving out what is known already.
    fn append(&mut self, changes: Vec<Change>) {
        for change in changes {
            if change.seq == self.last + 1 {
                self.last = change.seq;
                self.ready.push_back(change);
            }
        }
    }
}

impl Follower {
    /// Subscribes, and starts after `since`, or after the last change there is now.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn start(config: &Config, since: Option<Seq>) -> Result<Self, Error> {
        let mut client = Client::connect(config)?;
        // First the subscription, then the starting point: what happens in between is announced, or
        // is noticed as a hole.
        let subscriber = Subscriber::connect(config, &[])?;
        let (last, behind) = match since {
            Some(since) => (since, true),
            None => (client.last_seq()?, false),
        };
        Ok(Self { client, subscriber, state: State { last, behind, ready: VecDeque::new() } })
    }

    /// The seq up to which everything was handed out.
    pub fn seq(&self) -> Seq {
        self.state.ready.front().map_or(self.state.last, |change| change.seq - 1)
    }

    /// The next thing that happens. `None` if the daemon said nothing within `wait`, not even that it
    /// lives (it does so each second).
    ///
    /// # Errors
    /// [`Error::Refused`] with code 410 when the log no longer holds what comes next: changes were
    /// missed for good. Otherwise as any request.
    pub fn next(&mut self, wait: Duration) -> Result<Option<Happening>, Error> {
        loop {
            if let Some(change) = self.state.ready.pop_front() {
                return Ok(Some(Happening::Change(change)));
            }
            if self.state.behind {
                self.catch_up()?;
                continue;
            }
            match self.subscriber.next(wait)? {
                None => return Ok(None),
                Some(notification) => {
                    if let Some(notice) = self.state.take(notification) {
                        return Ok(Some(Happening::Notice(notice)));
                    }
                }
            }
        }
    }

    fn catch_up(&mut self) -> Result<(), Error> {
        let part = self.client.changes(self.state.last, PAGE_CHANGES)?;
        if let Some(first) = part.changes.first()
            && first.seq > self.state.last + 1
        {
            return Err(Error::Protocol {
                endpoint: self.client.endpoint().to_owned(),
                what: format!("changes since {} that start at {}", self.state.last, first.seq),
            });
        }
        let before = self.state.last;
        self.state.append(part.changes);
        self.state.behind = self.state.last > before;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cidstore_types::{Cid, Op, Triple};

    fn changes(seqs: impl IntoIterator<Item = Seq>) -> Notification {
        let change = |seq| {
            let cid = Cid::from_two_lanes([0, seq]);
            Change { seq, op: Op::Insert, triple: Triple::new(cid, cid, cid) }
        };
        Notification::Changes(seqs.into_iter().map(change).collect())
    }

    fn heartbeat(seq: Seq) -> Notification {
        Notification::Heartbeat { seq, time: 0.0 }
    }

    #[test]
    fn holes_are_noticed_and_nothing_comes_twice() {
        let mut state = State { last: 10, ..State::default() };
        let step = |state: &mut State, notification| {
            assert_eq!(state.take(notification), None);
            (
                state.ready.drain(..).map(|change| change.seq).collect::<Vec<_>>(),
                std::mem::take(&mut state.behind),
            )
        };
        assert_eq!(step(&mut state, heartbeat(10)), (vec![], false));
        assert_eq!(step(&mut state, changes(11..=13)), (vec![11, 12, 13], false));
        // Known already: from the log, before its notification came.
        assert_eq!(step(&mut state, changes([12])), (vec![], false));
        // Partly known.
        assert_eq!(step(&mut state, changes(12..=15)), (vec![14, 15], false));
        // A hole: nothing is handed out of order; the log is asked.
        assert_eq!(step(&mut state, changes(17..=18)), (vec![], true));
        assert_eq!(step(&mut state, changes(16..=18)), (vec![16, 17, 18], false));
        // A lost last notification shows in the heartbeat, and so does a store that lost its end.
        assert_eq!(step(&mut state, heartbeat(19)), (vec![], true));
        assert_eq!(step(&mut state, heartbeat(3)), (vec![], true));
    }

    #[test]
    fn notices_pass_through() {
        let mut state = State::default();
        let notice = Notification::Mirror { state: "live".into(), lag: Some(0) };
        assert_eq!(state.take(notice.clone()), Some(notice));
    }
}
