//! How often each client may ask: counted here, or in Redis for several daemons together.

use super::client::{client, network_of};
use super::error;
use super::listener::Peer;
use super::window::Window;
use crate::config::Config;
use crate::shared::Shared;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use cidstore_mirror::{NoAnswer, Reader, Verdict};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// What monitoring asks; a limit would show as an outage.
const UNLIMITED: [&str; 4] = ["/health", "/ready", "/metrics", "/metrics/prometheus"];

/// The limits of all clients.
pub struct Limits {
    most: u64,
    length: Duration,
    here: Mutex<Window>,
    began: Instant,
    /// Counts for all daemons; once there is one, if that is wanted.
    shared: OnceLock<Reader>,
    /// It does not answer, which was told.
    is_alone: AtomicBool,
}

impl Limits {
    /// As the settings say; `None` where there are none.
    pub fn new(config: &Config) -> Option<Self> {
        if config.http_rate_limit == 0 {
            return None;
        }
        let window_ms = u64::from(config.http_rate_window_ms);
        let length = Duration::from_millis(window_ms);
        // A client that may ask less than once in a window may ask once.
        let most = (u64::from(config.http_rate_limit) * window_ms / 1000).max(1);
        Some(Self {
            most,
            length,
            here: Mutex::new(Window::new(length, most)),
            began: Instant::now(),
            shared: OnceLock::new(),
            is_alone: AtomicBool::new(false),
        })
    }

    /// Counts in Redis from now on.
    pub fn share(&self, redis: Reader) {
        let _ = self.shared.set(redis);
    }

    /// Whether limits are wanted for all daemons together, and each has its own for now.
    pub fn is_alone(&self) -> bool {
        self.is_alone.load(Ordering::Relaxed)
    }

    /// Counts a request; after how long to try again, where it is one too many.
    async fn count(&self, client: IpAddr) -> Result<(), Duration> {
        if let Some(redis) = self.shared.get() {
            match redis.count(&client.to_string(), self.most, self.length).await {
                Ok(verdict) => {
                    if self.is_alone.swap(false, Ordering::Relaxed) {
                        tracing::info!("rate limits of HTTP hold for all daemons together again");
                    }
                    return match verdict {
                        Verdict::Allowed => Ok(()),
                        Verdict::TryAfter(after) => Err(after),
                    };
                }
                Err(why) => {
                    // Before the first connection there is nothing to tell.
                    if why != NoAnswer::NotConnected && !self.is_alone.swap(true, Ordering::Relaxed) {
                        tracing::warn!(
                            "rate limits of HTTP hold for each daemon alone: Redis does not count"
                        );
                    }
                }
            }
        }
        let at = self.began.elapsed();
        self.here.lock().expect("a panic ends the process").count(client, at)
    }
}

/// Lets a request through, or refuses it.
pub async fn limit(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let Some(limits) = shared.http_limits.as_ref().filter(|_| !UNLIMITED.contains(&request.uri().path()))
    else {
        return next.run(request).await;
    };
    let peer = request.extensions().get::<ConnectInfo<Peer>>().map(|ConnectInfo(Peer(peer))| peer.ip());
    let Some(peer) = peer else {
        return error(StatusCode::INTERNAL_SERVER_ERROR, "the other end of the connection is not known");
    };
    let client = network_of(client(peer, request.headers(), &shared.config.http_trusted_proxies));
    let Err(after) = limits.count(client).await else { return next.run(request).await };
    shared.metrics.http_limited_total.one();
    let seconds = after.as_millis().div_ceil(1000).max(1);
    let (rate, window) = (shared.config.http_rate_limit, shared.config.http_rate_window_ms);
    let why = format!(
        "more than {rate} requests a second of this client, over {window} ms: try again after {seconds} s"
    );
    let mut refused = error(StatusCode::TOO_MANY_REQUESTS, &why);
    let retry = HeaderValue::from_str(&seconds.to_string()).expect("digits");
    refused.headers_mut().insert(header::RETRY_AFTER, retry);
    refused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn limits_are_those_of_the_settings() {
        assert!(Limits::new(&Config::default()).is_none(), "off, unless somebody wants them");
        for (rate, window_ms, most) in [(10, 1000, 10), (10, 60_000, 600), (1, 100, 1), (100, 100, 10)] {
            let config =
                Config { http_rate_limit: rate, http_rate_window_ms: window_ms, ..Config::default() };
            let limits = Limits::new(&config).unwrap();
            assert_eq!((limits.most, limits.length), (most, Duration::from_millis(window_ms.into())));
        }
        let config = Config { http_rate_limit: 3, http_rate_window_ms: 600_000, ..Config::default() };
        let limits = Limits { most: 3, ..Limits::new(&config).unwrap() };
        let client = IpAddr::from([1, 2, 3, 4]);
        *limits.here.lock().unwrap() = Window::new(limits.length, limits.most);
        for _ in 0..3 {
            assert_eq!(limits.count(client).await, Ok(()));
        }
        assert!(limits.count(client).await.is_err());
    }
}
