//! How the process ends, for scripts and service managers.

use std::process::ExitCode;

/// Why the daemon ended. The numbers are those of `sysexits.h` where one fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// In order.
    Ok = 0,
    /// Settings that were refused.
    Usage = 64,
    /// A socket refused: an address in use, or lost while running.
    Unavailable = 69,
    /// Another daemon holds the store.
    Held = 73,
    /// The store cannot be read, or writes had stopped for good.
    Io = 74,
    /// It did not end within the grace time. What was acknowledged is on disk.
    Late = 75,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        (exit as u8).into()
    }
}

/// Why the daemon did not start, or had to end.
#[derive(Debug)]
pub struct Fatal {
    /// With which code.
    pub exit: Exit,
    /// Why.
    pub message: String,
}

impl Fatal {
    /// From any error.
    pub fn new(exit: Exit, error: impl std::fmt::Display) -> Self {
        Self { exit, message: error.to_string() }
    }
}
