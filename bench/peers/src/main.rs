//! `cidstore-peers`: what other stores take for the triples that `cidstore-bench` loads.
//!
//! **Owns** how each of them is set up and asked, which the README says, too. The triples and the form
//! of the report are `cidstore-bench`'s, so that figures can be set side by side.
//!
//! **Knows nothing of** cidstored.

mod folder;
mod oxigraph;
mod redis;
mod resp;
mod sqlite;

use anyhow::Result;
use cidstore_bench::data::{Data, Shape};
use cidstore_bench::report::Report;
use clap::{Parser, ValueEnum};
use std::path::PathBuf;

/// Measures other stores; prints the report as JSON, and as a table to standard error.
#[derive(Debug, Parser)]
#[command(name = "cidstore-peers", version)]
struct Args {
    /// Which stores
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Peer::Oxigraph, Peer::Sqlite, Peer::Redis])]
    only: Vec<Peer>,
    /// Where the folders are made, on the disk to be measured; default: the system's temporary folder
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Triples of each load
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    triples: u64,
    /// Lookups of each store
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    requests: u64,
    /// Distribution of the CIDs
    #[arg(long, value_enum, default_value_t = Shape::Graph)]
    shape: Shape,
    /// Another seed gives other triples
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// A store to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Peer {
    Oxigraph,
    Sqlite,
    Redis,
}

/// What is loaded, and where.
struct Work {
    dir: PathBuf,
    data: Data,
    triples: u64,
    requests: u64,
}

/// Triples of a batch, as in the loads of `cidstore-bench`.
const BATCH: u64 = 1000;

impl Work {
    /// The numbers of the triples of each batch.
    fn batches(&self) -> impl Iterator<Item = std::ops::Range<u64>> {
        let triples = self.triples;
        (0..triples).step_by(BATCH as usize).map(move |first| first..(first + BATCH).min(triples))
    }

    /// Triples a second.
    fn rate(&self, start: std::time::Instant) -> f64 {
        self.triples as f64 / start.elapsed().as_secs_f64()
    }

    /// A folder for one store, removed when dropped.
    fn folder(&self) -> std::io::Result<tempfile::TempDir> {
        tempfile::Builder::new().prefix("cidstore-peers-").tempdir_in(&self.dir)
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    let work = Work {
        dir: args.dir.unwrap_or_else(std::env::temp_dir),
        data: Data { shape: args.shape, seed: args.seed },
        triples: args.triples,
        requests: args.requests,
    };
    let mut report = Report::default();
    for peer in &args.only {
        eprintln!("cidstore-peers: {peer:?}");
        match peer {
            Peer::Oxigraph => oxigraph::measure(&mut report, &work)?,
            Peer::Sqlite => sqlite::measure(&mut report, &work)?,
            Peer::Redis => redis::measure(&mut report, &work)?,
        }
    }
    report.note(format!("peers: {} triples each", work.triples));
    eprint!("{}", report.table());
    println!("{:#}", report.json());
    Ok(())
}
