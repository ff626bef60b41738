//! Which daemon to talk to: flags, then the daemon's endpoints file, then the daemon's own
//! environment variables, then its defaults on this machine.

// The docs of the arguments are their help, which is plain text.
#![allow(clippy::doc_markdown)]

use cidstore_client::{Config, connectable};
use clap::Args;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// Options of every command that talks to a daemon.
#[derive(Debug, Clone, Args)]
pub struct Connection {
    /// Host of the daemon, for the endpoints that are given by port only
    #[arg(
        long,
        global = true,
        help_heading = "Connection",
        value_name = "HOST",
        default_value = "127.0.0.1"
    )]
    pub host: String,
    /// Endpoint for requests [env: CIDSTORE_ZMQ_ENDPOINT, or CIDSTORE_ZMQ_REQREP_PORT on --host]
    #[arg(long, global = true, help_heading = "Connection", value_name = "ENDPOINT")]
    pub endpoint: Option<String>,
    /// Endpoint of notifications [env: CIDSTORE_PUB_SUB_ADDR, or CIDSTORE_ZMQ_PUB_PORT on --host]
    #[arg(long, global = true, help_heading = "Connection", value_name = "ENDPOINT")]
    pub pub_endpoint: Option<String>,
    /// Read the endpoints from the file that `cidstored --endpoints-file` writes
    #[arg(long, global = true, help_heading = "Connection", value_name = "FILE")]
    pub endpoints_file: Option<PathBuf>,
    /// Seconds that one try waits for a reply
    #[arg(long, global = true, help_heading = "Connection", value_name = "SECONDS", default_value_t = 5.0, value_parser = seconds)]
    pub timeout: f64,
    /// How often a request is sent before giving up
    #[arg(long, global = true, help_heading = "Connection", value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub tries: u32,
    /// Wait this long for a daemon that is not there yet, instead of failing at once
    #[arg(long, global = true, help_heading = "Connection", value_name = "SECONDS", default_value_t = 0.0, value_parser = seconds)]
    pub wait: f64,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=86_400.0).contains(&value) => Ok(value),
        _ => Err("expected seconds, from 0 to 86400".into()),
    }
}

struct Socket {
    key: &'static str,
    endpoint_variable: &'static str,
    port_variable: &'static str,
    port: u16,
}

const REQUEST: Socket = Socket {
    key: "req",
    endpoint_variable: "CIDSTORE_ZMQ_ENDPOINT",
    port_variable: "CIDSTORE_ZMQ_REQREP_PORT",
    port: 5555,
};
const PUSH: Socket = Socket {
    key: "push",
    endpoint_variable: "CIDSTORE_PUSH_PULL_ADDR",
    port_variable: "CIDSTORE_ZMQ_PUSH_PORT",
    port: 5556,
};
const PUBLISH: Socket = Socket {
    key: "pub",
    endpoint_variable: "CIDSTORE_PUB_SUB_ADDR",
    port_variable: "CIDSTORE_ZMQ_PUB_PORT",
    port: 5557,
};

impl Connection {
    /// The client's settings.
    ///
    /// # Errors
    /// A message for a person: an endpoints file that cannot be used.
    pub fn config(&self) -> Result<Config, String> {
        let file = self.endpoints_file.as_ref().map(|path| {
            let shown = path.display();
            let text = std::fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
            serde_json::from_str(&text).map_err(|error| format!("{shown}: not an endpoints file: {error}"))
        });
        self.resolve(file.transpose()?.as_ref(), |name| std::env::var(name).ok())
    }

    fn resolve(
        &self,
        file: Option<&Value>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Config, String> {
        let of = |socket: &Socket, flag: Option<&String>| -> Result<String, String> {
            if let Some(endpoint) = flag {
                return Ok(connectable(endpoint));
            }
            if let Some(file) = file {
                let endpoint = file[socket.key]
                    .as_str()
                    .ok_or_else(|| format!("the endpoints file has no text {:?}", socket.key))?;
                return Ok(connectable(endpoint));
            }
            if let Some(endpoint) = variable(socket.endpoint_variable).filter(|text| !text.is_empty()) {
                return Ok(connectable(&endpoint));
            }
            let port = match variable(socket.port_variable).filter(|text| !text.is_empty()) {
                None => socket.port,
                Some(text) => {
                    text.parse().map_err(|_| format!("{}={text:?}: expected a port", socket.port_variable))?
                }
            };
            Ok(format!("tcp://{}:{port}", self.host))
        };
        Ok(Config {
            request: of(&REQUEST, self.endpoint.as_ref())?,
            push: of(&PUSH, None)?,
            subscribe: of(&PUBLISH, self.pub_endpoint.as_ref())?,
            timeout: Duration::from_secs_f64(self.timeout.max(0.001)),
            tries: self.tries,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use serde_json::json;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        connection: Connection,
    }

    fn config(args: &[&str], file: Option<&Value>, environment: &[(&str, &str)]) -> Result<Config, String> {
        let line = Line::try_parse_from([&["x"], args].concat()).map_err(|error| error.to_string())?;
        line.connection.resolve(file, |name| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn flag_then_file_then_environment_then_default() {
        let file = json!({"req": "tcp://0.0.0.0:1", "push": "tcp://127.0.0.1:2", "pub": "tcp://*:3"});
        let environment = [
            ("CIDSTORE_ZMQ_ENDPOINT", "tcp://*:7"),
            ("CIDSTORE_ZMQ_REQREP_PORT", "8"),
            ("CIDSTORE_ZMQ_PUB_PORT", "9"),
            ("CIDSTORE_PUB_SUB_ADDR", ""),
        ];
        let all = config(&["--endpoint", "tcp://h:5"], Some(&file), &environment).unwrap();
        assert_eq!((&*all.request, &*all.subscribe), ("tcp://h:5", "tcp://127.0.0.1:3"));
        let none = config(&["--host", "db"], None, &environment).unwrap();
        assert_eq!(
            (&*none.request, &*none.push, &*none.subscribe),
            ("tcp://127.0.0.1:7", "tcp://db:5556", "tcp://db:9")
        );
        assert_eq!(config(&[], None, &[]).unwrap().request, Config::default().request);
    }

    #[test]
    fn nonsense_is_named() {
        assert!(config(&[], Some(&json!({"push": 1})), &[]).unwrap_err().contains("\"req\""));
        let error = config(&[], None, &[("CIDSTORE_ZMQ_PUB_PORT", "x")]).unwrap_err();
        assert!(error.contains("CIDSTORE_ZMQ_PUB_PORT=\"x\""), "{error}");
        assert!(config(&["--timeout", "-1"], None, &[]).is_err());
        assert!(config(&["--tries", "0"], None, &[]).is_err());
    }
}
