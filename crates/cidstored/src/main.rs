//! The daemon.

mod config;
mod limits;
mod logging;
mod metrics;
mod queue;
mod transport;

fn main() -> std::process::ExitCode {
    let matches = config::command().get_matches();
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    match config::load(&matches, &env) {
        Ok((_, config::Action::ShowTable)) => print!("{}", config::table()),
        Ok((loaded, _)) => print!("{}", config::effective(&loaded)),
        Err(error) => {
            eprintln!("cidstored: {error}");
            return 64.into();
        }
    }
    0.into()
}
