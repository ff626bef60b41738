//! What the handler of SIGBUS leaves to others. By itself, since it starts processes: a child has its
//! parent's locks until it is another program.

use cidstore_disk::{Disk, RealDisk};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

/// Maps a file, so that there is a handler.
fn map_a_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("run"), b"x").unwrap();
    assert_eq!(RealDisk.map(&dir.path().join("run")).unwrap().bytes(), b"x");
}

#[test]
#[ignore = "ends the process"]
fn a_signal_that_somebody_sends() {
    map_a_file();
    // SAFETY: takes no memory of this process.
    unsafe { libc::raise(libc::SIGBUS) };
}

#[test]
#[ignore = "ends the process"]
fn touch_a_mapping_that_nobody_guards() {
    map_a_file();
    let file = tempfile::tempfile().unwrap();
    file.set_len(1).unwrap();
    // SAFETY: what becomes of reading it is what is tested; nothing else uses it.
    let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
    file.set_len(0).unwrap();
    assert_eq!(std::hint::black_box(map[0]), 0);
}

#[test]
fn any_other_such_signal_ends_the_process() {
    for name in ["a_signal_that_somebody_sends", "touch_a_mapping_that_nobody_guards"] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        let ended = child.args([name, "--exact", "--ignored"]).output().unwrap();
        assert_eq!(ended.status.signal(), Some(libc::SIGBUS), "{ended:?}");
    }
}
