//! The thread of mutations without replies. What is refused is counted, logged now and then, and
//! announced to subscribers, so that nothing is lost without a word.

use crate::queue::{Refused, Side};
use crate::service::Service;
use crate::shared::{Shared, now};
use crate::transport::{Puller, Pushed, Result, Wake};
use crate::writer::{Job, Recipient};
use cidstore_proto::{Command, ErrorCode, RequestId};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Rejections that wait to be announced.
const REJECTED_MAX: usize = 4096;
/// Longest wait on the socket or the queue before a look around.
const TICK_MS: u32 = 500;
/// One log line about refusals in this time.
const LOG_EVERY: Duration = Duration::from_secs(5);
/// How long the messages that were received before the end was wanted may take.
const DRAIN: Duration = Duration::from_secs(2);

/// A pushed mutation that was refused, for subscribers.
#[derive(Debug)]
pub struct Rejection {
    /// The client's name for it.
    pub request_id: Option<RequestId>,
    /// As in a reply.
    pub code: ErrorCode,
    /// As in a reply.
    pub message: String,
}

struct RejectedInner {
    waiting: VecDeque<Rejection>,
    logged: Option<Instant>,
    unlogged: u64,
}

/// Where refused pushes are told of.
#[derive(Clone)]
pub struct Rejected {
    shared: Arc<Shared>,
    wake: Arc<Wake>,
    inner: Arc<Mutex<RejectedInner>>,
}

impl Rejected {
    /// Told to the thread that `wake` wakes.
    pub fn new(shared: Arc<Shared>, wake: Arc<Wake>) -> Self {
        let inner = RejectedInner { waiting: VecDeque::new(), logged: None, unlogged: 0 };
        Self { shared, wake, inner: Arc::new(Mutex::new(inner)) }
    }

    /// Counts, logs and announces one.
    pub fn tell(&self, request_id: Option<RequestId>, code: ErrorCode, message: &str) {
        self.shared.metrics.pushes_refused_total.one();
        let mut inner = self.inner.lock().expect("a panic ends the process");
        if inner.logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            inner.logged = Some(Instant::now());
            let others = std::mem::take(&mut inner.unlogged);
            tracing::warn!(code = code as u16, others, "pushed mutation refused: {message}");
        } else {
            inner.unlogged += 1;
        }
        if inner.waiting.len() == REJECTED_MAX {
            self.shared.metrics.rejected_unannounced_total.one();
            return;
        }
        inner.waiting.push_back(Rejection { request_id, code, message: message.into() });
        drop(inner);
        self.wake.notify();
    }

    /// Those that are to be announced.
    pub fn take(&self) -> VecDeque<Rejection> {
        std::mem::take(&mut self.inner.lock().expect("a panic ends the process").waiting)
    }
}

/// The thread's own state.
pub struct Push {
    /// What all threads share.
    pub shared: Arc<Shared>,
    /// Decoding.
    pub service: Arc<Service>,
    /// The socket.
    pub puller: Puller,
    /// Ends the wait on the socket.
    pub wake: Arc<Wake>,
    /// Where refusals go.
    pub rejected: Rejected,
}

impl Push {
    /// Works until the end is wanted and what had arrived by then is in the queue.
    ///
    /// # Errors
    /// When the socket is no more.
    pub fn run(mut self) -> Result<()> {
        while !self.shared.stop.is_wanted() {
            self.puller.wait(&self.wake, TICK_MS)?;
            if self.wake.is_pending() {
                self.wake.clear();
            }
            while !self.shared.stop.is_wanted()
                && let Some(pushed) = self.puller.receive()?
            {
                self.take(pushed);
            }
        }
        // Pushers never hear of it, so what is here already is not thrown away.
        let until = Instant::now() + DRAIN;
        while Instant::now() < until
            && let Some(pushed) = self.puller.receive()?
        {
            self.take(pushed);
        }
        Ok(())
    }

    fn take(&mut self, pushed: Pushed) {
        let Some((mut job, cost)) = self.decode(pushed) else { return };
        // Back-pressure: nobody reads the socket meanwhile, and TCP tells the pushers.
        let mut waits = false;
        loop {
            match self.shared.queue.try_push(job, cost, Side::Push) {
                Ok(()) => return,
                Err((Refused::Full, back)) => {
                    if !std::mem::replace(&mut waits, true) {
                        self.shared.metrics.push_waits_total.one();
                    }
                    job = back;
                    let tick = Duration::from_millis(TICK_MS.into());
                    self.shared.queue.wait_for_room(cost, Side::Push, tick);
                }
                Err((Refused::Closed, job)) => {
                    if let Recipient::Subscribers(request_id) = job.to {
                        let message = "shutting down";
                        self.rejected.tell(request_id, ErrorCode::Unavailable, message);
                    }
                    return;
                }
            }
        }
    }

    /// The mutation and what it costs, or `None` where it is none and that was told. The message is
    /// gone after: while its mutation waits, it is not in memory twice.
    fn decode(&self, pushed: Pushed) -> Option<(Job, usize)> {
        self.shared.metrics.pushes_total.one();
        let payload = match pushed {
            Pushed::One(payload) => payload,
            Pushed::Many(payload, frames) => {
                let request_id = self.service.name_of(&payload);
                let message = format!("a message of {frames} frames: expected one");
                self.rejected.tell(request_id, ErrorCode::Malformed, &message);
                return None;
            }
        };
        self.shared.metrics.request_bytes_total.add(payload.len() as u64);
        let request = match self.service.decode(&payload, now()) {
            Ok(request) => request,
            Err(rejection) => {
                self.rejected.tell(rejection.request_id, rejection.code, &rejection.message);
                return None;
            }
        };
        let Command::Mutate { mutation, .. } = request.command else {
            let message = "this socket takes mutations only: ask on the socket of requests";
            self.rejected.tell(request.request_id, ErrorCode::Malformed, message);
            return None;
        };
        let job = Job { mutation, to: Recipient::Subscribers(request.request_id) };
        let cost = job.cost(payload.len());
        Some((job, cost))
    }
}
