//! Requests with a reply, one at a time.

use crate::socket::Requester;
use crate::wire::{Answer, Ask, decode, encode};
use crate::{Changes, Config, Error, Refusal};
use cidstore_types::{Cid, Metadata, Op, Pattern, Seq, Triple, TripleHash};
use serde_json::Value;
use zeromq::Context;

/// What became of a mutation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Triples that are now durably present, or that are gone.
    pub count: u64,
    /// Number of the last of its mutations.
    pub seq: Seq,
}

/// How much of a query's result is wanted, and from where.
#[derive(Debug, Clone, Default)]
pub struct QueryOptions {
    /// Rows at most; the daemon has a limit of its own (100 000 unless configured otherwise).
    pub limit: u64,
    /// [`Page::cursor`] of the page before.
    pub cursor: Option<Vec<u8>>,
}

/// A part of a query's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In the order of the index that answered.
    pub rows: Vec<Triple>,
    /// What continues after the last row; `None` when there is no more.
    pub cursor: Option<Vec<u8>>,
    /// The state of the store that this page reflects.
    pub as_of: Seq,
}

/// What is wanted of the merging of run files: see [`Client::compact`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompactAction {
    /// To know how it is.
    Status,
    /// A compaction, of what is sealed.
    Start,
    /// That the one that was started does not go on.
    Cancel,
    /// That merging waits.
    Pause,
    /// That it goes on.
    Resume,
    /// That it reads and writes no more than so many bytes a second; 0 for no limit.
    Rate(u64),
}

/// What is wanted of the mirror to Redis: see [`Client::mirror`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MirrorAction {
    /// To know how it is.
    Status,
    /// That it writes everything anew.
    Rebuild,
    /// That store and Redis are compared.
    Verify {
        /// About so many triples and keys, 1 or more; `None` for all.
        sample: Option<u64>,
        /// Whether what differs is written anew.
        repair: bool,
    },
    /// That the comparison under way does not go on.
    Cancel,
}

/// A connection for requests.
pub struct Client {
    requester: Requester,
    request: Vec<u8>,
    requests: u64,
}

impl Client {
    /// Makes a client. The connection itself is made in the background: a daemon that is not there
    /// shows at the first request.
    ///
    /// # Errors
    /// [`Error::Socket`] when the endpoint is not one.
    pub fn connect(config: &Config) -> Result<Self, Error> {
        let requester = Requester::new(Context::new(), config)?;
        Ok(Self { requester, request: Vec::new(), requests: 0 })
    }

    /// Whom this client asks.
    pub fn endpoint(&self) -> &str {
        self.requester.endpoint()
    }

    fn protocol(&self, what: String) -> Error {
        Error::Protocol { endpoint: self.endpoint().to_owned(), what }
    }

    fn unexpected(&self, answer: &Answer, expected: &str) -> Error {
        self.protocol(format!("{answer:?} where {expected} was expected"))
    }

    fn ask(&mut self, ask: &Ask<'_>) -> Result<Answer, Error> {
        self.requests += 1;
        encode(ask, Some(self.requests), &mut self.request);
        let reply = self.requester.round_trip(&self.request)?;
        let (tag, answer) = decode(&reply, ask).map_err(|what| self.protocol(what))?;
        match answer {
            // A refusal of something so broken that its id could not be read has none.
            Err(refusal) => Err(Error::Refused(refusal)),
            Ok(_) if tag != Some(self.requests) => {
                Err(self.protocol(format!("a reply to request {tag:?}, expected {}", self.requests)))
            }
            Ok(answer) => Ok(answer),
        }
    }

    fn mutate(&mut self, ask: &Ask<'_>) -> Result<Stored, Error> {
        match self.ask(ask)? {
            Answer::Stored(stored) => Ok(stored),
            other => Err(self.unexpected(&other, "the outcome of a mutation")),
        }
    }

    fn map(&mut self, ask: &Ask<'_>) -> Result<Value, Error> {
        match self.ask(ask)? {
            Answer::Map(map) => Ok(map),
            other => Err(self.unexpected(&other, "a map")),
        }
    }

    /// The daemon's time, in seconds since the epoch.
    ///
    /// # Errors
    /// As every request: [`Error::NoReply`], [`Error::Refused`], [`Error::Protocol`].
    pub fn ping(&mut self) -> Result<f64, Error> {
        match self.ask(&Ask::Ping)? {
            Answer::Time(time) => Ok(time),
            other => Err(self.unexpected(&other, "a time")),
        }
    }

    /// Inserts one triple. `created_at`, in seconds since the epoch, is the time of receipt if absent.
    ///
    /// # Errors
    /// As every request.
    pub fn insert(
        &mut self,
        triple: &Triple,
        metadata: &Metadata,
        created_at: Option<f64>,
    ) -> Result<Stored, Error> {
        self.mutate(&Ask::Insert { triple, metadata, created_at })
    }

    /// Inserts or deletes exactly these triples, all or none.
    ///
    /// # Errors
    /// As every request.
    pub fn batch(&mut self, op: Op, triples: &[Triple]) -> Result<Stored, Error> {
        self.mutate(&Ask::Batch { op, triples })
    }

    /// Deletes every triple that matches.
    ///
    /// # Errors
    /// As every request; a pattern without a bound part is refused.
    pub fn delete(&mut self, pattern: &Pattern) -> Result<Stored, Error> {
        self.mutate(&Ask::Delete(pattern))
    }

    /// One page of the triples that match.
    ///
    /// # Errors
    /// As every request.
    pub fn query(&mut self, pattern: &Pattern, options: &QueryOptions) -> Result<Page, Error> {
        match self.ask(&Ask::Query { pattern, limit: options.limit, cursor: options.cursor.as_deref() })? {
            Answer::Page(page) => Ok(page),
            other => Err(self.unexpected(&other, "results")),
        }
    }

    /// How many triples match, and as of which seq.
    ///
    /// # Errors
    /// As every request.
    pub fn count(&mut self, pattern: &Pattern) -> Result<(u64, Seq), Error> {
        match self.ask(&Ask::Count(pattern))? {
            Answer::Count { count, as_of } => Ok((count, as_of)),
            other => Err(self.unexpected(&other, "a count")),
        }
    }

    /// The last seq that queries see.
    ///
    /// # Errors
    /// As every request.
    pub fn last_seq(&mut self) -> Result<Seq, Error> {
        // The cheapest question whose answer carries it: a triple that hardly anyone has.
        let pattern = Pattern { s: Some(Cid::MAX), p: Some(Cid::MAX), o: Some(Cid::MAX) };
        self.count(&pattern).map(|(_, as_of)| as_of)
    }

    /// What is known about a triple, as JSON; `None` if it is not there.
    ///
    /// # Errors
    /// As every request.
    pub fn get(&mut self, hash: &TripleHash) -> Result<Option<Value>, Error> {
        match self.map(&Ask::Get(hash)) {
            Ok(map) => Ok(Some(map)),
            Err(Error::Refused(Refusal { code: 404, .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The log after `since`, at most `limit` changes.
    ///
    /// # Errors
    /// As every request; [`Error::Refused`] with code 410 when that part of the log is gone.
    pub fn changes(&mut self, since: Seq, limit: u64) -> Result<Changes, Error> {
        match self.ask(&Ask::Changes { since, limit })? {
            Answer::Changes(changes) => Ok(changes),
            other => Err(self.unexpected(&other, "changes")),
        }
    }

    /// Counters, sizes and lags.
    ///
    /// # Errors
    /// As every request.
    pub fn stats(&mut self) -> Result<Value, Error> {
        self.map(&Ask::Stats)
    }

    /// The reply to `metrics`.
    ///
    /// # Errors
    /// As every request.
    pub fn metrics(&mut self) -> Result<Value, Error> {
        self.map(&Ask::Metrics)
    }

    /// Tells the daemon what is wanted of the merging of its run files; answers how it is, at once
    /// (`proto/README.md` names what is in the answer).
    ///
    /// # Errors
    /// As every request.
    pub fn compact(&mut self, action: CompactAction) -> Result<Value, Error> {
        self.map(&Ask::Compact(action))
    }

    /// Tells the daemon what is wanted of its mirror; answers how that is, at once (`proto/README.md` names what
    /// is in the answer).
    ///
    /// # Errors
    /// As every request; 404 where no mirror is configured.
    pub fn mirror(&mut self, action: MirrorAction) -> Result<Value, Error> {
        self.map(&Ask::Mirror(action))
    }

    /// Seals everything so far into HDF5; answers the seq up to which it is sealed.
    ///
    /// # Errors
    /// As every request. It may take longer than a usual timeout when much is to be sealed.
    pub fn checkpoint(&mut self) -> Result<Seq, Error> {
        match self.ask(&Ask::Checkpoint)? {
            Answer::Sealed(seq) => Ok(seq),
            other => Err(self.unexpected(&other, "the seq of a checkpoint")),
        }
    }
}
