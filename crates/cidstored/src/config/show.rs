//! The settings for people: the effective ones, and the table of the documents.

use super::value::HIDDEN;
use super::{Loaded, SETTINGS, Source};
use std::fmt::Write;

/// The effective settings as a TOML file with the source of each as a comment; secrets hidden.
pub fn effective(loaded: &Loaded) -> String {
    let mut out = String::new();
    for setting in SETTINGS {
        let shown = loaded.config.show(setting.name);
        let source = loaded.source(setting.name);
        let absent = shown.is_empty() && *source == Source::Default;
        let line = if absent {
            format!("# {} is not set", setting.name)
        } else if shown.contains(HIDDEN) {
            // A comment, so that nobody starts a daemon with the asterisks for a password.
            format!("# {} = {}", setting.name, toml::Value::String(shown))
        } else if shown.parse::<u64>().is_ok() || shown == "true" || shown == "false" {
            format!("{} = {shown}", setting.name)
        } else {
            format!("{} = {}", setting.name, toml::Value::String(shown))
        };
        let _ = writeln!(out, "{line:<48} # {source}");
    }
    for name in &loaded.injected {
        let _ = writeln!(out, "# environment {name}: of the container platform, passed over");
    }
    out
}

/// All settings as a Markdown table.
pub fn table() -> String {
    let mut out = String::from("| setting | environment | default | |\n|---|---|---|---|\n");
    for setting in SETTINGS {
        let envs: Vec<String> = setting.envs.iter().map(|env| format!("`{env}`")).collect();
        let default =
            if setting.default.is_empty() { "—".into() } else { format!("`{}`", setting.default) };
        let help = setting.help.trim().replace('|', "\\|");
        let _ = writeln!(out, "| `{}` | {} | {default} | {help} |", setting.name, envs.join(", "));
    }
    out
}
