//! The loop that connects, decides what is owed, and sends it.

use crate::chunk::{Chunk, Filler, SharedBounds, Span};
use crate::cursor::{Keeper, Position};
use crate::failure::Failure;
use crate::feed::{self, FeedEnd};
use crate::link::{Link, move_epoch};
use crate::mirror::Mirror;
use crate::pace::{PIPELINES_IN_FLIGHT_MAX, backoff};
use crate::plan::{Known, Plan};
use crate::state::{MirrorState, State, now};
use crate::sweep::{self, Sweep};
use cidstore_types::{Seq, Triple};
use redis::{Pipeline, Value};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

/// Least time between two moves of the epoch key while there is something to move it for.
const EPOCH_INTERVAL: Duration = Duration::from_millis(250);
/// The mirror is live from here on: the newest mutation that Redis has was received so long ago.
const LIVE_LAG: Duration = Duration::from_secs(1);
/// … and has to catch up again from here on.
const BEHIND_LAG: Duration = Duration::from_secs(5);

/// A rebuild under way, kept across connections.
struct Rebuild {
    /// The log is followed after this seq when the rebuild is done.
    began: Seq,
    sweep: Sweep,
    after: Option<Triple>,
    rows: u64,
}

/// What a loop returns that never ends.
pub(crate) enum Never {}

/// Why sending ended without a failure.
enum Ended {
    /// The feed is through.
    Complete,
    /// The plan no longer fits: the log part is gone, or Redis lost its data.
    Replan,
}

type Replies = Pin<Box<dyn Future<Output = Result<Vec<Value>, Failure>> + Send>>;

struct Sent {
    replies: Replies,
    what: Payload,
}

enum Payload {
    Rows { bytes: usize, sets: u64, unlinks: u64, span: Span },
    Epoch,
}

pub(crate) struct Follower {
    mirror: Mirror,
    bounds: SharedBounds,
    confirmed: Seq,
    /// Which data `confirmed` is about.
    history: Option<String>,
    rebuild: Option<Rebuild>,
    failures: u32,
    /// Something was confirmed on this connection.
    progress: bool,
    keeper: Keeper,
    feed: Option<JoinHandle<()>>,
}

impl Follower {
    pub fn new(mirror: Mirror) -> Self {
        Self {
            confirmed: mirror.position.seq,
            keeper: Keeper::new(mirror.file.clone(), mirror.position),
            mirror,
            bounds: SharedBounds::new(),
            history: None,
            rebuild: None,
            failures: 0,
            progress: false,
            feed: None,
        }
    }

    fn state(&self) -> &MirrorState {
        &self.mirror.parts.state
    }

    pub async fn run(&mut self, appended: &watch::Receiver<Seq>) -> Never {
        self.state().enter(State::Connecting, "connecting");
        loop {
            self.progress = false;
            let Err(failure) = self.session(appended).await;
            if !self.progress {
                self.bounds.set(self.bounds.get().smaller());
            }
            self.failures += 1;
            self.state().fail(&failure);
            self.end_feed().await;
            self.save_if_due().await;
            self.note_oldest().await;
            tokio::time::sleep(backoff(self.failures, self.mirror.config.backoff_max, fastrand::f64())).await;
            self.state().log_held_back();
        }
    }

    /// One connection, from greeting to failure.
    async fn session(&mut self, appended: &watch::Receiver<Seq>) -> Result<Never, Failure> {
        let Mirror { target, config, names, .. } = &self.mirror;
        let mut link = Link::connect(target, config, names).await?;
        self.state().count(|c| {
            c.reconnects += u64::from(c.connects > 0);
            c.connects += 1;
        });
        loop {
            match self.plan(&mut link).await? {
                Plan::Tail { after, create_epoch } => {
                    if create_epoch {
                        link.create_epoch(&self.mirror.names, 0).await?;
                    }
                    self.move_cursor(after);
                    self.follow(&mut link, appended).await?;
                }
                Plan::Rebuild { why } => self.rebuild(&mut link, why).await?,
            }
            self.end_feed().await;
        }
    }

    async fn plan(&mut self, link: &mut Link) -> Result<Plan, Failure> {
        let epoch = link.epoch(&self.mirror.names).await?;
        let history = link.history().await?;
        let same_history = history.is_some() && history == self.history;
        self.history = history;
        let log_first = self.mirror.parts.log.first_seq();
        let newest_sent = self.mirror.newest_sent.max(self.confirmed);
        if let Some(rebuild) = &self.rebuild
            && (epoch != Some(0) || !same_history || rebuild.began + 1 < log_first)
        {
            self.rebuild = None;
        }
        let cursor = Position { seq: self.confirmed, rebuild_owed: self.mirror.position.rebuild_owed };
        Ok(Known { epoch, cursor, same_history, newest_sent, log_first }.plan())
    }

    fn move_cursor(&mut self, seq: Seq) {
        self.confirmed = seq;
        self.mirror.newest_sent = self.mirror.newest_sent.max(seq);
        self.state().set_cursor(seq);
    }

    /// Follows the log until something is wrong.
    async fn follow(&mut self, link: &mut Link, appended: &watch::Receiver<Seq>) -> Result<(), Failure> {
        let caught_up = self.confirmed >= self.mirror.parts.log.last_seq();
        let why = format!("connected, following the log from seq {}", self.confirmed + 1);
        self.state().enter(if caught_up { State::Live } else { State::CatchingUp }, &why);
        let (feed, chunks) = mpsc::channel(1);
        let mut filler = Filler::new(&self.mirror.config.prefix, self.bounds.clone());
        let (log, appended, runtime) = (self.mirror.parts.log.clone(), appended.clone(), Handle::current());
        let next = self.confirmed + 1;
        self.feed = Some(tokio::task::spawn_blocking(move || {
            feed::follow_log(&log, next, &mut filler, &feed, appended, &runtime);
        }));
        self.pump(link, chunks).await.map(drop)
    }

    /// Writes everything anew from the store.
    async fn rebuild(&mut self, link: &mut Link, why: &str) -> Result<(), Failure> {
        self.state().enter(State::Rebuilding, why);
        if self.rebuild.is_none() {
            self.begin_rebuild(link).await?;
        }
        let source = Arc::clone(&self.mirror.parts.source);
        let rebuild = self.rebuild.as_mut().expect("it was begun");
        let prefix = self.mirror.config.prefix.clone();
        let mut removed = 0;
        let swept =
            sweep::run(link, &self.mirror.names, &prefix, &source, &mut rebuild.sweep, &mut removed).await;
        self.mirror.parts.state.count(|c| c.unlinks += removed);
        swept?;
        let after = rebuild.after;
        let (feed, chunks) = mpsc::channel(1);
        let mut filler = Filler::new(&prefix, self.bounds.clone());
        self.feed =
            Some(tokio::task::spawn_blocking(move || feed::read_store(&source, after, &mut filler, &feed)));
        match self.pump(link, chunks).await? {
            Ended::Replan => Ok(()),
            Ended::Complete => self.finish_rebuild(link).await,
        }
    }

    async fn begin_rebuild(&mut self, link: &mut Link) -> Result<(), Failure> {
        self.mirror.position.rebuild_owed = true;
        self.save_now().await?;
        // Log first: the store may show a moment earlier or later, and the lesser is safe.
        let log_last = self.mirror.parts.log.last_seq();
        let source = Arc::clone(&self.mirror.parts.source);
        let failed = |what: String| Failure::store(what, "see the daemon's messages about its store");
        let first = match tokio::task::spawn_blocking(move || source.page(None, 1)).await {
            Ok(Ok(page)) => page,
            Ok(Err(e)) => return Err(failed(format!("cannot read the store: {e}"))),
            Err(e) => return Err(failed(format!("reading the store ended badly: {e}"))),
        };
        let began = first.as_of.min(log_last);
        self.state().set_rebuilt_rows(0);
        // Everything is owed from now on, whatever its age.
        self.state().set_oldest(Some(now()));
        // What Redis has is nothing to rely on from here on.
        link.create_epoch(&self.mirror.names, 0).await?;
        self.move_cursor(0);
        self.rebuild = Some(Rebuild { began, sweep: Sweep::NotBegun, after: None, rows: 0 });
        self.note_saved();
        Ok(())
    }

    async fn finish_rebuild(&mut self, link: &mut Link) -> Result<(), Failure> {
        let Some(Rebuild { began, .. }) = self.rebuild else { return Ok(()) };
        if link.run(&move_epoch(&self.mirror.names, began)).await? == Value::Nil {
            return Ok(()); // lost again meanwhile: the next plan begins anew
        }
        self.rebuild = None;
        self.move_cursor(began);
        self.mirror.position.rebuild_owed = false;
        self.state().count(|c| c.rebuilds += 1);
        self.save_now().await
    }

    /// Sends what comes out of a feed, keeping a few pipelines under way, and takes in the replies.
    async fn pump(
        &mut self,
        link: &mut Link,
        mut chunks: mpsc::Receiver<Result<Chunk, FeedEnd>>,
    ) -> Result<Ended, Failure> {
        let mut under_way: VecDeque<Sent> = VecDeque::new();
        let mut feed_end = None;
        let mut marked = None;
        let mut marked_at = Instant::now();
        let mut tick = tokio::time::interval(EPOCH_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if under_way.is_empty()
                && let Some(end) = feed_end
            {
                return match end {
                    FeedEnd::Complete => Ok(Ended::Complete),
                    FeedEnd::Gone => Ok(Ended::Replan),
                    FeedEnd::Failed(failure) => Err(failure),
                };
            }
            let room = feed_end.is_none() && under_way.len() < PIPELINES_IN_FLIGHT_MAX;
            let waiting = !under_way.is_empty();
            tokio::select! {
                biased;
                _ = tick.tick() => {
                    self.save_if_due().await;
                    self.state().log_held_back();
                    let mark = if self.rebuild.is_some() { 0 } else { self.confirmed };
                    let due = marked != Some(mark) || marked_at.elapsed() >= self.mirror.config.health_interval;
                    if due && !under_way.iter().any(|sent| matches!(sent.what, Payload::Epoch)) {
                        (marked, marked_at) = (Some(mark), Instant::now());
                        let mut pipeline = Pipeline::with_capacity(1);
                        pipeline.add_command(move_epoch(&self.mirror.names, mark));
                        under_way.push_back(send(link, pipeline, Payload::Epoch).await);
                    }
                }
                replies = next_replies(&mut under_way), if waiting => {
                    let sent = under_way.pop_front().expect("it is the one that was answered");
                    if !self.confirm(&sent.what, &replies?)? {
                        return Ok(Ended::Replan);
                    }
                    self.note_next(&under_way);
                }
                chunk = chunks.recv(), if room => match chunk {
                    Some(Ok(Chunk { pipeline, bytes, sets, unlinks, span })) => {
                        let rows = Payload::Rows { bytes, sets, unlinks, span };
                        under_way.push_back(send(link, pipeline, rows).await);
                        self.note_next(&under_way);
                    }
                    Some(Err(end)) => feed_end = Some(end),
                    None => {
                        // The daemon is about to stop, or the reading thread died.
                        let what = "the reading of log or store ended without a word";
                        feed_end = Some(FeedEnd::Failed(Failure::store(what, "see the daemon's messages")));
                    }
                },
            }
        }
    }

    /// Takes in the replies to a pipeline. `false`: Redis lost its data.
    fn confirm(&mut self, what: &Payload, replies: &[Value]) -> Result<bool, Failure> {
        let refusal = replies.iter().enumerate().find_map(|(i, reply)| match reply {
            Value::ServerError(error) => Some((i, Failure::from_server(error))),
            _ => None,
        });
        let &Payload::Rows { bytes, sets, unlinks, span } = what else {
            if let Some((_, failure)) = refusal {
                return Err(failure);
            }
            self.failures = 0;
            return Ok(replies.first() != Some(&Value::Nil));
        };
        if let Some((done, failure)) = refusal {
            // Rows before the first refused one are in.
            if let Span::Log { first, .. } = span
                && done > 0
            {
                self.progress = true;
                self.move_cursor(first + done as u64 - 1);
            }
            return Err(failure);
        }
        self.failures = 0;
        self.progress = true;
        self.bounds.set(self.bounds.get().larger());
        self.state().count(|c| {
            c.sets += sets;
            c.unlinks += unlinks;
            c.bytes += bytes as u64;
        });
        match span {
            Span::Log { last, last_received, .. } => {
                self.move_cursor(last);
                self.judge_lag(last, last_received);
            }
            Span::Store { last } => {
                if let Some(rebuild) = &mut self.rebuild {
                    rebuild.after = Some(last);
                    rebuild.rows += sets;
                    self.mirror.parts.state.set_rebuilt_rows(rebuild.rows);
                }
            }
        }
        Ok(true)
    }

    fn judge_lag(&self, last: Seq, last_received: f64) {
        let lag = Duration::try_from_secs_f64(now() - last_received).unwrap_or_default();
        let caught_up = last >= self.mirror.parts.log.last_seq();
        match self.state().state() {
            State::CatchingUp if caught_up || lag < LIVE_LAG => self.state().enter(State::Live, "caught up"),
            State::Live if !caught_up && lag > BEHIND_LAG => {
                self.state().enter(State::CatchingUp, "fell behind");
            }
            _ => {}
        }
    }

    /// Remembers when the oldest mutation under way was received.
    fn note_next(&self, under_way: &VecDeque<Sent>) {
        let oldest = under_way.iter().find_map(|sent| match sent.what {
            Payload::Rows { span: Span::Log { first_received, .. }, .. } => Some(first_received),
            _ => None,
        });
        if self.rebuild.is_none() {
            self.state().set_oldest(oldest);
        }
    }

    /// The same from the log, when nothing is under way.
    async fn note_oldest(&self) {
        let (log, next) = (self.mirror.parts.log.clone(), self.confirmed + 1);
        if next <= log.last_seq() {
            let read = tokio::task::spawn_blocking(move || feed::received_at(&log, next));
            self.state().set_oldest(read.await.ok().flatten());
        }
    }

    fn position(&self) -> Position {
        Position { seq: self.confirmed, rebuild_owed: self.mirror.position.rebuild_owed }
    }

    /// Saves the cursor in the background, if that is due.
    async fn save_if_due(&mut self) {
        let position = self.position();
        match self.keeper.save_if_due(position).await {
            Ok(()) => self.note_saved(),
            // The mirror goes on: without a cursor it only repeats itself after a restart.
            Err(failure) => self.state().note(&failure),
        }
    }

    async fn save_now(&mut self) -> Result<(), Failure> {
        let position = self.position();
        self.keeper.save(position).await?;
        self.note_saved();
        Ok(())
    }

    /// What a restart would need of the log.
    fn note_saved(&self) {
        let next = self.rebuild.as_ref().map_or(self.keeper.saved().seq, |rebuild| rebuild.began) + 1;
        self.state().set_retain_from(Some(next));
    }

    async fn end_feed(&mut self) {
        if let Some(feed) = self.feed.take()
            && let Err(e) = feed.await
        {
            tracing::error!("mirror: its reading thread ended badly: {e}");
        }
    }

    /// Leaves nothing behind but the saved cursor.
    pub async fn close(&mut self) {
        self.end_feed().await;
        if let Err(failure) = self.save_now().await {
            tracing::warn!("mirror: {failure}");
        }
    }
}

/// Sends a pipeline behind those already under way.
async fn send(link: &Link, pipeline: Pipeline, what: Payload) -> Sent {
    let mut replies: Replies = Box::pin(link.send(pipeline));
    // The first poll puts it into the connection's queue: here, so that the order is ours.
    let mut ready = None;
    poll_fn(|cx| {
        if let Poll::Ready(done) = replies.as_mut().poll(cx) {
            ready = Some(done);
        }
        Poll::Ready(())
    })
    .await;
    match ready {
        Some(done) => Sent { replies: Box::pin(std::future::ready(done)), what },
        None => Sent { replies, what },
    }
}

async fn next_replies(under_way: &mut VecDeque<Sent>) -> Result<Vec<Value>, Failure> {
    match under_way.front_mut() {
        Some(sent) => (&mut sent.replies).await,
        None => std::future::pending().await,
    }
}
