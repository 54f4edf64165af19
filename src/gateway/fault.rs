//! What is wrong with a client's frame, for protocols that have no words of their own for it.

use std::borrow::Cow;

use serde_json::json;

use super::link::Response;
use crate::signaling::message::nests_too_deep;

/// The code of what isn't understood.
pub(super) const BAD: &str = "bad-message";

/// Why nothing came of a frame.
#[derive(Debug)]
pub(super) struct Fault {
    code: &'static str,
    message: Cow<'static, str>,
    name: Option<String>,
}

impl Fault {
    pub(super) fn new(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), name: None }
    }

    /// Of a binary message.
    pub(super) fn binary() -> Self {
        Self::new(BAD, "binary messages mean nothing here")
    }

    /// Of a message beyond the rate.
    pub(super) fn rate() -> Self {
        Self::new("rate", "too many messages; this one is dropped")
    }

    /// Of a message with more than `most` bytes.
    pub(super) fn too_large(most: usize) -> Self {
        Self::new("too-large", format!("a message has at most {most} bytes"))
    }

    /// The same about what is called `name`.
    pub(super) fn about(self, name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..self }
    }

    /// What the client gets for it.
    pub(super) fn blame(&self) -> Response {
        Response { is_bad: self.code == BAD, ..Response::reply(self.encode()) }
    }

    /// The frame that says it; clients ignore what they don't know.
    pub(super) fn encode(&self) -> String {
        let Self { code, message, name } = self;
        let mut frame = json!({ "type": "error", "code": code, "message": message });
        if let (Some(name), Some(fields)) = (name, frame.as_object_mut()) {
            fields.insert("name".into(), name.as_str().into());
        }
        frame.to_string()
    }
}

/// Whether `text` can be a JSON object that is safe to parse; why not.
pub(super) fn check_object(text: &str) -> Result<(), &'static str> {
    if nests_too_deep(text) {
        return Err("nested too deep");
    }
    // The parser would take an array for an object with its fields in order.
    if !text.trim_start().starts_with('{') {
        return Err("not a JSON object");
    }
    Ok(())
}
