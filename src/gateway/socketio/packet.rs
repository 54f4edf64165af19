//! Socket.IO's packets, protocols 3 to 5: what clients say, and what they are told.

use serde::Deserialize;
use serde_json::Value;
use serde_json::json;
use serde_json::value::RawValue;

use super::engineio::Revision;
use crate::signaling::message::nests_too_deep;

/// What a client says in a namespace.
#[derive(Debug)]
pub(super) struct Packet<'a> {
    /// The namespace, without a query.
    pub(super) namespace: &'a str,
    /// What it says.
    pub(super) kind: Kind<'a>,
}

/// The kinds of packets.
#[derive(Debug)]
pub(super) enum Kind<'a> {
    /// It comes into the namespace, with a proof if it has one.
    Connect(Option<String>),
    /// It leaves it.
    Disconnect,
    /// Something happened.
    Event(Event<'a>),
    /// An event of ours was heard.
    Ack,
    /// An event or an answer that has so many parts in bytes, which follow.
    Binary(u32),
}

/// What happened.
#[derive(Debug)]
pub(super) struct Event<'a> {
    /// What is to be told when it has been heard, if anything.
    pub(super) ack: Option<u64>,
    /// What it is called.
    pub(super) name: String,
    /// What goes with it.
    pub(super) arguments: Vec<&'a RawValue>,
    /// Name and arguments as they came.
    pub(super) json: &'a RawValue,
}

/// Text that is no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not Socket.IO")]
pub(super) struct Malformed;

/// The namespace that everybody is in.
pub(super) const ROOT: &str = "/";
/// How many parts in bytes may be announced at once: what the clients' own decoders take.
const MAX_ATTACHMENTS: u32 = 10;
/// Names that mean something to the clients themselves, whose decoders end the connection over them.
const RESERVED: &[&str] = &["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

impl<'a> Packet<'a> {
    /// Reads one: its type, how many parts in bytes follow, the namespace if it isn't [`ROOT`], the number of its ack, JSON.
    ///
    /// # Errors
    ///
    /// [`Malformed`], also for what only servers say.
    pub(super) fn read(text: &'a str) -> Result<Self, Malformed> {
        let mut rest = text.chars();
        let kind = rest.next().ok_or(Malformed)?;
        let mut rest = rest.as_str();
        let attachments = announced(text);
        if attachments.is_some() {
            rest = rest.split_once('-').ok_or(Malformed)?.1;
        }
        let namespace = if rest.starts_with('/') {
            let (namespace, after) = rest.split_once(',').unwrap_or((rest, ""));
            rest = after;
            namespace.split('?').next().unwrap_or(namespace)
        } else {
            ROOT
        };
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (ack, json) = rest.split_at_checked(digits).ok_or(Malformed)?;
        let ack = if ack.is_empty() { None } else { Some(number(ack).ok_or(Malformed)?) };
        let kind = match kind {
            '0' => Kind::Connect(token(json)?),
            '1' => Kind::Disconnect,
            '2' => Kind::Event(Event::read(ack, json)?),
            '3' => Kind::Ack,
            _ => Kind::Binary(attachments.ok_or(Malformed)?),
        };
        Ok(Self { namespace, kind })
    }
}

impl<'a> Event<'a> {
    fn read(ack: Option<u64>, json: &'a str) -> Result<Self, Malformed> {
        if nests_too_deep(json) {
            return Err(Malformed);
        }
        let json: &RawValue = serde_json::from_str(json).map_err(|_| Malformed)?;
        let mut arguments: Vec<&RawValue> = serde_json::from_str(json.get()).map_err(|_| Malformed)?;
        if arguments.is_empty() {
            return Err(Malformed);
        }
        let name = word(arguments.remove(0)).ok_or(Malformed)?;
        Ok(Self { ack, name, arguments, json })
    }
}

/// How many parts in bytes a packet announces, if it is one that does.
pub(super) fn announced(text: &str) -> Option<u32> {
    let (count, _) = text.strip_prefix(['5', '6'])?.split_once('-')?;
    let count = number(count).and_then(|count| u32::try_from(count).ok())?;
    (1..=MAX_ATTACHMENTS).contains(&count).then_some(count)
}

/// Whether no event may be called `name`: a server never emits such a one.
pub(super) fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

/// Reads an object of fields; derived readers take arrays for it, too.
pub(super) fn object<'a, T: Deserialize<'a>>(json: &'a str) -> Option<T> {
    if json.starts_with('{') { serde_json::from_str(json).ok() } else { None }
}

/// A string, or a number as one: what events and rooms may be called.
pub(super) fn word(raw: &RawValue) -> Option<String> {
    match serde_json::from_str(raw.get()).ok()? {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn number(digits: &str) -> Option<u64> {
    digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// `auth.token` of who connects.
fn token(json: &str) -> Result<Option<String>, Malformed> {
    #[derive(Deserialize)]
    struct Auth<'a> {
        #[serde(borrow)]
        token: Option<&'a RawValue>,
    }
    if json.is_empty() {
        return Ok(None);
    }
    let auth: &RawValue = serde_json::from_str(json).map_err(|_| Malformed)?;
    Ok(object::<Auth<'_>>(auth.get()).and_then(|auth| serde_json::from_str(auth.token?.get()).ok()))
}

/// An event, from its name and arguments as JSON.
pub(super) fn event(json: &str) -> String {
    format!("42{json}")
}

/// That an event was heard.
pub(super) fn ack(number: u64) -> String {
    format!("43{number}[]")
}

/// That a client is in the namespace, and by which name.
pub(super) fn connected(name: &str, revision: Revision) -> String {
    match revision {
        Revision::Third => "40".into(),
        Revision::Fourth => format!("40{}", json!({ "sid": name })),
    }
}

/// That it isn't let in.
pub(super) fn refused(namespace: &str, why: &str, revision: Revision) -> String {
    let namespace = if namespace == ROOT { String::new() } else { format!("{namespace},") };
    let why = match revision {
        Revision::Third => json!(why),
        Revision::Fourth => json!({ "message": why }),
    };
    format!("44{namespace}{why}")
}

/// That it is put out, and needn't try again by itself.
pub(super) const DISCONNECT: &str = "41";

/// That something it did went wrong; it stays.
pub(super) fn exception(why: &str) -> String {
    event(&json!(["exception", { "status": "error", "message": why }]).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        match Packet::read(text) {
            Ok(Packet { namespace, kind: Kind::Connect(token) }) => format!("{namespace} connect {token:?}"),
            Ok(Packet { namespace, kind: Kind::Event(event) }) => {
                let Event { ack, name, arguments, json } = event;
                format!("{namespace} {name} {ack:?} {} {}", arguments.len(), json.get())
            }
            Ok(Packet { namespace, kind }) => format!("{namespace} {kind:?}"),
            Err(Malformed) => "malformed".into(),
        }
    }

    #[test]
    fn packets_of_clients_of_all_versions_are_read() {
        for (text, expected) in [
            ("0", "/ connect None"),
            ("0/chat?a=b,", "/chat connect None"),
            ("0/chat", "/chat connect None"),
            (r#"0{"token":"north","x":[1]}"#, r#"/ connect Some("north")"#),
            (r#"0/,{"token":7}"#, "/ connect None"),
            ("0null", "/ connect None"),
            (r#"0["north"]"#, "/ connect None"),
            ("1", "/ Disconnect"),
            ("1/chat,", "/chat Disconnect"),
            (r#"2["offer",{"sdp" : 1}]"#, r#"/ offer None 1 ["offer",{"sdp" : 1}]"#),
            (r#"2/chat,12["of\u0066er"]"#, r#"/chat offer Some(12) 0 ["of\u0066er"]"#),
            ("20[7,1]", "/ 7 Some(0) 1 [7,1]"),
            ("2[\"conn\\u0065ct\",1]", r#"/ connect None 1 ["conn\u0065ct",1]"#),
            ("312[]", "/ Ack"),
            (r#"51-["image",{"_placeholder":true,"num":0}]"#, "/ Binary(1)"),
            ("610-/chat,3[]", "/chat Binary(10)"),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_packet_is_refused() {
        let deep = format!("2[\"a\",{}1{}]", "[".repeat(40), "]".repeat(40));
        for bad in [
            "",
            "4\"no\"",
            "7",
            "\u{20ac}",
            "2",
            "2[]",
            "2{}",
            "2[null]",
            "2[[\"a\"]]",
            "2[\"a\"",
            "2[\"a\"]x",
            "299999999999999999999[\"a\"]",
            "5[\"a\"]",
            "50-[\"a\"]",
            "511-[\"a\"]",
            "5+1-[\"a\"]",
            "0{",
            "0[1]x",
            &deep,
        ] {
            assert_eq!(read(bad), "malformed", "{bad}");
        }
    }
}
