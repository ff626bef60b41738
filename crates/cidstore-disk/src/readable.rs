//! Reading what can be read of a file on a medium that refuses parts of it.

use crate::{DiskError, File};

/// What is read at once behind a place that cannot be read: a block of the medium.
const BLOCK_BYTES: usize = 4096;

/// A part of a file that the medium does not give back.
#[derive(Debug)]
pub struct Unreadable {
    /// Where it begins.
    pub offset: u64,
    /// How long it is, in bytes.
    pub bytes: u64,
    /// What the system said.
    pub error: DiskError,
}

/// Reads as [`File::read_at`] does; what cannot be read is zero in `buf` and noted in `lost`. Returns
/// how many of `buf`'s bytes are within the file.
pub fn read_around(file: &dyn File, buf: &mut [u8], offset: u64, lost: &mut Vec<Unreadable>) -> usize {
    if let Ok(read) = file.read_at(buf, offset) {
        return read;
    }
    let len = file.len().unwrap_or(u64::MAX);
    let within = (buf.len() as u64).min(len.saturating_sub(offset)) as usize;
    let mut at = offset;
    let mut rest = &mut buf[..within];
    while !rest.is_empty() {
        // Up to the next border of a block.
        let bytes = (BLOCK_BYTES - at as usize % BLOCK_BYTES).min(rest.len());
        let (block, behind) = rest.split_at_mut(bytes);
        if let Err(error) = file.read_at(block, at) {
            block.fill(0);
            match lost.last_mut() {
                Some(last) if last.offset + last.bytes == at => last.bytes += bytes as u64,
                _ => lost.push(Unreadable { offset: at, bytes: bytes as u64, error }),
            }
        }
        at += bytes as u64;
        rest = behind;
    }
    within
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Result;
    use std::io;
    use std::path::Path;

    /// A file of ones whose second block cannot be read.
    struct Scratched;

    impl File for Scratched {
        fn path(&self) -> &Path {
            Path::new("scratched")
        }

        fn len(&self) -> Result<u64> {
            Ok(10_000)
        }

        fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
            let bytes = (buf.len() as u64).min(10_000 - offset);
            if offset < 8192 && offset + bytes > 4096 {
                let source = io::Error::from_raw_os_error(5);
                return Err(DiskError { op: "read", path: self.path().to_owned(), source });
            }
            buf[..bytes as usize].fill(1);
            Ok(bytes as usize)
        }

        fn write_at(&self, _: &[u8], _: u64) -> Result<()> {
            Ok(())
        }

        fn allocate(&self, _: u64) -> Result<()> {
            Ok(())
        }

        fn set_len(&self, _: u64) -> Result<()> {
            Ok(())
        }

        fn sync_data(&self) -> Result<()> {
            Ok(())
        }

        fn sync_all(&self) -> Result<()> {
            Ok(())
        }

        fn is_in_use(&self) -> bool {
            false
        }
    }

    #[test]
    fn what_lies_around_a_scratch_is_read() {
        let (mut buf, mut lost) = (vec![7; 20_000], Vec::new());
        assert_eq!(read_around(&Scratched, &mut buf, 100, &mut lost), 9900);
        let expected = (100..10_000).map(|at| u8::from(!(4096..8192).contains(&at)));
        assert!(buf[..9900].iter().copied().eq(expected));
        let lost: Vec<_> = lost.iter().map(|lost| (lost.offset, lost.bytes)).collect();
        assert_eq!(lost, [(4096, 4096)]);
    }
}
