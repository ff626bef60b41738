//! Configuration: flags, then environment, then a TOML file, then defaults.
//!
//! **Owns** the table of settings, where each value came from, and the refusal of settings that are
//! unknown or contradict each other.
//!
//! **Invariants**
//! - A value that cannot be used is refused with its setting and its source; nothing is corrected.
//! - An empty variable counts as unset, since that is how compose files pass absent ones.
//! - A secret is never shown.

mod check;
mod environment;
mod networks;
mod settings;
mod show;
mod value;

pub use environment::Environment;
pub use networks::Networks;
pub use settings::{Config, SETTINGS, Setting};
pub use show::{effective, table};
pub use value::{
    Durability, Endpoint, LogFormat, PubFormat, RedisEvents, RedisProtocol, RedisSets, RedisTtlRefresh,
    RedisValue, Secret,
};

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Variable and flag that name the file.
const FILE_ENV: &str = "CIDSTORE_CONFIG";
const FILE_FLAG: &str = "config";

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A flag of the command line.
    Flag(String),
    /// A variable of the environment.
    Env(String),
    /// A key of the file.
    File(PathBuf),
    /// Nobody set it.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "flag --{name}"),
            Self::Env(name) => write!(f, "environment {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Why the daemon does not start with these settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value that does not fit its setting.
    #[error("setting {name} (from {origin}): {found:?}: {expected}")]
    Value {
        /// The setting.
        name: &'static str,
        /// Where it came from.
        origin: Source,
        /// The value, hidden if secret.
        found: String,
        /// What would fit.
        expected: String,
    },
    /// A key of the file that is no setting.
    #[error("file {}: unknown setting {name:?}{}", path.display(), hint(*near))]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The key.
        name: String,
        /// A setting with a similar name.
        near: Option<&'static str>,
    },
    /// Variables that have our prefix and are no settings.
    #[error("{}: unset what is not meant for cidstored", variables(.0))]
    UnknownVariables(Vec<(String, Option<&'static str>)>),
    /// A variable that is a setting and no UTF-8.
    #[error("environment {name}: its value is not UTF-8 text")]
    NoText {
        /// The variable.
        name: String,
    },
    /// Two settings, or two sources of one, that cannot both hold.
    #[error("contradictory settings: {0}")]
    Contradiction(String),
    /// The file cannot be read or is not TOML.
    #[error("file {}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system or the parser said.
        reason: String,
    },
}

fn hint(near: Option<&'static str>) -> String {
    near.map(|name| format!(" (did you mean {name:?}?)")).unwrap_or_default()
}

fn variables(unknown: &[(String, Option<&'static str>)]) -> String {
    let each =
        |(name, near): &(String, Option<_>)| format!("environment {name}: no such setting{}", hint(*near));
    unknown.iter().map(each).collect::<Vec<_>>().join("; ")
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Run the daemon.
    Run,
    /// Print the effective settings.
    ShowConfig,
    /// Print the table of settings as Markdown.
    ShowTable,
}

/// The settings and where each came from.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Source of each, by name.
    pub sources: BTreeMap<&'static str, Source>,
    /// Variables that a container platform made and that were passed over.
    pub injected: Vec<String>,
}

impl Loaded {
    /// Where a setting came from.
    pub fn source(&self, name: &str) -> &Source {
        self.sources.get(name).unwrap_or(&Source::Default)
    }
}

/// The command line: one flag per setting, and `config`.
pub fn command() -> clap::Command {
    use clap::{Arg, ArgAction, Command};
    let mut command = Command::new("cidstored")
        .about("A durable store of triples of 256-bit content ids, over ZeroMQ")
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(
            "A flag wins over its environment variable, that over the file, that over the default.\n\
             Exit codes: 0 ended in order; 64 settings refused; 69 address in use or socket refused; \
             73 another daemon holds the store; 74 the store cannot be read or written; \
             75 did not end within the grace time; 134 (SIGABRT) a defect.",
        )
        .arg(
            Arg::new(FILE_FLAG)
                .long(FILE_FLAG)
                .value_name("FILE")
                .global(true)
                .value_parser(clap::value_parser!(PathBuf))
                .help("Settings as a TOML file; its keys are the flags with underscores [CIDSTORE_CONFIG]"),
        );
    for setting in SETTINGS {
        // Lives as long as the command line, which is as long as the process.
        let flag: &'static str = flag(setting).leak();
        let default = if setting.default.is_empty() {
            String::new()
        } else {
            format!(" (default {})", setting.default)
        };
        command = command.arg(
            Arg::new(setting.name)
                .long(flag)
                .value_name("VALUE")
                .global(true)
                // Not all that begins with a dash: a flag whose value was forgotten would take the next.
                .allow_negative_numbers(true)
                .help(format!("{}{default} [{}]", setting.help.trim(), setting.envs.join(", "))),
        );
    }
    command.subcommand(
        Command::new("config").about("Prints the effective settings and where each came from").arg(
            Arg::new("table")
                .long("table")
                .action(ArgAction::SetTrue)
                .help("Prints all settings as a Markdown table instead"),
        ),
    )
}

fn flag(setting: &Setting) -> String {
    setting.name.replace('_', "-")
}

/// Reads all sources.
///
/// # Errors
/// [`ConfigError`] naming the setting and where it came from.
pub fn load(matches: &clap::ArgMatches, env: &Environment) -> Result<(Loaded, Action), ConfigError> {
    // A global flag given after the subcommand is reported by the subcommand's matches too; clap
    // propagates both ways, so the innermost matches know all.
    let (inner, action) = match matches.subcommand() {
        Some(("config", sub)) if sub.get_flag("table") => (sub, Action::ShowTable),
        Some((_, sub)) => (sub, Action::ShowConfig),
        None => (matches, Action::Run),
    };
    let from_env = || env.values.get(FILE_ENV).map(PathBuf::from);
    let path = inner.get_one::<PathBuf>(FILE_FLAG).cloned().or_else(from_env);
    let file = path.as_deref().map(read_file).transpose()?.unwrap_or_default();
    let path = path.unwrap_or_default();

    let mut loaded =
        Loaded { config: Config::default(), sources: BTreeMap::new(), injected: env.injected.clone() };
    for setting in SETTINGS {
        let from_flag =
            inner.get_one::<String>(setting.name).map(|text| (text.clone(), Source::Flag(flag(setting))));
        let from_env = env_value(setting, env)?;
        let from_file = file.get(setting.name).map(|text| (text.clone(), Source::File(path.clone())));
        // Each source is checked, also where another wins: a wrong line in the file must not wait
        // for the day on which the variable goes away.
        for (text, origin) in [&from_file, &from_env, &from_flag].into_iter().flatten() {
            loaded.config.set(setting.name, text).map_err(|expected| ConfigError::Value {
                name: setting.name,
                origin: origin.clone(),
                found: if is_secret(setting) { value::HIDDEN.into() } else { text.clone() },
                expected,
            })?;
            loaded.sources.insert(setting.name, origin.clone());
        }
    }
    check::check(&loaded)?;
    Ok((loaded, action))
}

fn is_secret(setting: &Setting) -> bool {
    ["password", "secret", "url"].iter().any(|part| setting.name.contains(part))
}

/// The value of a setting's variables. Two of them with different values contradict each other.
fn env_value(setting: &Setting, env: &Environment) -> Result<Option<(String, Source)>, ConfigError> {
    let mut found: Option<(String, Source)> = None;
    for name in setting.envs {
        let Some(text) = env.values.get(*name) else { continue };
        match &found {
            None => found = Some((text.clone(), Source::Env((*name).into()))),
            // RUST_LOG is often set for other programs; the own variable wins over it.
            Some((first, _)) if first == text || *name == "RUST_LOG" => {}
            Some((_, origin)) => {
                return Err(ConfigError::Contradiction(format!(
                    "{} has one value from {origin} and another from environment {name}: set one of them",
                    setting.name
                )));
            }
        }
    }
    Ok(found)
}

fn read_file(path: &Path) -> Result<BTreeMap<String, String>, ConfigError> {
    let error = |reason: String| ConfigError::File { path: path.into(), reason };
    let text = std::fs::read_to_string(path).map_err(|e| error(e.to_string()))?;
    // The parser's own text shows the line, and a secret may stand there.
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
        let line = e.span().map_or(1, |span| text.as_bytes()[..span.start].split(|b| *b == b'\n').count());
        error(format!("line {line}: {}", e.message()))
    })?;
    let mut values = BTreeMap::new();
    for (name, value) in table {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else {
            return Err(ConfigError::Unknown {
                path: path.into(),
                near: environment::nearest(&name).map(|setting| setting.name),
                name,
            });
        };
        let text = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(yes) => yes.to_string(),
            other => {
                return Err(ConfigError::Value {
                    name: setting.name,
                    origin: Source::File(path.into()),
                    found: format!("a {}", other.type_str()),
                    expected: "expected a string, an integer or a boolean".into(),
                });
            }
        };
        values.insert(name, text);
    }
    Ok(values)
}

#[cfg(test)]
mod tests;
