//! Failures and their exit codes: what a script may rely on.

use cidstore_client::Error;
use std::fmt;
use std::process::ExitCode;

/// Exit codes, shown by `cidctl --help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  nothing found (get, query)
  2  wrong usage
  3  the daemon refused the request
  4  no daemon, or no reply in time
  5  a local file or the input could not be read or written, or holds a bad line
  6  watch: part of the log is gone, changes were missed
  7  verify: something is damaged; repair: something could not be saved; mirror verify: Redis differs
  8  compact, mirror verify: it was cancelled before it was done";

/// Why a command ended without success.
#[derive(Debug)]
pub enum Failure {
    /// A query or get without a result; says nothing.
    NothingFound,
    /// Wrong usage that clap cannot see.
    Usage(String),
    /// The daemon, or the way to it.
    Client(Error),
    /// Nothing listens there.
    Unreachable(String),
    /// A local file or the input.
    Local(String),
    /// A store's files are damaged, or not all of them was saved, or Redis differs; says nothing, since that was
    /// printed.
    Damaged,
    /// Changes are lost for good.
    Missed(String),
    /// What was waited for will not be done, since somebody does not want it any more.
    Cancelled(String),
    /// The reader of standard output has seen enough (`| head`): no failure, says nothing.
    ReaderGone,
}

impl Failure {
    /// The process's exit code.
    pub fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::ReaderGone => 0,
            Self::NothingFound => 1,
            Self::Usage(_) => 2,
            Self::Client(Error::Refused(_)) => 3,
            Self::Client(_) | Self::Unreachable(_) => 4,
            Self::Local(_) => 5,
            Self::Missed(_) => 6,
            Self::Damaged => 7,
            Self::Cancelled(_) => 8,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingFound => f.write_str("nothing found"),
            Self::ReaderGone => f.write_str("standard output was closed"),
            Self::Damaged => f.write_str("damaged"),
            Self::Client(error) => error.fmt(f),
            Self::Usage(text)
            | Self::Unreachable(text)
            | Self::Local(text)
            | Self::Missed(text)
            | Self::Cancelled(text) => f.write_str(text),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Client(error)
    }
}

/// Of writing to standard output: the only plain I/O that commands do without saying where.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::ReaderGone;
        }
        Self::Local(format!("standard output: {error}"))
    }
}
