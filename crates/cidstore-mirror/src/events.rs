//! Announcing mutations on Redis: as entries of a stream, or to whoever subscribes just then.
//!
//! Entries are added by a script, some at a time: only where the stream has the one before the first, and
//! without those that it has. So an entry that was refused (`OOM`) is never passed over by the next one,
//! which would close the stream to it for ever, and what is sent again changes nothing. What the log cannot
//! tell any more is told by an entry of type `resync`.

use crate::config::ConfigError;
use crate::connect::text;
use crate::encode::{ARGUMENT_OVERHEAD_BYTES, COMMAND_OVERHEAD_BYTES};
use crate::failure::{Category, Failure};
use crate::link::Link;
use crate::names::EPOCH_KEYS;
use cidstore_proto::{Encoding, Notification, VERSION, encode_notification};
use cidstore_types::{Op, Seq, Triple, TripleHash};
use redis::{Cmd, ServerError, Value};

/// Most bytes of the key or channel.
const KEY_BYTES_MAX: usize = 256;
/// Entries that one script adds. Redis does nothing else meanwhile: some 0.2 ms.
const ENTRIES_AT_ONCE: u32 = 64;
/// Error code of the script where the stream misses what comes before.
pub(crate) const GAP: &str = "CIDSTOREGAP";
/// KEYS: the stream. ARGV: the seq that has to be there, the stream's length, the store; of each entry its
/// seq, type, s, p, o and triple hash.
const ADD: &str = "\
local top = 0
local info = redis.pcall('XINFO', 'STREAM', KEYS[1])
if info.err then
  if not string.find(info.err, 'no such key', 1, true) then return info end
else
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then top = tonumber(string.match(info[i + 1], '^%d+')) end
  end
end
if top < tonumber(ARGV[1]) then return redis.error_reply('CIDSTOREGAP the stream ends with ' .. string.format('%.0f', top)) end
for i = 4, #ARGV, 6 do
  if tonumber(ARGV[i]) > top then
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], ARGV[i] .. '-0', 'type', ARGV[i + 1], 'seq', ARGV[i],
      's', ARGV[i + 2], 'p', ARGV[i + 3], 'o', ARGV[i + 4], 'triple_hash', ARGV[i + 5], 'store', ARGV[3])
  end
end
return top";

/// How mutations are announced on Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Announcing {
    /// Not at all.
    #[default]
    None,
    /// `PUBLISH`: who does not listen just then misses it.
    Publish,
    /// `XADD`: entries stay until the stream is too long.
    Stream,
}

/// Settings of what is announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Events {
    /// How.
    pub announcing: Announcing,
    /// The stream's key, or the channel: 1 to 256 bytes without spaces or control characters.
    pub key: String,
    /// About how many entries the stream keeps, at least; from 1.
    pub stream_maxlen: u64,
}

impl Default for Events {
    fn default() -> Self {
        Self { announcing: Announcing::None, key: "cidstore:events".into(), stream_maxlen: 1_000_000 }
    }
}

impl Events {
    /// Refuses a key that is another's, and a stream that keeps nothing.
    pub(crate) fn check(&self, is_triples: impl Fn(&[u8]) -> bool) -> Result<(), ConfigError> {
        if self.announcing == Announcing::None {
            return Ok(());
        }
        let key = &self.key;
        let is_text =
            (1..=KEY_BYTES_MAX).contains(&key.len()) && !key.chars().any(|c| c.is_control() || c == ' ');
        if !is_text || key.starts_with(EPOCH_KEYS) || is_triples(key.as_bytes()) {
            let expected = format!(
                "1 to {KEY_BYTES_MAX} bytes without spaces or control characters, and no key of a triple, a set or the mirror itself"
            );
            return Err(ConfigError::new("events_key", format!("{key:?}"), expected));
        }
        if self.announcing == Announcing::Stream && self.stream_maxlen == 0 {
            return Err(ConfigError::new("stream_maxlen", "0", "at least 1"));
        }
        Ok(())
    }
}

/// A command that announces, and what has to be known of it.
pub(crate) struct Announcement {
    /// The first row of the chunk that it is about.
    pub row: u32,
    pub command: Cmd,
    pub bytes: usize,
}

/// Makes the commands that announce rows.
pub(crate) struct Announcer {
    events: Events,
    store: String,
    /// What is not newer was published before.
    published: Seq,
    /// Entries that wait for more, and how many.
    waiting: Option<(Announcement, u32)>,
}

impl Announcer {
    /// `None`, where nothing is announced. `published`: up to there subscribers were told.
    pub fn new(events: &Events, store: &str, published: Seq) -> Option<Self> {
        let made = || Self { events: events.clone(), store: store.to_owned(), published, waiting: None };
        (events.announcing != Announcing::None).then(made)
    }

    pub fn key(&self) -> &[u8] {
        self.events.key.as_bytes()
    }

    /// Announces a row of a chunk. The seqs of rows ascend without gaps until [`Self::rest`].
    pub fn row(
        &mut self,
        row: u32,
        seq: Seq,
        op: Op,
        triple: Triple,
        hash: &TripleHash,
    ) -> Option<Announcement> {
        if self.events.announcing == Announcing::Publish {
            return (seq > self.published).then(|| publish(&self.events.key, row, seq, op, triple));
        }
        let (announcement, count) =
            self.waiting.get_or_insert_with(|| (begin(&self.events, &self.store, row, seq), 0));
        let kind = match op {
            Op::Insert => "insert",
            Op::Delete => "delete",
        };
        let [s, p, o] = [triple.s(), triple.p(), triple.o()].map(|cid| cid.to_string());
        for word in [&*seq.to_string(), kind, &s, &p, &o, &hash.to_hex()] {
            announcement.command.arg(word);
            announcement.bytes += word.len() + ARGUMENT_OVERHEAD_BYTES;
        }
        *count += 1;
        if *count == ENTRIES_AT_ONCE { self.rest() } else { None }
    }

    /// What was not handed out yet, at the end of a chunk.
    pub fn rest(&mut self) -> Option<Announcement> {
        self.waiting.take().map(|(announcement, _)| announcement)
    }
}

fn begin(events: &Events, store: &str, row: u32, seq: Seq) -> Announcement {
    let mut command = redis::cmd("EVAL");
    command.arg(ADD).arg(1).arg(&events.key).arg(seq - 1).arg(events.stream_maxlen).arg(store);
    let bytes = ADD.len() + events.key.len() + store.len() + 4 * COMMAND_OVERHEAD_BYTES;
    Announcement { row, command, bytes }
}

/// One message for each triple, since what is sent again begins anywhere within a batch.
fn publish(channel: &str, row: u32, seq: Seq, op: Op, triple: Triple) -> Announcement {
    let message = encode_notification(&Notification::One { op, triple, seq }, Encoding::Json);
    let bytes = channel.len() + message.len() + 2 * COMMAND_OVERHEAD_BYTES;
    Announcement { row, command: redis::cmd("PUBLISH").arg(channel).arg(message).take(), bytes }
}

/// Whether an error reply says that the stream misses what comes before.
pub(crate) fn is_gap(error: &ServerError) -> bool {
    error.code() == GAP
}

/// The newest seq that the stream has or had, 0 without one. `None`, where there is no stream to be.
///
/// # Errors
/// [`Failure`], also where the key holds something else, or the stream is another store's.
pub(crate) async fn newest(link: &mut Link, events: &Events, store: &str) -> Result<Option<Seq>, Failure> {
    if events.announcing != Announcing::Stream {
        return Ok(None);
    }
    let server = link.server_of(events.key.as_bytes());
    let reply = match link.send_after(server, redis::cmd("XINFO").arg("STREAM").arg(&events.key)).await {
        Err(failure) if failure.what.contains("no such key") => return Ok(Some(0)),
        Err(failure) if failure.what.contains("WRONGTYPE") => {
            let what = format!("{} holds something else than a stream", events.key);
            return Err(Failure::new(
                Category::Validation,
                what,
                "choose another redis_events_key, or remove what is there",
            ));
        }
        other => other?,
    };
    let unexpected = || Failure::unexpected_reply("XINFO STREAM", &reply);
    let last = member(&reply, "last-generated-id").and_then(text).ok_or_else(unexpected)?;
    let newest = last.split('-').next().and_then(|seq| seq.parse().ok()).ok_or_else(unexpected)?;
    if let Some(Value::Array(entry)) = member(&reply, "last-entry")
        && entry.get(1).and_then(|fields| member(fields, "store")).and_then(text) != Some(store)
    {
        return Err(Failure::new(
            Category::Validation,
            format!("the stream {} is not this store's", events.key),
            "choose another redis_events_key for each store, or remove what is there",
        ));
    }
    Ok(Some(newest))
}

/// A value by its name, in either form of the protocol.
fn member<'a>(pairs: &'a Value, name: &str) -> Option<&'a Value> {
    match pairs {
        Value::Array(pairs) => {
            pairs.as_chunks::<2>().0.iter().find(|pair| text(&pair[0]) == Some(name)).map(|pair| &pair[1])
        }
        Value::Map(pairs) => pairs.iter().find(|(key, _)| text(key) == Some(name)).map(|(_, value)| value),
        _ => None,
    }
}

/// Up to where those who follow were told, before Redis is rebuilt; `published`: the same of subscribers. `None`,
/// where nobody is. A stream that has what the log has lost begins anew, since numbers will be given again that
/// it has. Groups of consumers go with it, and so notice.
pub(crate) async fn told(
    link: &mut Link,
    events: &Events,
    store: &str,
    newest_sent: Seq,
    published: Seq,
) -> Result<Option<Seq>, Failure> {
    if events.announcing == Announcing::Publish {
        return Ok(Some(published));
    }
    let newest = newest(link, events, store).await?;
    if newest.is_none_or(|newest| newest <= newest_sent) {
        return Ok(newest);
    }
    let key = &events.key;
    tracing::warn!(
        key,
        newest,
        log = newest_sent,
        "mirror: the stream has what the log has lost: it begins anew"
    );
    let server = link.server_of(key.as_bytes());
    link.send_after(server, redis::cmd("UNLINK").arg(key)).await?;
    Ok(Some(0))
}

/// Tells those who follow, before mutations after `seq` are announced, whether some up to it were not.
pub(crate) async fn resume(
    link: &mut Link,
    events: &Events,
    store: &str,
    seq: Seq,
    published: Seq,
) -> Result<(), Failure> {
    let told = match events.announcing {
        Announcing::None => return Ok(()),
        Announcing::Publish => published,
        Announcing::Stream => newest(link, events, store).await?.unwrap_or_default(),
    };
    if told >= seq {
        return Ok(());
    }
    let command = if events.announcing == Announcing::Publish {
        let message = format!(r#"{{"type":"resync","seq":{seq},"version":"{VERSION}"}}"#);
        redis::cmd("PUBLISH").arg(&events.key).arg(message).take()
    } else {
        let mut add = redis::cmd("XADD");
        add.arg(&events.key).arg("MAXLEN").arg("~").arg(events.stream_maxlen).arg(format!("{seq}-0"));
        add.arg(&["type", "resync", "seq", &seq.to_string(), "store", store]).take()
    };
    tracing::warn!(
        key = events.key,
        from = told + 1,
        to = seq,
        "mirror: these mutations are not announced one by one: what says resync stands for them"
    );
    link.send_after(link.server_of(events.key.as_bytes()), &command).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(announcing: Announcing) -> Events {
        Events { announcing, ..Events::default() }
    }

    fn words(command: &Cmd) -> Vec<String> {
        let simple = |arg| match arg {
            redis::Arg::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            _ => panic!("not a simple argument"),
        };
        command.args_iter().map(simple).collect()
    }

    #[test]
    fn entries_go_out_some_at_a_time_and_know_what_comes_before() {
        let mut announcer = Announcer::new(&events(Announcing::Stream), "me", 0).unwrap();
        let triple = Triple([7; 96]);
        let mut made = Vec::new();
        for n in 0..ENTRIES_AT_ONCE + 2 {
            made.extend(announcer.row(n, Seq::from(n) + 10, Op::Insert, triple, &triple.hash()));
        }
        made.extend(announcer.rest());
        assert!(announcer.rest().is_none());
        let rows: Vec<_> = made.iter().map(|announcement| announcement.row).collect();
        assert_eq!(rows, [0, ENTRIES_AT_ONCE]);
        for announcement in &made {
            let packed = announcement.command.get_packed_command().len();
            assert!(packed <= announcement.bytes && announcement.bytes < 2 * packed);
        }
        let last = words(&made[1].command);
        assert_eq!(last[2..6], ["1", "cidstore:events", &(9 + ENTRIES_AT_ONCE).to_string(), "1000000"]);
        assert_eq!(last.len(), 7 + 2 * 6);
        assert_eq!((&*last[6], &*last[8], &*last[12]), ("me", "insert", &*triple.hash().to_hex()));
        assert!(Announcer::new(&events(Announcing::None), "me", 0).is_none());
    }

    #[test]
    fn what_was_published_is_not_published_again() {
        let mut announcer = Announcer::new(&events(Announcing::Publish), "me", 5).unwrap();
        let triple = Triple([7; 96]);
        let hash = triple.hash();
        assert!(announcer.row(0, 5, Op::Insert, triple, &hash).is_none());
        let made = announcer.row(1, 6, Op::Delete, triple, &hash).unwrap();
        assert_eq!(made.row, 1);
        let words = words(&made.command);
        assert_eq!(words[..2], ["PUBLISH", "cidstore:events"]);
        assert!(words[2].starts_with(r#"{"type":"delete","args":["E("#), "{words:?}");
        assert!(words[2].contains(r#""seq":6"#) && words[2].contains(&hash.to_hex()));
        assert!(announcer.rest().is_none());
    }

    #[test]
    fn keys_of_others_are_refused() {
        let check = |key: &str, announcing| {
            Events { key: key.into(), ..events(announcing) }.check(|key| key == b"triple")
        };
        for key in ["", "a b", "triple", "cidstore:mirror:x", &"k".repeat(257)] {
            assert_eq!(check(key, Announcing::Stream).unwrap_err().field, "events_key", "{key}");
            assert_eq!(check(key, Announcing::None), Ok(()));
        }
        assert_eq!(check("cidstore:events", Announcing::Publish), Ok(()));
        let endless = Events { stream_maxlen: 0, ..events(Announcing::Stream) };
        assert_eq!(endless.check(|_| false).unwrap_err().field, "stream_maxlen");
    }
}
