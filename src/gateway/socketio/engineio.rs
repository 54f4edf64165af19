//! Engine.IO, revisions 3 and 4: its packets, and the payloads that several of them travel in by polling. Text only.

use serde_json::json;

use crate::gateway::Limits;
use crate::signaling::name::Name;

/// A revision of the protocol, as clients say it in `EIO=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revision {
    /// Of Socket.IO 1.x and 2.x: the client pings.
    Third,
    /// Since Socket.IO 3: the server pings.
    Fourth,
}

/// What a client says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packet<'a> {
    /// It leaves.
    Close,
    /// It wants a sign of life, with this in it.
    Ping(&'a str),
    /// Its own sign of life.
    Pong,
    /// A packet of Socket.IO.
    Message(&'a str),
    /// From here on it uses the WebSocket.
    Upgrade,
    /// Nothing.
    Noop,
    /// Bytes, in Base64: an attachment of a packet of Socket.IO.
    Binary,
}

/// Text that is no packet, or no payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not Engine.IO")]
pub struct Malformed;

pub(super) const CLOSE: &str = "1";
pub(super) const PING: &str = "2";
pub(super) const PONG: &str = "3";
pub(super) const NOOP: &str = "6";
/// What a ping and its pong carry that try out a WebSocket before it is used.
pub(super) const PROBE: &str = "probe";

/// Between the packets of a payload, in revision 4.
const SEPARATOR: char = '\u{1e}';
/// The most digits that a packet's length has in revision 3: more than any message may have bytes.
const LENGTH_DIGITS: usize = 9;

impl Revision {
    /// The one that `EIO=` names.
    pub fn named(text: &str) -> Option<Self> {
        match text {
            "3" => Some(Self::Third),
            "4" => Some(Self::Fourth),
            _ => None,
        }
    }
}

impl<'a> Packet<'a> {
    /// Reads one.
    ///
    /// # Errors
    ///
    /// [`Malformed`], also for what only servers say.
    pub(super) fn read(text: &'a str) -> Result<Self, Malformed> {
        let mut rest = text.chars();
        let kind = rest.next().ok_or(Malformed)?;
        match kind {
            '1' => Ok(Self::Close),
            '2' => Ok(Self::Ping(rest.as_str())),
            '3' => Ok(Self::Pong),
            '4' => Ok(Self::Message(rest.as_str())),
            '5' => Ok(Self::Upgrade),
            '6' => Ok(Self::Noop),
            'b' => Ok(Self::Binary),
            _ => Err(Malformed),
        }
    }
}

/// The packet that a session begins with; WebSockets aren't offered to who has one.
pub(super) fn open(sid: &Name, has_socket: bool, limits: &Limits) -> String {
    let upgrades: &[&str] = if has_socket { &[] } else { &["websocket"] };
    // When it has heard no ping, or no pong, for both together, the client takes us for gone as we do it.
    let wait = limits.gone_after.saturating_sub(limits.ping_every);
    let handshake = json!({
        "sid": sid.as_str(),
        "upgrades": upgrades,
        "pingInterval": milliseconds(limits.ping_every),
        "pingTimeout": milliseconds(wait),
        "maxPayload": limits.message_bytes,
    });
    format!("0{handshake}")
}

fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The packets of a payload that a client sent, taken out one by one.
#[derive(Debug)]
pub struct Packets {
    text: String,
    revision: Revision,
    at: usize,
    is_over: bool,
}

impl Packets {
    /// Those of `text`.
    pub fn of(text: String, revision: Revision) -> Self {
        Self { text, revision, at: 0, is_over: false }
    }

    /// The one that comes first in the rest.
    fn split(&self) -> Result<(&str, usize), Malformed> {
        let rest = self.text.get(self.at..).ok_or(Malformed)?;
        match self.revision {
            Revision::Third => {
                let (length, packets) = rest.split_once(':').ok_or(Malformed)?;
                let is_number = length.len() <= LENGTH_DIGITS && length.bytes().all(|byte| byte.is_ascii_digit());
                let units = length.parse().ok().filter(|_| is_number).ok_or(Malformed)?;
                let packet = packets.get(..bytes_of(packets, units)?).ok_or(Malformed)?;
                Ok((packet, self.at + length.len() + 1 + packet.len()))
            }
            Revision::Fourth => {
                let packet = rest.split(SEPARATOR).next().ok_or(Malformed)?;
                Ok((packet, self.at + packet.len()))
            }
        }
    }
}

impl Iterator for Packets {
    type Item = Result<String, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let split = self.split().map(|(packet, end)| (packet.to_owned(), end));
        let Ok((packet, end)) = split else {
            self.is_over = true;
            return Some(Err(Malformed));
        };
        self.is_over = end == self.text.len();
        let separator = if self.revision == Revision::Fourth { SEPARATOR.len_utf8() } else { 0 };
        self.at = end + separator;
        Some(Ok(packet))
    }
}

/// How many bytes the first so many UTF-16 units have: what JavaScript counts strings in.
fn bytes_of(text: &str, units: usize) -> Result<usize, Malformed> {
    let mut left = units;
    for (at, char) in text.char_indices() {
        if left == 0 {
            return Ok(at);
        }
        left = left.checked_sub(char.len_utf16()).ok_or(Malformed)?;
    }
    if left == 0 { Ok(text.len()) } else { Err(Malformed) }
}

/// A payload in the making.
#[derive(Debug)]
pub struct Payload {
    text: String,
    revision: Revision,
}

impl Payload {
    /// Nothing yet.
    pub fn new(revision: Revision) -> Self {
        Self { text: String::new(), revision }
    }

    /// One packet more.
    pub fn push(&mut self, packet: &str) {
        match self.revision {
            Revision::Third => {
                let units = packet.encode_utf16().count();
                self.text.push_str(&units.to_string());
                self.text.push(':');
            }
            Revision::Fourth if self.text.is_empty() => {}
            Revision::Fourth => self.text.push(SEPARATOR),
        }
        self.text.push_str(packet);
    }

    /// How long it is so far, in bytes.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Its text.
    pub fn into_text(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(text: &str, revision: Revision) -> Vec<Result<String, Malformed>> {
        Packets::of(text.to_owned(), revision).collect()
    }

    fn good(packets: &[&str]) -> Vec<Result<String, Malformed>> {
        packets.iter().map(|packet| Ok((*packet).to_owned())).collect()
    }

    #[test]
    fn a_payload_reads_as_it_was_written_in_both_revisions() {
        let said = ["40", "42[\"offer\",\"\u{20ac} \u{1f600}\"]", "2"];
        for revision in [Revision::Third, Revision::Fourth] {
            let mut payload = Payload::new(revision);
            for packet in said {
                payload.push(packet);
            }

            assert_eq!(packets(&payload.into_text(), revision), good(&said));
        }
    }

    #[test]
    fn lengths_of_revision_3_count_what_javascript_counts() {
        assert_eq!(packets("4:4\u{1f600}a1:2", Revision::Third), good(&["4\u{1f600}a", "2"]));
        for bad in ["", "x", "2:4", "2:4\u{1f600}", "-1:4", "+1:4", ":4", "9999999999:4", "1:2x", "1"] {
            assert_eq!(packets(bad, Revision::Third).pop(), Some(Err(Malformed)), "{bad:?}");
        }
    }

    #[test]
    fn packets_of_revision_4_stand_between_separators() {
        assert_eq!(packets("2\u{1e}40{}\u{1e}", Revision::Fourth), good(&["2", "40{}", ""]));
        assert_eq!(packets("", Revision::Fourth), good(&[""]), "which is no packet");
    }

    #[test]
    fn a_packet_is_what_its_first_character_says() {
        assert_eq!(Packet::read("42[]"), Ok(Packet::Message("2[]")));
        assert_eq!(Packet::read("2probe"), Ok(Packet::Ping("probe")));
        assert_eq!(Packet::read("bAQ=="), Ok(Packet::Binary));
        for bad in ["", "0{}", "7", "\u{20ac}"] {
            assert_eq!(Packet::read(bad), Err(Malformed), "{bad:?}");
        }
    }
}
