//! Reading what the mirror has written, so that the daemon can answer from Redis, and counting there what several
//! daemons allow together.
//!
//! It has connections of its own: an answer that is late must not hold up the mirror, nor the other way round.
//! Nobody waits for them longer than the deadline. Whoever finds no connection goes on without Redis, while one
//! is made in the background; after a failure that is not tried again for a pause, which grows.
//!
//! What a server says of a triple counts only together with its epoch key, read just before: a server that has
//! lost data, or was behind when it took over, shows it there. See [`MirrorState::holds`](crate::MirrorState::holds)
//! for the other half.

use crate::chunk::Part;
use crate::config::{ConfigError, MirrorConfig, Target};
use crate::connect::{Connection, text};
use crate::failure::Failure;
use crate::form::ValueForm;
use crate::limit::{self, Verdict};
use crate::link::is_wrong_type;
use crate::names::Names;
use crate::pace::backoff;
use crate::servers::Servers;
use crate::slots::SlotMap;
use cidstore_types::{Seq, TripleHash, TripleRecord};
use futures_util::future::try_join_all;
use redis::Value;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Servers whose epoch keys stay behind for so long are asked for anew: others may have taken their place.
const BEHIND_MAX: Duration = Duration::from_secs(5);

/// Why Redis did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAnswer {
    /// Nothing was asked: there is no connection now.
    NotConnected,
    /// It does not have everything that it would have to.
    Behind,
    /// It failed, or took too long.
    Failed,
}

/// Asks Redis. Clones use the same connections.
#[derive(Clone)]
pub struct Reader {
    inner: Arc<Inner>,
}

struct Inner {
    target: Target,
    names: Names,
    prefix: String,
    form: ValueForm,
    deadline: Duration,
    backoff_max: Duration,
    state: Mutex<State>,
}

struct State {
    link: Link,
    /// Failures since it last worked; the first of them was told.
    failures: u32,
    /// It was told that Redis does not allow something.
    told_forbidden: bool,
}

enum Link {
    /// Not before then.
    Closed(Instant),
    Opening,
    Open(Arc<Open>),
}

/// Connections that have answered.
struct Open {
    connections: Vec<Connection>,
    slots: Option<Arc<SlotMap>>,
    /// For each connection, the key that tells how far its server is.
    epoch_keys: Vec<String>,
    /// Since when servers have been behind.
    behind_since: Mutex<Option<Instant>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is one assignment: a panic elsewhere leaves nothing half-done here.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Open {
    fn server_of(&self, key: &[u8]) -> usize {
        self.slots.as_ref().map_or(0, |slots| slots.node_of(key))
    }

    async fn connect(inner: &Inner, failures: u32) -> Result<Self, Failure> {
        let Servers { connections, slots } = Servers::connect(&inner.target, &[], failures).await?;
        let keys = inner.names.epoch_keys(slots.as_deref());
        let key_of = |server| keys.iter().find(|(at, _)| *at == server).map(|(_, key)| key.clone());
        // Each primary has one: those without any of the tags have one more.
        let epoch_keys = (0..connections.len()).map(|server| key_of(server).unwrap_or_default()).collect();
        let open = Self { connections, slots, epoch_keys, behind_since: Mutex::default() };
        // A server that hangs accepts connections all the same.
        let asked = open.connections.iter().zip(&open.epoch_keys);
        try_join_all(asked.map(|(connection, key)| async move {
            let answer = connection.run(redis::cmd("GET").arg(key)).await;
            answer.map_err(|failure| failure.at(&connection.address))
        }))
        .await?;
        Ok(open)
    }

    /// The values of keys, and what each server says in its epoch key, read before them.
    async fn values(
        &self,
        form: ValueForm,
        names: &Names,
        keys: &[Vec<u8>],
        needed: Seq,
    ) -> Result<Result<Vec<Value>, NoAnswer>, Failure> {
        let mut parts: Vec<Part> = Vec::new();
        for (n, key) in keys.iter().enumerate() {
            let server = self.server_of(key);
            let part = Part::of(&mut parts, server);
            if part.rows.is_empty() {
                part.add(u32::MAX, redis::cmd("GET").arg(&self.epoch_keys[server]).take());
            }
            part.add(n as u32, form.read(key));
        }
        let send = async |part: &Part| {
            let connection = &self.connections[part.server];
            connection.send(&part.pipeline).await.map_err(|failure| failure.at(&connection.address))
        };
        let mut values = vec![Value::Nil; keys.len()];
        for (part, replies) in parts.iter().zip(try_join_all(parts.iter().map(send)).await?) {
            for (row, reply) in part.rows.iter().zip(replies) {
                match reply {
                    // Whoever made it so: it is no triple.
                    Value::ServerError(error) if is_wrong_type(&error) => {}
                    Value::ServerError(error) => {
                        return Err(Failure::from_server(&error).at(&self.connections[part.server].address));
                    }
                    reply if *row == u32::MAX => {
                        let epoch = text(&reply).and_then(|text| names.read_epoch(text));
                        if epoch.is_none_or(|epoch| epoch.seq < needed || !epoch.form_fits) {
                            return Ok(Err(NoAnswer::Behind));
                        }
                    }
                    reply => values[*row as usize] = reply,
                }
            }
        }
        Ok(Ok(values))
    }
}

impl Reader {
    /// What reads the Redis of a mirror, of which no answer is waited for longer than `deadline`. `None` when no
    /// mirror is asked for, or it lets older values stay. Connects when it is asked for something, on the runtime that asks.
    ///
    /// # Errors
    /// As [`MirrorConfig::target`].
    pub fn new(
        config: &MirrorConfig,
        store_id: [u8; 16],
        deadline: Duration,
    ) -> Result<Option<Self>, ConfigError> {
        let Some(target) = config.target()? else { return Ok(None) };
        if !config.form.overwrite {
            // What is there may be older than what the store has.
            return Ok(None);
        }
        let names = Names::new(store_id, target.db, &config.prefix, &config.form);
        let state =
            Mutex::new(State { link: Link::Closed(Instant::now()), failures: 0, told_forbidden: false });
        let (prefix, backoff_max) = (config.prefix.clone(), config.backoff_max);
        Ok(Some(Self {
            inner: Arc::new(Inner {
                target,
                names,
                prefix,
                form: config.form.value,
                deadline,
                backoff_max,
                state,
            }),
        }))
    }

    /// The triples of these hashes, if Redis has every mutation up to `needed`; each `None` where Redis has none, or
    /// has something under that key that is not it.
    ///
    /// # Errors
    /// [`NoAnswer`], within the deadline.
    pub async fn get(
        &self,
        hashes: &[TripleHash],
        needed: Seq,
    ) -> Result<Vec<Option<TripleRecord>>, NoAnswer> {
        let open = self.connection().ok_or(NoAnswer::NotConnected)?;
        let key = |hash: &TripleHash| format!("{}{hash}", self.inner.prefix).into_bytes();
        let keys: Vec<_> = hashes.iter().map(key).collect();
        match self.within(&open, open.values(self.inner.form, &self.inner.names, &keys, needed)).await? {
            Ok(values) => {
                *locked(&open.behind_since) = None;
                Ok(values
                    .iter()
                    .zip(hashes)
                    .map(|(value, hash)| triple(self.inner.form, value, hash))
                    .collect())
            }
            Err(why) => {
                let since = *locked(&open.behind_since).get_or_insert_with(Instant::now);
                if since.elapsed() > BEHIND_MAX {
                    self.close(&open, Instant::now());
                }
                Err(why)
            }
        }
    }

    /// Counts one more request of a client, unless `most` of them came within `window`, whichever daemon they
    /// came to.
    ///
    /// # Errors
    /// [`NoAnswer`], within the deadline.
    pub async fn count(&self, client: &str, most: u64, window: Duration) -> Result<Verdict, NoAnswer> {
        let open = self.connection().ok_or(NoAnswer::NotConnected)?;
        let key = limit::key(client);
        let connection = &open.connections[open.server_of(key.as_bytes())];
        let count = async {
            let counted = limit::count(connection, &key, most, window).await;
            counted.map_err(|failure| failure.at(&connection.address))
        };
        self.within(&open, count).await
    }

    async fn within<T>(
        &self,
        open: &Arc<Open>,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, NoAnswer> {
        let done = timeout(self.inner.deadline, work).await.unwrap_or_else(|_| {
            Err(Failure::network(format!("no answer to a read within {:?}", self.inner.deadline)))
        });
        match done {
            Ok(done) => {
                self.works();
                Ok(done)
            }
            Err(failure) if failure.is_forbidden => {
                // The connection is well, and of use for what is allowed.
                if !std::mem::replace(&mut locked(&self.inner.state).told_forbidden, true) {
                    tracing::warn!("answers come without Redis, which does not let this user: {failure}");
                }
                Err(NoAnswer::Failed)
            }
            Err(failure) => {
                self.failed(Some(open), &failure);
                Err(NoAnswer::Failed)
            }
        }
    }

    /// The connections; where there are none they are made in the background, if it is time for that.
    fn connection(&self) -> Option<Arc<Open>> {
        let mut state = locked(&self.inner.state);
        match &state.link {
            Link::Open(open) => return Some(Arc::clone(open)),
            Link::Closed(until) if Instant::now() >= *until => {}
            _ => return None,
        }
        state.link = Link::Opening;
        let (reader, failures) = (self.clone(), state.failures);
        drop(state);
        tokio::spawn(async move {
            let inner = &reader.inner;
            let opened = timeout(inner.target.connect_timeout, Open::connect(inner, failures)).await;
            let silent = |_| {
                Err(Failure::network(format!(
                    "no answer to a first read within {:?}",
                    inner.target.connect_timeout
                )))
            };
            match opened.unwrap_or_else(silent) {
                Ok(open) => locked(&inner.state).link = Link::Open(Arc::new(open)),
                Err(failure) => reader.failed(None, &failure),
            }
        });
        None
    }

    /// Puts connections away, unless others have taken their place.
    fn close(&self, open: &Arc<Open>, until: Instant) -> bool {
        let mut state = locked(&self.inner.state);
        let is_current = matches!(&state.link, Link::Open(current) if Arc::ptr_eq(current, open));
        if is_current {
            state.link = Link::Closed(until);
        }
        is_current
    }

    fn works(&self) {
        let mut state = locked(&self.inner.state);
        if std::mem::take(&mut state.failures) > 0 {
            drop(state);
            tracing::info!("answers come from Redis, too, again");
        }
    }

    /// Many may find the same failure, of which the first counts.
    fn failed(&self, open: Option<&Arc<Open>>, failure: &Failure) {
        let failures = locked(&self.inner.state).failures.saturating_add(1);
        let until = Instant::now() + backoff(failures, self.inner.backoff_max, fastrand::f64());
        let counts = if let Some(open) = open {
            self.close(open, until)
        } else {
            locked(&self.inner.state).link = Link::Closed(until);
            true
        };
        if counts {
            locked(&self.inner.state).failures = failures;
            if failures == 1 {
                tracing::warn!(
                    category = failure.category.as_str(),
                    "answers come without Redis for now: {failure}"
                );
            }
        }
    }
}

/// The triple that a value is, if it has this hash.
fn triple(form: ValueForm, value: &Value, hash: &TripleHash) -> Option<TripleRecord> {
    form.decode(value).filter(|record| record.triple.hash() == *hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cidstore_types::{Cid, Triple};

    #[test]
    fn only_a_triple_of_that_hash_is_one() {
        let [one, two] = [1, 2].map(|n| Triple::new(Cid::ZERO, Cid::ZERO, Cid::from_two_lanes([0, n])));
        let record = TripleRecord::new(one, 1.5, None);
        let value = Value::BulkString(record.to_json(&one.hash()).to_string().into());
        assert_eq!(triple(ValueForm::Json, &value, &one.hash()).map(|found| found.triple), Some(one));
        assert_eq!(triple(ValueForm::Json, &value, &two.hash()), None);
        for other in [Value::Nil, Value::BulkString(b"{}".to_vec()), Value::Int(1)] {
            assert_eq!(triple(ValueForm::Json, &other, &one.hash()), None);
        }
    }
}
