//! What an operator may tune, with the defaults.

/// Bounds and thresholds of a store. All counts are of rows (triples and tombstones); where rows carry
/// much metadata, by what they weigh: 128 bytes count as a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// Identity given to a store that is created: any 16 random bytes.
    pub new_store_id: [u8; 16],
    /// Any number that differs at each start; it tells log segments apart.
    pub nonce: u64,
    /// Bytes of one log segment.
    pub segment_bytes: u64,
    /// Most triples of one batch, and of one delete by pattern.
    pub batch_rows_max: usize,
    /// Rows in memory at which they are sealed into a run file.
    pub seal_rows: usize,
    /// Rows in memory at which commits should wait for sealing.
    pub memory_rows_max: usize,
    /// Runs of one tier in memory that are merged into one.
    pub memory_fan_in: usize,
    /// Runs in memory of this size are not merged further before they are sealed. The writer merges them
    /// between two groups: this bounds how long each merge holds up the next one.
    pub tidy_rows_max: usize,
    /// Run files of at most half of `run_rows_max` that there may be before some are merged while more
    /// of them come.
    pub small_files_max: usize,
    /// Most rows of one run file: bounds the memory and temporary space of a merge.
    pub run_rows_max: usize,
    /// Seconds for which the outcome of a mutation that came under an idempotency key is remembered, by the
    /// times of receipt of mutations.
    pub key_ttl_s: u64,
    /// Most outcomes that are remembered, 100 bytes of memory for each; beyond them mutations with further
    /// keys are refused.
    pub keys_max: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            new_store_id: [0; 16],
            nonce: 0,
            segment_bytes: 64 << 20,
            batch_rows_max: 1_000_000,
            seal_rows: 250_000,
            memory_rows_max: 500_000,
            memory_fan_in: 8,
            tidy_rows_max: 1 << 14,
            small_files_max: 40,
            run_rows_max: 16 << 20,
            key_ttl_s: 86_400,
            keys_max: 1_000_000,
        }
    }
}
