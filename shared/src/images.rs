//! Images that a request names by their URLs: fetched when it is accepted and kept as base64 from then on (api/01 §5),
//! so that a run does not depend on what the URL gives later.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use futures::{StreamExt as _, stream};
use percent_encoding::percent_decode_str;
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use serde_json::{Map, Value};

use crate::domain::limits::{IMAGE_FETCHES, IMAGE_URLS};
use crate::outbound::{Outbound, OutboundError, Request};
use crate::wire::read::BodyError;
use crate::wire::request::{SendRequest, UrlImage};

/// Time for one try (api/01 §5).
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// The part of it until the connection is there.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(2500);
/// Tries of one image; only one that took too long is made again.
const TRIES: u32 = 2;

/// The setting of the size of one image, as errors name it.
const MAX_BYTES: &str = "HOLDFAST_IMAGE_MAX_BYTES";
/// The setting of the size of all images of a request: fetched ones may be as large as sent ones.
const MAX_BYTES_TOGETHER: &str = "HOLDFAST_MAX_BODY_BYTES";

/// Fetches images.
#[derive(Debug, Clone)]
pub struct Images {
    outbound: Outbound,
    limits: ImageLimits,
    timeout: Duration,
}

/// What images may weigh.
#[derive(Debug, Clone, Copy)]
pub struct ImageLimits {
    /// Most bytes of one.
    pub max_bytes: usize,
    /// Most bytes of all that one request names.
    pub max_bytes_together: usize,
}

/// An image that all providers take.
struct Image {
    media_type: &'static str,
    bytes: Vec<u8>,
}

/// Why an image cannot be had.
#[derive(Debug, thiserror::Error)]
enum ImageError {
    #[error("the image could not be fetched: {0}")]
    Outbound(#[from] OutboundError),
    #[error("the image could not be fetched: the server answered with status {0}")]
    Status(u16),
    #[error("the data URL is malformed; write data:image/png;base64, and the data after it")]
    DataUrl,
    #[error("the image has more than {0} bytes; {MAX_BYTES} sets the limit")]
    TooLarge(usize),
    #[error("this is no PNG, JPEG, GIF or WebP image, which are the kinds that models read")]
    NoImage,
}

impl Images {
    /// Fetches through this client, which should be made with [`CONNECT_TIMEOUT`].
    #[must_use]
    pub const fn new(outbound: Outbound, limits: ImageLimits) -> Self {
        Self { outbound, limits, timeout: FETCH_TIMEOUT }
    }

    /// Replaces the images that a request names by their URLs by what is there now.
    ///
    /// # Errors
    /// One of them cannot be had; the text names its field.
    pub async fn inline(&self, request: &mut SendRequest) -> Result<(), BodyError> {
        let images = request.url_images();
        if let Some(image) = images.get(IMAGE_URLS) {
            let problem =
                format!("a request may name at most {IMAGE_URLS} images by their URLs; send others as base64");
            return Err(BodyError::unacceptable(image.path, &problem));
        }
        let fetch = async |UrlImage { path, source }: UrlImage<'_>| {
            let fetched = self.fetch(source["url"].as_str().unwrap_or_default()).await;
            let image = fetched.map_err(|error| BodyError::unacceptable(path, &error.to_string()))?;
            let size = image.bytes.len();
            *source = inlined(image, source);
            Ok::<_, BodyError>((path.to_owned(), size))
        };
        let mut fetched = stream::iter(images).map(fetch).buffered(IMAGE_FETCHES);
        let mut together = 0;
        while let Some(image) = fetched.next().await {
            let (path, size) = image?;
            together += size;
            if together > self.limits.max_bytes_together {
                let most = self.limits.max_bytes_together;
                let problem =
                    format!("the images have more than {most} bytes together; {MAX_BYTES_TOGETHER} sets the limit");
                return Err(BodyError::unacceptable(&path, &problem));
            }
        }
        Ok(())
    }

    async fn fetch(&self, url: &str) -> Result<Image, ImageError> {
        let bytes = match url.get(..5) {
            Some(scheme) if scheme.eq_ignore_ascii_case("data:") => data_of(&url[5..])?,
            _ => self.download(url).await?,
        };
        if bytes.len() > self.limits.max_bytes {
            return Err(ImageError::TooLarge(self.limits.max_bytes));
        }
        // The bytes decide, not what the server calls them: providers look at the bytes too.
        let media_type = media_type(&bytes).ok_or(ImageError::NoImage)?;
        Ok(Image { media_type, bytes })
    }

    async fn download(&self, url: &str) -> Result<Vec<u8>, ImageError> {
        let url = Url::parse(url).map_err(|_| OutboundError::BadUrl(url.to_owned()))?;
        let request = Request {
            method: Method::GET,
            url,
            headers: HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static("image/*"))]),
            body: None,
            timeout: self.timeout,
            max_bytes: self.limits.max_bytes,
        };
        let mut tries = 1;
        let answer = loop {
            match self.outbound.send(request.clone()).await {
                Err(OutboundError::TimedOut(_)) if tries < TRIES => tries += 1,
                answer => break answer?,
            }
        };
        if !answer.status.is_success() {
            return Err(ImageError::Status(answer.status.as_u16()));
        }
        if answer.is_cut {
            return Err(ImageError::TooLarge(self.limits.max_bytes));
        }
        Ok(answer.body)
    }
}

/// The source in the contract's shape, with what the client said of the detail.
fn inlined(image: Image, source: &Value) -> Value {
    let mut kept = Map::new();
    kept.insert("type".to_owned(), "base64".into());
    kept.insert("media_type".to_owned(), image.media_type.into());
    kept.insert("data".to_owned(), STANDARD.encode(image.bytes).into());
    if let Some(detail) = source.get("detail").filter(|detail| !detail.is_null()) {
        kept.insert("detail".to_owned(), detail.clone());
    }
    Value::Object(kept)
}

/// The data of a data URL, from behind its scheme (RFC 2397).
fn data_of(rest: &str) -> Result<Vec<u8>, ImageError> {
    let (kind, data) = rest.split_once(',').ok_or(ImageError::DataUrl)?;
    let data: Vec<u8> = percent_decode_str(data).collect();
    let is_base64 = kind.rsplit(';').next().is_some_and(|last| last.trim().eq_ignore_ascii_case("base64"));
    if !is_base64 {
        return Ok(data);
    }
    let written: Vec<u8> = data.into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect();
    STANDARD.decode(&written).or_else(|_| STANDARD_NO_PAD.decode(&written)).map_err(|_| ImageError::DataUrl)
}

/// The kind of an image by its first bytes, if it is one that all providers take.
#[must_use]
pub fn media_type(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use serde_json::json;
    use tokio::sync::Barrier;

    use super::*;
    use crate::domain::message::Content;
    use crate::models::install_tls_provider_for_tests;
    use crate::testkit::http_server::{HttpServer, Reply};
    use crate::wire::request::InputMessage;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\nrest";
    const JPEG: &[u8] = b"\xff\xd8\xff\xe0rest";
    const GIF: &[u8] = b"GIF89arest";
    const WEBP: &[u8] = b"RIFF\x10\0\0\0WEBPrest";

    fn images(allow: &str) -> Images {
        install_tls_provider_for_tests();
        let outbound = Outbound::new(&allow.parse().expect("a list"), CONNECT_TIMEOUT).expect("a client");
        Images::new(outbound, ImageLimits { max_bytes: 100, max_bytes_together: 250 })
    }

    fn request(urls: &[&str]) -> SendRequest {
        let parts: Vec<_> = urls.iter().map(|url| json!({"source": {"url": url, "detail": "low"}})).collect();
        SendRequest::parse(&json!({"messages": [{"role": "user", "content": parts}]})).expect("a request")
    }

    async fn inline(images: &Images, urls: &[&str]) -> Result<Vec<Value>, String> {
        let mut request = request(urls);
        images.inline(&mut request).await.map_err(|error| error.to_string())?;
        match request.input.remove(0) {
            InputMessage::Message { content: Content::Parts(parts), .. } => {
                Ok(parts.into_iter().map(|part| part["source"].clone()).collect())
            }
            other => panic!("{other:?}"),
        }
    }

    async fn server() -> HttpServer {
        HttpServer::start(|request| match request.target.as_str() {
            "/cat.png" => Reply::of(200, "image/png", PNG),
            "/cat.jpg" => Reply::of(200, "image/jpeg; q=1", JPEG),
            "/unnamed" => Reply::of(200, "application/octet-stream", GIF),
            "/misnamed.jpg" => Reply::of(200, "image/jpeg", WEBP),
            "/moved" => Reply::redirect(302, "/cat.png"),
            "/page" => Reply::of(200, "image/png", "<html>no picture</html>"),
            "/missing" => Reply::of(404, "image/png", PNG),
            "/inside" => Reply::redirect(302, "http://10.0.0.1/cat.png"),
            size => Reply::of(200, "image/png", [PNG, &vec![0; size[1..].parse().expect("a size")]].concat()),
        })
        .await
    }

    #[tokio::test]
    async fn images_are_fetched_and_kept_as_base64() {
        let server = server().await;
        let images = images(&server.address.to_string());
        let urls = ["/cat.png", "/cat.jpg", "/unnamed", "/misnamed.jpg", "/moved"].map(|path| server.url(path));
        let sources = inline(&images, &urls.each_ref().map(String::as_str)).await.expect("images");
        let expected =
            [("image/png", PNG), ("image/jpeg", JPEG), ("image/gif", GIF), ("image/webp", WEBP), ("image/png", PNG)];
        for (source, (media_type, bytes)) in sources.iter().zip(expected) {
            let data = STANDARD.encode(bytes);
            assert_eq!(*source, json!({"type": "base64", "media_type": media_type, "data": data, "detail": "low"}));
        }
        assert_eq!(sources.len(), expected.len());
    }

    #[tokio::test]
    async fn data_urls_hold_their_image() {
        let images = images("");
        for (url, expected) in [
            ("data:image/png;base64,iVBORw0KGgpyZXN0", Some("image/png")),
            ("DATA:image/jpeg;charset=x;BASE64,iVBORw0KGgpyZXN0", Some("image/png")),
            ("data:;base64,iVBO Rw0K%47gpyZXN0", Some("image/png")),
            ("data:image/gif;base64,R0lGODdhAA", Some("image/gif")),
            ("data:image/gif,GIF89a%00%01", Some("image/gif")),
            ("data:image/png;base64,****", None),
            ("data:image/png;base64", None),
            ("data:image/png;base64,", None),
            ("data:text/plain,hello", None),
            ("data:image/svg+xml,<svg/>", None),
        ] {
            let sources = inline(&images, &[url]).await;
            let found = sources.as_ref().ok().and_then(|sources| sources[0]["media_type"].as_str());
            assert_eq!(found, expected, "{url}: {sources:?}");
        }
    }

    #[tokio::test]
    async fn refusals_name_the_field_and_the_reason() {
        let server = server().await;
        let images = images(&server.address.to_string());
        let fine = server.url("/cat.png");
        for (url, reason) in [
            (server.url("/page"), "this is no PNG"),
            (server.url("/missing"), "status 404"),
            (server.url("/101"), "more than 100 bytes; HOLDFAST_IMAGE_MAX_BYTES"),
            (server.url("/inside"), "HOLDFAST_OUTBOUND_ALLOW"),
            ("http://127.0.0.1:1/cat.png".to_owned(), "HOLDFAST_OUTBOUND_ALLOW"),
            ("http:///".to_owned(), "not a URL"),
            (format!("data:image/gif,GIF89a{}", "x".repeat(100)), "more than 100 bytes"),
        ] {
            let refusal = inline(&images, &[&fine, &url]).await.expect_err(&url);
            assert!(refusal.starts_with("INVALID_ARGUMENT: body.messages[0].content[1].source.url: "), "{refusal}");
            assert!(refusal.contains(reason), "{url}: {refusal}");
        }
    }

    #[tokio::test]
    async fn many_images_and_large_ones_together_are_refused() {
        let server = server().await;
        let images = images(&server.address.to_string());
        let large = ["/80", "/81", "/82"].map(|path| server.url(path));
        let refusal = inline(&images, &large.each_ref().map(String::as_str)).await.expect_err("264 + 12 bytes");
        assert!(refusal.contains("content[2]") && refusal.contains("HOLDFAST_MAX_BODY_BYTES"), "{refusal}");
        let before = server.received().len();
        let urls: Vec<_> = (0..=IMAGE_URLS).map(|n| server.url(&format!("/{n}"))).collect();
        let urls: Vec<_> = urls.iter().map(String::as_str).collect();
        let refusal = inline(&images, &urls).await.expect_err("too many");
        assert!(refusal.contains(&format!("content[{IMAGE_URLS}]")), "{refusal}");
        assert_eq!(server.received().len(), before, "nothing was fetched");
        let sources = inline(&images, &["data:image/gif,GIF89a"; IMAGE_URLS]).await.expect("just as many");
        assert_eq!(sources.len(), IMAGE_URLS);
    }

    /// Each of two requests waits for the other: fetched one after the other, the first would wait for ever.
    #[tokio::test]
    async fn images_are_fetched_at_the_same_time() {
        let barrier = Arc::new(Barrier::new(2));
        let png = Reply::of(200, "image/png", PNG);
        let server = HttpServer::start(move |_| Reply::Gathered(Arc::clone(&barrier), Box::new(png.clone()))).await;
        let images = images(&server.address.to_string());
        inline(&images, &[&server.url("/a"), &server.url("/b")]).await.expect("both");
    }

    #[tokio::test]
    async fn a_fetch_that_takes_too_long_is_tried_once_more() {
        for (silent, is_fetched) in [(1, true), (2, false)] {
            let count = AtomicU32::new(0);
            let server = HttpServer::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
                before if before < silent => Reply::Never,
                _ => Reply::of(200, "image/png", PNG),
            })
            .await;
            let mut images = images(&server.address.to_string());
            images.timeout = Duration::from_millis(500);
            let fetched = inline(&images, &[&server.url("/cat.png")]).await;
            assert_eq!(fetched.is_ok(), is_fetched, "{fetched:?}");
            assert_eq!(server.received().len(), 2);
        }
    }

    #[test]
    fn only_the_first_bytes_tell_the_kind() {
        for (bytes, expected) in [
            (PNG, Some("image/png")),
            (JPEG, Some("image/jpeg")),
            (GIF, Some("image/gif")),
            (WEBP, Some("image/webp")),
            (b"GIF87a", Some("image/gif")),
            (b"GIF88a", None),
            (b"RIFF\x10\0\0\0WAVE", None),
            (b"\x89PNG", None),
            (b"", None),
            (b"BM....", None),
            (b"<svg>", None),
            (b"II*\0", None),
        ] {
            assert_eq!(media_type(bytes), expected, "{bytes:?}");
        }
    }
}
