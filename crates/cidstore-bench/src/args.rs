//! The command line.

use crate::encode::Form;
use cidstore_bench::data::{Data, Shape};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Load generator for cidstored. With --daemon it starts one of its own, on free ports and a fresh
/// folder; otherwise it talks to the one at --endpoint, and leaves its triples there.
#[derive(Debug, Parser)]
#[command(name = "cidstore-bench", version)]
pub struct Cli {
    /// Program to start: measures that one, on a fresh folder for each run
    #[arg(long, global = true, value_name = "PROGRAM")]
    pub daemon: Option<PathBuf>,
    /// Where the folders are made, on the disk to be measured; default: the system's temporary folder
    #[arg(long, global = true, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Endpoint for requests of a daemon that runs already
    #[arg(long, global = true, value_name = "ENDPOINT", default_value = "tcp://127.0.0.1:5555")]
    pub endpoint: String,
    /// Endpoint for pushes of a daemon that runs already
    #[arg(long, global = true, value_name = "ENDPOINT", default_value = "tcp://127.0.0.1:5556")]
    pub push: String,
    /// Process id of that daemon, to sample its memory
    #[arg(long, global = true, value_name = "PID")]
    pub pid: Option<u32>,
    /// Measure so many times; the report has medians
    #[arg(long, global = true, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    /// Write the report as JSON too; `-` prints JSON only
    #[arg(long, global = true, value_name = "FILE")]
    pub json: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Where files are made.
    pub fn folder(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(std::env::temp_dir)
    }

    /// Whether the JSON is all that is to be printed.
    pub fn json_to_stdout(&self) -> bool {
        self.json.as_ref().is_some_and(|path| path.as_os_str() == "-")
    }
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Load triples and time it
    Ingest(IngestArgs),
    /// Time queries over one REQ connection
    Query(QueryArgs),
    /// Time durable inserts of one triple over one REQ connection
    InsertLatency(InsertArgs),
    /// The floor of a round trip: a bare ROUTER that sends back what comes
    Echo {
        /// Bytes of the message
        #[arg(long, value_name = "N", default_value_t = 128)]
        bytes: usize,
        /// Round trips a run
        #[arg(long, value_name = "N", default_value_t = 10_000)]
        requests: usize,
    },
    /// The floor of a durable write: write and fdatasync of 4 KiB
    Fsync {
        /// Writes a run
        #[arg(long, value_name = "N", default_value_t = 1_000)]
        writes: usize,
    },
    /// All of it at one or more sizes, with floors, memory, disk and restarts; needs --daemon
    Suite(SuiteArgs),
    /// Serve as the echo
    #[command(hide = true)]
    EchoServer,
}

/// Which triples.
#[derive(Debug, Clone, Copy, Args)]
pub struct DataArgs {
    /// Distribution of the CIDs
    #[arg(long, value_enum, default_value_t = Shape::Graph)]
    pub shape: Shape,
    /// Another seed gives other triples
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

impl DataArgs {
    /// The triples of one run: on a daemon that stays, each run needs new ones.
    pub fn data(self, run: u32) -> Data {
        Data { shape: self.shape, seed: self.seed + u64::from(run) }
    }
}

/// Socket and encoding of an ingest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Batches of canonical text over REQ, each acknowledged
    ReqText,
    /// Packed batches over REQ, each acknowledged
    ReqPacked,
    /// Batches of canonical text over PUSH
    PushText,
    /// Packed batches over PUSH
    PushPacked,
}

impl Mode {
    /// The encoding.
    pub fn form(self) -> Form {
        match self {
            Self::ReqText | Self::PushText => Form::Text,
            Self::ReqPacked | Self::PushPacked => Form::Packed,
        }
    }

    /// Whether it goes over PUSH.
    pub fn is_push(self) -> bool {
        matches!(self, Self::PushText | Self::PushPacked)
    }

    /// The name on the command line and in the report.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Size of a load.
#[derive(Debug, Clone, Copy, Args)]
pub struct LoadArgs {
    #[command(flatten)]
    pub data: DataArgs,
    /// Triples in all
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub triples: u64,
    /// Triples a message
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub batch: u64,
    /// Connections, each with a thread
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    pub connections: u16,
}

#[derive(Debug, Args)]
pub struct IngestArgs {
    #[command(flatten)]
    pub load: LoadArgs,
    /// Socket and encoding
    #[arg(long, value_enum, default_value_t = Mode::ReqPacked)]
    pub mode: Mode,
}

#[derive(Debug, Args)]
pub struct QueryArgs {
    #[command(flatten)]
    pub data: DataArgs,
    /// How many triples of that shape and seed are there (with --daemon they are loaded first)
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub triples: u64,
    /// Bound parts: any of the letters spo, once each; several patterns separated by commas
    #[arg(long, value_name = "PARTS", default_value = "sp", value_delimiter = ',', value_parser = parts)]
    pub parts: Vec<String>,
    /// Rows at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    pub limit: u16,
    /// Queries a run
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub requests: u64,
}

#[derive(Debug, Args)]
pub struct InsertArgs {
    #[command(flatten)]
    pub data: DataArgs,
    /// Inserts a run
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    pub requests: u64,
}

#[derive(Debug, Args)]
pub struct SuiteArgs {
    #[command(flatten)]
    pub data: DataArgs,
    /// Triples of each store
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1000000", value_parser = clap::value_parser!(u64).range(1_000..))]
    pub sizes: Vec<u64>,
    /// Triples a message
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub batch: u64,
    /// Connections that load, each with a thread
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    pub connections: u16,
    /// Which ways of loading; everything else is measured after the first
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Mode::ReqPacked, Mode::ReqText, Mode::PushPacked])]
    pub modes: Vec<Mode>,
    /// Queries of each kind and round trips a run; inserts and fsyncs are a fifth of it
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..))]
    pub requests: u64,
    /// Most rows that scans read
    #[arg(long, value_name = "N", default_value_t = 20_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub scan_rows: u64,
    /// Rows that are only in the log when the daemon is killed, at most as many as the store has
    #[arg(long, value_name = "N", default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub replay_rows: u64,
    /// Seconds for which latencies are measured while batches come at half their measured maximum; 0
    /// leaves it out. The store grows by what comes
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub under_load_s: u64,
    /// The engine's example `in_process`, which opens the store without a daemon
    #[arg(long, value_name = "PROGRAM")]
    pub in_process: Option<PathBuf>,
    /// The program of bench/peers, which measures other stores
    #[arg(long, value_name = "PROGRAM")]
    pub peers: Option<PathBuf>,
    /// Triples of each load of the peers
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    pub peer_triples: u64,
}

fn parts(text: &str) -> Result<String, String> {
    let sorted: String = ['s', 'p', 'o'].into_iter().filter(|part| text.contains(*part)).collect();
    if !sorted.is_empty() && sorted.len() == text.len() {
        Ok(sorted)
    } else {
        Err("expected letters of spo".into())
    }
}
