//! The pages, compiled in.

use axum::Router;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use ring::digest;

struct Page {
    path: &'static str,
    content_type: &'static str,
    body: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

const FRONT: Page = Page { path: "/", content_type: HTML, body: include_str!("../../static/index.html") };

const PAGES: &[Page] = &[
    Page { path: "/chat", content_type: HTML, body: include_str!("../../static/chat.html") },
    Page { path: "/index.js", content_type: SCRIPT, body: include_str!("../../static/index.js") },
    Page { path: "/icon.svg", content_type: IMAGE, body: include_str!("../../static/icon.svg") },
    Page { path: "/chat.js", content_type: SCRIPT, body: include_str!("../../static/chat.js") },
    Page { path: "/throughway.js", content_type: SCRIPT, body: include_str!("../../static/throughway.js") },
    Page { path: "/style.css", content_type: STYLE, body: include_str!("../../static/style.css") },
];

/// Every page but the front one.
pub(super) fn routes() -> Router {
    PAGES.iter().fold(Router::new(), |router, page| {
        router.route(page.path, get(move |headers: HeaderMap| async move { page.answer(&headers) }))
    })
}

/// The front page, for a request with these headers.
pub(super) fn front(headers: &HeaderMap) -> Response {
    FRONT.answer(headers)
}

impl Page {
    /// The page, or that the copy the client has is still good.
    fn answer(&self, headers: &HeaderMap) -> Response {
        let tag = self.tag();
        let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        let mut known = known.flat_map(|value| value.split(',')).map(str::trim);
        let caching = [(header::ETAG, tag.clone()), (header::CACHE_CONTROL, "no-cache".to_owned())];
        if known.any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag) {
            return (StatusCode::NOT_MODIFIED, caching).into_response();
        }
        // People import the module from pages of their own; nothing here is for somebody's eyes only.
        let sharing = [(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"), (header::CONTENT_TYPE, self.content_type)];
        (caching, sharing, self.body).into_response()
    }

    /// Changes whenever the page does.
    fn tag(&self) -> String {
        use std::fmt::Write;
        let hash = digest::digest(&digest::SHA256, self.body.as_bytes());
        let mut tag = String::from("\"");
        for byte in hash.as_ref().iter().take(12) {
            // Writing to a String never fails.
            let _ = write!(tag, "{byte:02x}");
        }
        tag.push('"');
        tag
    }
}
