//! The operator's file of MCP servers, in the form that is in wide use: `{"mcpServers": {"name": {…}}}`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_shared::domain::limits::{MCP_CALL_TIMEOUT, MCP_SERVER_NAME_CHARS};
use holdfast_shared::domain::secret::Secret;
use holdfast_shared::domain::tenant::TenantId;
use holdfast_shared::wire::http_endpoint::{Mark, Template};
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::names;

/// The setting that names the file, as errors name it.
pub const SETTING: &str = "HOLDFAST_MCP_CONFIG";

/// The servers that the operator names.
#[derive(Debug, Default)]
pub struct McpConfig {
    pub(super) servers: Vec<ServerConfig>,
}

/// One server.
#[derive(Debug)]
pub(super) struct ServerConfig {
    /// Its name in the file.
    pub(super) name: String,
    /// The name in a form that names of tools can begin with.
    pub(super) prefix: String,
    /// How it is reached.
    pub(super) transport: TransportConfig,
    /// Whose agents may use it; `None`: everybody's.
    pub(super) tenants: Option<Vec<TenantId>>,
    /// Most time of a call.
    pub(super) timeout: Duration,
}

/// How a server is reached.
#[derive(Debug)]
pub(super) enum TransportConfig {
    /// By the standard streams of a child process.
    Stdio {
        /// The program.
        command: String,
        /// Its arguments, in which secrets are common.
        args: Vec<Secret>,
        /// Its variables besides `PATH` and `HOME`.
        env: BTreeMap<String, Secret>,
    },
    /// By HTTP.
    Http {
        /// The URL, in which secrets are common.
        url: Secret,
        /// Headers of every request, marked as sensitive.
        headers: HeaderMap,
    },
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{SETTING}: {path}: {problem}", path = path.display())]
pub struct McpConfigError {
    path: PathBuf,
    problem: String,
}

#[derive(Deserialize)]
struct File {
    #[serde(rename = "mcpServers")]
    servers: Map<String, Value>,
}

#[derive(Deserialize)]
struct Entry {
    command: Option<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    url: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(rename = "type", alias = "transport")]
    kind: Option<String>,
    tenants: Option<Vec<String>>,
    timeout_ms: Option<u64>,
    #[serde(default)]
    disabled: bool,
    /// What other programs know and this one does not.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl McpConfig {
    /// Reads the file. `${NAME}` stands for a variable of this process's environment.
    ///
    /// # Errors
    /// It cannot be read, or something in it is wrong; the text names the server.
    pub fn load(path: &Path) -> Result<Self, McpConfigError> {
        let problem = |problem: String| McpConfigError { path: path.to_owned(), problem };
        let text = std::fs::read_to_string(path).map_err(|error| problem(error.to_string()))?;
        Self::parse(&text, &|name| std::env::var(name).ok()).map_err(problem)
    }

    /// Reads the text of such a file; `variable` tells the value of a variable.
    ///
    /// # Errors
    /// Something in it is wrong; the text names the server.
    pub fn parse(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let mut servers: Vec<ServerConfig> = Vec::new();
        for (name, entry) in file.servers {
            let named = |problem: String| format!("server '{name}': {problem}");
            let entry: Entry = serde_json::from_value(entry).map_err(|error| named(error.to_string()))?;
            if entry.disabled {
                continue;
            }
            if !entry.rest.is_empty() {
                let keys: Vec<_> = entry.rest.keys().map(String::as_str).collect();
                tracing::warn!(
                    mcp.server = name,
                    keys = keys.join(", "),
                    "keys of an MCP server that mean nothing here"
                );
            }
            let server = entry.server(&name, variable).map_err(named)?;
            if let Some(other) = servers.iter().find(|other| other.prefix == server.prefix) {
                return Err(named(format!("its tools would have the names of those of '{}': rename one", other.name)));
            }
            servers.push(server);
        }
        Ok(Self { servers })
    }
}

impl Entry {
    fn server(self, name: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<ServerConfig, String> {
        let fill = |text: &str| {
            let missing = |name: &str| format!("the environment has no variable '{name}'");
            Template::parse(text, Mark::DollarBrace)?.fill(|name| variable(name).ok_or_else(|| missing(name)))
        };
        let prefix = names::prefix(name);
        if !(1..=MCP_SERVER_NAME_CHARS).contains(&prefix.len()) {
            return Err(format!("its name must have 1 to {MCP_SERVER_NAME_CHARS} letters, digits, '-' or '_'"));
        }
        let kind = self.kind.as_deref();
        let transport = match (self.command, self.url) {
            (Some(command), None) if matches!(kind, None | Some("stdio")) => TransportConfig::Stdio {
                command: fill(&command)?,
                args: self.args.iter().map(|arg| fill(arg).map(Secret::new)).collect::<Result<_, _>>()?,
                env: self
                    .env
                    .into_iter()
                    .map(|(name, value)| Ok((name, Secret::new(fill(&value)?))))
                    .collect::<Result<_, String>>()?,
            },
            (None, Some(url)) if matches!(kind, None | Some("http" | "streamable-http" | "streamableHttp")) => {
                let url = fill(&url)?;
                let is_http = Url::parse(&url).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
                if !is_http {
                    return Err("'url' must be an absolute http or https URL".to_owned());
                }
                TransportConfig::Http { url: Secret::new(url), headers: headers(&self.headers, &fill)? }
            }
            (Some(_), Some(_)) | (None, None) => return Err("give either 'command' or 'url'".to_owned()),
            (Some(_), None) => return Err("with 'command', 'type' can only be 'stdio'".to_owned()),
            (None, Some(_)) => {
                return Err("with 'url', 'type' can only be 'http': the older 'sse' is not spoken".to_owned());
            }
        };
        let tenant = |name: &String| TenantId::parse(name).ok_or_else(|| format!("'{name}' is not a tenant"));
        let tenants = self.tenants.map(|names| names.iter().map(tenant).collect::<Result<_, _>>()).transpose()?;
        let timeout = match self.timeout_ms {
            Some(0) => return Err("'timeout_ms' must be at least 1".to_owned()),
            Some(timeout) => Duration::from_millis(timeout),
            None => MCP_CALL_TIMEOUT,
        };
        Ok(ServerConfig { name: name.to_owned(), prefix, transport, tenants, timeout })
    }
}

fn headers(
    given: &BTreeMap<String, String>,
    fill: &dyn Fn(&str) -> Result<String, String>,
) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let wrong = || format!("the header '{name}' is not one");
        let mut value = HeaderValue::from_str(&fill(value)?).map_err(|_| wrong())?;
        value.set_sensitive(true);
        headers.insert(name.parse::<HeaderName>().map_err(|_| wrong())?, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(servers: &Value) -> Result<McpConfig, String> {
        let variable = |name: &str| (name == "TOKEN").then(|| "s3cret".to_owned());
        McpConfig::parse(&json!({"mcpServers": servers}).to_string(), &variable)
    }

    #[test]
    fn servers_are_read_with_variables_and_without_showing_them() {
        let config = parse(&json!({
            "files": {"command": "npx", "args": ["-y", "--token=${TOKEN}"], "env": {"KEY": "${TOKEN}"}, "autoApprove": []},
            "My Search!": {"type": "http", "url": "http://127.0.0.1:1/mcp?k=${TOKEN}", "headers": {"Authorization": "Bearer ${TOKEN}"},
                "tenants": ["a", "b"], "timeout_ms": 5},
            "off": {"disabled": true},
        }))
        .expect("a configuration");
        let [search, files] = config.servers.as_slice() else { panic!("{config:?}") };
        let (search, files) = if search.name == "files" { (files, search) } else { (search, files) };
        assert_eq!((files.prefix.as_str(), files.timeout, &files.tenants), ("files", MCP_CALL_TIMEOUT, &None));
        let TransportConfig::Stdio { args, env, .. } = &files.transport else { panic!("{files:?}") };
        assert_eq!((args[1].expose(), env["KEY"].expose()), ("--token=s3cret", "s3cret"));
        assert_eq!((search.prefix.as_str(), search.timeout), ("My_Search", Duration::from_millis(5)));
        assert_eq!(search.tenants.as_ref().map(Vec::len), Some(2));
        let TransportConfig::Http { headers, .. } = &search.transport else { panic!("{search:?}") };
        assert_eq!(headers["authorization"], "Bearer s3cret");
        assert!(!format!("{config:?}").contains("s3cret"), "{config:?}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (servers, reason) in [
            (json!({"a": {}}), "server 'a': give either"),
            (json!({"a": {"command": "x", "url": "http://b/"}}), "give either"),
            (json!({"a": {"command": "x", "type": "http"}}), "'stdio'"),
            (json!({"a": {"url": "http://b/", "type": "sse"}}), "'sse'"),
            (json!({"a": {"url": "b"}}), "'url'"),
            (json!({"a": {"command": "x", "args": "y"}}), "server 'a': invalid type"),
            (json!({"a": {"command": "x", "env": {"K": "${NOTHING}"}}}), "no variable 'NOTHING'"),
            (json!({"a": {"url": "http://b/", "headers": {"x": "a\nb"}}}), "header 'x'"),
            (json!({"a": {"command": "x", "tenants": ["a b"]}}), "'a b' is not a tenant"),
            (json!({"a": {"command": "x", "timeout_ms": 0}}), "'timeout_ms'"),
            (json!({"!": {"command": "x"}}), "its name"),
            (json!({"a".repeat(33): {"command": "x"}}), "its name"),
            (json!({"a.b": {"command": "x"}, "a b": {"command": "y"}}), "rename one"),
        ] {
            let refusal = parse(&servers).expect_err(&servers.to_string());
            assert!(refusal.contains(reason), "{servers}: {refusal}");
        }
        let refusal = McpConfig::load(Path::new("/nowhere.json")).expect_err("no file").to_string();
        assert!(refusal.starts_with("HOLDFAST_MCP_CONFIG: /nowhere.json: "), "{refusal}");
    }
}
