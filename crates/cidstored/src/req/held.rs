//! Large replies that clients have not taken: who may hold how much, and who has held it too long.

use crate::config::Config;
use crate::transport::Outstanding;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A client that takes its replies more slowly than this counts as one that takes none, in bytes a
/// second: what it has taken of a reply is known only when it has all of it.
const SLOWEST: usize = 256 << 10;

/// What one connection holds.
pub struct Held {
    /// Its bytes.
    pub outstanding: Arc<Outstanding>,
    /// The connection, as far as it is known, and when the request came that told it.
    connection: Option<(RawFd, Instant)>,
    /// At the last look: the bytes it had taken ever.
    taken: usize,
    /// When it was last seen to take some, or to hold none.
    moved: Instant,
}

impl Held {
    /// Nothing yet.
    pub fn new(now: Instant) -> Self {
        Self { outstanding: Arc::default(), connection: None, taken: 0, moved: now }
    }

    /// Learns the connection that a request came by. Returns what to go on with where that is another
    /// one: a newer connection of the same name, which has nothing of what the older one holds.
    pub fn learn(&mut self, connection: RawFd, received: Instant) -> Option<Self> {
        let Some((known, since)) = self.connection else {
            self.connection = Some((connection, received));
            return None;
        };
        // The answer to an older request may come late.
        if known == connection || received < since {
            return None;
        }
        Some(Self { connection: Some((connection, received)), ..Self::new(received) })
    }

    /// The connection of who has taken nothing for so long, once: to be ended.
    pub fn stalled(&mut self, now: Instant, at_least: Duration) -> Option<RawFd> {
        let slowest = Duration::from_secs((self.outstanding.bytes() / SLOWEST) as u64);
        if self.look(now) < at_least + slowest {
            return None;
        }
        // Another client may have its number soon.
        self.connection.take().map(|(connection, _)| connection)
    }

    /// Looks whether it takes what it holds. Returns since when it does not.
    fn look(&mut self, now: Instant) -> Duration {
        let taken = self.outstanding.taken();
        if self.outstanding.bytes() == 0 || taken != self.taken {
            self.taken = taken;
            self.moved = now;
        }
        now.saturating_duration_since(self.moved)
    }
}

/// Bounds of the bytes that are held.
///
/// What all hold together has a bound, and clients that never read could take it up between them
/// and lock everybody else out. So a client may hold at most half of what is then left to all: the
/// nearer the bound, the less, those that hold most are refused first, and some is always left for
/// who holds nothing. However many there are, each connection may hold its equal share beyond that,
/// which comes to no more than the bound once again when every connection does.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    client: usize,
    all: usize,
    share: usize,
}

impl Bounds {
    /// Those of the settings.
    pub fn new(config: &Config) -> Self {
        let all = config.reply_bytes_max.len();
        let share = all / config.connections_max.max(1);
        Self { client: config.reply_bytes_per_client_max.len(), all, share }
    }

    /// Whether a reply of `bytes` may be sent to who holds `mine` while all hold `all`.
    pub fn admit(&self, bytes: usize, mine: usize, all: usize) -> bool {
        // A reply that is larger than a bound passes alone.
        let fits_client = mine == 0 || mine + bytes <= self.client;
        let left = self.all.saturating_sub(all + bytes);
        fits_client && (mine + bytes <= self.share || all == 0 || mine + bytes <= left / 2)
    }

    /// Whether so much is held that those who take nothing are in the way of others.
    pub fn are_strained(&self, all: usize) -> bool {
        all > self.all / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { client: 64_000, all: 256_000, share: 32 };

    /// Each of so many clients asks for as much as it may hold, large replies and small ones, and
    /// reads none. What each holds then.
    fn deaf(clients: usize) -> Vec<usize> {
        let (mut held, mut all) = (vec![0; clients], 0);
        for bytes in [30_000, 3_000, 1_000, 100, 10, 1] {
            for held in &mut held {
                while BOUNDS.admit(bytes, *held, all) {
                    *held += bytes;
                    all += bytes;
                }
            }
        }
        held
    }

    #[test]
    fn clients_that_never_read_leave_something_for_others() {
        for clients in [1, 2, 8, 30, 1000, 8000] {
            let held = deaf(clients);
            let all: usize = held.iter().sum();
            assert!(held.iter().all(|held| *held <= BOUNDS.client));
            // The bound once for all, and once as equal shares.
            assert!(all <= 2 * BOUNDS.all, "{clients} hold {all}");
            assert!(BOUNDS.admit(32, 0, all), "{clients} hold {all}");
        }
        let all: usize = deaf(8).iter().sum();
        assert!(BOUNDS.admit(2_000, 0, all), "8 hold {all}");
        // Who holds most is refused first.
        assert!(!BOUNDS.admit(2_000, 60_000, all));
    }

    #[test]
    fn who_reads_has_large_replies_side_by_side_and_one_larger_than_all() {
        assert!((0..6).all(|others| BOUNDS.admit(30_000, 0, others * 30_000)));
        assert!(BOUNDS.admit(1_000_000, 0, 0) && !BOUNDS.admit(1_000_000, 0, 1));
        assert!(BOUNDS.admit(30_000, 30_000, 30_000) && !BOUNDS.admit(30_000, 60_000, 60_000));
        assert!(!BOUNDS.are_strained(128_000) && BOUNDS.are_strained(128_001));
    }

    #[test]
    fn who_takes_nothing_is_told_from_who_is_slow() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut held = Held::new(start);
        assert_eq!(held.look(at(10)), Duration::ZERO, "holds nothing");
        held.outstanding.hold(100);
        assert_eq!(held.look(at(20)), Duration::from_secs(10));
        held.outstanding.release(10);
        assert_eq!(held.look(at(30)), Duration::ZERO, "took a little");
        held.outstanding.hold(10);
        assert_eq!(held.look(at(90)), Duration::from_mins(1), "was given more");
    }

    #[test]
    fn who_has_taken_nothing_is_ended_once_and_a_large_reply_gets_its_time() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let minute = Duration::from_mins(1);
        let mut held = Held::new(start);
        assert!(held.learn(7, start).is_none());
        held.outstanding.hold(10 * SLOWEST);
        assert_eq!(held.stalled(at(69), minute), None);
        assert_eq!(held.stalled(at(70), minute), Some(7));
        assert_eq!(held.stalled(at(71), minute), None, "its number may be another's by now");
    }

    #[test]
    fn newer_connection_of_a_name_has_nothing_of_what_the_older_one_holds() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let minute = Duration::from_mins(1);
        let mut held = Held::new(start);
        assert!(held.learn(7, start).is_none());
        held.outstanding.hold(100);
        let mut newer = held.learn(8, at(50)).unwrap();
        assert_eq!(newer.outstanding.bytes(), 0);
        assert!(newer.learn(7, at(40)).is_none(), "a late answer to the older one's request");
        newer.outstanding.hold(100);
        assert_eq!(held.stalled(at(60), minute), Some(7));
        assert_eq!((newer.stalled(at(109), minute), newer.stalled(at(110), minute)), (None, Some(8)));
    }
}
