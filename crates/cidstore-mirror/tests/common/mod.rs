//! A real redis-server, a log, a model of the store, and a line between that can be disturbed.

#![allow(dead_code, missing_docs, unreachable_pub, clippy::missing_errors_doc)]

pub mod cluster;
pub mod proxy;
pub mod server;

use cidstore_disk::RealDisk;
use cidstore_mirror::{
    Found, Mirror, MirrorConfig, MirrorState, Parts, RebuildPage, RebuildSource, Report, Sets, SourceError,
    State,
};
use cidstore_types::{Batch, Cid, Op, Seq, Triple, TripleHash, TripleRecord};
use cidstore_wal::{Options, Wal};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Long enough for the slowest machine; waits end when their condition holds.
pub const DEADLINE: Duration = Duration::from_secs(90);
pub const STORE_ID: [u8; 16] = *b"mirror-test-0001";

/// The store as it should be.
#[derive(Default)]
pub struct Model {
    rows: BTreeMap<Triple, TripleRecord>,
    triples: BTreeMap<TripleHash, Triple>,
    as_of: Seq,
}

pub struct ModelSource(pub Mutex<Model>);

impl RebuildSource for ModelSource {
    fn page(&self, after: Option<&Triple>, limit: usize) -> Result<RebuildPage, SourceError> {
        let model = self.0.lock().unwrap();
        let range = after.map_or((Unbounded, Unbounded), |after| (Excluded(after), Unbounded));
        let records = model.rows.range(range).map(|(_, record)| record.clone()).take(limit).collect();
        Ok(RebuildPage { records, as_of: model.as_of })
    }

    fn holds(&self, hashes: &[TripleHash]) -> Result<Vec<bool>, SourceError> {
        let model = self.0.lock().unwrap();
        Ok(hashes.iter().map(|hash| model.triples.contains_key(hash)).collect())
    }

    fn get(&self, hashes: &[TripleHash]) -> Result<Found, SourceError> {
        let model = self.0.lock().unwrap();
        let record = |hash| model.rows.get(model.triples.get(hash)?).cloned();
        Ok(Found { records: hashes.iter().map(record).collect(), as_of: model.as_of })
    }

    fn rows_about(&self) -> u64 {
        self.0.lock().unwrap().rows.len() as u64
    }
}

struct Running {
    shutdown: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// A store's log with a mirror that follows it.
pub struct Rig {
    pub dir: tempfile::TempDir,
    pub wal: Wal,
    pub model: Arc<ModelSource>,
    pub state: Arc<MirrorState>,
    appended: watch::Sender<Seq>,
    config: MirrorConfig,
    running: Option<Running>,
}

/// Settings with times that suit tests.
pub fn config(port: u16) -> MirrorConfig {
    MirrorConfig {
        host: Some("127.0.0.1".into()),
        port,
        connect_timeout: Duration::from_secs(1),
        response_timeout: Duration::from_secs(1),
        health_interval: Duration::from_millis(200),
        backoff_max: Duration::from_millis(300),
        ..MirrorConfig::default()
    }
}

pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

pub fn triple(n: u64) -> Triple {
    let cid = |low| Cid::from_two_lanes([n / 7, low]);
    Triple::new(cid(n), cid(n % 5), cid(n % 11))
}

impl Rig {
    pub fn new(config: MirrorConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Small segments, so that parts of the log can be dropped.
        let options = Options { segment_bytes: 64 * 1024, ..Options::default() };
        let (wal, _) = Wal::open(Arc::new(RealDisk), &dir.path().join("wal"), STORE_ID, options).unwrap();
        let mut rig = Self {
            dir,
            wal,
            model: Arc::new(ModelSource(Mutex::default())),
            state: Arc::new(MirrorState::new()),
            appended: watch::Sender::new(0),
            config,
            running: None,
        };
        rig.start();
        rig
    }

    pub fn cursor_path(&self) -> PathBuf {
        self.dir.path().join("mirror.cursor")
    }

    /// Begins to mirror, as after a start of the daemon.
    pub fn start(&mut self) {
        self.state = Arc::new(MirrorState::new());
        let parts = Parts {
            disk: Arc::new(RealDisk),
            cursor: self.cursor_path(),
            store_id: STORE_ID,
            log: self.wal.log(),
            source: Arc::clone(&self.model) as Arc<dyn RebuildSource>,
            state: Arc::clone(&self.state),
        };
        let mirror = Mirror::open(self.config.clone(), parts).unwrap().expect("a mirror is configured");
        let (shutdown, stop) = watch::channel(false);
        let task = tokio::spawn(mirror.run(self.appended.subscribe(), stop));
        self.running = Some(Running { shutdown, task });
    }

    /// Stops the mirror as a shutdown of the daemon does.
    pub async fn stop(&mut self) {
        let Running { shutdown, task } = self.running.take().expect("it runs");
        shutdown.send_replace(true);
        tokio::time::timeout(DEADLINE, task).await.expect("it stops").unwrap();
        assert_eq!(self.state.state(), State::Off);
    }

    /// Ends the mirror as a kill does: nothing is saved.
    pub async fn kill(&mut self) {
        let Running { task, .. } = self.running.take().expect("it runs");
        task.abort();
        let _ = task.await;
    }

    pub fn change_config(&mut self, change: impl FnOnce(&mut MirrorConfig)) {
        change(&mut self.config);
    }

    /// Appends a batch and makes it visible, in the log and in the model.
    pub fn commit(&mut self, batch: &Batch) {
        let mut payload = Vec::new();
        batch.encode_into(batch.rows.len() as u64, &mut payload);
        self.wal.append(batch.rows.len() as u32, &payload).unwrap();
        let last = self.wal.flush().unwrap();
        {
            let mut model = self.model.0.lock().unwrap();
            let read = cidstore_types::BatchRef::decode(&payload).unwrap();
            for row in read.rows() {
                match batch.op {
                    Op::Insert => {
                        let record = TripleRecord::new(row.triple, row.created_at, row.metadata);
                        model.rows.insert(row.triple, record);
                        model.triples.insert(row.triple.hash(), row.triple);
                    }
                    Op::Delete => {
                        model.rows.remove(&row.triple);
                        model.triples.remove(&row.triple.hash());
                    }
                }
            }
            model.as_of = last;
        }
        self.appended.send_replace(last);
    }

    pub fn insert(&mut self, numbers: impl IntoIterator<Item = u64>) {
        self.commit(&Batch::new(Op::Insert, now(), numbers.into_iter().map(triple).collect()));
    }

    pub fn delete(&mut self, numbers: impl IntoIterator<Item = u64>) {
        self.commit(&Batch::new(Op::Delete, now(), numbers.into_iter().map(triple).collect()));
    }

    /// Drops as much of the log as whole segments allow; at least something.
    pub fn drop_log(&mut self) {
        let filler = 1 << 40;
        while self.wal.log().first_seq() == 1 {
            // Triples that come and go again: the model does not grow.
            self.insert(filler..filler + 200);
            self.delete(filler..filler + 200);
            self.wal.remove_before(self.wal.last_seq()).unwrap();
        }
    }

    /// What Redis should hold: key and value of each triple.
    pub fn expected(&self) -> BTreeMap<String, String> {
        let model = self.model.0.lock().unwrap();
        let pair = |(triple, record): (&Triple, &TripleRecord)| {
            let hash = triple.hash();
            (format!("{}{hash}", self.config.prefix), record.to_json(&hash).to_string())
        };
        model.rows.iter().map(pair).collect()
    }

    /// The triples that the store has, with their keys in Redis.
    pub fn records(&self) -> BTreeMap<String, TripleRecord> {
        let model = self.model.0.lock().unwrap();
        let pair = |(triple, record): (&Triple, &TripleRecord)| {
            (format!("{}{}", self.config.prefix, triple.hash()), record.clone())
        };
        model.rows.iter().map(pair).collect()
    }

    /// Keys of the sets that are kept, with their members.
    fn expected_sets(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut sets = BTreeMap::<_, BTreeSet<_>>::new();
        let kinds = self.config.form.sets;
        for TripleRecord { triple, .. } in self.records().values() {
            let [s, p, o] = [triple.s(), triple.p(), triple.o()].map(|cid| cid.to_hex());
            let mut add = |mark, pair: [&str; 2]| {
                let key = format!("{}{mark}{}", self.config.prefix, pair.concat());
                sets.entry(key).or_default().insert(triple.hash().to_hex());
            };
            if matches!(kinds, Sets::Sp | Sets::Both) {
                add("sp:", [&s, &p]);
            }
            if matches!(kinds, Sets::Po | Sets::Both) {
                add("po:", [&p, &o]);
            }
        }
        sets
    }

    /// Waits until Redis holds exactly what it should, in the form that is configured.
    pub async fn until_in_form(&self, server: &server::Redis) {
        let begin = Instant::now();
        loop {
            self.until("nothing owed", |report| report.lag == 0).await;
            let wrong = self.difference(server);
            let Some(wrong) = wrong else { return };
            assert!(begin.elapsed() < DEADLINE, "{wrong}; {:?}", self.report());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What is not as it should be, in the form that is configured.
    fn difference(&self, server: &server::Redis) -> Option<String> {
        let mut connection = server.connection();
        let value = self.config.form.value;
        let (mut records, mut sets) = (self.records(), self.expected_sets());
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
        for key in keys {
            if key.starts_with("cidstore:") {
                continue;
            }
            if let Some(record) = records.remove(&key) {
                let reply = value.read(key.as_bytes()).query(&mut connection);
                if !reply.as_ref().is_ok_and(|reply| value.matches(reply, &record)) {
                    return Some(format!("{key} is {reply:?}, expected {record:?}"));
                }
            } else if let Some(expected) = sets.remove(&key) {
                let found: redis::RedisResult<BTreeSet<String>> =
                    redis::cmd("SMEMBERS").arg(&key).query(&mut connection);
                if found.as_ref() != Ok(&expected) {
                    return Some(format!("{key} is {found:?}, expected {expected:?}"));
                }
            } else {
                return Some(format!("{key} is there"));
            }
        }
        let missing = records.keys().chain(sets.keys()).next()?;
        Some(format!("{missing} is missing"))
    }

    pub fn report(&self) -> Report {
        self.state.report(self.wal.last_seq(), now())
    }

    pub async fn until(&self, what: &str, condition: impl Fn(&Report) -> bool) -> Report {
        let begin = Instant::now();
        loop {
            let report = self.report();
            if condition(&report) {
                return report;
            }
            assert!(begin.elapsed() < DEADLINE, "never: {what}; {report:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn until_live(&self) -> Report {
        self.until("live without lag", |report| report.state == State::Live && report.lag == 0).await
    }

    /// Waits until Redis holds exactly what it should, byte for byte.
    pub async fn until_equal(&self, server: &server::Redis) {
        let begin = Instant::now();
        let expected = self.expected();
        loop {
            self.until("nothing owed", |report| report.lag == 0).await;
            let found = server.contents();
            if found == expected {
                return;
            }
            if begin.elapsed() > DEADLINE {
                let missing = expected.keys().filter(|key| !found.contains_key(*key)).count();
                let foreign = found.keys().filter(|key| !expected.contains_key(*key)).count();
                let stale =
                    found.len() - foreign - found.iter().filter(|(k, v)| expected.get(*k) == Some(v)).count();
                panic!("{missing} keys missing, {foreign} too many, {stale} stale; {:?}", self.report());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
