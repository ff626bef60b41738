//! Damaged bytes: found by checksum before HDF5 sees them; and where only HDF5's own checksums
//! stand between, an error or the right answer, never another one.

use super::*;

/// A small run in memory: its description, skeleton and whole bytes.
fn small_run() -> (Skeleton, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.h5");
    let columns = columns(&[[1, 2, 3]], &[[4, 5, 6]]);
    let skeleton = write_run(&path, &spec(1, &columns), &columns);
    (skeleton, fs::read(path).unwrap())
}

#[test]
fn every_damaged_byte_of_a_head_is_found_by_its_checksum() {
    let (skeleton, _) = small_run();
    let mut head = skeleton.head.clone();
    let head_crc32c = skeleton.head_crc32c();
    let file_len = skeleton.file_len;
    for at in 0..head.len() {
        head[at] ^= 0x10;
        let result = read_run(RunSource::Head { name: "r", head: &head, head_crc32c, file_len });
        assert!(matches!(result, Err(Hdf5Error::Checksum { .. })), "byte {at}: {result:?}");
        head[at] ^= 0x10;
    }
    let cut = &head[..head.len() - 1];
    let result = read_run(RunSource::Head { name: "r", head: cut, head_crc32c, file_len });
    assert!(matches!(result, Err(Hdf5Error::Checksum { .. })), "{result:?}");
}

/// As when a run is read without a catalog: all that HDF5 uses of the head carries HDF5's own
/// checksums.
#[test]
fn no_damaged_byte_of_a_run_without_catalog_gives_another_layout() {
    let (skeleton, bytes) = small_run();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.h5");
    fs::write(&path, &bytes).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    let right = read_run(RunSource::File(&path)).unwrap();
    let (mut refused, mut harmless) = (0, 0);
    for at in 0..skeleton.head.len() {
        file.write_all_at(&[bytes[at] ^ (1 << (at % 8))], at as u64).unwrap();
        match read_run(RunSource::File(&path)) {
            Err(_) => refused += 1,
            Ok(layout) => {
                assert_eq!(layout, right, "byte {at}");
                harmless += 1;
            }
        }
        file.write_all_at(&bytes[at..=at], at as u64).unwrap();
    }
    println!("{refused} refused, {harmless} without effect");
    assert!(refused > skeleton.head.len() / 2, "{refused} refused");
}

#[test]
fn every_damaged_byte_of_a_catalog_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = store(folder.path());
    let mut bytes = write_catalog(&catalog).unwrap();
    for at in 0..bytes.len() {
        bytes[at] ^= 0x40;
        let error = read_catalog("c.h5", &bytes).unwrap_err();
        assert!(
            matches!(error, Hdf5Error::Checksum { .. } | Hdf5Error::Mismatch { .. }),
            "byte {at}: {error}"
        );
        bytes[at] ^= 0x40;
    }
    for len in 0..bytes.len() {
        read_catalog("c.h5", &bytes[..len]).unwrap_err();
    }
}

/// The trailer is right, the bytes are not: HDF5's checksums and the table's own are left.
#[test]
fn a_catalog_damaged_before_its_trailer_was_made_gives_no_other_catalog() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = store(folder.path());
    let whole = write_catalog(&catalog).unwrap();
    let mut refused = 0;
    let inside = whole.len() - 16;
    for at in 0..inside {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        let crc = crc32c::crc32c(&bytes[..inside]);
        bytes[inside + 12..].copy_from_slice(&crc.to_le_bytes());
        match read_catalog("c.h5", &bytes) {
            Err(_) => refused += 1,
            Ok(found) => assert_eq!(found, catalog, "byte {at}"),
        }
    }
    // Most of the rest is the heap with the maps of the virtual datasets: HDF5 keeps no checksum of
    // it, the daemon does not read it, and the trailer is what guards it.
    assert!(refused > 1000, "{refused} of {inside} refused");
}
