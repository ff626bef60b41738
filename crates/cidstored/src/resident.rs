//! Keeping mapped run files from filling the process's resident memory.
//!
//! Lookups map pages of run files, sixteen at a fault, and nothing takes them away while the machine
//! has memory to spare. They are the page cache's, and the kernel may have them back at any time, but
//! they count as the process's own in every tool that an operator looks at, and against a container's
//! limit. So they are given back when there are too many: they stay in the page cache, and the next
//! lookup maps them again.

use cidstore_engine::Reader;
use std::time::Duration;

/// Resident bytes of mapped files above which they are given back.
const MAPPED_RESIDENT_BYTES_MAX: u64 = 256 << 20;

/// How often to look, in a store whose run files are larger than that.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long the maintenance thread may sleep, given how long it would.
pub fn sleep_at_most(reader: &Reader, idle: Duration) -> Duration {
    let files = reader.stats().file_bytes;
    if files > MAPPED_RESIDENT_BYTES_MAX { idle.min(LOOK_EVERY) } else { idle }
}

/// Gives pages of run files back if too many are resident.
pub fn bound(reader: &Reader) {
    if mapped_resident_bytes().is_some_and(|bytes| bytes > MAPPED_RESIDENT_BYTES_MAX) {
        reader.release_mapped();
    }
}

/// Resident bytes that belong to files, this program's own code included (`proc(5)`, `statm`).
fn mapped_resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(2)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_bytes_of_files_are_known() {
        let bytes = mapped_resident_bytes().expect("Linux says how much is resident");
        assert!((1 << 12..1 << 32).contains(&bytes), "{bytes}");
    }
}
