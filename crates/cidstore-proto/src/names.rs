//! The names of the commands.

/// A command, by name alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommandName {
    Ping,
    Insert,
    BatchInsert,
    Delete,
    BatchDelete,
    Query,
    Count,
    Lookup,
    Get,
    Changes,
    Stats,
    Metrics,
    Checkpoint,
    Compact,
    Mirror,
}

/// The names of all commands on the wire, where letter case does not matter.
pub const COMMANDS: [&str; 15] = [
    "ping",
    "insert",
    "batch_insert",
    "delete",
    "batch_delete",
    "query",
    "count",
    "lookup",
    "get",
    "changes",
    "stats",
    "metrics",
    "checkpoint",
    "compact",
    "mirror",
];

impl CommandName {
    /// In the order of [`COMMANDS`].
    const ALL: [Self; 15] = [
        Self::Ping,
        Self::Insert,
        Self::BatchInsert,
        Self::Delete,
        Self::BatchDelete,
        Self::Query,
        Self::Count,
        Self::Lookup,
        Self::Get,
        Self::Changes,
        Self::Stats,
        Self::Metrics,
        Self::Checkpoint,
        Self::Compact,
        Self::Mirror,
    ];

    pub fn parse(name: &str) -> Option<Self> {
        COMMANDS.iter().position(|known| known.eq_ignore_ascii_case(name)).map(|i| Self::ALL[i])
    }

    /// All names, for messages.
    pub fn list() -> String {
        COMMANDS.join(", ")
    }
}
