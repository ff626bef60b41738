//! `import`: N-Triples, or what `export` wrote, into the store, batch after batch, several on their way
//! at a time.

mod export;
mod sender;
mod source;
mod state;
mod triples;

use crate::args::Import;
use crate::exit::Failure;
use cidstore_client::Config;
use sender::Sender;
pub use source::LINE_BYTES_MAX;
use state::StateFile;
use std::io;
use std::path::Path;

pub fn import(config: &Config, args: &Import, json: bool) -> Result<(), Failure> {
    let export = export::open(args)?;
    let id = export.as_ref().map(|export| export.sum().to_string());
    let state = args.resume.as_ref().map(|path| StateFile::new(path, &args.file, id));
    let mut sender = Sender::start(config, args, state)?;
    if sender.acked.done {
        eprintln!("cidctl: {} is imported already, says {}", args.file.display(), sender.state_name());
        return sender.report(json);
    }
    let result = match &export {
        Some(export) => export::send(export, args, &mut sender),
        None => triples::send(args, &mut sender),
    };
    // Whatever happened, what is acknowledged is worth keeping.
    let saved = sender.save();
    sender.meter.end();
    if let Err(failure) = result {
        if args.resume.is_some() {
            let unit = if export.is_some() { "row" } else { "line" };
            eprintln!(
                "cidctl: stored up to {unit} {}; run the same command to go on",
                sender.acked.place.line
            );
        }
        return Err(failure);
    }
    saved?;
    sender.report(json)
}

fn local(path: &Path) -> impl Fn(io::Error) -> Failure {
    let shown = path.display().to_string();
    move |error| Failure::Local(format!("{shown}: {error}"))
}
