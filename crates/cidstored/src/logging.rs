//! Log lines on standard error, as text or as JSON.

use crate::config::{Config, LogFormat};
use tracing_subscriber::EnvFilter;

/// Starts logging for the whole process.
///
/// # Errors
/// When `log_level` cannot be read: what is wrong with it.
pub fn start(config: &Config) -> Result<(), String> {
    let filter = EnvFilter::try_new(&config.log_level)
        .map_err(|error| format!("setting log_level: {:?}: {error}", config.log_level))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_thread_names(true)
        .with_target(false);
    match config.log_format {
        LogFormat::Text => {
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
            builder.with_ansi(ansi).init();
        }
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}

/// Makes a panic anywhere the end of the process: a thread less would be a daemon that answers some
/// and not others. What was acknowledged is in the log on disk.
pub fn panic_ends_the_process() {
    std::panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("?");
        let trace = std::backtrace::Backtrace::force_capture();
        tracing::error!(thread = name, "a defect, ending now: {info}\n{trace}");
        std::process::abort();
    }));
}
