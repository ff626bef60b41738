//! In which form triples are written: plain values in, and whether they can hold together.

use crate::config::ConfigError;
use std::fmt::Write;

/// What the value of a triple's key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ValueForm {
    /// A string: the JSON of the record.
    #[default]
    Json,
    /// The same as a document of the RedisJSON module.
    RedisJson,
    /// A hash with a field for each member of the record.
    Hash,
    /// A string: the record as a MessagePack map.
    MessagePack,
}

impl ValueForm {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Json, Self::RedisJson, Self::Hash, Self::MessagePack];

    /// Its name in settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::RedisJson => "redisjson",
            Self::Hash => "hash",
            Self::MessagePack => "messagepack",
        }
    }

    /// Whether values are plain strings, which one SET replaces whole.
    pub(crate) fn is_string(self) -> bool {
        matches!(self, Self::Json | Self::MessagePack)
    }
}

/// Which sets are kept beside the triples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sets {
    /// None.
    #[default]
    None,
    /// Of each subject and predicate, their triples.
    Sp,
    /// Of each predicate and object, their triples.
    Po,
    /// Both.
    Both,
}

impl Sets {
    /// Its name in settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Sp => "sp",
            Self::Po => "po",
            Self::Both => "both",
        }
    }
}

/// How triples are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// What a value is.
    pub value: ValueForm,
    /// Seconds until a triple's key expires; 0: never.
    pub ttl: u32,
    /// The time to live begins with the first insert, and is not begun anew by a later one.
    pub keep_ttl: bool,
    /// An insert replaces what is there. Else what is there stays, until it is deleted or expires.
    pub overwrite: bool,
    /// Strings of more bytes are zstd frames; 0: none are.
    pub compress_above: usize,
    /// Sets beside the triples.
    pub sets: Sets,
}

impl Default for Form {
    fn default() -> Self {
        Self {
            value: ValueForm::Json,
            ttl: 0,
            keep_ttl: false,
            overwrite: true,
            compress_above: 0,
            sets: Sets::None,
        }
    }
}

impl Form {
    /// Refuses what no command of Redis does in one go.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let Self { value, ttl, keep_ttl, overwrite, compress_above, .. } = self;
        if !overwrite && *value == ValueForm::Hash {
            let expected = "true with value = hash: HSETNX asks for each field alone, not for the whole";
            return Err(ConfigError::new("overwrite", "false", expected));
        }
        if *keep_ttl && *ttl > 0 && !value.is_string() {
            let expected = format!(
                "write with value = {}: only SET can keep a time to live in Redis 6 (KEEPTTL)",
                value.as_str()
            );
            return Err(ConfigError::new("ttl_refresh", "never", expected));
        }
        if *compress_above > 0 && !value.is_string() {
            let expected = format!("0 with value = {}, which Redis itself looks into", value.as_str());
            return Err(ConfigError::new("compress_above", compress_above.to_string(), expected));
        }
        Ok(())
    }

    /// What of it everything in Redis has to have in common, as a short text; empty for the default. Where it
    /// changes, everything is to be written anew. Compressed or not is told by each value itself.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let mut add = |name: &str, value: &str| {
            let space = if text.is_empty() { "" } else { " " };
            write!(text, "{space}{name}={value}").expect("it goes into memory");
        };
        if self.value != ValueForm::Json {
            add("value", self.value.as_str());
        }
        if self.ttl > 0 {
            add("ttl", &self.ttl.to_string());
        }
        if !self.overwrite {
            add("overwrite", "false");
        }
        if self.sets != Sets::None {
            add("sets", self.sets.as_str());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_hold_together_is_named() {
        let of = |value| Form { value, ..Form::default() };
        let bad = [
            ("overwrite", Form { overwrite: false, ..of(ValueForm::Hash) }),
            ("ttl_refresh", Form { ttl: 1, keep_ttl: true, ..of(ValueForm::Hash) }),
            ("ttl_refresh", Form { ttl: 1, keep_ttl: true, ..of(ValueForm::RedisJson) }),
            ("compress_above", Form { compress_above: 1, ..of(ValueForm::Hash) }),
            ("compress_above", Form { compress_above: 1, ..of(ValueForm::RedisJson) }),
        ];
        for (field, form) in bad {
            assert_eq!(form.check().unwrap_err().field, field, "{form:?}");
        }
        for value in ValueForm::ALL {
            assert_eq!(Form { ttl: 1, sets: Sets::Both, ..of(value) }.check(), Ok(()));
        }
        let string = of(ValueForm::MessagePack);
        assert_eq!(
            Form { ttl: 1, keep_ttl: true, overwrite: false, compress_above: 9, ..string }.check(),
            Ok(())
        );
    }

    #[test]
    fn the_text_tells_apart_what_is_written_differently() {
        let default = Form::default();
        assert_eq!(default.text(), "");
        assert_eq!(Form { compress_above: 9, keep_ttl: true, ..default.clone() }.text(), "");
        let all = Form { value: ValueForm::Hash, ttl: 60, overwrite: false, sets: Sets::Both, ..default };
        assert_eq!(all.text(), "value=hash ttl=60 overwrite=false sets=both");
    }
}
