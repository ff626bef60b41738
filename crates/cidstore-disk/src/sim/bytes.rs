//! A file's bytes: aligned as a mapping's, shared until somebody writes to them.

use crate::Map;
use std::sync::Arc;

/// Bytes at an address that suits 8-byte values.
#[derive(Default, Clone)]
pub(super) struct Bytes {
    words: Vec<u64>,
    len: usize,
}

impl Bytes {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.len]
    }

    /// Cuts them, or adds zeros.
    pub(super) fn resize(&mut self, len: usize) {
        if len < self.len {
            // What is cut off must not come back when they grow again.
            self.as_mut_slice()[len..].fill(0);
        }
        self.words.resize(len.div_ceil(8), 0);
        self.len = len;
    }

    /// Writes `bytes`, growing where needed.
    pub(super) fn put(&mut self, offset: u64, bytes: &[u8]) {
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        if self.len < end {
            self.resize(end);
        }
        self.as_mut_slice()[start..end].copy_from_slice(bytes);
    }

    /// Flips a bit; nothing where there is none.
    pub(super) fn flip(&mut self, bit: u64) {
        if let Some(byte) = self.as_mut_slice().get_mut((bit / 8) as usize) {
            *byte ^= 1 << (bit % 8);
        }
    }
}

/// A mapped file. Whoever writes to the file gets a copy: a map shows what was there when it was made.
pub(super) struct SimMap(pub(super) Arc<Bytes>);

// SAFETY: the words are on the heap, and nothing changes them while they are shared: writers call
// `Arc::make_mut`, which copies them first.
unsafe impl Map for SimMap {
    fn bytes(&self) -> &[u8] {
        self.0.as_slice()
    }
}
