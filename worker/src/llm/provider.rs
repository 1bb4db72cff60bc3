//! The models of a server, through `genai`.
//!
//! A failure before the first delta is the answer of [`Provider::stream`] itself, a later one the last item of the
//! stream. Errors after the first delta are never transient: a part of the answer is out, and another call would give
//! another one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures::StreamExt as _;
use genai::chat::{ChatOptions, ChatStream};
use genai::resolver::{AuthData, Endpoint};
use genai::{ModelIden, ServiceTarget};
use holdfast_shared::config::{ModelServer, ModelSettings, ReasoningSummary};
use holdfast_shared::ports::model_client::{DeltaStream, ModelDelta, ModelError, ModelRequest};
use holdfast_shared::ports::seams::Seams;
use tokio::time::Instant;

use super::blame::Blame;
use super::conversation::conversation;
use super::dialect::{Decoder, Dialect, Peer};
use super::unusable;

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The provider of one server's models.
pub(super) struct Provider {
    client: genai::Client,
    server: ModelServer,
    summary: ReasoningSummary,
    header_timeout: Duration,
    idle_timeout: Duration,
    total_timeout: Duration,
    blame: Blame,
}

impl Provider {
    /// Sets the provider up.
    pub(super) fn new(server: &ModelServer, settings: &ModelSettings, seams: &Seams) -> Result<Self, reqwest::Error> {
        // A redirected POST would become a GET, and could carry the key to another host.
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self {
            client: genai::Client::builder()
                .with_reqwest(http)
                .build()
                .expect("a client that is given needs no making"),
            server: server.clone(),
            summary: settings.reasoning_summary,
            header_timeout: settings.header_timeout,
            idle_timeout: settings.idle_timeout,
            total_timeout: settings.total_timeout,
            blame: Blame::new(server, seams),
        })
    }

    /// Whether it serves a provider's models.
    pub(super) fn serves(&self, provider: &str) -> bool {
        self.server.name == provider
    }

    /// Where its server is.
    #[cfg(test)]
    pub(super) fn base_url(&self) -> &str {
        self.server.base_url.as_str()
    }

    /// Calls the model, and waits for the first delta.
    pub(super) async fn stream(&self, request: ModelRequest) -> Result<DeltaStream, ModelError> {
        let deadline = Instant::now() + self.total_timeout;
        let model = request.model.model().to_owned();
        let peer = Peer { server: &self.server, model: &model, summary: self.summary };
        let dialect = Dialect::of(&peer);
        let frames = Frames::default();
        let sink = frames.clone();
        let options = ChatOptions::default()
            .with_stream_header_timeout(self.header_timeout)
            .with_stream_read_timeout(self.idle_timeout)
            .with_reasoning_effort(dialect.no_effort())
            .with_extra_body(dialect.body(&peer, &request))
            .with_raw_frame_fn(move |_, frame| sink.push(frame.data));
        let target = self.target(dialect, &peer)?;
        let chat = conversation(dialect, &peer, request);
        let upstream = self.client.exec_chat_stream(target, chat, Some(&options)).await;
        let upstream = upstream.map_err(|error| self.blame.explain(&error))?;
        let mut answer = Upstream {
            events: Some(upstream.stream),
            frames,
            decoder: dialect.decoder(&peer),
            ready: VecDeque::new(),
            failure: None,
            deadline,
            blame: self.blame.clone(),
            is_delivered: false,
        };
        match answer.next().await {
            Some(Ok(first)) => {
                let rest = futures::stream::unfold(answer, |mut answer| async move {
                    let item = answer.next().await?;
                    Some((item, answer))
                });
                Ok(futures::stream::once(std::future::ready(Ok(first))).chain(rest).boxed())
            }
            Some(Err(error)) => Err(error),
            None => Err(self.blame.broke_off(None)),
        }
    }

    /// Where the call goes. URL and headers are ours: genai makes them out of the model's name, and insists on a key.
    fn target(&self, dialect: Dialect, peer: &Peer<'_>) -> Result<ServiceTarget, ModelError> {
        let wrong = || unusable(format!("{} has no path to put a call after.", self.server.url_setting));
        let url = dialect.url(peer).ok_or_else(wrong)?;
        Ok(ServiceTarget {
            endpoint: Endpoint::from_owned(self.server.base_url.as_str()),
            auth: AuthData::RequestOverride { url: url.into(), headers: dialect.headers(&self.server) },
            model: ModelIden::new(dialect.adapter(), dialect.name_for_genai(peer)),
        })
    }
}

/// Frames that genai has read and nobody has looked at. It reads only while it is polled, so there are no more of them
/// than one poll brings.
#[derive(Clone, Default)]
struct Frames(Arc<Mutex<VecDeque<String>>>);

impl Frames {
    /// Keeps a frame; comments have no data.
    fn push(&self, data: &str) {
        if !data.is_empty() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(data.to_owned());
        }
    }

    fn pop(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

/// The provider's answer as it comes.
struct Upstream {
    /// `None` once the answer is over. Dropping it closes the connection.
    events: Option<ChatStream>,
    frames: Frames,
    decoder: Box<dyn Decoder>,
    /// Deltas to give out.
    ready: VecDeque<ModelDelta>,
    /// What to give out after them.
    failure: Option<ModelError>,
    deadline: Instant,
    blame: Blame,
    /// Whether any delta was given out.
    is_delivered: bool,
}

/// What a look at the connection brought.
enum Progress {
    /// Frames, perhaps.
    Going,
    /// The end of the connection.
    Closed,
    /// A failure.
    Failed(genai::Error),
}

impl Upstream {
    async fn next(&mut self) -> Option<Result<ModelDelta, ModelError>> {
        loop {
            if let Some(delta) = self.ready.pop_front() {
                self.is_delivered = true;
                return Some(Ok(delta));
            }
            if let Some(error) = self.failure.take() {
                let is_transient = error.is_transient && !self.is_delivered;
                return Some(Err(ModelError { is_transient, ..error }));
            }
            let progress = self.progress().await?;
            self.read_frames();
            if self.is_over() {
                continue;
            }
            match progress {
                Ok(Progress::Going) => {}
                Ok(Progress::Closed) => {
                    if let Err(failure) = self.decoder.close(&mut self.ready) {
                        self.fail(self.blame.failed(&failure));
                    } else if !self.is_complete() {
                        self.fail(self.blame.broke_off(None));
                    }
                    self.events = None;
                }
                Ok(Progress::Failed(error)) => self.fail(self.blame.explain(&error)),
                Err(_elapsed) => self.fail(self.blame.timeout("did not finish its answer in the time allowed", None)),
            }
        }
    }

    /// Waits until the connection has brought something; `None` if the answer is over.
    async fn progress(&mut self) -> Option<Result<Progress, tokio::time::error::Elapsed>> {
        let (events, frames) = (self.events.as_mut()?, &self.frames);
        let progress = std::future::poll_fn(|context| match events.poll_next_unpin(context) {
            Poll::Ready(Some(Ok(_))) => Poll::Ready(Progress::Going),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Progress::Failed(error)),
            Poll::Ready(None) => Poll::Ready(Progress::Closed),
            // Not every frame is an event to genai.
            Poll::Pending if !frames.is_empty() => Poll::Ready(Progress::Going),
            Poll::Pending => Poll::Pending,
        });
        Some(tokio::time::timeout_at(self.deadline, progress).await)
    }

    /// Reads all frames that are there, up to the end of the answer.
    fn read_frames(&mut self) {
        while let Some(frame) = self.frames.pop() {
            if let Err(failure) = self.decoder.take(&frame, &mut self.ready) {
                self.fail(self.blame.failed(&failure));
            }
            if self.is_complete() {
                self.events = None;
            }
            if self.is_over() {
                return;
            }
        }
    }

    fn fail(&mut self, error: ModelError) {
        self.events = None;
        self.failure = Some(error);
    }

    fn is_over(&self) -> bool {
        self.events.is_none()
    }

    fn is_complete(&self) -> bool {
        matches!(self.ready.back(), Some(ModelDelta::End { .. }))
    }
}
