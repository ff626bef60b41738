//! The command line.

use crate::endpoints::Connection;
use crate::exit::EXIT_CODES;
use crate::terms::{Bound, TermArg, parse_bound, parse_term};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

const TERMS: &str = "\
Where a CID is expected, any of these stands:
  E(1,2,3,4)  E(3,4)  64 hex digits      a CID
  <http://…>  \"text\"  \"chat\"@fr  _:b0    an N-Triples term: the SHA-256 of its canonical text
  iri:http://…  text:anything            the same, without the shell's quoting
  _                                      anything (in a pattern)";

/// Command line of cidstored.
#[derive(Debug, Parser)]
#[command(name = "cidctl", version, after_help = EXIT_CODES, after_long_help = format!("{TERMS}\n\n{EXIT_CODES}"))]
pub struct Cli {
    #[command(flatten)]
    pub connection: Connection,
    /// Print JSON: one value per line
    #[arg(long, global = true, help_heading = "Options")]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Ask whether the daemon answers
    Ping,
    /// Insert one triple; done when it is durable
    Put(Put),
    /// Delete every triple that matches; `_` stands for anything, and at least one part is needed
    Delete(Delete),
    /// Print the triples that match
    Query(Query),
    /// Count the triples that match
    Count {
        #[command(flatten)]
        pattern: PatternArgs,
    },
    /// Print what is known about one triple, as JSON
    Get(Get),
    /// Print changes as they happen, none left out; ends with Ctrl-C
    Watch(Watch),
    /// Print the log of changes
    Changes(Changes),
    /// Print the daemon's counters
    Stats {
        /// The counters of `metrics` instead
        #[arg(long)]
        metrics: bool,
    },
    /// Seal everything so far into HDF5
    Checkpoint,
    /// Merge run files into as few as their size allows, and give the space of what is deleted back
    ///
    /// Has the daemon seal everything, starts a compaction and shows how far it is until it is done.
    /// Ctrl-C stops watching, not the compaction. It goes on until it is done, is cancelled, or the daemon
    /// ends; what it had finished then stays, and it may be started again. Needs room for one more file
    /// meanwhile.
    Compact(Compact),
    /// See to the copy in Redis: how it is, write it anew, compare it with the store
    Mirror {
        #[command(subcommand)]
        action: Mirror,
    },
    /// Load N-Triples, or a file that `export` wrote
    ///
    /// An export is checked whole, then its triples are inserted with their times and metadata. Of
    /// N-Triples each term becomes the SHA-256 of its canonical N-Triples text. Blank nodes count by their
    /// label as written: rename them first if files that are loaded together use the same label for
    /// different nodes. Loading a file again changes nothing.
    Import(Import),
    /// Back a store up into a directory, while its daemon runs
    ///
    /// Has the daemon seal everything, then adds a generation to the directory: links to the store's
    /// files where that is possible, else copies, and only of what is not there yet. May be
    /// interrupted, and started again.
    Backup(Backup),
    /// Make a store of a backup
    ///
    /// Reads every file of the backup against its SHA-256 before anything is opened. Refuses to replace
    /// a store. May be interrupted, and started again. The restored store gives numbers (seq) that no
    /// follower has seen: all of them, and Redis, read it anew.
    Restore(Restore),
    /// Write all triples into one HDF5 file, while the daemon runs
    ///
    /// Has the daemon seal everything first. The file refers to no other: h5py reads it, and `import`
    /// does. An export that is interrupted starts over.
    Export(Export),
    /// Check a store's files for damage, whether a daemon has it open or not
    ///
    /// Reads the catalog, every run file and the log against their checksums, and looks whether they
    /// are what a store's files are. Changes nothing. May be interrupted. Exits with 7 where it finds
    /// damage, with 5 where it could not look at everything.
    Verify(Verify),
    /// Bring a damaged store to the largest state that can be proven, and tell what was lost
    ///
    /// No daemon may have the store open. What is damaged is moved into the folder
    /// `cidstore.h5.damaged` beside the catalog, with a report; nothing is removed. May be interrupted
    /// and run again. Exits with 7 where something could not be saved or proven.
    Repair(Repair),
    /// Print the CID of each term, without a daemon
    Cid {
        /// CIDs or terms
        #[arg(required = true, value_parser = parse_term)]
        terms: Vec<TermArg>,
        /// Print 64 hex digits instead of E(…)
        #[arg(long)]
        hex: bool,
    },
    /// Print the triple hash, SHA-256(S‖P‖O), without a daemon
    Hash {
        #[command(flatten)]
        triple: TripleArgs,
    },
}

/// Subject, predicate and object, all bound.
#[derive(Debug, Args)]
pub struct TripleArgs {
    /// Subject
    #[arg(value_parser = parse_term)]
    pub s: TermArg,
    /// Predicate
    #[arg(value_parser = parse_term)]
    pub p: TermArg,
    /// Object
    #[arg(value_parser = parse_term)]
    pub o: TermArg,
}

/// Subject, predicate and object, `_` for anything.
#[derive(Debug, Args)]
pub struct PatternArgs {
    /// Subject, `_` for any
    #[arg(default_value = "_", value_parser = parse_bound)]
    pub s: Bound,
    /// Predicate, `_` for any
    #[arg(default_value = "_", value_parser = parse_bound)]
    pub p: Bound,
    /// Object, `_` for any
    #[arg(default_value = "_", value_parser = parse_bound)]
    pub o: Bound,
}

#[derive(Debug, Args)]
pub struct Put {
    #[command(flatten)]
    pub triple: TripleArgs,
    /// Where the triple comes from: a JSON map
    #[arg(long, value_name = "JSON")]
    pub provenance: Option<String>,
    /// Version of your schema
    #[arg(long, value_name = "TEXT")]
    pub schema_version: Option<String>,
    /// Seconds since 1970; default: now
    #[arg(long, value_name = "SECONDS")]
    pub created_at: Option<f64>,
    /// From 0 to 1
    #[arg(long, value_name = "NUMBER")]
    pub confidence: Option<f64>,
}

#[derive(Debug, Args)]
pub struct Delete {
    // Not a `PatternArgs`: all three must be written, so that nothing is deleted by an omission.
    /// Subject, `_` for any
    #[arg(value_parser = parse_bound)]
    pub s: Bound,
    /// Predicate, `_` for any
    #[arg(value_parser = parse_bound)]
    pub p: Bound,
    /// Object, `_` for any
    #[arg(value_parser = parse_bound)]
    pub o: Bound,
}

#[derive(Debug, Args)]
pub struct Query {
    #[command(flatten)]
    pub pattern: PatternArgs,
    /// Print at most so many
    #[arg(long, short = 'n', value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: u64,
    /// Print all, page by page
    #[arg(long, conflicts_with = "limit")]
    pub all: bool,
    /// Go on after an earlier page (hex, as printed with --json)
    #[arg(long, value_name = "HEX")]
    pub cursor: Option<String>,
    /// Print terms instead of CIDs, from the file that `import --labels` wrote
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Get {
    /// A triple hash (64 hex digits), or subject, predicate and object
    #[arg(required = true, num_args = 1..=3, value_name = "HASH | S P O")]
    pub what: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Watch {
    /// Start after this seq instead of now: what has happened since comes first
    #[arg(long, value_name = "SEQ")]
    pub since: Option<u64>,
    /// End after so many changes
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
}

#[derive(Debug, Args)]
pub struct Changes {
    /// Print what comes after this seq
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    pub since: u64,
    /// Print at most so many; default: all there are
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
}

/// Which store's files, of those on this machine.
#[derive(Debug, Args)]
pub struct StoreArgs {
    /// The store's catalog, `…/cidstore.h5` [env: CIDSTORE_DATA_PATH, or CIDSTORE_HDF5_PATH]
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct Backup {
    /// The backup directory; made where it is missing
    pub dir: PathBuf,
    #[command(flatten)]
    pub store: StoreArgs,
    /// List the backups (generations) in the directory instead; with --verify, read every file
    #[arg(long)]
    pub list: bool,
    /// Read what earlier backups have brought, too, and replace what is damaged
    #[arg(long)]
    pub verify: bool,
    /// Give the backup bytes of its own instead of links, so that a bad sector cannot hit both
    #[arg(long)]
    pub copy: bool,
    /// Remove older generations of this store than the newest N
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub keep: Option<u64>,
    /// Do not ask the daemon to seal everything: the backup ends where the last seal did
    #[arg(long)]
    pub no_checkpoint: bool,
    /// No progress on standard error
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct Restore {
    /// The backup directory
    pub dir: PathBuf,
    #[command(flatten)]
    pub store: StoreArgs,
    /// Which generation; default: the newest
    #[arg(long, value_name = "N")]
    pub generation: Option<u64>,
    /// Link the files of the backup instead of copying them, where that is possible
    #[arg(long)]
    pub link: bool,
    /// No progress on standard error
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct Export {
    /// The file to write; an earlier export of that name is replaced
    pub file: PathBuf,
    #[command(flatten)]
    pub store: StoreArgs,
    /// Do not ask the daemon to seal everything: the export ends where the last seal did
    #[arg(long)]
    pub no_checkpoint: bool,
    /// No progress on standard error
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct Verify {
    #[command(flatten)]
    pub store: StoreArgs,
    /// Leave out what takes a look at each row for each index: hashes, the order of indexes
    #[arg(long)]
    pub quick: bool,
    /// Read at most so many bytes a second; KiB, MiB and GiB may stand behind the number
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub rate: Option<u64>,
    /// No progress on standard error
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct Compact {
    #[command(flatten)]
    pub instead: CompactInstead,
    /// No progress on standard error
    #[arg(long, short)]
    pub quiet: bool,
}

/// What is done instead of starting a compaction and watching it: one of these at most.
#[allow(clippy::struct_excessive_bools)] // They are flags, and clap sees to it that one is set.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct CompactInstead {
    /// Only tell how merging is: what is under way, what was done last, what a compaction would do
    #[arg(long)]
    pub status: bool,
    /// Start a compaction and do not watch it
    #[arg(long)]
    pub start: bool,
    /// Have the compaction under way not go on: what it has finished stays, the file that it writes is removed
    #[arg(long)]
    pub cancel: bool,
    /// Have all merging of run files wait; mutations go on, and are sealed
    #[arg(long)]
    pub pause: bool,
    /// Have it go on
    #[arg(long)]
    pub resume: bool,
    /// Merge no faster than so many bytes a second, read and written; 0 is no limit. Until the daemon ends:
    /// the setting is `compaction_bytes_per_second`
    #[arg(long, value_name = "BYTES", value_parser = bytes_or_none)]
    pub rate: Option<u64>,
}

/// What to do about the mirror.
#[derive(Debug, Subcommand)]
pub enum Mirror {
    /// Tell how the mirror is: where, how far behind, what went wrong, what is under way
    Status,
    /// Have everything written anew from the store
    ///
    /// Begins at once, or as soon as Redis is there; shows how far it is until it is done. What is right in
    /// Redis stays readable. Ctrl-C stops watching, not the rebuild, which goes on also when the daemon is
    /// started again. Where one is under way, that one is watched.
    Rebuild {
        /// Do not wait until it is done
        #[arg(long)]
        no_wait: bool,
        /// No progress on standard error
        #[arg(long, short)]
        quiet: bool,
    },
    /// Compare store and Redis, each triple and each key, while both go on
    ///
    /// Lists keys that are missing, stale (another value, or of a triple that is deleted) or foreign (they look
    /// like the mirror's own, and are not). Exits with 7 where something differs, with 5 where it could not
    /// look at everything. Ctrl-C stops watching, not the comparison: `cidctl mirror cancel` does.
    Verify(MirrorVerify),
    /// Have the comparison under way not go on
    Cancel,
}

#[derive(Debug, Args)]
pub struct MirrorVerify {
    /// Compare about so many triples and as many keys, picked at random, instead of all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub sample: Option<u64>,
    /// Have what is missing or stale written anew; foreign keys are never touched
    #[arg(long)]
    pub repair: bool,
    /// Do not wait until it is done: `cidctl mirror status` tells what it found
    #[arg(long)]
    pub no_wait: bool,
    /// No progress on standard error
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct Repair {
    #[command(flatten)]
    pub store: StoreArgs,
    /// Change nothing, only tell what would be done and lost
    #[arg(long)]
    pub dry_run: bool,
    /// No progress on standard error
    #[arg(long, short)]
    pub quiet: bool,
}

fn bytes(text: &str) -> Result<u64, String> {
    let value = bytes_or_none(text).ok().filter(|value| *value > 0);
    value.ok_or_else(|| "expected bytes, as 500000, 512KiB, 8MiB".into())
}

/// The same, or 0.
fn bytes_or_none(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let factor = match text[digits..].trim() {
        "" | "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1_u64 << 30),
        _ => None,
    };
    let value = text[..digits].parse::<u64>().ok().zip(factor).and_then(|(n, factor)| n.checked_mul(factor));
    value.ok_or_else(|| "expected bytes, as 500000, 512KiB, 8MiB, or 0".into())
}

#[derive(Debug, Args)]
pub struct Import {
    /// N-Triples, plain or gzip, `-` is standard input; or an export
    pub file: PathBuf,
    /// Write the table from CIDs to terms: hex, tab, N-Triples text. Each term once, as far as
    /// 150 MB of memory remember them; what earlier imports have written to FILE stays
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// Keep in FILE how far the import is, and go on from there if it exists: in the same store only
    #[arg(long, value_name = "FILE")]
    pub resume: Option<PathBuf>,
    /// Count lines that are not N-Triples instead of ending at the first one
    #[arg(long)]
    pub skip_bad: bool,
    /// Triples per request
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub batch: u32,
    /// Requests on their way at a time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub in_flight: u32,
    /// No progress on standard error
    #[arg(long, short)]
    pub quiet: bool,
}
