//! Where the daemon is and how patient the client is.

use std::time::Duration;

/// Endpoints and patience of a client. `Default` is the daemon's own default on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Endpoint for requests (REQ, DEALER), in libzmq's form.
    pub request: String,
    /// Endpoint for mutations without reply (PUSH).
    pub push: String,
    /// Endpoint of notifications (SUB).
    pub subscribe: String,
    /// How long one try waits for a reply.
    pub timeout: Duration,
    /// How often a request is sent before the client gives up; at least 1.
    pub tries: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            request: "tcp://127.0.0.1:5555".into(),
            push: "tcp://127.0.0.1:5556".into(),
            subscribe: "tcp://127.0.0.1:5557".into(),
            timeout: Duration::from_secs(5),
            tries: 3,
        }
    }
}

/// The endpoint to connect to where a daemon is bound to `bound`: a wildcard host (`*`, `0.0.0.0`,
/// `[::]`) becomes the local one, so that one setting can serve both sides.
pub fn connectable(bound: &str) -> String {
    for (wildcard, local) in [
        ("tcp://*:", "tcp://127.0.0.1:"),
        ("tcp://0.0.0.0:", "tcp://127.0.0.1:"),
        ("tcp://[::]:", "tcp://[::1]:"),
    ] {
        if let Some(port) = bound.strip_prefix(wildcard) {
            return format!("{local}{port}");
        }
    }
    bound.to_owned()
}

#[cfg(test)]
mod tests {
    use super::connectable;

    #[test]
    fn a_wildcard_becomes_the_local_host() {
        assert_eq!(connectable("tcp://*:5555"), "tcp://127.0.0.1:5555");
        assert_eq!(connectable("tcp://0.0.0.0:5555"), "tcp://127.0.0.1:5555");
        assert_eq!(connectable("tcp://[::]:5555"), "tcp://[::1]:5555");
        assert_eq!(connectable("tcp://db.example:5555"), "tcp://db.example:5555");
        assert_eq!(connectable("ipc:///run/cidstored"), "ipc:///run/cidstored");
    }
}
