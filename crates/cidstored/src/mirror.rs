//! The mirror's place in the daemon: its settings, and the store as it sees it.

use crate::config::Config;
use crate::shared::Shared;
use cidstore_disk::Disk;
use cidstore_engine::{Reader, Snapshot};
use cidstore_mirror::{
    Mirror, MirrorConfig, OpenError, Parts, RebuildPage, RebuildSource, Secret, SourceError,
};
use cidstore_types::{Pattern, Triple, TripleHash};
use std::path::Path;
use std::sync::Arc;

/// The store as a rebuild sees it: a snapshot for each page.
struct Source(Reader);

impl RebuildSource for Source {
    fn page(&self, after: Option<&Triple>, limit: usize) -> Result<RebuildPage, SourceError> {
        let snapshot = self.0.snapshot();
        let cursor = after.map(Snapshot::cursor_after);
        let page = snapshot.query(&Pattern::ALL, limit, cursor.as_deref(), true)?;
        Ok(RebuildPage { records: page.records.unwrap_or_default(), as_of: page.as_of })
    }

    fn holds(&self, hashes: &[TripleHash]) -> Result<Vec<bool>, SourceError> {
        let snapshot = self.0.snapshot();
        Ok(hashes.iter().map(|hash| snapshot.get(hash).is_some()).collect())
    }
}

/// Sets the mirror up, if one is asked for.
///
/// # Errors
/// A setting that cannot be used, or a cursor file that cannot be reached.
pub fn open(shared: &Shared, disk: Arc<dyn Disk>, cursor: &Path) -> Result<Option<Mirror>, OpenError> {
    if !shared.config.redis_wanted() {
        return Ok(None);
    }
    let engine = shared.engine();
    let parts = Parts {
        disk,
        cursor: cursor.into(),
        store_id: engine.reader.store_id(),
        log: engine.log.clone(),
        source: Arc::new(Source(engine.reader.clone())),
        state: Arc::clone(&shared.mirror),
    };
    Mirror::open(settings(&shared.config), parts)
}

fn settings(config: &Config) -> MirrorConfig {
    let secret = |text: &String| Secret::new(text.clone());
    MirrorConfig {
        url: config.redis_url.as_ref().map(|url| secret(&url.0)),
        host: config.redis_host.clone(),
        port: config.redis_port,
        username: config.redis_username.clone(),
        password: config.redis_password.as_ref().map(|password| secret(&password.0)),
        db: config.redis_db,
        prefix: config.redis_prefix.clone(),
        ..MirrorConfig::default()
    }
}
