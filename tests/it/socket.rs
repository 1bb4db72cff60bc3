//! A small HTTP server on a real socket, one request a connection, with the power over every byte that tests want: answer
//! in pieces, hang up in the middle, notice that the caller went away.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// The path without its query.
    pub path: String,
    /// The query, decoded as far as tests need it: not at all.
    pub query: BTreeMap<String, String>,
    /// The headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body as JSON; null if it is none.
    pub body: Value,
}

impl Request {
    /// A header's value, or an empty text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(String::as_str).unwrap_or_default()
    }
}

/// The caller went away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left;

/// The way back to a caller. Dropping it hangs up.
pub struct Reply {
    stream: BufReader<TcpStream>,
}

impl Reply {
    /// Sends a whole answer with a JSON body.
    pub async fn json(self, status: u16, headers: &[(&str, String)], body: &Value) -> Result<(), Left> {
        self.text(status, headers, "application/json", &body.to_string()).await
    }

    /// Sends a whole answer.
    pub async fn text(mut self, status: u16, headers: &[(&str, String)], kind: &str, body: &str) -> Result<(), Left> {
        let length = body.len();
        let head = head(status, kind, headers);
        self.write(format!("{head}content-length: {length}\r\n\r\n{body}").as_bytes()).await
    }

    /// Begins an answer that comes in pieces.
    pub async fn begin(&mut self, kind: &str, headers: &[(&str, String)]) -> Result<(), Left> {
        let head = head(200, kind, headers);
        self.write(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes()).await
    }

    /// Sends a piece.
    pub async fn piece(&mut self, text: &str) -> Result<(), Left> {
        self.write(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).await
    }

    /// Ends an answer in pieces as HTTP wants it.
    pub async fn end(mut self) -> Result<(), Left> {
        self.write(b"0\r\n\r\n").await
    }

    /// Waits until the caller goes away.
    pub async fn left(&mut self) -> Left {
        // Whatever a caller sends after its request is not read by anybody.
        while matches!(self.stream.read_u8().await, Ok(_byte)) {}
        Left
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Left> {
        self.stream.get_mut().write_all(bytes).await.map_err(|_gone| Left)
    }
}

fn head(status: u16, kind: &str, headers: &[(&str, String)]) -> String {
    let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("HTTP/1.1 {status} Scripted\r\ncontent-type: {kind}\r\nconnection: close\r\n{more}")
}

/// What answers requests.
pub type Handler = Arc<dyn Fn(Request, Reply) -> BoxFuture<'static, ()> + Send + Sync>;

/// A running server. Dropping it hangs up on everybody.
pub struct Server {
    /// `http://host:port`
    pub base: String,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Starts one on a free port.
    pub async fn start(handler: Handler) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let base = format!("http://{}", listener.local_addr().expect("its address"));
        let accepting = tokio::spawn(async move {
            let mut callers = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let (stream, _) = accepted.expect("the listener lives");
                        callers.spawn(serve(stream, Arc::clone(&handler)));
                    }
                    Some(_served) = callers.join_next() => {}
                }
            }
        });
        Self { base, accepting }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(stream: TcpStream, handler: Handler) {
    // Without it, small pieces would wait for each other.
    stream.set_nodelay(true).expect("an option of every socket");
    let mut stream = BufReader::new(stream);
    // A caller that goes away in the middle of its request asked for nothing.
    if let Ok(request) = read(&mut stream).await {
        handler(request, Reply { stream }).await;
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> std::io::Result<Request> {
    let first = line(stream).await?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = BTreeMap::new();
    loop {
        let line = line(stream).await?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or_default();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let query = query.split('&').filter_map(|pair| pair.split_once('='));
    Ok(Request {
        method,
        path: path.to_owned(),
        query: query.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        headers,
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    })
}

async fn line(stream: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}
