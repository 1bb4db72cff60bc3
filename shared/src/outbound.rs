//! HTTP requests to URLs that clients give: tools, images, callbacks. Whoever may name a URL must not get at what only
//! this machine can reach, so every address is checked at the moment it is connected to, redirects included.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use ipnet::{IpNet, Ipv4Net};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{self, HeaderMap, HeaderName};
use reqwest::{Client, Method, Response, StatusCode, Url, redirect};

/// The setting that opens exceptions, as errors name it.
pub const ALLOW: &str = "HOLDFAST_OUTBOUND_ALLOW";

/// Redirects that one request may take.
const REDIRECTS: usize = 5;

/// Headers that hold no secret, so that another origin may see them.
const HARMLESS: [HeaderName; 3] = [header::ACCEPT, header::CONTENT_TYPE, HeaderName::from_static("idempotency-key")];

/// Sends guarded requests. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbound {
    connect_timeout: Duration,
    /// The doors of the ports that exceptions name.
    at_port: BTreeMap<u16, Door>,
    /// The door of all other ports.
    elsewhere: Door,
}

/// A request; everything in it was given by a client.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Where it goes.
    pub url: Url,
    /// Headers. After a redirect to another origin only harmless ones are sent.
    pub headers: HeaderMap,
    /// The body.
    pub body: Option<Vec<u8>>,
    /// Most time until the answer is there, redirects included.
    pub timeout: Duration,
    /// Most bytes of the answer's body that are read.
    pub max_bytes: usize,
}

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status; no redirect.
    pub status: StatusCode,
    /// The media type as the server says it, without parameters, in lower case.
    pub media_type: Option<String>,
    /// The body, or its start.
    pub body: Vec<u8>,
    /// Whether there was more.
    pub is_cut: bool,
}

/// Why there is no answer. Names inside a private network and names that do not exist get the same text, so that nobody
/// learns what is there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    /// The URL cannot be used.
    #[error("'{0}' is not a URL that can be requested; give an absolute http or https URL")]
    BadUrl(String),
    /// The host has no address that may be connected to.
    #[error(
        "'{0}' has no address that may be reached; addresses that are not public are refused unless the operator names \
         them in {ALLOW}"
    )]
    Refused(String),
    /// Too many redirects.
    #[error("more than {REDIRECTS} redirects")]
    TooManyRedirects,
    /// Too slow.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The host did not accept a connection.
    #[error("no connection to '{0}': {1}")]
    NotConnected(String, String),
    /// The exchange broke off.
    #[error("the connection to '{0}' failed: {1}")]
    Broken(String, String),
}

/// The HTTP client cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("no HTTP client for outbound requests: {0}")]
pub struct OutboundSetupError(#[from] reqwest::Error);

impl Outbound {
    /// A client that reaches public addresses and what `allow` names. The process needs an installed rustls provider.
    /// `connect_timeout` includes the look-up of the name.
    ///
    /// # Errors
    /// The HTTP client cannot be set up.
    pub fn new(allow: &Allow, connect_timeout: Duration) -> Result<Self, OutboundSetupError> {
        Self::with_lookup(allow, connect_timeout, &(Arc::new(SystemLookup) as Arc<dyn Lookup>))
    }

    fn with_lookup(
        allow: &Allow,
        connect_timeout: Duration,
        lookup: &Arc<dyn Lookup>,
    ) -> Result<Self, OutboundSetupError> {
        let door = |open: Vec<Target>| Door::new(open, connect_timeout, lookup);
        let ports = allow.0.iter().filter_map(|entry| entry.port);
        Ok(Self {
            connect_timeout,
            at_port: ports
                .map(|port| Ok((port, door(allow.at(Some(port)))?)))
                .collect::<Result<_, reqwest::Error>>()?,
            elsewhere: door(allow.at(None))?,
        })
    }

    /// Sends a request and follows its redirects.
    ///
    /// # Errors
    /// There is no answer; the text is fit for whoever gave the URL.
    pub async fn send(&self, request: Request) -> Result<Answer, OutboundError> {
        let timeout = request.timeout;
        tokio::time::timeout(timeout, self.follow(request)).await.unwrap_or(Err(OutboundError::TimedOut(timeout)))
    }

    /// Sends a request and answers the status, redirects included; the body is left unread.
    ///
    /// # Errors
    /// There is no answer; the text is fit for whoever gave the URL.
    pub async fn tell(&self, request: Request) -> Result<StatusCode, OutboundError> {
        let timeout = request.timeout;
        let response = tokio::time::timeout(timeout, self.hop(&request)).await;
        response.unwrap_or(Err(OutboundError::TimedOut(timeout))).map(|response| response.status())
    }

    /// Whether a URL may be requested, as far as it says so by itself: where a name leads shows when it is connected to.
    ///
    /// # Errors
    /// Its form is wrong, or it names an address that may not be reached.
    pub fn check(&self, url: &Url) -> Result<(), OutboundError> {
        self.door(url).map(drop)
    }

    async fn follow(&self, mut request: Request) -> Result<Answer, OutboundError> {
        for _ in 0..=REDIRECTS {
            let response = self.hop(&request).await?;
            match redirect_target(&response, &request.url)? {
                Some(target) => request = request.redirected(response.status(), target),
                None => return self.read(response, &request).await,
            }
        }
        Err(OutboundError::TooManyRedirects)
    }

    /// The door that a URL leads to, unless it is closed to the address that the URL names.
    fn door(&self, url: &Url) -> Result<&Door, OutboundError> {
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(OutboundError::BadUrl(url.to_string()));
        };
        if !matches!(url.scheme(), "http" | "https") {
            return Err(OutboundError::BadUrl(url.to_string()));
        }
        let door = self.at_port.get(&port).unwrap_or(&self.elsewhere);
        // A literal address is connected to without asking the resolver. URLs know only one spelling of it: others, such
        // as octal or hexadecimal numbers, were read into that one.
        if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>()
            && !door.guard.admits(host, address)
        {
            return Err(OutboundError::Refused(host.to_owned()));
        }
        Ok(door)
    }

    async fn hop(&self, request: &Request) -> Result<Response, OutboundError> {
        let url = &request.url;
        let door = self.door(url)?;
        let mut builder = door.client.request(request.method.clone(), url.clone()).headers(request.headers.clone());
        if let Some(body) = &request.body {
            builder = builder.body(body.clone());
        }
        builder.send().await.map_err(|error| self.error(&error, url))
    }

    async fn read(&self, mut response: Response, request: &Request) -> Result<Answer, OutboundError> {
        let status = response.status();
        let media_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type =
            media_type.and_then(|value| value.split(';').next()).map(|kind| kind.trim().to_ascii_lowercase());
        let mut body = Vec::new();
        let mut is_cut = false;
        while let Some(chunk) = response.chunk().await.map_err(|error| self.error(&error, &request.url))? {
            let room = request.max_bytes - body.len();
            is_cut = chunk.len() > room;
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if is_cut {
                break;
            }
        }
        Ok(Answer { status, media_type, body, is_cut })
    }

    fn error(&self, error: &reqwest::Error, url: &Url) -> OutboundError {
        let host = url.host_str().unwrap_or_default().to_owned();
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
            if cause.is::<NothingAdmitted>() {
                return OutboundError::Refused(host);
            }
        }
        if error.is_timeout() {
            OutboundError::TimedOut(self.connect_timeout)
        } else if error.is_connect() {
            OutboundError::NotConnected(host, cause.to_string())
        } else {
            OutboundError::Broken(host, cause.to_string())
        }
    }
}

impl Request {
    /// The request that a redirect asks for, with the methods that browsers use.
    fn redirected(mut self, status: StatusCode, target: Url) -> Self {
        let becomes_get = match status {
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => self.method == Method::POST,
            StatusCode::SEE_OTHER => self.method != Method::HEAD,
            _ => false,
        };
        if becomes_get {
            self.method = Method::GET;
            self.body = None;
            self.headers.remove(header::CONTENT_TYPE);
        }
        if self.url.origin() != target.origin() {
            let kept = HARMLESS.into_iter().filter_map(|name| Some((name.clone(), self.headers.remove(name)?)));
            self.headers = kept.collect();
        }
        self.url = target;
        self
    }
}

fn redirect_target(response: &Response, url: &Url) -> Result<Option<Url>, OutboundError> {
    let redirects = [
        StatusCode::MOVED_PERMANENTLY,
        StatusCode::FOUND,
        StatusCode::SEE_OTHER,
        StatusCode::TEMPORARY_REDIRECT,
        StatusCode::PERMANENT_REDIRECT,
    ];
    let Some(location) = response.headers().get(header::LOCATION).filter(|_| redirects.contains(&response.status()))
    else {
        return Ok(None);
    };
    let location = String::from_utf8_lossy(location.as_bytes());
    url.join(&location).map(Some).map_err(|_| OutboundError::BadUrl(location.into_owned()))
}

/// A client and what it may connect to.
#[derive(Debug, Clone)]
struct Door {
    guard: Arc<Guard>,
    client: Client,
}

impl Door {
    fn new(open: Vec<Target>, connect_timeout: Duration, lookup: &Arc<dyn Lookup>) -> Result<Self, reqwest::Error> {
        let guard = Arc::new(Guard { open });
        let resolver = GuardedResolver { guard: Arc::clone(&guard), lookup: Arc::clone(lookup) };
        let client = Client::builder()
            .dns_resolver(Arc::new(resolver))
            .connect_timeout(connect_timeout)
            // A proxy would connect in our place, past the check.
            .no_proxy()
            .redirect(redirect::Policy::none())
            .referer(false)
            .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { guard, client })
    }
}

/// Decides which addresses may be connected to.
#[derive(Debug)]
struct Guard {
    open: Vec<Target>,
}

impl Guard {
    fn admits(&self, host: &str, address: IpAddr) -> bool {
        is_public(address)
            || self.open.iter().any(|target| match target {
                Target::Net(net) => net.contains(&address.to_canonical()),
                Target::Host(name) => name == bare(host),
            })
    }
}

/// Looks names up, and gives out only addresses that may be connected to. The connection goes to just these, so that a
/// name that changes its mind in between gains nothing.
struct GuardedResolver {
    guard: Arc<Guard>,
    lookup: Arc<dyn Lookup>,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let guard = Arc::clone(&self.guard);
        let found = self.lookup.addresses(host.clone());
        Box::pin(async move {
            let found = found.await.unwrap_or_default();
            let admitted: Vec<_> = found.into_iter().filter(|address| guard.admits(&host, *address)).collect();
            if admitted.is_empty() {
                return Err(NothingAdmitted.into());
            }
            // Port 0 stands for the URL's.
            Ok(Box::new(admitted.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}

/// There is no such name, or all its addresses are closed; which of both is nobody's business.
#[derive(Debug, thiserror::Error)]
#[error("no address that may be reached")]
struct NothingAdmitted;

/// Where names are looked up.
trait Lookup: Send + Sync {
    fn addresses(&self, host: String) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>>;
}

struct SystemLookup;

impl Lookup for SystemLookup {
    fn addresses(&self, host: String) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect()) })
    }
}

/// Exceptions from the rule that only public addresses are reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allow(Vec<Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    target: Target,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Net(IpNet),
    /// In lower case, without a dot at the end.
    Host(String),
}

impl Allow {
    /// What is open at a port, or at the ports that no entry names.
    fn at(&self, port: Option<u16>) -> Vec<Target> {
        let applies = |entry: &&Entry| entry.port.is_none() || entry.port == port;
        self.0.iter().filter(applies).map(|entry| entry.target.clone()).collect()
    }
}

impl FromStr for Allow {
    type Err = String;

    /// Reads entries that commas separate: `host`, `address` or `address/bits`, each with or without `:port`. An IPv6
    /// address with a port stands in brackets.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        entries
            .map(|entry| entry_of(entry).ok_or_else(|| entry.to_owned()))
            .collect::<Result<_, _>>()
            .map(Self)
            .map_err(|entry| {
                format!(
                    "'{entry}' is no host, address or network; write for example 127.0.0.1:8080, 10.0.0.0/8, \
                     [fd00::/8]:443 or tools.internal, separated by commas"
                )
            })
    }
}

fn entry_of(text: &str) -> Option<Entry> {
    // A bare IPv6 address is full of colons that begin no port.
    if let Some(net) = net_of(text) {
        return Some(Entry { target: Target::Net(net), port: None });
    }
    let (target, port) = match text.rsplit_once(':') {
        Some((target, port)) => (target, Some(port.parse().ok().filter(|port| *port != 0)?)),
        None => (text, None),
    };
    let inner = target.strip_prefix('[').and_then(|target| target.strip_suffix(']'));
    let target = match (net_of(inner.unwrap_or(target)), inner) {
        (Some(net), _) => Target::Net(net),
        (None, Some(_)) => return None,
        (None, None) => Target::Host(host_of(target)?),
    };
    Some(Entry { target, port })
}

fn net_of(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// A host name as URLs write it; a number in disguise is none.
fn host_of(text: &str) -> Option<String> {
    let is_name =
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    let url = Url::parse(&format!("http://{text}/")).ok().filter(|_| is_name)?;
    let host = url.host_str().filter(|host| host.parse::<IpAddr>().is_err())?;
    Some(bare(host).to_owned())
}

/// A host without the dot that says that nothing is to be appended to it.
fn bare(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

/// Whether an address belongs to the public internet. Addresses that carry another one inside are what they carry.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// IPv4 networks that are not the public internet (RFC 6890 and its additions).
const CLOSED_V4: [Ipv4Net; 16] = [
    net([0, 0, 0, 0], 8),        // this network
    net([10, 0, 0, 0], 8),       // private
    net([100, 64, 0, 0], 10),    // behind a carrier's translation; also a cloud's metadata
    net([127, 0, 0, 0], 8),      // this machine
    net([168, 63, 129, 16], 32), // a cloud's host service
    net([169, 254, 0, 0], 16),   // this link; most clouds' metadata
    net([172, 16, 0, 0], 12),    // private
    net([192, 0, 0, 0], 24),     // protocol assignments; also a cloud's metadata
    net([192, 0, 2, 0], 24),     // documentation
    net([192, 88, 99, 0], 24),   // relays that are gone
    net([192, 168, 0, 0], 16),   // private
    net([198, 18, 0, 0], 15),    // measurements
    net([198, 51, 100, 0], 24),  // documentation
    net([203, 0, 113, 0], 24),   // documentation
    net([224, 0, 0, 0], 4),      // multicast
    net([240, 0, 0, 0], 4),      // reserved, and broadcast
];

const fn net([a, b, c, d]: [u8; 4], bits: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits)
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !CLOSED_V4.iter().any(|net| net.contains(&address))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let carried = |high: u16, low: u16| is_public_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match address.segments() {
        // Mapped (RFC 4291), and translated by the well-known prefix (RFC 6052).
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => carried(high, low),
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => carried(high, low),
        // Protocol assignments, Teredo and benchmarks among them; documentation.
        [0x2001, 0..0x200, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..0x1000, ..] => false,
        // Of all the rest, only this much is given out: no loopback, private, link-local, multicast or local translation.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests;
