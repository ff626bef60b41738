//! What a store takes on disk.

use anyhow::{Context as _, Result};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// What the files below a folder occupy, in bytes.
///
/// # Errors
/// Of the file system.
pub fn bytes(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let facts = entry.metadata()?;
        sum += if facts.is_dir() { bytes(&entry.path())? } else { facts.blocks() * 512 };
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    #[test]
    fn files_below_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("inner")).unwrap();
        std::fs::write(folder.path().join("inner/file"), vec![1; 1 << 20]).unwrap();
        assert!((1 << 20..2 << 20).contains(&super::bytes(folder.path()).unwrap()));
        assert!(super::bytes(&folder.path().join("absent")).is_err());
    }
}
