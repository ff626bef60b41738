//! The mirror's place in the daemon: its settings, the store as it sees it, and what is asked of it.

mod asked;

pub use asked::act;

use crate::config::{Config, RedisEvents, RedisProtocol, RedisSets, RedisTtlRefresh, RedisValue};
use crate::shared::Shared;
use cidstore_disk::Disk;
use cidstore_engine::{Looked, Page, Reader, Snapshot};
use cidstore_mirror::{
    Announcing, ConfigError, Events, Form, Found, Mirror, MirrorConfig, OpenError, Parts, Protocol,
    Reader as RedisReader, RebuildPage, RebuildSource, Secret, Sets, SourceError, ValueForm,
};
use cidstore_types::{Pattern, Triple, TripleHash};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The store as a rebuild sees it: a snapshot for each page.
struct Source {
    reader: Reader,
    shared: Arc<Shared>,
}

impl RebuildSource for Source {
    fn page(&self, after: Option<&Triple>, limit: usize) -> Result<RebuildPage, SourceError> {
        let (snapshot, touched) = (self.reader.snapshot(), &self.shared.touched);
        let cursor = after.map(Snapshot::cursor_after);
        let mut go_on = |looked: Looked| {
            touched.add(looked.places);
            true
        };
        let page = snapshot.query_while(&Pattern::ALL, limit, cursor.as_deref(), true, &mut go_on)?;
        rebuild_page(page.ok_or("a page was given up that nobody had enough of")?)
    }

    fn holds(&self, hashes: &[TripleHash]) -> Result<Vec<bool>, SourceError> {
        let snapshot = self.reader.snapshot();
        let holds = |hash: &TripleHash| {
            self.shared.touched.by_hash(snapshot.runs_len());
            Ok(snapshot.get(hash)?.is_some())
        };
        hashes.iter().map(holds).collect()
    }

    fn get(&self, hashes: &[TripleHash]) -> Result<Found, SourceError> {
        let snapshot = self.reader.snapshot();
        let record = |hash: &TripleHash| {
            self.shared.touched.by_hash(snapshot.runs_len());
            snapshot.get(hash)
        };
        let records = hashes.iter().map(record).collect::<Result<_, _>>()?;
        Ok(Found { records, as_of: snapshot.as_of() })
    }

    fn rows_about(&self) -> u64 {
        let stats = self.reader.stats();
        // Each tombstone hides a row.
        (stats.memory_rows + stats.file_rows).saturating_sub(2 * stats.tombstones) as u64
    }
}

/// An empty page means the end of the store to a rebuild, so one without records is an error: it
/// would leave Redis empty and call it done.
fn rebuild_page(page: Page) -> Result<RebuildPage, SourceError> {
    let records = page.records.ok_or("the store gave a page without its records")?;
    Ok(RebuildPage { records, as_of: page.as_of })
}

/// Sets the mirror up, if one is asked for.
///
/// # Errors
/// A setting that cannot be used, or a cursor file that cannot be reached.
pub fn open(shared: &Arc<Shared>, disk: Arc<dyn Disk>, cursor: &Path) -> Result<Option<Mirror>, OpenError> {
    if !shared.config.redis_wanted() {
        return Ok(None);
    }
    let engine = shared.engine();
    let parts = Parts {
        disk,
        cursor: cursor.into(),
        store_id: engine.reader.store_id(),
        log: engine.log.clone(),
        source: Arc::new(Source { reader: engine.reader.clone(), shared: Arc::clone(shared) }),
        state: Arc::clone(&shared.mirror),
    };
    Mirror::open(settings(&shared.config), parts)
}

/// Has answers come from Redis, and limits counted there, where that is asked for.
///
/// # Errors
/// A setting that cannot be used.
pub fn read(shared: &Shared) -> Result<(), ConfigError> {
    let config = &shared.config;
    let limits = shared.http_limits.as_ref().filter(|_| config.http_rate_shared);
    if !config.redis_wanted() || !(config.cache_redis || limits.is_some()) {
        return Ok(());
    }
    let deadline = Duration::from_millis(config.cache_redis_deadline_ms.into());
    let Some(reader) = RedisReader::new(&settings(config), shared.engine().reader.store_id(), deadline)?
    else {
        return Ok(());
    };
    if let Some(limits) = limits {
        limits.share(reader.clone());
    }
    if config.cache_redis {
        shared.reading.ask_redis(reader);
    }
    Ok(())
}

/// The settings as the mirror takes them; [`MirrorConfig::target`] checks them.
pub fn settings(config: &Config) -> MirrorConfig {
    let secret = |text: &crate::config::Secret| Secret::new(&*text.0);
    let ms = |ms: u32| Duration::from_millis(ms.into());
    MirrorConfig {
        url: config.redis_url.as_ref().map(|url| Secret::new(&*url.0)),
        host: config.redis_host.clone(),
        port: config.redis_port,
        username: config.redis_username.clone(),
        password: config.redis_password.as_ref().map(secret),
        password_file: config.redis_password_file.clone(),
        sentinel_username: config.redis_sentinel_username.clone(),
        sentinel_password: config.redis_sentinel_password.as_ref().map(secret),
        sentinel_password_file: config.redis_sentinel_password_file.clone(),
        db: config.redis_db,
        tls: config.redis_tls,
        tls_ca_file: config.redis_tls_ca_file.clone(),
        tls_cert_file: config.redis_tls_cert_file.clone(),
        tls_key_file: config.redis_tls_key_file.clone(),
        protocol: match config.redis_protocol {
            RedisProtocol::Resp2 => Protocol::Resp2,
            RedisProtocol::Resp3 => Protocol::Resp3,
        },
        prefix: config.redis_prefix.clone(),
        form: form(config),
        events: events(config),
        connect_timeout: ms(config.redis_connect_timeout_ms),
        response_timeout: ms(config.redis_response_timeout_ms),
        health_interval: ms(config.redis_health_ms),
        backoff_max: ms(config.redis_backoff_max_ms),
    }
}

fn form(config: &Config) -> Form {
    Form {
        value: match config.redis_value {
            RedisValue::Json => ValueForm::Json,
            RedisValue::RedisJson => ValueForm::RedisJson,
            RedisValue::Hash => ValueForm::Hash,
            RedisValue::MessagePack => ValueForm::MessagePack,
        },
        ttl: config.redis_ttl,
        keep_ttl: config.redis_ttl_refresh == RedisTtlRefresh::Never,
        overwrite: config.redis_overwrite,
        compress_above: config.redis_compress_above.len(),
        sets: match config.redis_sets {
            RedisSets::None => Sets::None,
            RedisSets::Sp => Sets::Sp,
            RedisSets::Po => Sets::Po,
            RedisSets::Both => Sets::Both,
        },
    }
}

fn events(config: &Config) -> Events {
    Events {
        announcing: match config.redis_events {
            RedisEvents::None => Announcing::None,
            RedisEvents::Publish => Announcing::Publish,
            RedisEvents::Stream => Announcing::Stream,
        },
        key: config.redis_events_key.clone(),
        stream_maxlen: config.redis_stream_maxlen,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_without_records_is_an_error_and_not_the_end_of_the_store() {
        assert!(rebuild_page(Page { as_of: 5, ..Page::default() }).is_err());
        let page = Page { as_of: 5, records: Some(Vec::new()), ..Page::default() };
        assert_eq!(rebuild_page(page).unwrap().as_of, 5);
    }
}
