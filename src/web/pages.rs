//! The pages, compiled in.

use std::sync::Arc;

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
    Page { path: "/room", content_type: HTML, body: include_str!("../../static/room.html") },
    Page { path: "/call", content_type: HTML, body: include_str!("../../static/call.html") },
    Page { path: "/check", content_type: HTML, body: include_str!("../../static/check.html") },
    Page { path: "/check.js", content_type: SCRIPT, body: include_str!("../../static/check.js") },
    Page { path: "/diagnosis.js", content_type: SCRIPT, body: include_str!("../../static/diagnosis.js") },
    Page { path: "/index.js", content_type: SCRIPT, body: include_str!("../../static/index.js") },
    Page { path: "/icon.svg", content_type: IMAGE, body: include_str!("../../static/icon.svg") },
    Page { path: "/chat.js", content_type: SCRIPT, body: include_str!("../../static/chat.js") },
    Page { path: "/call.js", content_type: SCRIPT, body: include_str!("../../static/call.js") },
    Page { path: "/page.js", content_type: SCRIPT, body: include_str!("../../static/page.js") },
    Page { path: "/lobby.js", content_type: SCRIPT, body: include_str!("../../static/lobby.js") },
    Page { path: "/room.js", content_type: SCRIPT, body: include_str!("../../static/room.js") },
    Page { path: "/throughway.js", content_type: SCRIPT, body: include_str!("../../static/throughway.js") },
    Page { path: "/style.css", content_type: STYLE, body: include_str!("../../static/style.css") },
    Page { path: "/dashboard", content_type: HTML, body: include_str!("../../static/dashboard.html") },
    Page { path: "/dashboard.js", content_type: SCRIPT, body: include_str!("../../static/dashboard.js") },
    Page { path: "/dashboard.css", content_type: STYLE, body: include_str!("../../static/dashboard.css") },
    Page { path: "/chart.js", content_type: SCRIPT, body: include_str!("../../static/chart.js") },
];

/// Socket.IO's own client, which its servers hand out; where it comes from stands beside it.
const SOCKET_IO: Page = Page {
    path: "/socket.io/socket.io.js",
    content_type: SCRIPT,
    body: include_str!("../../static/vendor/socket.io/socket.io.js"),
};

/// Every page but the front one.
pub(super) fn routes() -> Router {
    PAGES.iter().fold(Router::new(), |router, page| {
        let etag: Arc<str> = page.etag().into();
        router.route(page.path, get(move |headers: HeaderMap| async move { page.answer(&etag, &headers) }))
    })
}

/// Answers a request with these headers with the front page.
pub(super) fn front() -> impl Fn(&HeaderMap) -> Response + Clone {
    alone(&FRONT)
}

/// The same with Socket.IO's client.
pub(super) fn socketio() -> impl Fn(&HeaderMap) -> Response + Clone {
    alone(&SOCKET_IO)
}

fn alone(page: &'static Page) -> impl Fn(&HeaderMap) -> Response + Clone {
    let etag: Arc<str> = page.etag().into();
    move |headers| page.answer(&etag, headers)
}

impl Page {
    /// The page, or that the copy the client has is still good.
    fn answer(&self, etag: &str, headers: &HeaderMap) -> Response {
        let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        let mut known = known.flat_map(|value| value.split(',')).map(str::trim);
        let caching = [(header::ETAG, etag), (header::CACHE_CONTROL, "no-cache")];
        if known.any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == etag) {
            return (StatusCode::NOT_MODIFIED, caching).into_response();
        }
        // People import the module from pages of their own; nothing here is for somebody's eyes only.
        let sharing = [(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"), (header::CONTENT_TYPE, self.content_type)];
        (caching, sharing, self.body).into_response()
    }

    /// Changes whenever the page does.
    fn etag(&self) -> String {
        use std::fmt::Write;
        let hash = digest::digest(&digest::SHA256, self.body.as_bytes());
        let mut etag = String::from("\"");
        for byte in hash.as_ref().iter().take(12) {
            // Writing to a String never fails.
            let _ = write!(etag, "{byte:02x}");
        }
        etag.push('"');
        etag
    }
}
