//! The loop that connects, decides what is owed, and sends it.

use crate::chunk::{Filler, SharedBounds};
use crate::cursor::{Keeper, Position};
use crate::encode::Encoder;
use crate::endpoint::Address;
use crate::events::{self, Announcer};
use crate::failure::Failure;
use crate::feed;
use crate::link::{History, Link};
use crate::mirror::Mirror;
use crate::pace::backoff;
use crate::plan::{Known, Plan};
use crate::pump::Ended;
use crate::repair::Repair;
use crate::slots::SlotMap;
use crate::source;
use crate::state::{MirrorState, State, now};
use crate::sweep::{self, Sweep};
use cidstore_types::{Seq, Triple, TripleHash};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// A rebuild under way, kept across connections.
pub(crate) struct Rebuild {
    /// The log is followed after this seq when the rebuild is done.
    began: Seq,
    /// What is there has another form.
    replace: bool,
    sweep: Sweep,
    pub after: Option<Triple>,
    pub rows: u64,
}

/// What a loop returns that never ends.
pub(crate) enum Never {}

pub(crate) struct Follower {
    pub mirror: Mirror,
    pub bounds: SharedBounds,
    pub confirmed: Seq,
    /// Up to it mutations were announced, to whoever listened.
    pub announced: Seq,
    /// Which data `confirmed` is about.
    history: History,
    /// The servers that the mirror was connected to last, and which of them had which slots.
    servers: Vec<Address>,
    slots: Option<Arc<SlotMap>>,
    pub rebuild: Option<Rebuild>,
    pub failures: u32,
    /// Something was confirmed on this connection.
    pub progress: bool,
    /// What a verification found to differ.
    pub repairs: mpsc::Receiver<Repair>,
    keeper: Keeper,
    feed: Option<JoinHandle<()>>,
}

impl Follower {
    pub fn new(mirror: Mirror, repairs: mpsc::Receiver<Repair>) -> Self {
        Self {
            confirmed: mirror.position.seq,
            announced: mirror.position.seq,
            keeper: Keeper::new(mirror.file.clone(), mirror.position),
            mirror,
            bounds: SharedBounds::new(),
            history: History::default(),
            servers: Vec::new(),
            slots: None,
            rebuild: None,
            failures: 0,
            progress: false,
            repairs,
            feed: None,
        }
    }

    pub fn state(&self) -> &MirrorState {
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

    /// Connections to all servers, from greeting to failure.
    async fn session(&mut self, appended: &watch::Receiver<Seq>) -> Result<Never, Failure> {
        let mut link = self.connect().await?;
        loop {
            let ended = match self.plan(&mut link).await? {
                Plan::Tail { after, create_epoch } => {
                    // Before the keys are made: they would hide, if that failed half-way, what was lost.
                    self.move_cursor(after);
                    if create_epoch {
                        link.create_epoch(0).await?;
                    }
                    self.follow(&mut link, appended).await?
                }
                Plan::Rebuild { why, replace } => self.rebuild(&mut link, why, replace).await?,
            };
            self.end_feed().await;
            if ended == Ended::Moved {
                // Keys have other servers now. A cluster moves one slot after the other.
                tokio::time::sleep(backoff(1, self.mirror.config.backoff_max, fastrand::f64())).await;
                link = self.connect().await?;
            }
        }
    }

    async fn connect(&mut self) -> Result<Link, Failure> {
        let Mirror { target, names, .. } = &self.mirror;
        let link = Link::connect(target, names, &self.servers, self.failures).await?;
        let servers: Vec<_> = link.connections().iter().map(|one| one.address.clone()).collect();
        if (servers != self.servers || link.slots() != self.slots.as_ref())
            && let Some(rebuild) = &mut self.rebuild
        {
            rebuild.sweep.begin_anew();
        }
        self.servers = servers;
        self.state().set_servers(&self.servers);
        let key = format!("{}{}", self.mirror.config.prefix, TripleHash([0; 32]));
        link.check_form(self.mirror.config.form.value, key.as_bytes()).await?;
        self.state().count(|c| {
            c.reconnects += u64::from(c.connects > 0);
            c.connects += 1;
        });
        Ok(link)
    }

    async fn plan(&mut self, link: &mut Link) -> Result<Plan, Failure> {
        let history = link.history().await?;
        let same_history = history.continues(&self.history);
        let epoch = link.epoch(same_history).await?;
        let slots = link.slots().cloned();
        let were_moved = match (&slots, &self.slots) {
            (Some(now), Some(before)) => !now.divides_alike(before),
            _ => false,
        };
        (self.history, self.slots) = (history, slots);
        if were_moved && !same_history {
            // What was moved to a server shortly before another took its place may not be there, and no epoch
            // key came with it. A rebuild under way may have passed it.
            let replaced = self.rebuild.take().is_some_and(|rebuild| rebuild.replace);
            let replace = replaced || epoch.is_some_and(|epoch| !epoch.form_fits);
            return Ok(Plan::Rebuild {
                why: "a server of the cluster was replaced while slots were moved",
                replace,
            });
        }
        let log_first = self.mirror.parts.log.first_seq();
        let newest_sent = self.mirror.newest_sent.max(self.confirmed);
        let mut replaced = false;
        if let Some(rebuild) = &self.rebuild {
            // At its end the keys are moved, of which perhaps no reply came.
            let is_its = epoch.is_some_and(|epoch| epoch.seq == 0 || epoch.seq == rebuild.began);
            if !is_its || !same_history || rebuild.began + 1 < log_first {
                // Where data was lost, the note of its form may be lost as well.
                replaced = rebuild.replace;
                self.rebuild = None;
            }
        }
        let cursor = Position { seq: self.confirmed, rebuild_owed: self.mirror.position.rebuild_owed };
        let rebuild_wanted = self.state().rebuild_is_wanted();
        let Mirror { config, names, .. } = &self.mirror;
        let announced = events::newest(link, &config.events, &names.store).await?;
        let known = Known { epoch, announced, cursor, same_history, newest_sent, log_first, rebuild_wanted };
        Ok(match known.plan() {
            Plan::Rebuild { why, replace } => Plan::Rebuild { why, replace: replace || replaced },
            Plan::Tail { .. } if replaced => {
                Plan::Rebuild { why: "Redis lost data while another form of it was replaced", replace: true }
            }
            plan @ Plan::Tail { .. } => plan,
        })
    }

    pub fn move_cursor(&mut self, seq: Seq) {
        self.confirmed = seq;
        self.mirror.newest_sent = self.mirror.newest_sent.max(seq);
        self.state().set_cursor(seq);
    }

    /// Follows the log until something is wrong.
    async fn follow(&mut self, link: &mut Link, appended: &watch::Receiver<Seq>) -> Result<Ended, Failure> {
        let caught_up = self.confirmed >= self.mirror.parts.log.last_seq();
        let why = format!("connected, following the log from seq {}", self.confirmed + 1);
        self.state().enter(if caught_up { State::Live } else { State::CatchingUp }, &why);
        let Mirror { config, names, .. } = &self.mirror;
        events::resume(link, &config.events, &names.store, self.confirmed, self.announced).await?;
        self.announced = self.announced.max(self.confirmed);
        let announcer = Announcer::new(&config.events, &names.store, self.announced);
        let (feed, chunks) = mpsc::channel(1);
        let encoder = Encoder::new(&config.prefix, config.form.clone(), false);
        let mut filler = Filler::new(encoder, announcer, link.slots().cloned(), self.bounds.clone());
        let (log, appended, runtime) = (self.mirror.parts.log.clone(), appended.clone(), Handle::current());
        let next = self.confirmed + 1;
        self.feed = Some(tokio::task::spawn_blocking(move || {
            feed::follow_log(&log, next, &mut filler, &feed, appended, &runtime);
        }));
        self.pump(link, chunks).await
    }

    /// Writes everything anew from the store.
    async fn rebuild(&mut self, link: &mut Link, why: &str, replace: bool) -> Result<Ended, Failure> {
        self.state().enter(State::Rebuilding, why);
        link.is_mixed = self.rebuild.as_ref().map_or(replace, |rebuild| rebuild.replace);
        if self.rebuild.is_none() {
            self.begin_rebuild(link, replace).await?;
        }
        let source = Arc::clone(&self.mirror.parts.source);
        let rebuild = self.rebuild.as_mut().expect("it was begun");
        let Mirror { config, names, .. } = &self.mirror;
        let mut removed = 0;
        let swept = sweep::run(link, names, config, &source, &mut rebuild.sweep, &mut removed).await;
        self.mirror.parts.state.count(|c| c.unlinks += removed);
        swept?;
        let after = rebuild.after;
        let (feed, chunks) = mpsc::channel(1);
        // What is there may be from before a deletion that Redis has missed: it must not stay, nor its time.
        let replaces = link.is_mixed || !config.form.overwrite || config.form.keep_ttl;
        let encoder = Encoder::new(&config.prefix, config.form.clone(), replaces);
        let mut filler = Filler::new(encoder, None, link.slots().cloned(), self.bounds.clone());
        self.feed =
            Some(tokio::task::spawn_blocking(move || feed::read_store(&source, after, &mut filler, &feed)));
        let ended = self.pump(link, chunks).await?;
        if ended == Ended::Complete {
            self.finish_rebuild(link).await?;
        }
        Ok(ended)
    }

    async fn begin_rebuild(&mut self, link: &mut Link, replace: bool) -> Result<(), Failure> {
        self.mirror.position.rebuild_owed = true;
        self.save_now().await?;
        // Log first: the store may show a moment earlier or later, and the lesser is safe.
        let log_last = self.mirror.parts.log.last_seq();
        let asked = source::ask(&self.mirror.parts.source, |source| {
            Ok((source.page(None, 1)?.as_of, source.rows_about()))
        });
        let (as_of, rows_about) = asked.await?;
        let Mirror { config, names, newest_sent, .. } = &self.mirror;
        let told = events::told(link, &config.events, &names.store, *newest_sent, self.announced).await?;
        // What the log still has is announced, though it is in Redis by then.
        let told = told.filter(|told| *told > 0 && told + 1 >= self.mirror.parts.log.first_seq());
        let began = as_of.min(log_last).min(told.unwrap_or(Seq::MAX));
        self.state().rebuild_begins(rows_about);
        // Everything is owed from now on, whatever its age.
        self.state().set_oldest(Some(now()));
        // What Redis has is nothing to rely on from here on.
        link.create_epoch(0).await?;
        self.move_cursor(0);
        self.rebuild = Some(Rebuild { began, replace, sweep: Sweep::NotBegun, after: None, rows: 0 });
        self.note_saved();
        Ok(())
    }

    async fn finish_rebuild(&mut self, link: &mut Link) -> Result<(), Failure> {
        let Some(Rebuild { began, .. }) = self.rebuild else { return Ok(()) };
        link.is_mixed = false;
        if !link.move_epoch(began).await? {
            return Ok(()); // lost again meanwhile: the next plan begins anew
        }
        self.rebuild = None;
        self.move_cursor(began);
        self.mirror.position.rebuild_owed = false;
        self.state().rebuild_ends();
        self.save_now().await
    }

    /// Remembers, from the log, when the oldest mutation that Redis misses was received.
    async fn note_oldest(&self) {
        let (log, next) = (self.mirror.parts.log.clone(), self.confirmed + 1);
        if next <= log.last_seq() {
            let read = tokio::task::spawn_blocking(move || feed::received_at(&log, next));
            self.state().set_oldest(read.await.ok().flatten());
        }
    }

    fn position(&self) -> Position {
        // Who asks for a rebuild while Redis is away has it also after a restart.
        let rebuild_owed = self.mirror.position.rebuild_owed || self.state().rebuild_is_wanted();
        Position { seq: self.confirmed, rebuild_owed }
    }

    /// Saves the cursor in the background, if that is due.
    pub async fn save_if_due(&mut self) {
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
