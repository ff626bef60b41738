//! The environment as a source of settings: what is a setting, what is a mistake, and what a
//! container platform has put there for a service of our name.

use super::{ConfigError, FILE_ENV, SETTINGS, Setting};
use std::collections::BTreeMap;
use std::ffi::OsString;

/// What all variables of this program begin with; one that does and is no setting is a mistake.
const OWN: &str = "CIDSTORE_";
/// Least likeness, of 1, at which a name is offered for a mistyped one.
const LIKENESS_MIN: f64 = 0.5;

/// The variables that hold settings.
#[derive(Debug, Default)]
pub struct Environment {
    /// By name. Empty ones are left out, since that is how compose files pass absent ones.
    pub values: BTreeMap<String, String>,
    /// Passed over, because a container platform made them; sorted.
    pub injected: Vec<String>,
}

impl Environment {
    /// Takes the settings out of the variables of a process.
    ///
    /// # Errors
    /// [`ConfigError`] for variables that look like settings and are none, and for settings that
    /// are no text.
    pub fn read(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self, ConfigError> {
        let mut all = BTreeMap::new();
        for (name, value) in variables {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) if value.is_empty() => {}
                Ok(value) => drop(all.insert(name, value)),
                Err(_) if is_ours(&name) => return Err(ConfigError::NoText { name }),
                Err(_) => {}
            }
        }
        let injected: Vec<String> = all
            .iter()
            .filter(|(name, value)| is_ours(name) && is_injected(name, value, &all))
            .map(|(name, _)| name.clone())
            .collect();
        all.retain(|name, _| is_ours(name) && !injected.contains(name));
        let unknown: Vec<_> = all
            .keys()
            .filter(|name| !is_known(name))
            .map(|name| (name.clone(), nearest(name).and_then(|setting| setting.envs.first().copied())))
            .collect();
        if unknown.is_empty() {
            Ok(Self { values: all, injected })
        } else {
            Err(ConfigError::UnknownVariables(unknown))
        }
    }
}

fn is_ours(name: &str) -> bool {
    name.starts_with(OWN) || is_known(name)
}

fn is_known(name: &str) -> bool {
    name == FILE_ENV || SETTINGS.iter().any(|setting| setting.envs.contains(&name))
}

/// Whether Kubernetes, or a link of Docker's, made the variable for a service named `cidstore`,
/// `redis`, `cidstore-redis` or the like. The one among them that has the name of a setting is
/// `<service>_PORT`: it holds `tcp://…` then, and comes with others of its kind. That of a service
/// named as we are is recognized by itself.
fn is_injected(name: &str, value: &str, all: &BTreeMap<String, String>) -> bool {
    let is_address = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    match name.strip_suffix("_PORT").filter(|_| is_address) {
        Some("CIDSTORE") => true,
        Some(service) => {
            let of_service = |other: &String| {
                other.strip_prefix(service).is_some_and(|rest| rest.starts_with('_') && is_link(other))
            };
            all.keys().any(of_service)
        }
        None => is_link(name),
    }
}

/// `<service>_SERVICE_HOST`, `<service>_SERVICE_PORT[_<name>]`,
/// `<service>_PORT_<number>_<protocol>[_ADDR|_PORT|_PROTO]`.
fn is_link(name: &str) -> bool {
    if name.ends_with("_SERVICE_HOST") || name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_") {
        return true;
    }
    name.match_indices("_PORT_").any(|(at, found)| {
        let mut parts = name[at + found.len()..].split('_');
        let number = parts.next().is_some_and(|part| part.parse::<u16>().is_ok());
        let protocol = matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"));
        let end = matches!((parts.next(), parts.next()), (None | Some("ADDR" | "PORT" | "PROTO"), None));
        number && protocol && end
    })
}

/// The setting that was probably meant by a variable or key that is none.
pub fn nearest(name: &str) -> Option<&'static Setting> {
    let plain = |name: &str| name.to_ascii_lowercase().replace('-', "_").replace("cidstore_", "");
    let wanted = plain(name);
    let likeness = |setting: &Setting| {
        let names = setting.envs.iter().chain([&setting.name]);
        names.map(|known| strsim::normalized_damerau_levenshtein(&wanted, &plain(known))).fold(0.0, f64::max)
    };
    let scored = SETTINGS.iter().map(|setting| (likeness(setting), setting));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(score, _)| *score >= LIKENESS_MIN).map(|(_, setting)| setting)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Environment, ConfigError> {
        Environment::read(variables.iter().map(|(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn a_mistyped_variable_is_refused_with_the_one_that_was_meant() {
        for (name, meant) in [
            ("CIDSTORE_DURABILTY", "CIDSTORE_DURABILITY"),
            ("CIDSTORE_PROT", "CIDSTORE_PORT"),
            ("CIDSTORE_REQ_PORT", "CIDSTORE_ZMQ_REQREP_PORT"),
            ("CIDSTORE_data_path", "CIDSTORE_DATA_PATH"),
            ("CIDSTORE_REDIS_PASSWD", "REDIS_PASSWORD"),
        ] {
            let message = read(&[(name, "x")]).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains(&format!("{meant:?}")), "{message}");
        }
        let both = [("CIDSTORE_X1", "1"), ("CIDSTORE_X2", "2"), ("CIDSTORE_PORT", "1")];
        let message = read(&both).unwrap_err().to_string();
        assert!(message.contains("CIDSTORE_X1") && message.contains("CIDSTORE_X2"), "{message}");
        // What an unknown variable holds may be a secret.
        let message = read(&[("CIDSTORE_REDIS_PASSWD", "hunter2")]).unwrap_err().to_string();
        assert!(!message.contains("hunter2"), "{message}");
        // An empty one is unset; those of other programs are theirs.
        let others = [("CIDSTORE_X1", ""), ("CIDSTORED_X", "1"), ("REDIS_X", "1"), ("PATH", "/")];
        assert!(read(&others).unwrap().values.is_empty());
    }

    #[test]
    fn what_kubernetes_and_docker_inject_is_passed_over_and_told() {
        let injected = [
            ("CIDSTORE_PORT", "tcp://10.0.0.11:5555"),
            ("CIDSTORE_PORT_5555_TCP", "tcp://10.0.0.11:5555"),
            ("CIDSTORE_PORT_5555_TCP_ADDR", "10.0.0.11"),
            ("CIDSTORE_PORT_5555_TCP_PORT", "5555"),
            ("CIDSTORE_PORT_5555_TCP_PROTO", "tcp"),
            ("CIDSTORE_REDIS_PORT", "tcp://10.0.0.12:6379"),
            ("CIDSTORE_REDIS_PORT_6379_TCP_ADDR", "10.0.0.12"),
            ("CIDSTORE_SERVICE_HOST", "10.0.0.11"),
            ("CIDSTORE_SERVICE_PORT", "5555"),
            ("CIDSTORE_SERVICE_PORT_REQ", "5555"),
            ("REDIS_PORT", "tcp://10.0.0.12:6379"),
        ];
        let own = [("CIDSTORE_ZMQ_PUB_PORT", "7"), ("REDIS_SERVICE_HOST", "10.0.0.12")];
        let found = read(&[&injected[..], &own].concat()).unwrap();
        let names: Vec<&str> = injected.iter().map(|(name, _)| *name).collect();
        assert_eq!(found.injected, names);
        assert_eq!(
            found.values.into_iter().collect::<Vec<_>>(),
            [("CIDSTORE_ZMQ_PUB_PORT".into(), "7".into())]
        );
        // Alone it is a mistake of somebody's, save the one of our own name.
        assert_eq!(read(&[("CIDSTORE_PORT", "tcp://x:1")]).unwrap().injected, ["CIDSTORE_PORT"]);
        let alone = read(&[("CIDSTORE_ZMQ_PUB_PORT", "tcp://x:1")]).unwrap();
        assert!(alone.injected.is_empty() && alone.values.len() == 1);
        for name in
            ["CIDSTORE_PORT_5555", "CIDSTORE_PORT_X_TCP", "CIDSTORE_PORT_1_TCP_FOO", "CIDSTORE_SERVICE"]
        {
            assert!(read(&[(name, "1")]).is_err(), "{name}");
        }
        for setting in SETTINGS {
            assert!(setting.envs.iter().all(|name| !is_link(name)), "{}", setting.name);
        }
    }

    #[test]
    fn a_setting_that_is_no_text_is_refused() {
        use std::os::unix::ffi::OsStringExt;
        let read = |name: &str| Environment::read([(name.into(), OsString::from_vec(b"fs\xffync".into()))]);
        assert!(read("CIDSTORE_DURABILITY").unwrap_err().to_string().contains("CIDSTORE_DURABILITY"));
        assert!(read("REDIS_PASSWORD").unwrap_err().to_string().contains("REDIS_PASSWORD"));
        assert!(read("LESS").is_ok());
    }
}
