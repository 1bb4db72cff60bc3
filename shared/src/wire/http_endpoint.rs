//! The definition of an HTTP tool, as a client gives it in `source_code`: a URL, or an object with `url`, `method` and
//! `headers`.

use std::collections::BTreeMap;

use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};
use serde::Deserialize;

use crate::domain::tool::HttpEndpoint;

/// The methods that endpoints can have; the first is that of an endpoint that does not say.
const METHODS: [&str; 5] = ["POST", "GET", "PUT", "PATCH", "DELETE"];

/// Headers that are not the client's to set: they belong to the connection, or carry the id of the call.
const RESERVED: [&str; 10] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "proxy-authorization",
    "idempotency-key",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Definition {
    url: String,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    headers: Option<BTreeMap<String, String>>,
}

/// Reads a definition.
///
/// # Errors
/// It cannot be used; the text says why.
pub fn parse(source_code: &str) -> Result<HttpEndpoint, String> {
    let source_code = source_code.trim();
    let definition = if source_code.starts_with('{') {
        serde_json::from_str(source_code)
            .map_err(|error| format!("must be a URL, or an object with 'url', 'method' and 'headers': {error}"))?
    } else {
        Definition { url: source_code.to_owned(), method: None, headers: None }
    };
    let method = definition.method.map_or(METHODS[0].to_owned(), |method| method.to_ascii_uppercase());
    if !METHODS.contains(&method.as_str()) {
        return Err(format!("the method must be one of {}", METHODS.join(", ")));
    }
    check_url(&definition.url)?;
    let headers = definition.headers.unwrap_or_default();
    for (name, value) in &headers {
        check_header(name, value)?;
    }
    Ok(HttpEndpoint { url: definition.url, method, headers })
}

fn check_url(url: &str) -> Result<(), String> {
    let pieces = Template::parse(url, Mark::Brace)?;
    if url.contains("${") {
        return Err("the URL must not hold secrets, which end up in logs: put ${NAME} into a header".to_owned());
    }
    let sample: String = pieces.0.iter().map(|piece| piece.text_or("x")).collect();
    let parsed = Url::parse(&sample).map_err(|error| format!("the URL is malformed: {error}"))?;
    if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
        return Err("the URL must be an absolute http or https URL".to_owned());
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err("the URL must not hold a password: put it into an 'authorization' header".to_owned());
    }
    // Two arguments that differ change the path, and nothing else.
    let other: String = pieces.0.iter().map(|piece| piece.text_or("y")).collect();
    let is_path_only = Url::parse(&other).is_ok_and(|mut other| {
        other.set_path(parsed.path());
        other == parsed
    });
    if !is_path_only {
        return Err("{name} may stand only in the path of the URL; other arguments go into query or body".to_owned());
    }
    Ok(())
}

fn check_header(name: &str, value: &str) -> Result<(), String> {
    let name: HeaderName = name.parse().map_err(|_| format!("'{name}' is not the name of a header"))?;
    if RESERVED.contains(&name.as_str()) {
        return Err(format!("the header '{name}' is not for definitions to set"));
    }
    let sample: String = Template::parse(value, Mark::DollarBrace)?.0.iter().map(|piece| piece.text_or("x")).collect();
    HeaderValue::from_str(&sample).map(drop).map_err(|_| format!("the value of the header '{name}' is not one"))
}

/// How the names in a template are marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// `{name}`: an argument of the call.
    Brace,
    /// `${NAME}`: a secret of the agent, or a variable.
    DollarBrace,
}

/// A text with places for values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template<'a>(pub Vec<Piece<'a>>);

/// A piece of a [`Template`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// As it stands.
    Text(&'a str),
    /// The place of the value of this name.
    Name(&'a str),
}

impl<'a> Piece<'a> {
    const fn text_or(self, value: &'a str) -> &'a str {
        match self {
            Self::Text(text) => text,
            Self::Name(_) => value,
        }
    }
}

impl<'a> Template<'a> {
    /// Reads a template.
    ///
    /// # Errors
    /// A mark is not closed, or what it holds is no name.
    pub fn parse(text: &'a str, mark: Mark) -> Result<Self, String> {
        let open = match mark {
            Mark::Brace => "{",
            Mark::DollarBrace => "${",
        };
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once(open) {
            let (name, behind) = after.split_once('}').ok_or_else(|| format!("'{open}' is not closed in '{text}'"))?;
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
            if name.is_empty() || !name.bytes().all(is_name) {
                return Err(format!("'{open}{name}}}' holds no name; use letters, digits, '_', '-' and '.'"));
            }
            pieces.extend([Piece::Text(before), Piece::Name(name)]);
            rest = behind;
        }
        pieces.push(Piece::Text(rest));
        Ok(Self(pieces))
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Name(name) => Some(*name),
        })
    }

    /// The text with a value for each name.
    ///
    /// # Errors
    /// There is no value for a name.
    pub fn fill<E>(&self, value: impl Fn(&'a str) -> Result<String, E>) -> Result<String, E> {
        let pieces = self.0.iter().map(|piece| match piece {
            Piece::Text(text) => Ok((*text).to_owned()),
            Piece::Name(name) => value(name),
        });
        pieces.collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_url_alone_is_a_definition() {
        let endpoint = parse(" https://api.example/v1/items ").expect("a definition");
        assert_eq!((endpoint.url.as_str(), endpoint.method.as_str()), ("https://api.example/v1/items", "POST"));
        assert!(endpoint.headers.is_empty());
    }

    #[test]
    fn a_definition_may_say_everything() {
        let headers = json!({"Authorization": "Bearer ${API_KEY}", "x-a": "${A}-${B}"});
        let definition = json!({"url": "http://api.example:80/{user}/x{id}?a=b", "method": "get", "headers": headers});
        let endpoint = parse(&definition.to_string()).expect("a definition");
        assert_eq!(endpoint.method, "GET");
        assert_eq!(endpoint.headers["Authorization"], "Bearer ${API_KEY}");
        assert_eq!(parse(&serde_json::to_string(&endpoint).expect("JSON")), Ok(endpoint), "as the API shows it");
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_reason() {
        let with = |header: &str, value: &str| json!({"url": "http://a/", "headers": {header: value}}).to_string();
        for (definition, reason) in [
            ("", "malformed"),
            ("example.com/x", "malformed"),
            ("ftp://example.com/", "http or https"),
            ("file:///etc/passwd", "http or https"),
            ("data:text/plain,x", "http or https"),
            ("https://{host}/", "only in the path"),
            ("https://{tenant}.example/", "only in the path"),
            ("https://example.com:{port}/", "malformed"),
            ("{scheme}://example.com/", "'url'"),
            ("https://example.com/?q={q}", "only in the path"),
            ("https://example.com/#{q}", "only in the path"),
            ("https://example.com/{", "not closed"),
            ("https://example.com/{}", "no name"),
            ("https://example.com/{a b}", "no name"),
            ("https://example.com/${KEY}", "header"),
            ("https://user:pass@example.com/", "password"),
            ("{\"url\": 5}", "'url'"),
            ("{\"method\": \"GET\"}", "'url'"),
            ("{\"url\": \"http://a/\", \"body\": \"x\"}", "'url'"),
            ("{\"url\": \"http://a/\", \"method\": \"HEAD\"}", "POST, GET"),
            (&with("Host", "b"), "'host'"),
            (&with("Idempotency-Key", "b"), "'idempotency-key'"),
            (&with("x y", "b"), "not the name"),
            (&with("x", "a\nb"), "'x'"),
            (&with("x", "${"), "not closed"),
            (&with("x", "${A B}"), "no name"),
        ] {
            let refusal = parse(definition).expect_err(definition);
            assert!(refusal.contains(reason), "{definition}: {refusal}");
        }
    }

    #[test]
    fn templates_are_filled() {
        let template = Template::parse("a{b}{c}d", Mark::Brace).expect("a template");
        assert_eq!(template.fill(|name| Ok::<_, ()>(name.to_uppercase())), Ok("aBCd".to_owned()));
        assert_eq!(template.fill(|name| if name == "c" { Err("c") } else { Ok(String::new()) }), Err("c"));
        let dollars = Template::parse("$5 {x} ${Y}", Mark::DollarBrace).expect("a template");
        assert_eq!(dollars.fill(|name| Ok::<_, ()>(name.to_lowercase())), Ok("$5 {x} y".to_owned()));
    }
}
