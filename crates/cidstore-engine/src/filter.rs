//! Bloom filters that let a lookup skip a run.
//!
//! Blocked filter (Putze, Sanders, Singler: "Cache-, Hash- and Space-Efficient Bloom Filters",
//! 2007): one 64-byte block per key, so that a probe costs one cache miss. Keys are hashed with
//! XXH3-64 (seed 0), the block is taken from the upper half of the hash by multiplication, the bits
//! from the lower half. The layout is part of the file format.

use xxhash_rust::xxh3::xxh3_64;

/// Bytes of one block.
pub const BLOCK_BYTES: usize = 64;
/// Bits of filter per key.
const BITS_PER_KEY: usize = 10;
/// Bits set per key.
const PROBES: u32 = 6;

/// Bytes of a filter for `keys` keys: a whole number of blocks, 0 for none.
fn filter_bytes(keys: usize) -> usize {
    (keys * BITS_PER_KEY).div_ceil(BLOCK_BYTES * 8) * BLOCK_BYTES
}

/// The hash by which a key is placed.
pub fn key_hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// The block of a key and its bits within the block, for a filter of `bytes` bytes.
fn place(bytes: usize, hash: u64) -> (usize, impl Iterator<Item = usize>) {
    let blocks = (bytes / BLOCK_BYTES) as u64;
    let block = ((hash >> 32) * blocks) >> 32;
    // Six positions of nine bits out of 32: a second multiplication spreads the lower half.
    let bits = (hash & 0xffff_ffff).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (block as usize * BLOCK_BYTES, (0..PROBES).map(move |i| (bits >> (9 * i + 10) & 511) as usize))
}

/// A filter of the keys with these hashes.
pub fn build(hashes: &[u64]) -> Vec<u8> {
    let mut filter = vec![0; filter_bytes(hashes.len())];
    for hash in hashes {
        let (block, bits) = place(filter.len(), *hash);
        for bit in bits {
            filter[block + bit / 8] |= 1 << (bit % 8);
        }
    }
    filter
}

/// Whether the filter may hold the key with this hash. A filter of no bytes says yes to everything: it
/// stands for "none was built".
///
/// All bits are looked at whatever the first ones say: without branches on memory that is not in the
/// cache, the processor asks many runs' filters at a time.
pub fn may_contain(filter: &[u8], hash: u64) -> bool {
    if filter.is_empty() {
        return true;
    }
    let (block, bits) = place(filter.len(), hash);
    let block = &filter[block..block + BLOCK_BYTES];
    bits.fold(1, |all, bit| all & block[bit / 8] >> (bit % 8)) & 1 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_was_added_and_little_else() {
        let keys = 20_000u64;
        let hashes: Vec<u64> = (0..keys).map(|key| key_hash(&key.to_be_bytes())).collect();
        let filter = build(&hashes);
        assert!((0..keys).all(|key| may_contain(&filter, key_hash(&key.to_be_bytes()))));
        let wrong =
            (keys..11 * keys).filter(|key| may_contain(&filter, key_hash(&key.to_be_bytes()))).count();
        let rate = wrong as f64 / (10.0 * keys as f64);
        assert!(rate < 0.02, "false positives: {rate}");
        assert!(may_contain(&[], key_hash(b"anything")));
        assert_eq!(filter_bytes(0), 0);
    }
}
