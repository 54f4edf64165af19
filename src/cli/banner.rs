//! What the server says on stdout once it runs: where to go, what listens, what to do next.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;

use crate::address::host_in_url;
use crate::app::Listening;
use crate::app::Serves;
use crate::config::Config;
use crate::config::value::TlsMode;
use crate::net::host;
use crate::net::tls::Source;

/// The whole text. Its last line begins with `Ready`.
pub(super) fn text(config: &Config, file: Option<&Path>, listening: &[Listening], served: Source) -> String {
    let urls = urls(config, listening, served);
    let mut text = format!("Throughway {}: signaling and TURN relay in one process\n", env!("CARGO_PKG_VERSION"));
    // Writing to a String never fails.
    if !urls.is_empty() {
        text.push_str("\nOpen in a browser\n");
        let width = urls.iter().map(|(url, _)| url.len()).max().unwrap_or_default();
        for (url, remark) in &urls {
            let _ = writeln!(text, "    {url:width$}   {remark}");
        }
    }
    text.push_str("\nListening\n");
    let width = listening.iter().map(|one| one.addr.to_string().len()).max().unwrap_or_default();
    for Listening { transport, addr, serves } in listening {
        let _ = writeln!(text, "    {transport} {:width$}   {serves}", addr.to_string());
    }
    text.push_str("\nNext\n");
    if !urls.is_empty() {
        text.push_str("    Open the page in two tabs or on two devices, sign in under two names, and call.\n");
    }
    match file {
        Some(file) => {
            let has_socket = !config.control.socket.as_os_str().is_empty();
            let how = if has_socket { "`throughway reload`, or SIGHUP," } else { "SIGHUP" };
            let _ = writeln!(text, "    Settings come from {}; {how} has changed ones hold.", file.display());
        }
        None => text.push_str("    No configuration file; `throughway init` makes one, to start with --config FILE.\n"),
    }
    text.push_str("    Ctrl-C stops it.\n\nReady\n");
    text
}

/// The chat page as this machine and others reach it, with a remark each.
fn urls(config: &Config, listening: &[Listening], served: Source) -> Vec<(String, &'static str)> {
    let first = |serves| listening.iter().find(|one| one.serves == serves).map(|one| one.addr);
    let warning = match (served, config.tls.mode) {
        (Source::SelfSigned, TlsMode::Acme) => "the browser warns until the certificate has come, see the log",
        (Source::SelfSigned, _) => "the browser warns once about the self-signed certificate",
        (Source::Files | Source::Acme, _) => "",
    };
    let mut urls = Vec::new();
    if let Some(addr) = first(Serves::Http) {
        let host = if here(addr.ip()) { "localhost".to_owned() } else { addr.ip().to_string() };
        urls.push((url("http", &host, addr.port()), "on this machine: no warning"));
    }
    if let Some(addr) = first(Serves::Https) {
        let certified = if config.tls.mode == TlsMode::Acme { config.acme_names() } else { Vec::new() };
        let public = match config.public_host.as_str() {
            "" => certified.first().map_or("", String::as_str),
            public => public,
        };
        let host = match (public, addr.ip()) {
            ("", ip) if ip.is_loopback() => "localhost".to_owned(),
            ("", ip) if ip.is_unspecified() => {
                host::main_address().map_or_else(|| "localhost".to_owned(), |ip| ip.to_string())
            }
            ("", ip) => ip.to_string(),
            (public, _) => public.to_owned(),
        };
        urls.push((url("https", &host, addr.port()), warning));
    }
    urls
}

fn here(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified()
}

fn url(scheme: &str, host: &str, port: u16) -> String {
    let host = host_in_url(host);
    match (scheme, port) {
        ("https", 443) | ("http", 80) => format!("{scheme}://{host}/chat"),
        (_, port) => format!("{scheme}://{host}:{port}/chat"),
    }
}
