//! As much of Redis's protocol as it takes to set keys, many at once.

use anyhow::{Context as _, Result, ensure};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

/// A connection to a Redis.
pub struct Connection {
    stream: BufReader<TcpStream>,
    out: Vec<u8>,
}

impl Connection {
    /// Connects to a port of this machine.
    ///
    /// # Errors
    /// Of the system.
    pub fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), out: Vec::new() })
    }

    /// Sets all these keys in one message, and waits for all the replies.
    ///
    /// # Errors
    /// Of the system; a reply that is not OK.
    pub fn set_all(&mut self, keys: impl Iterator<Item = [u8; 96]>, value: &[u8]) -> Result<()> {
        self.out.clear();
        let mut sent = 0;
        for key in keys {
            command(&mut self.out, &[b"SET", &key, value]);
            sent += 1;
        }
        self.stream.get_mut().write_all(&self.out)?;
        for _ in 0..sent {
            let mut reply = [0; 5];
            self.stream.read_exact(&mut reply)?;
            ensure!(&reply == b"+OK\r\n", "Redis replied {}", reply.escape_ascii());
        }
        Ok(())
    }

    /// The text that a command replies with.
    ///
    /// # Errors
    /// Of the system; a reply that is no bulk string.
    pub fn text(&mut self, parts: &[&[u8]]) -> Result<String> {
        self.out.clear();
        command(&mut self.out, parts);
        self.stream.get_mut().write_all(&self.out)?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let length = line.trim_end().strip_prefix('$').and_then(|length| length.parse::<usize>().ok());
        let length = length.with_context(|| format!("Redis replied {line:?}"))?;
        let mut text = vec![0; length + 2];
        self.stream.read_exact(&mut text)?;
        text.truncate(length);
        Ok(String::from_utf8(text)?)
    }
}

fn command(out: &mut Vec<u8>, parts: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", parts.len()).as_bytes());
    for part in parts {
        out.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_command_byte_by_byte() {
        let mut out = Vec::new();
        super::command(&mut out, &[b"SET", b"a\r\n", b""]);
        assert_eq!(out, b"*3\r\n$3\r\nSET\r\n$3\r\na\r\n\r\n$0\r\n\r\n");
    }
}
