//! The process's limit of file descriptors.

use crate::config::Config;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// File descriptors for everything but `ZeroMQ` connections: run files, log segments, HTTP, Redis,
/// the sockets' own. What libzmq accepts before the limit of connections acts is within it, too.
const DESCRIPTORS_RESERVED: u64 = 1024;

/// Raises the limit to what the settings need: without a descriptor left, libzmq spins.
///
/// # Errors
/// What is wrong and what to do, when the system's hard limit is lower.
pub fn raise_descriptors(config: &Config) -> Result<u64, String> {
    let needed = config.connections_max as u64 + DESCRIPTORS_RESERVED;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // `None` is no limit.
    if current.is_none_or(|current| current >= needed) {
        return Ok(current.unwrap_or(u64::MAX));
    }
    if maximum.is_some_and(|maximum| maximum < needed) {
        return Err(format!(
            "connections_max = {} needs {needed} file descriptors, the hard limit is {}: lower \
             connections_max, or raise the limit (ulimit -n, LimitNOFILE=, --ulimit nofile=)",
            config.connections_max,
            maximum.unwrap_or_default()
        ));
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum })
        .map_err(|error| format!("cannot raise the limit of file descriptors to {needed}: {error}"))?;
    Ok(needed)
}
