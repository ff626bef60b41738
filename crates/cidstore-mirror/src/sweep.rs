//! Removing what Redis holds and the store does not: before a rebuild, since a part of the log that
//! is gone may have held deletions.
//!
//! Only keys that this mirror would write, in whichever form, are touched: prefix and 64 lower-case hex digits,
//! with a value whose triple has that hash; and of the sets, members that are such hashes. Where another store
//! mirrors under the same prefix, nothing is removed, since its keys cannot be told from stale ones.

use crate::config::MirrorConfig;
use crate::connect::Connection;
use crate::failure::Failure;
use crate::form::ValueForm;
use crate::link::{Link, is_wrong_type};
use crate::names::{EPOCH_KEYS, Names};
use crate::prune;
use crate::sets::Kind;
use crate::source::{self, RebuildSource};
use cidstore_types::TripleHash;
use redis::{Pipeline, Value};
use std::sync::Arc;
use std::time::Duration;

/// Keys that one `SCAN` looks at, about.
const SCAN_COUNT: usize = 1000;
/// While slots move, the sweep begins anew after so long.
pub(crate) const UNSETTLED_PAUSE: Duration = Duration::from_secs(1);
/// Values read at once to see whose they are: 64 values of at most some 64 KiB.
pub(crate) const VALUES_AT_ONCE: usize = 64;
/// Forms by the command that reads them. The first does for most, the others for what is of another type.
const FORMS: [&[ValueForm]; 3] =
    [&[ValueForm::Json, ValueForm::MessagePack], &[ValueForm::Hash], &[ValueForm::RedisJson]];

/// How far the sweep is, so that it goes on after a lost connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sweep {
    NotBegun,
    /// Next cursor of `SCAN` on the server at that place.
    At {
        server: usize,
        cursor: u64,
    },
    Done,
}

impl Sweep {
    /// The servers are others than before: places and cursors mean nothing to them.
    pub fn begin_anew(&mut self) {
        if matches!(self, Self::At { .. }) {
            *self = Self::NotBegun;
        }
    }
}

/// Goes on with a sweep until it is done; `progress` is kept up to date. Returns nothing: what was
/// removed is in `removed`.
pub(crate) async fn run(
    link: &Link,
    names: &Names,
    config: &MirrorConfig,
    source: &Arc<dyn RebuildSource>,
    progress: &mut Sweep,
    removed: &mut u64,
) -> Result<(), Failure> {
    let prefix = &*config.prefix;
    if *progress == Sweep::NotBegun {
        let shared = shared_with_another_store(link, names, prefix).await?;
        *progress = if shared { Sweep::Done } else { Sweep::At { server: 0, cursor: 0 } };
    }
    let pattern = pattern_of(prefix);
    while let Sweep::At { server, cursor } = *progress {
        let Some(connection) = link.connections().get(server) else {
            *progress = Sweep::Done;
            break;
        };
        let (next, keys) = scan(connection, cursor, &pattern).await?;
        let kept = config.form.sets.kinds();
        let set = |key: &Vec<u8>| Some((key.clone(), kept.contains(&Kind::of_key(key, prefix)?)));
        let sets: Vec<(Vec<u8>, bool)> = keys.iter().filter_map(set).collect();
        prune::run(connection, &sets, source).await?;
        let candidates: Vec<(Vec<u8>, TripleHash)> = keys
            .into_iter()
            .filter_map(|key| Some((hash_of_key(&key, prefix)?, key)))
            .map(|(h, k)| (k, h))
            .collect();
        let stale = absent(source, candidates).await?;
        for group in stale.chunks(VALUES_AT_ONCE) {
            *removed += remove_own(connection, group).await?;
        }
        *progress = match next {
            0 => Sweep::At { server: server + 1, cursor: 0 },
            next => Sweep::At { server, cursor: next },
        };
        // Keys that came to a server behind the sweep's back would stay for ever.
        if matches!(*progress, Sweep::At { server, .. } if server == link.connections().len())
            && !link.is_settled().await?
        {
            *progress = Sweep::At { server: 0, cursor: 0 };
            tokio::time::sleep(UNSETTLED_PAUSE).await;
        }
    }
    Ok(())
}

pub(crate) async fn scan(
    server: &Connection,
    cursor: u64,
    pattern: &str,
) -> Result<(u64, Vec<Vec<u8>>), Failure> {
    let mut command = redis::cmd("SCAN");
    command.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SCAN_COUNT);
    let reply = server.run(&command).await?;
    redis::from_redis_value(reply.clone()).map_err(|_| Failure::unexpected_reply("SCAN", &reply))
}

pub(crate) async fn shared_with_another_store(
    link: &Link,
    names: &Names,
    prefix: &str,
) -> Result<bool, Failure> {
    let pattern = format!("{EPOCH_KEYS}*");
    for server in link.connections() {
        let mut cursor = 0;
        loop {
            let (next, keys) = scan(server, cursor, &pattern).await?;
            if let Some(key) = keys.iter().find(|key| names.is_other_store(key, prefix)) {
                let key = String::from_utf8_lossy(key);
                tracing::warn!(%key, "mirror: another store writes to the same place: stale keys stay; give each store a prefix");
                return Ok(true);
            }
            if next == 0 {
                break;
            }
            cursor = next;
        }
    }
    Ok(false)
}

/// Those whose triple the store does not have.
pub(crate) async fn absent<T: Send + 'static>(
    source: &Arc<dyn RebuildSource>,
    keys: Vec<(T, TripleHash)>,
) -> Result<Vec<(T, TripleHash)>, Failure> {
    if keys.is_empty() {
        return Ok(keys);
    }
    source::ask(source, move |source| {
        let hashes: Vec<_> = keys.iter().map(|(_, hash)| *hash).collect();
        let held = source.holds(&hashes)?;
        Ok(keys.into_iter().zip(held).filter(|(_, held)| !held).map(|(key, _)| key).collect())
    })
    .await
}

/// Removes those keys whose value is a triple of that hash; returns how many. A command for each key: keys
/// of a cluster may not go together.
async fn remove_own(server: &Connection, keys: &[(Vec<u8>, TripleHash)]) -> Result<u64, Failure> {
    let mut remove = Pipeline::new();
    let mut unread: Vec<_> = keys.iter().collect();
    for (n, forms) in FORMS.iter().enumerate() {
        if unread.is_empty() {
            break;
        }
        let mut read = Pipeline::with_capacity(unread.len());
        for (key, _) in &unread {
            read.add_command(forms[0].read(key));
        }
        let mut of_other_type = Vec::new();
        for (entry, value) in unread.into_iter().zip(server.send(&read).await?) {
            let (key, hash) = entry;
            if let Value::ServerError(error) = &value {
                let failure = Failure::from_server(error);
                if is_wrong_type(error) {
                    of_other_type.push(entry);
                } else if n == 0 || !failure.is_forbidden {
                    // It hides what is there. A form that cannot be read is not written either.
                    return Err(failure.at(&server.address));
                }
            } else if forms
                .iter()
                .any(|form| form.triple(&value).is_some_and(|triple| triple.hash() == *hash))
            {
                remove.cmd("UNLINK").arg(key);
            }
        }
        unread = of_other_type;
    }
    if remove.is_empty() {
        return Ok(0);
    }
    let mut count = 0;
    for reply in server.send(&remove).await? {
        match reply {
            Value::ServerError(error) => return Err(Failure::from_server(&error)),
            _ => count += 1,
        }
    }
    Ok(count)
}

/// The triple hash that a key is made of.
pub(crate) fn hash_of_key(key: &[u8], prefix: &str) -> Option<TripleHash> {
    let hex = std::str::from_utf8(key.strip_prefix(prefix.as_bytes())?).ok()?;
    TripleHash::parse(hex).filter(|hash| hash.to_hex() == hex)
}

/// The pattern of `SCAN` for the keys of that prefix.
pub(crate) fn pattern_of(prefix: &str) -> String {
    format!("{}*", glob_escaped(prefix))
}

/// A prefix as a pattern of `SCAN` that matches only itself.
fn glob_escaped(prefix: &str) -> String {
    let special = |c: char| matches!(c, '*' | '?' | '[' | ']' | '\\' | '^' | '-');
    prefix.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cidstore_types::{Cid, Triple};

    #[test]
    fn only_own_keys_are_recognized() {
        let cid = |low| Cid::from_lanes([u64::MAX, 1, 2, low]);
        let triple = Triple::new(cid(1), cid(2), cid(3));
        let hash = triple.hash();
        let key = |prefix: &str| format!("{prefix}{hash}").into_bytes();
        assert_eq!(hash_of_key(&key("a*:"), "a*:"), Some(hash));
        assert_eq!(hash_of_key(&key(""), ""), Some(hash));
        assert_eq!(hash_of_key(&key("b:"), "a*:"), None);
        assert_eq!(hash_of_key(&key("").to_ascii_uppercase(), ""), None);
        assert_eq!(hash_of_key(b"cidstore:mirror:x", ""), None);
        assert_eq!(glob_escaped("a*[b]:"), r"a\*\[b\]:");
    }
}
