//! Reading run files against the checksums of their columns.

use crate::error::StoreError;
use crate::hdf5::Extent;
use crate::seal::RunFile;
use cidstore_disk::{Disk, Open};

/// Bytes read at once.
const READ_BYTES: u64 = 1 << 20;

impl RunFile {
    /// Reads all columns. By reads, not through the map, so that nothing of it stays resident.
    ///
    /// # Errors
    /// [`StoreError::ColumnDamaged`], which is also kept; what the disk says.
    pub(crate) fn verify(&self, disk: &dyn Disk) -> Result<(), StoreError> {
        let file = disk.open(&self.path, Open::Read)?;
        let mut buffer = Vec::new();
        for (column, extent) in self.columns.iter() {
            let Extent { offset, bytes, crc32c: expected, .. } = *extent;
            let (mut found, mut at) = (0, offset);
            while at < offset + bytes {
                buffer.resize(READ_BYTES.min(offset + bytes - at) as usize, 0);
                let read = file.read_at(&mut buffer, at)?;
                found = crc32c::crc32c_append(found, &buffer[..read]);
                if read < buffer.len() {
                    break;
                }
                at += read as u64;
            }
            if bytes > 0 && found != expected {
                let (path, dataset) = (self.path.clone(), column.name());
                let error = StoreError::ColumnDamaged { path, dataset, offset, bytes, found, expected };
                self.damage.get_or_init(|| error.to_string().into());
                return Err(error);
            }
        }
        Ok(())
    }
}
