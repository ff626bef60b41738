//! The addresses that the daemon really has, which matters where a free port was asked for.

use serde::Serialize;
use std::io::Write;
use std::path::Path;

/// Address of each socket.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Endpoints {
    /// Requests.
    pub req: String,
    /// Mutations without replies.
    pub push: String,
    /// Notifications.
    #[serde(rename = "pub")]
    pub publish: String,
    /// The second address for requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router_dealer: Option<String>,
    /// HTTP.
    pub http: String,
    /// The process.
    pub pid: u32,
}

impl Endpoints {
    /// Writes them as JSON, in one step: a reader sees all of it or no file.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let beside = path.with_extension(format!("{}.new", self.pid));
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
        file.write_all(b"\n")?;
        drop(file);
        std::fs::rename(&beside, path)
    }
}
