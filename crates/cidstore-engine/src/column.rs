//! A column of a run: the same slice whether it lives in memory or in a mapped file.

use bytemuck::Pod;
use cidstore_disk::Map;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Values of one kind, in memory or in a mapped run file.
pub enum Column<T> {
    /// In memory.
    Owned(Vec<T>),
    /// A range of bytes of a mapped file; see [`Column::mapped`].
    Mapped(Arc<dyn Map>, Range<usize>),
}

impl<T: Pod> Column<T> {
    /// A column over `range` (in bytes) of a mapped file; `None` if the range is not within the
    /// file, not a whole number of values, or not aligned for them.
    pub fn mapped(map: &Arc<dyn Map>, range: Range<usize>) -> Option<Self> {
        let bytes = map.bytes().get(range.clone())?;
        bytemuck::try_cast_slice::<u8, T>(bytes).ok()?;
        Some(Self::Mapped(Arc::clone(map), range))
    }

    /// Tells that the file that the column is in need not stay resident; nothing to a column in
    /// memory.
    pub fn release_file(&self) {
        if let Self::Mapped(map, _) = self {
            map.release(0..map.bytes().len());
        }
    }
}

impl<T> Default for Column<T> {
    fn default() -> Self {
        Self::Owned(Vec::new())
    }
}

impl<T: Pod> Deref for Column<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::Owned(values) => values,
            Self::Mapped(map, range) => bytemuck::cast_slice(&map.bytes()[range.clone()]),
        }
    }
}
