//! What the daemon says of itself: counts, and `stats`.

use crate::wire;
use anyhow::{Context as _, Result};
use cidstore_types::Triple;
use serde::Deserialize;
use serde_json::Value;
use zeromq::{Context, Socket, SocketType};

/// A REQ connection for questions about the store.
pub struct Asker {
    socket: Socket,
}

/// Some of the counters of `stats`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Last visible mutation.
    pub seq: u64,
    /// Last mutation that is in run files.
    pub sealed_seq: u64,
    /// Rows written into run files since the start of the daemon.
    pub rows_written: u64,
    /// Bytes of run files.
    pub file_bytes: u64,
    /// Run files.
    pub file_runs: u64,
}

impl Asker {
    /// Connects.
    ///
    /// # Errors
    /// Of libzmq.
    pub fn connect(endpoint: &str) -> Result<Self> {
        Ok(Self { socket: wire::connect(&Context::new(), SocketType::REQ, endpoint)? })
    }

    /// One command without fields.
    fn command(&self, name: &str) -> Result<Value> {
        let reply = wire::ask(&self.socket, format!(r#"{{"command":"{name}"}}"#).as_bytes())?;
        wire::expect_ok(&reply)?;
        serde_json::from_slice(&reply).with_context(|| format!("the reply to {name}"))
    }

    fn number(reply: &Value, name: &str) -> Result<u64> {
        reply[name].as_u64().with_context(|| format!("no number `{name}` in {reply}"))
    }

    /// Number of triples in the store.
    ///
    /// # Errors
    /// Of libzmq, and a reply without a count.
    pub fn count(&self) -> Result<u64> {
        Self::number(&self.command("count")?, "count")
    }

    /// The counters.
    ///
    /// # Errors
    /// Of libzmq, and a reply without them.
    pub fn stats(&self) -> Result<Stats> {
        let reply = self.command("stats")?;
        let number = |name| Self::number(&reply, name);
        Ok(Stats {
            seq: number("seq")?,
            sealed_seq: number("sealed_seq")?,
            rows_written: number("rows_written_total")?,
            file_bytes: number("file_bytes")?,
            file_runs: number("file_runs")?,
        })
    }

    /// Has everything sealed into run files.
    ///
    /// # Errors
    /// Of libzmq; a refusal by the daemon.
    pub fn checkpoint(&self) -> Result<u64> {
        Self::number(&self.command("checkpoint")?, "seq")
    }
}

/// A page of packed rows.
#[derive(Debug, Deserialize)]
pub struct Page<'a> {
    results: &'a [u8],
    /// Where the next one begins.
    #[serde(borrow, default)]
    pub cursor: Option<&'a [u8]>,
}

impl<'a> Page<'a> {
    /// Reads the reply to a `query` with packed results.
    ///
    /// # Errors
    /// A refusal by the daemon; a reply of another form.
    pub fn read(reply: &'a [u8]) -> Result<Self> {
        wire::expect_ok(reply)?;
        let page: Self = rmp_serde::from_slice(reply).context("the reply to a query")?;
        anyhow::ensure!(page.results.len().is_multiple_of(Triple::BYTES), "a part of a row in a page");
        Ok(page)
    }

    /// How many rows it has.
    pub fn rows(&self) -> u64 {
        (self.results.len() / Triple::BYTES) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_byte_by_byte() {
        // {"status": "ok", "results": bin of 96 and 192 bytes, "more": …, "cursor": …, "as_of": 9}
        let mut last = b"\x85\xa6status\xa2ok\xa7results\xc4\x60".to_vec();
        last.extend_from_slice(&[7; 96]);
        last.extend_from_slice(b"\xa4more\xc2\xa5as_of\x09\xa7version\xa31.0");
        let page = Page::read(&last).unwrap();
        assert_eq!((page.rows(), page.cursor), (1, None));
        let mut first = b"\x85\xa7results\xc5\x00\xc0".to_vec();
        first.extend_from_slice(&[7; 192]);
        first.extend_from_slice(b"\xa4more\xc3\xa6cursor\xc4\x02\x01\x00\xa5as_of\x09\xa7version\xa31.0");
        let page = Page::read(&first).unwrap();
        assert_eq!((page.rows(), page.cursor), (2, Some(&[1, 0][..])));
        let part = b"\x82\xa7results\xc4\x03abc\xa4more\xc2";
        assert!(Page::read(part).unwrap_err().to_string().contains("part of a row"));
        let refused = b"\x82\xaaerror_code\xcd\x01\x90\xa9error_msg\xa3no!";
        assert!(Page::read(refused).unwrap_err().to_string().contains("refused"));
    }
}
