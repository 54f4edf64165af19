//! Another configuration for the running server, by SIGHUP: what holds at once for those who are there, and what doesn't.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::DEFAULT_PEERS;
use crate::support::PATIENCE;
use crate::support::Server;
use crate::support::asker::Asker;

mod load;
mod relay;
mod web;

/// A server whose configuration is changed.
struct Running {
    server: Server,
    home: TempDir,
}

/// What is logged of a reload.
const READ_AGAIN: &str = "the configuration was read again";
const IN_FORCE: &str = "the configuration was read again; in force now:";
const STAYS: &str = "the configuration stays as it was";

impl Running {
    fn start(toml: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        Self { server: Server::start_in(home.path(), toml), home }
    }

    fn home(&self) -> &Path {
        self.home.path()
    }

    /// Has `toml` be the configuration; the lines that are logged of it, once it has been looked at.
    async fn reload(&self, toml: &str) -> Vec<String> {
        fs::write(self.home().join("throughway.toml"), toml).unwrap();
        self.hang_up().await
    }

    /// Has the configuration be read again; the lines that are logged of it, up to the one that says what became of it.
    async fn hang_up(&self) -> Vec<String> {
        let before = self.server.log().lines().count();
        kill(self.server.pid(), Signal::SIGHUP).unwrap();
        let looked_at = async {
            loop {
                let log = self.server.log();
                let lines = log.split_inclusive('\n').skip(before).map(str::to_owned).collect::<Vec<_>>();
                let says_what_became =
                    |line: &String| line.ends_with('\n') && [READ_AGAIN, STAYS].iter().any(|text| line.contains(text));
                if let Some(last) = lines.iter().position(says_what_became) {
                    return lines[..=last].iter().map(|line| line.trim_end().to_owned()).collect();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let lines = timeout(PATIENCE, looked_at).await;
        lines.unwrap_or_else(|_| panic!("nothing becomes of it:\n{}", self.server.log()))
    }

    /// The same, and all that has changed holds: these keys.
    async fn applies(&self, toml: &str, keys: &str) {
        let lines = self.reload(toml).await;
        let told = lines.last().unwrap();
        assert!(told.ends_with(&format!("{IN_FORCE} applied=\"{keys}\"")), "{lines:?}");
    }
}

/// [`DEFAULT_PEERS`] with more keys of `[turn]`, in the place of those that it has, and tables behind it.
fn config(turn: &[(&str, &str)], tables: &str) -> String {
    let mut text = DEFAULT_PEERS.to_owned();
    for (key, value) in turn {
        let is_key = |line: &str| line.split(' ').next() == Some(key);
        text = text.lines().filter(|line| !is_key(line)).map(|line| format!("{line}\n")).collect();
        text.push_str(&format!("{key} = {value}\n"));
    }
    text + tables
}

#[tokio::test]
async fn a_bad_configuration_leaves_the_old_one_whole_and_says_why_in_one_line() {
    let running = Running::start(&config(&[], ""));
    let secret = "a secret of somebody's";
    let missing = running.home().join("nowhere.pem").display().to_string();
    let jwt = format!("[signaling.accounts]\nmode = \"jwt\"\n[signaling.accounts.jwt]\npublic_key = \"{missing}\"\n");

    for (broken, why) in [
        ("[turn", "throughway.toml"),
        ("unknown = 1", "unknown: no such key"),
        (&config(&[("users", "{}")], "[limits]\nhttp = 0\n"), "limits.http"),
        (&config(&[("users", &format!("\"{secret}\""))], ""), "turn.users"),
        (&config(&[("users", "{}")], &jwt), "signaling.accounts.jwt.public_key"),
    ] {
        let lines = running.reload(broken).await;

        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert!(line.contains("WARN") && line.contains(STAYS) && line.contains(why), "{line}");
        let alice = Asker::new(running.server.udp(), "alice", "wonderland").await;
        alice.allocate().await;
        assert_eq!(alice.refresh(0).await, 0, "the users are who they were");
    }
    fs::remove_file(running.home().join("throughway.toml")).unwrap();
    assert!(running.hang_up().await[0].contains("cannot read this configuration file"));
    assert!(!running.server.log().contains(secret));
}

#[tokio::test]
async fn what_needs_a_restart_is_named_each_time_and_the_rest_holds() {
    let running = Running::start(&config(&[], ""));
    let changed =
        config(&[("realm", "\"example.org\""), ("relay_ports", "\"20000-20009\"")], "[signaling]\nwho = true\n");

    for (times, told) in [(1, format!("{IN_FORCE} applied=\"signaling.who\"")), (2, READ_AGAIN.to_owned())] {
        let lines = running.reload(&changed).await;

        assert!(lines.last().unwrap().ends_with(&told), "{lines:?}");
        let named = "WARN changed, but only a restart puts it to work: turn.realm, turn.relay_ports\n";
        running.server.logs_times(named, times).await;
    }
    // Its clients go on as they are: it answers to the realm that they know.
    Asker::new(running.server.udp(), "alice", "wonderland").await.allocate().await;
    running.applies(&config(&[], ""), "signaling.who").await;
    let lines = running.hang_up().await;
    assert!(lines.last().unwrap().ends_with(&format!("{READ_AGAIN}: no setting has changed")), "{lines:?}");
}

#[tokio::test]
async fn the_log_tells_more_or_less_and_for_people_or_programs_at_once() {
    const DEBUG: &str = "[log]\nlevel = \"debug\"\n";
    let running = Running::start(&config(&[], ""));
    // What is logged of a connection that speaks what isn't spoken there: its end comes behind that.
    let logged = async || {
        let before = running.server.log().len();
        let mut stream = TcpStream::connect(running.server.turn_tls()).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.expect("it is closed");
        running.server.log().split_off(before)
    };
    assert_eq!(logged().await, "");

    running.applies(&config(&[], DEBUG), "log.level").await;
    let line = logged().await;
    assert!(line.contains("DEBUG") && line.contains("127.0.0.1:"), "with the address: {line}");
    let lines = running.reload(&config(&[], &format!("{DEBUG}format = \"json\"\n"))).await;
    let told: Value = serde_json::from_str(lines.last().unwrap()).unwrap();
    assert_eq!((&told["level"], &told["fields"]["applied"]), (&"INFO".into(), &"log.format".into()));
    running.reload(&config(&[], "")).await;

    assert_eq!(logged().await, "");
}
