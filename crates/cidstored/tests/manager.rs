//! What a service manager and a person at the keyboard see: systemd's messages, signals.

mod common;

use common::{LONG, Place, insert};
use std::os::unix::net::UnixDatagram;

/// Reads messages to the manager until one has this line.
fn hear(manager: &UnixDatagram, line: &str) {
    let mut heard = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let size =
            manager.recv(&mut buffer).unwrap_or_else(|e| panic!("{line} was never said ({e}): {heard:?}"));
        let message = String::from_utf8(buffer[..size].to_vec()).unwrap();
        let found = message.lines().any(|said| said == line);
        heard.push(message);
        if found {
            return;
        }
    }
}

#[test]
fn systemd_hears_of_readiness_of_life_and_of_the_end() {
    let place = Place::new();
    let path = place.dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(LONG)).unwrap();
    let mut command = place.command(&[]);
    command.arg("--endpoints-file").arg(place.endpoints_file());
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "3000000");
    let mut daemon = place.start_command(&mut command);
    hear(&manager, "READY=1");
    daemon.req().ok(&insert(1));
    hear(&manager, "WATCHDOG=1");
    hear(&manager, "WATCHDOG=1");
    daemon.signal("-TERM");
    hear(&manager, "STOPPING=1");
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn without_a_manager_nobody_is_told() {
    // A socket that is gone must not keep the daemon from running.
    let place = Place::new();
    let mut command = place.command(&[]);
    command.arg("--endpoints-file").arg(place.endpoints_file());
    command.env("NOTIFY_SOCKET", place.dir.path().join("nobody"));
    let daemon = place.start_command(&mut command);
    daemon.req().ok(&insert(1));
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn sigint_ends_in_order_and_leaves_no_addresses() {
    let place = Place::new();
    let mut daemon = place.start(&[]);
    daemon.req().ok(&insert(1));
    daemon.signal("-INT");
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(daemon.log().contains("ending in order"), "{}", daemon.log());
    assert!(!place.endpoints_file().exists(), "nobody finds the addresses of a daemon that ended");
    assert_eq!(place.start(&[]).req().count(), 1);
}
