//! The log: lines on stderr with the time in UTC, and addresses only for those who ask for detail.
//!
//! But for one: of a peer that was denied, an address of a special-purpose range, such as 192.168.1.5, which is nobody's on
//! the internet and tells the operator what to allow ([`crate::credentials::journal::Refusal`]).

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use tracing::Event;
use tracing::Level;
use tracing::Subscriber;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::FormatEvent;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Format;
use tracing_subscriber::fmt::format::Json;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::reload::Handle;
use tracing_subscriber::util::SubscriberInitExt;

static REVEAL: AtomicBool = AtomicBool::new(false);

/// Whether lines are for programs.
static JSON: AtomicBool = AtomicBool::new(false);
/// What the log lets through, once it has started.
static FILTER: OnceLock<Handle<Targets, Registry>> = OnceLock::new();

/// Starts logging, or has what is logged be so from here on.
pub fn start(level: Level, json: bool) {
    REVEAL.store(level >= Level::DEBUG, Ordering::Relaxed);
    JSON.store(json, Ordering::Relaxed);
    if let Some(in_force) = FILTER.get() {
        // The log goes on as long as the process.
        let _ = in_force.reload(filter(level));
        return;
    }
    let (filter, handle) = reload::Layer::new(filter(level));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let lines = layer().with_writer(std::io::stderr).with_ansi(colours).event_format(Lines::default());
    if tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok() {
        let _ = FILTER.set(handle);
    }
}

fn filter(level: Level) -> Targets {
    // webrtc-rs has a line for each packet, with addresses: only for those who ask for everything.
    let others = if level == Level::TRACE { LevelFilter::TRACE } else { LevelFilter::OFF };
    Targets::new().with_default(Level::WARN.min(level)).with_target("throughway", level).with_targets([
        ("turn", others),
        ("stun", others),
        ("webrtc_util", others),
    ])
}

/// Lines for people or for programs, whichever are wanted when one is written. Neither tells of spans: there are none.
struct Lines {
    text: Format,
    json: Format<Json>,
}

impl Default for Lines {
    fn default() -> Self {
        let json = Format::default().json().with_current_span(false).with_span_list(false);
        Self { text: Format::default().with_target(false), json }
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, line: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if JSON.load(Ordering::Relaxed) {
            self.json.format_event(context, line, event)
        } else {
            self.text.format_event(context, line, event)
        }
    }
}

/// A value that the log shows at the levels DEBUG and TRACE only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redacted<T>(pub T);

impl<T: fmt::Display> fmt::Display for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if REVEAL.load(Ordering::Relaxed) { self.0.fmt(f) } else { f.write_str("(hidden)") }
    }
}
