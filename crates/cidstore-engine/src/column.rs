//! A column of a run: the same slice whether it lives in memory or in a mapped file.
//!
//! A lookup asks every run's filters, cold in the cache mostly: a column knows its values directly,
//! so that reaching them costs one miss and not one more for the map and another for its methods.

use bytemuck::Pod;
use cidstore_disk::Map;
use std::ops::{Deref, Range};
use std::ptr::NonNull;
use std::sync::Arc;

/// Values of one kind, in memory or in a mapped run file.
pub struct Column<T> {
    /// Into what the owner holds.
    values: NonNull<T>,
    len: usize,
    owner: Owner<T>,
}

/// What keeps the values in place. Nothing in here is changed, or reached in another way.
enum Owner<T> {
    Memory {
        _values: Vec<T>,
    },
    /// The map, and the column's bytes in it.
    File(Arc<dyn Map>, Range<usize>),
}

// SAFETY: a column is a shared, immutable slice of `T` and its owner: a Vec or a map, which is
// `Send` and `Sync` itself. It may go and be used wherever those may.
unsafe impl<T: Send + Sync> Send for Column<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Column<T> {}

impl<T> From<Vec<T>> for Column<T> {
    fn from(mut values: Vec<T>) -> Self {
        // Never null, also for an empty one.
        let start = NonNull::new(values.as_mut_ptr()).unwrap_or(NonNull::dangling());
        Self { values: start, len: values.len(), owner: Owner::Memory { _values: values } }
    }
}

impl<T: Pod> Column<T> {
    /// A column over `range` (in bytes) of a mapped file; `None` if the range is not within the
    /// file, not a whole number of values, or not aligned for them.
    pub fn mapped(map: &Arc<dyn Map>, range: Range<usize>) -> Option<Self> {
        let values: &[T] = bytemuck::try_cast_slice(map.bytes().get(range.clone())?).ok()?;
        let (start, len) = (NonNull::from(values).cast(), values.len());
        Some(Self { values: start, len, owner: Owner::File(Arc::clone(map), range) })
    }

    /// Tells that its pages need not stay resident; nothing to a column in memory.
    pub fn release(&self) {
        if let Owner::File(map, range) = &self.owner {
            map.release(range.clone());
        }
    }
}

impl<T> Default for Column<T> {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl<T> Deref for Column<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `values` and `len` are the owner's slice. It stays in place as long as the owner:
        // a Vec that nobody touches keeps its buffer wherever it is moved, and a map returns the
        // same bytes for as long as it lives (the contract of `Map`).
        unsafe { std::slice::from_raw_parts(self.values.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(align(8))]
    struct Bytes([u8; 64]);

    // SAFETY: the bytes are a field that nothing changes, behind the `Arc` that the map lives in.
    unsafe impl Map for Bytes {
        fn bytes(&self) -> &[u8] {
            &self.0
        }
    }

    #[test]
    fn values_stay_where_they_are_while_the_column_moves() {
        let map: Arc<dyn Map> = Arc::new(Bytes(std::array::from_fn(|i| i as u8)));
        let columns: Vec<Column<u32>> =
            vec![vec![1, 2, 3].into(), Column::mapped(&map, 8..16).unwrap(), Column::default()];
        drop(map);
        let columns = std::thread::spawn(move || columns).join().unwrap();
        assert_eq!(columns[0][..], [1, 2, 3]);
        assert_eq!(columns[1][..], [0x0b0a_0908, 0x0f0e_0d0c].map(u32::from_le));
        assert!(columns[2].is_empty());
    }

    #[test]
    fn a_range_must_fit() {
        let map: Arc<dyn Map> = Arc::new(Bytes([0; 64]));
        assert!(Column::<u64>::mapped(&map, 0..64).is_some_and(|column| column.len() == 8));
        for range in [0..65, 0..12, 4..12] {
            assert!(Column::<u64>::mapped(&map, range.clone()).is_none(), "{range:?}");
        }
    }
}
