//! Getting a file to another place: as the same file, as a copy that shares its blocks, or as a copy. And
//! the folders for them.

use super::error::BackupError;
use crate::held::io_error;
use cidstore_disk::{Disk, DiskError};
use rustix::fs::{AtFlags, CWD, ioctl_ficlone, linkat};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes read and written at once.
const BLOCK_BYTES: usize = 1 << 20;

/// How a file gets to another place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// A hard link: another name of the same bytes. Costs nothing; damage of the medium hits both.
    Link,
    /// A reflink: another file that shares its blocks until one of them is written. As above.
    Clone,
    /// Bytes of its own.
    Copy,
}

/// Is shown every byte, in order.
pub(super) type See<'a> = dyn FnMut(&[u8]) -> Result<(), BackupError> + 'a;

/// Makes `to` a file with the bytes of `from` by the first of `methods` that works, and durable but for
/// its name. Returns which one that was.
///
/// # Errors
/// What the disk says of the last method; what `see` says.
pub(super) fn place(
    from: (&Path, &File),
    to: &Path,
    methods: &[Method],
    see: &mut See<'_>,
) -> Result<Method, BackupError> {
    for method in methods {
        remove_if_there(to)?;
        let done = match method {
            Method::Link => link(from.1, to).is_ok(),
            Method::Clone => clone(from.1, to).is_ok(),
            Method::Copy => {
                copy(from, to, see)?;
                return Ok(Method::Copy);
            }
        };
        if done {
            let file = File::open(to).map_err(io_error("open", to))?;
            read(to, &file, see)?;
            file.sync_all().map_err(io_error("sync", to))?;
            return Ok(*method);
        }
    }
    let none = io::Error::new(io::ErrorKind::Unsupported, "the file systems allow no link");
    Err(io_error("link", to)(none).into())
}

/// Makes a folder where it is missing, with those above it, durably: also where a run that was killed had made
/// them, and not synced the folder that they are in.
pub(super) fn make_folder(disk: &dyn Disk, folder: &Path) -> Result<(), DiskError> {
    use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    disk.create_dir_all(folder)?;
    for parent in folder.ancestors().skip(1) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        match disk.sync_dir(parent).map_err(|error| (error.source.kind(), error)) {
            // Somebody else's folder, or of a file system that cannot sync: nothing was made there.
            Err((PermissionDenied | InvalidInput | Unsupported | ReadOnlyFilesystem, _)) => break,
            synced => synced.map_err(|(_, error)| error)?,
        }
    }
    Ok(())
}

pub(super) fn remove_if_there(path: &Path) -> Result<(), BackupError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(error).into()),
        _ => Ok(()),
    }
}

/// Links the open file itself, whatever its former name means by now.
fn link(from: &File, to: &Path) -> io::Result<()> {
    let open = format!("/proc/self/fd/{}", from.as_raw_fd());
    Ok(linkat(CWD, open, CWD, to, AtFlags::SYMLINK_FOLLOW)?)
}

fn clone(from: &File, to: &Path) -> io::Result<()> {
    let file = File::create_new(to)?;
    let cloned = ioctl_ficlone(&file, from);
    if cloned.is_err() {
        std::fs::remove_file(to)?;
    }
    Ok(cloned?)
}

fn copy((path, from): (&Path, &File), to: &Path, see: &mut See<'_>) -> Result<(), BackupError> {
    let file = File::create_new(to).map_err(io_error("create", to))?;
    let mut at = 0;
    read(path, from, &mut |block| {
        see(block)?;
        file.write_all_at(block, at).map_err(io_error("write", to))?;
        at += block.len() as u64;
        Ok(())
    })?;
    Ok(file.sync_all().map_err(io_error("sync", to))?)
}

/// Reads a file front to back, whatever else reads it.
pub(super) fn read(path: &Path, file: &File, see: &mut See<'_>) -> Result<(), BackupError> {
    let mut block = vec![0; BLOCK_BYTES];
    let mut at = 0;
    loop {
        match file.read_at(&mut block, at) {
            Ok(0) => return Ok(()),
            Ok(bytes) => {
                see(&block[..bytes])?;
                at += bytes as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(io_error("read", path)(error).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cidstore_disk::sim::SimDisk;

    #[test]
    fn a_folder_that_a_killed_run_has_made_is_made_durable() {
        let disk = SimDisk::new();
        // Killed before it synced anything.
        disk.create_dir_all(Path::new("/mnt/backup/runs")).unwrap();
        disk.keep_trace(100);
        make_folder(&disk, Path::new("/mnt/backup/runs")).unwrap();
        for parent in ["/mnt/backup", "/mnt", "/"] {
            let line = format!("sync directory {parent}");
            assert!(disk.trace().iter().any(|done| done.trim_end().ends_with(&line)), "{:?}", disk.trace());
        }
    }
}
