//! Setting a mirror up and running it: the door of this crate.

use crate::config::{ConfigError, MirrorConfig, Target};
use crate::cursor::{CursorFile, Position};
use crate::follower::Follower;
use crate::names::Names;
use crate::source::RebuildSource;
use crate::state::{MirrorState, State};
use crate::verify::Verifier;
use cidstore_disk::{Disk, DiskError};
use cidstore_types::Seq;
use cidstore_wal::Log;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Why a mirror cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The cursor file cannot be reached.
    #[error("the mirror's cursor: {0}; check the permissions of the data folder")]
    Disk(#[from] DiskError),
}

/// What a mirror works with, beside its configuration.
pub struct Parts {
    /// Where the cursor file is kept.
    pub disk: Arc<dyn Disk>,
    /// The cursor file; `<path>.new` beside it is used, too.
    pub cursor: PathBuf,
    /// Identity of the store: cursor and epoch key belong to it.
    pub store_id: [u8; 16],
    /// The log to follow.
    pub log: Log,
    /// The store, for rebuilds.
    pub source: Arc<dyn RebuildSource>,
    /// Where to tell how it goes.
    pub state: Arc<MirrorState>,
}

/// A mirror that is set up and not running yet.
pub struct Mirror {
    pub(crate) config: MirrorConfig,
    pub(crate) target: Target,
    pub(crate) names: Names,
    pub(crate) parts: Parts,
    pub(crate) file: CursorFile,
    pub(crate) position: Position,
    /// Nothing beyond it was ever sent to Redis.
    pub(crate) newest_sent: Seq,
}

impl Mirror {
    /// Sets a mirror up: checks the configuration and reads the cursor. To be called before anything
    /// is appended to the log, so that a log which lost its end (durability `os` or `interval`) is
    /// noticed. `None` when no mirror is asked for.
    ///
    /// # Errors
    /// [`OpenError`] when a setting is wrong or the cursor file cannot be reached. A damaged cursor
    /// file is no error: it is as good as none.
    pub fn open(config: MirrorConfig, parts: Parts) -> Result<Option<Self>, OpenError> {
        let Some(target) = config.target()? else { return Ok(None) };
        let names = Names::new(parts.store_id, target.db, &config.prefix, &config.form);
        let file = CursorFile::new(Arc::clone(&parts.disk), parts.cursor.clone(), parts.store_id);
        let mut position = match file.load()? {
            None => Position::default(),
            Some(Ok(position)) => position,
            Some(Err(why)) => {
                let path = file.path().display();
                tracing::warn!(%path, "mirror: cursor file not usable ({why}): beginning anew, nothing is skipped");
                Position::default()
            }
        };
        let log_last = parts.log.last_seq();
        if position.seq > log_last {
            tracing::warn!(
                cursor = position.seq,
                log_last,
                "mirror: Redis has mutations that the log has lost: a rebuild is owed"
            );
            position = Position { seq: 0, rebuild_owed: true };
            // Now, since soon the log will have grown past the cursor.
            file.save(position)?;
        }
        if position.rebuild_owed {
            parts.state.want_rebuild();
        }
        parts.state.configured(target.name());
        parts.state.set_cursor(position.seq);
        parts.state.set_retain_from(Some(position.seq + 1));
        Ok(Some(Self { config, target, names, parts, file, position, newest_sent: log_last }))
    }

    /// Mirrors until `shutdown` holds true (or its sender is gone), then saves the cursor and
    /// returns. `appended` is to change whenever the log has something new to read. Never ends for
    /// a failure.
    pub async fn run(self, appended: watch::Receiver<Seq>, mut shutdown: watch::Receiver<bool>) {
        let state = Arc::clone(&self.parts.state);
        let (hand_over, repairs) = mpsc::channel(1);
        // Ends with this: a set aborts its tasks when it is dropped.
        let mut beside = JoinSet::new();
        beside.spawn(Verifier::new(&self, hand_over).run());
        let mut follower = Follower::new(self, repairs);
        tokio::select! {
            biased;
            // An error means that the sender is gone, which means the same.
            _ = shutdown.wait_for(|stop| *stop) => {}
            never = follower.run(&appended) => match never {},
        }
        follower.close().await;
        state.enter(State::Off, "stopped");
    }
}
