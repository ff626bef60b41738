//! Sending: chunks from a feed, a few of them under way, the replies, and the cursor that moves with them.

use crate::chunk::{Chunk, Part, Span};
use crate::connect::text;
use crate::events::is_gap;
use crate::failure::Failure;
use crate::feed::FeedEnd;
use crate::follower::Follower;
use crate::link::{Link, is_redirection, is_wrong_type};
use crate::names::seq_of;
use crate::pace::PIPELINES_IN_FLIGHT_MAX;
use crate::repair::Repair;
use crate::state::{State, now};
use cidstore_types::Seq;
use redis::{ServerError, Value};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

/// Least time between two moves of the epoch keys while there is something to move them for.
const EPOCH_INTERVAL: Duration = Duration::from_millis(250);
/// The mirror is live from here on: the newest mutation that Redis has was received so long ago.
const LIVE_LAG: Duration = Duration::from_secs(1);
/// … and has to catch up again from here on.
const BEHIND_LAG: Duration = Duration::from_secs(5);

/// Why sending ended without a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The feed is through.
    Complete,
    /// The plan no longer fits: the log part is gone, or Redis lost its data.
    Replan,
    /// Keys are on other servers of the cluster than they were.
    Moved,
}

/// The replies, part by part.
type Replies = Vec<Vec<Value>>;

/// What was sent, and not answered yet.
struct Sent {
    replies: Pin<Box<dyn Future<Output = Result<Replies, Failure>> + Send>>,
    /// Kept until it is confirmed, since a cluster may ask to send it to another server.
    parts: Arc<[Part]>,
    what: Payload,
    /// Who is told when it is in Redis.
    done: Option<oneshot::Sender<Result<(), Failure>>>,
}

#[derive(Clone, Copy)]
enum Payload {
    Rows {
        bytes: usize,
        sets: u64,
        unlinks: u64,
        span: Span,
    },
    /// The epoch keys, which were moved to `before` on this connection last.
    Epoch {
        before: Option<Seq>,
    },
}

/// What replies mean.
enum Taken {
    /// Everything is in Redis.
    All,
    /// Redis lost its data, or the stream its end.
    DataLost,
    /// From this row on it is to be sent again: to other servers, or over what is of another type.
    SendAgain(u32),
}

impl Follower {
    /// Sends what comes out of a feed, keeping a few pipelines under way, and takes in the replies.
    pub async fn pump(
        &mut self,
        link: &mut Link,
        mut chunks: mpsc::Receiver<Result<Chunk, FeedEnd>>,
    ) -> Result<Ended, Failure> {
        let mut under_way: VecDeque<Sent> = VecDeque::new();
        let mut end = None;
        // Nothing of the log beyond it was sent on this connection.
        let mut newest = self.confirmed;
        let mut rebuild_wanted = self.state().watch_rebuild_wanted();
        let mut marked = None;
        let mut marked_at = Instant::now();
        let mut tick = tokio::time::interval(EPOCH_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if under_way.is_empty()
                && let Some(end) = end
            {
                return end;
            }
            let room = end.is_none() && under_way.len() < PIPELINES_IN_FLIGHT_MAX;
            let waiting = !under_way.is_empty();
            tokio::select! {
                biased;
                _ = tick.tick() => {
                    self.save_if_due().await;
                    self.state().log_held_back();
                    let mark = if self.rebuild.is_some() { 0 } else { self.confirmed };
                    let due = marked != Some(mark) || marked_at.elapsed() >= self.mirror.config.health_interval;
                    if due && !under_way.iter().any(|sent| matches!(sent.what, Payload::Epoch { .. })) {
                        let what = Payload::Epoch { before: marked.replace(mark) };
                        marked_at = Instant::now();
                        under_way.push_back(send(link, link.epoch_parts(mark), what).await);
                    }
                }
                replies = next_replies(&mut under_way), if waiting => {
                    let sent = under_way.pop_front().expect("it is the one that was answered");
                    match self.take_in(&sent, &replies?, link.slots().is_some())? {
                        Taken::All => {
                            if let Some(done) = sent.done {
                                // Who asked for it may have given up meanwhile.
                                let _ = done.send(Ok(()));
                            }
                        }
                        Taken::DataLost => return Ok(Ended::Replan),
                        Taken::SendAgain(row) => {
                            if !self.send_after(link, sent, row, &mut under_way).await? {
                                return Ok(Ended::Replan);
                            }
                            // As long as a slot is on its way, its map stays.
                            if link.has_moved() {
                                return Ok(Ended::Moved);
                            }
                        }
                    }
                    self.note_next(&under_way);
                }
                () = async { drop(rebuild_wanted.wait_for(|wanted| *wanted).await) }, if room && self.rebuild.is_none() => {
                    end = Some(Ok(Ended::Replan));
                }
                Some(repair) = self.repairs.recv(), if room => {
                    under_way.extend(self.repair(link, repair, newest).await);
                }
                chunk = chunks.recv(), if room => match chunk {
                    Some(Ok(Chunk { parts, bytes, sets, unlinks, span, .. })) => {
                        if let Span::Log { last, .. } = span {
                            newest = last;
                            self.mirror.newest_sent = self.mirror.newest_sent.max(last);
                        }
                        let rows = Payload::Rows { bytes, sets, unlinks, span };
                        under_way.push_back(send(link, parts, rows).await);
                        self.note_next(&under_way);
                    }
                    Some(Err(why)) => {
                        end = Some(match why {
                            FeedEnd::Complete => Ok(Ended::Complete),
                            FeedEnd::Gone => Ok(Ended::Replan),
                            FeedEnd::Failed(failure) => Err(failure),
                        });
                    }
                    None => {
                        // The daemon is about to stop, or the reading thread died.
                        let what = "the reading of log or store ended without a word";
                        end = Some(Err(Failure::store(what, "see the daemon's messages")));
                    }
                },
            }
        }
    }

    /// Sends what the store has of some triples now; `newest` is the last mutation of the log that was sent.
    async fn repair(&self, link: &Link, repair: Repair, newest: Seq) -> Option<Sent> {
        let Repair { hashes, done } = repair;
        match self.repair_chunk(link, &hashes, newest).await {
            Ok(Chunk { parts, bytes, sets, unlinks, span, .. }) => {
                let sent = send(link, parts, Payload::Rows { bytes, sets, unlinks, span }).await;
                Some(Sent { done: Some(done), ..sent })
            }
            Err(failure) => {
                // Who asked for it may have given up meanwhile.
                let _ = done.send(Err(failure));
                None
            }
        }
    }

    /// Takes in the replies to what was sent.
    fn take_in(&mut self, sent: &Sent, replies: &Replies, is_cluster: bool) -> Result<Taken, Failure> {
        if let Some((row, error)) = first_refused(&sent.parts, replies) {
            // Rows before the first refused one are in.
            if let Payload::Rows { span: Span::Log { first, .. }, .. } = sent.what {
                self.move_cursor_before(first + Seq::from(row), first);
            }
            let is_row = matches!(sent.what, Payload::Rows { .. });
            return match error {
                error if is_gap(error) => Ok(Taken::DataLost),
                error if is_cluster && is_redirection(error.code()) => Ok(Taken::SendAgain(row)),
                error if is_row && is_wrong_type(error) => Ok(Taken::SendAgain(row)),
                error => Err(Failure::from_server(error)),
            };
        }
        if let Payload::Epoch { before } = sent.what {
            self.failures = 0;
            let commands =
                sent.parts.iter().zip(replies).flat_map(|(part, replies)| part.rows.iter().zip(replies));
            let is_lost = |(row, reply): (&u32, &Value)| epoch_is_lost(*row, reply, before);
            return Ok(if commands.into_iter().any(is_lost) { Taken::DataLost } else { Taken::All });
        }
        self.confirm(sent.what);
        Ok(Taken::All)
    }

    /// Rows of the log before `refused`, from `first` on, are in Redis.
    fn move_cursor_before(&mut self, refused: Seq, first: Seq) {
        if refused > first {
            self.progress = true;
            self.move_cursor(refused - 1);
            self.announced = self.announced.max(refused - 1);
        }
    }

    /// All of it is in Redis.
    fn confirm(&mut self, what: Payload) {
        let Payload::Rows { bytes, sets, unlinks, span } = what else { return };
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
                self.announced = self.announced.max(last);
                self.judge_lag(last, last_received);
            }
            Span::Store { last } => {
                if let Some(rebuild) = &mut self.rebuild {
                    rebuild.after = Some(last);
                    rebuild.rows += sets;
                    self.mirror.parts.state.set_rebuilt_rows(rebuild.rows);
                }
            }
            Span::Repair => {}
        }
    }

    /// Sends again, one command after the other, what was under way when a cluster sent a key to another
    /// server, or a key held something of another type: from the first refused row on everything, since
    /// something later may have been taken for the same key, which must not stay behind something older.
    /// `false`: Redis lost its data.
    async fn send_after(
        &mut self,
        link: &mut Link,
        first: Sent,
        row: u32,
        under_way: &mut VecDeque<Sent>,
    ) -> Result<bool, Failure> {
        let mut all = vec![(first.parts, first.what, first.done, row)];
        for sent in under_way.drain(..) {
            // So that nothing of it arrives after what follows here.
            sent.replies.await?;
            all.push((sent.parts, sent.what, sent.done, 0));
        }
        for (parts, what, done, row) in all {
            let commands = parts.iter().flat_map(|part| {
                let rows = part.rows.iter().zip(part.pipeline.cmd_iter());
                rows.map(|(row, command)| (*row, part.server, command))
            });
            let mut commands: Vec<_> = commands.filter(|(at, ..)| *at >= row).collect();
            commands.sort_by_key(|(row, ..)| *row);
            for (row, server, command) in commands {
                let reply = link.send_after(server, command).await;
                match (what, reply) {
                    (Payload::Rows { span: Span::Log { first, .. }, .. }, Err(failure)) => {
                        self.move_cursor_before(first + Seq::from(row), first);
                        return Err(failure);
                    }
                    // What it was may be what was sent a moment ago: only whether it is there counts here.
                    (Payload::Epoch { .. }, Ok(reply)) if epoch_is_lost(row, &reply, None) => {
                        return Ok(false);
                    }
                    (_, reply) => drop(reply?),
                }
            }
            self.confirm(what);
            if let Some(done) = done {
                let _ = done.send(Ok(()));
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
}

/// Whether the reply to row 0 (what an epoch key was) or row 1 (that it was moved) shows that data was lost:
/// there is none, or another value than was written last, as after a failover to an older replica.
fn epoch_is_lost(row: u32, reply: &Value, before: Option<Seq>) -> bool {
    let was = || text(reply).and_then(seq_of);
    *reply == Value::Nil || row == 0 && before.is_some_and(|before| was() != Some(before))
}

/// The first row of which a command was refused, and why.
fn first_refused<'a>(parts: &[Part], replies: &'a Replies) -> Option<(u32, &'a ServerError)> {
    let refused = parts.iter().zip(replies).flat_map(|(part, replies)| {
        part.rows.iter().zip(replies).filter_map(|(row, reply)| match reply {
            Value::ServerError(error) => Some((*row, error)),
            _ => None,
        })
    });
    refused.min_by_key(|(row, _)| *row)
}

/// Sends it behind what is already under way.
async fn send(link: &Link, parts: Vec<Part>, what: Payload) -> Sent {
    let parts: Arc<[Part]> = parts.into();
    let mut replies: Pin<Box<dyn Future<Output = Result<Replies, Failure>> + Send>> =
        Box::pin(link.send(Arc::clone(&parts)));
    // The first poll puts it into the connections' queues (or the next one does, which comes before anything
    // else is sent): here, so that the order is ours.
    let mut ready = None;
    poll_fn(|cx| {
        if let Poll::Ready(replied) = replies.as_mut().poll(cx) {
            ready = Some(replied);
        }
        Poll::Ready(())
    })
    .await;
    match ready {
        Some(ready) => Sent { replies: Box::pin(std::future::ready(ready)), parts, what, done: None },
        None => Sent { replies, parts, what, done: None },
    }
}

async fn next_replies(under_way: &mut VecDeque<Sent>) -> Result<Replies, Failure> {
    match under_way.front_mut() {
        Some(sent) => (&mut sent.replies).await,
        None => std::future::pending().await,
    }
}
