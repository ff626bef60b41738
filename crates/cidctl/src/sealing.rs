//! What is done before a store's files are read: finding them, and having their daemon seal everything.

use crate::args::StoreArgs;
use crate::endpoints::Connection;
use crate::exit::Failure;
use cidstore_admin::Places;
use cidstore_client::{Client, Config};
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The daemon's own variables for the catalog.
const VARIABLES: [&str; 2] = ["CIDSTORE_DATA_PATH", "CIDSTORE_HDF5_PATH"];
/// The least time that a checkpoint is waited for.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_mins(10);

impl StoreArgs {
    /// The catalog that is meant.
    ///
    /// # Errors
    /// Where nothing says which.
    pub fn catalog(&self) -> Result<PathBuf, Failure> {
        let set = || VARIABLES.iter().find_map(|name| std::env::var_os(name).filter(|path| !path.is_empty()));
        self.data.clone().or_else(|| set().map(PathBuf::from)).ok_or_else(|| {
            Failure::Usage(format!("which store? Say --data …/cidstore.h5, or set {}", VARIABLES[0]))
        })
    }
}

/// How a checkpoint is asked for: it takes as long as there is to seal, and asking twice would only do it
/// twice.
pub fn patient(config: Config) -> Config {
    Config { timeout: config.timeout.max(CHECKPOINT_TIMEOUT), tries: 1, ..config }
}

/// Has the daemon seal everything, if there is one; returns up to which seq. A store that no daemon has
/// open is as sealed as it was left.
///
/// # Errors
/// When a daemon has the store open and does not answer, or refuses; when another store's daemon answers.
pub fn seal(connection: &Connection, catalog: &Path) -> Result<Option<u64>, Failure> {
    let config = connection.config().map_err(Failure::Usage)?;
    match crate::wait_for_daemon(&config, Duration::from_secs_f64(connection.wait)) {
        Ok(()) => {}
        Err(_) if !is_open(catalog) => return Ok(None),
        Err(failure) => {
            return Err(Failure::Unreachable(format!(
                "a daemon has {} open: {failure} (--no-checkpoint takes what is sealed already)",
                catalog.display()
            )));
        }
    }
    let mut client = Client::connect(&patient(config))?;
    if let Some(why) = is_another(&mut client, catalog)? {
        return Err(Failure::Usage(format!(
            "the daemon at {} has another store open than {}: {why}. Name the store with --data and its daemon \
             with --endpoint (--no-checkpoint takes what is sealed already)",
            client.endpoint(),
            catalog.display()
        )));
    }
    Ok(Some(client.checkpoint()?))
}

/// What shows that the daemon has another store open.
fn is_another(client: &mut Client, catalog: &Path) -> Result<Option<String>, Failure> {
    let identity = cidstore_admin::identity(catalog);
    let (store_id, sealed) = identity.map_err(|error| Failure::Local(error.to_string()))?;
    if !is_open(catalog) {
        return Ok(Some("that one is open nowhere".into()));
    }
    // A daemon of an earlier version tells none.
    let stats = client.stats()?;
    if let Some(other) = stats["store_id"].as_str().filter(|id| *id != store_id) {
        return Ok(Some(format!("its store_id is {other}, not {store_id}")));
    }
    // One that was restored from a backup has the same. What is sealed was visible before, so that the
    // daemon's own store never ends earlier.
    let last = client.last_seq()?;
    Ok((last < sealed).then(|| format!("it ends at seq {last}, that one is sealed up to {sealed}")))
}

/// Whether a process holds the lock of the store.
fn is_open(catalog: &Path) -> bool {
    match File::open(Places::of(catalog).lock) {
        Ok(file) => matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)),
        // What cannot be looked at may be held.
        Err(error) => error.kind() != ErrorKind::NotFound,
    }
}
