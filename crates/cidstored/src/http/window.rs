//! How many requests each client has made of late: a sliding window of two counters, that of the present window and
//! that of the one before, which counts for as much as of it is left.
//!
//! Knows no clock and no network. So many clients are known at once, and the one that was heard of first is forgotten
//! where there are more.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

/// Clients of one window that are known.
const CLIENTS_MAX: usize = 16_384;

/// The clients of a window, and how many requests each has made.
#[derive(Default)]
struct Counted {
    counts: HashMap<IpAddr, u64>,
    order: VecDeque<IpAddr>,
}

impl Counted {
    fn of(&self, client: &IpAddr) -> u64 {
        self.counts.get(client).copied().unwrap_or_default()
    }

    fn add(&mut self, client: IpAddr, clients_max: usize) {
        if let Some(count) = self.counts.get_mut(&client) {
            *count += 1;
            return;
        }
        if self.order.len() >= clients_max
            && let Some(first) = self.order.pop_front()
        {
            self.counts.remove(&first);
        }
        self.order.push_back(client);
        self.counts.insert(client, 1);
    }
}

/// Requests of all clients in this window and the one before.
pub struct Window {
    length: Duration,
    most: u64,
    clients_max: usize,
    /// Number of the present window since the beginning of time.
    number: u128,
    now: Counted,
    before: Counted,
}

impl Window {
    /// Of that length, in which a client may make `most` requests, one at least.
    pub fn new(length: Duration, most: u64) -> Self {
        let length = length.max(Duration::from_millis(1));
        Self {
            length,
            most: most.max(1),
            clients_max: CLIENTS_MAX,
            number: 0,
            now: Counted::default(),
            before: Counted::default(),
        }
    }

    /// Counts a request, `at` so long after some beginning.
    ///
    /// # Errors
    /// After how long to try again, where it is one too many. It is not counted then.
    pub fn count(&mut self, client: IpAddr, at: Duration) -> Result<(), Duration> {
        let length = self.length.as_nanos();
        let number = at.as_nanos() / length;
        if number != self.number {
            let former = std::mem::take(&mut self.now);
            self.before = if number == self.number + 1 { former } else { Counted::default() };
            self.number = number;
        }
        let into = (at.as_nanos() % length) as f64;
        let (length, most) = (length as f64, self.most as f64);
        let (now, before) = (self.now.of(&client) as f64, self.before.of(&client) as f64);
        if before * (length - into) / length + now + 1.0 <= most {
            self.now.add(client, self.clients_max);
            return Ok(());
        }
        // Until so much of the window before has gone, or else of the present one in the next.
        let wait = if now + 1.0 <= most {
            length * (1.0 - (most - 1.0 - now) / before) - into
        } else {
            length - into + length * (1.0 - (most - 1.0) / now)
        };
        // One more, for what was rounded.
        Err(Duration::from_nanos(wait.max(0.0) as u64 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn client(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(n).into()
    }

    /// How many of `requests` are allowed at that moment.
    fn allowed(window: &mut Window, requests: usize, at: Duration) -> usize {
        (0..requests).filter(|_| window.count(client(1), at).is_ok()).count()
    }

    #[test]
    fn a_client_may_ask_so_often_and_others_as_often() {
        let mut window = Window::new(SECOND, 10);
        let at = 1_000_000 * SECOND;
        assert_eq!(allowed(&mut window, 30, at), 10);
        assert!(window.count(client(2), at).is_ok());
        // Half of the next window: half of the former one counts.
        assert_eq!(allowed(&mut window, 30, at + SECOND * 3 / 2), 5);
        assert_eq!(allowed(&mut window, 30, at + SECOND * 10), 10);
    }

    #[test]
    fn who_asks_all_the_time_is_allowed_the_rate_in_any_span() {
        let mut window = Window::new(SECOND, 10);
        let step = SECOND / 50;
        let times: Vec<Duration> =
            (0..5000).map(|n| n * step).filter(|at| window.count(client(1), *at).is_ok()).collect();
        let most =
            times.iter().map(|from| times.iter().filter(|at| **at >= *from && **at < *from + SECOND).count());
        assert!(most.max().unwrap() <= 11, "one more where spans begin elsewhere than windows");
        // In a hundred seconds.
        assert!((900..=1000).contains(&times.len()), "{}", times.len());
    }

    #[test]
    fn who_tries_again_after_that_time_is_allowed_and_not_long_before() {
        for most in [1, 2, 7, 100] {
            let mut window = Window::new(SECOND, most);
            let mut at = 5 * SECOND + SECOND / 3;
            for _ in 0..500 {
                if let Err(wait) = window.count(client(1), at) {
                    assert!(wait <= 2 * SECOND, "{wait:?}");
                    assert!(window.count(client(1), at + wait / 2).is_err(), "{most} {wait:?}");
                    at += wait;
                    assert_eq!(window.count(client(1), at), Ok(()), "{most} {wait:?}");
                }
            }
        }
    }

    #[test]
    fn clients_are_bounded_and_the_first_is_forgotten() {
        let mut window = Window::new(SECOND, 1);
        window.clients_max = 100;
        for n in 0..1000 {
            assert!(window.count(client(n), SECOND).is_ok());
            assert!(window.now.counts.len() <= 100 && window.now.order.len() == window.now.counts.len());
        }
        assert!(window.count(client(999), SECOND).is_err());
        assert!(window.count(client(0), SECOND).is_ok());
    }
}
