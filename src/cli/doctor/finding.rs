//! What `doctor` found out: one line each, with the cure.

use std::fmt::Write;

use serde::Serialize;

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// It works, but not for everybody, or not for long.
    Warn,
    /// Calls fail.
    Fault,
    /// It could not be looked at.
    Skip,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What: a short word, the same in each run.
    pub(super) check: &'static str,
    /// How it is.
    pub(super) level: Level,
    /// What was found.
    pub(super) found: String,
    /// What to do about it; empty when nothing is to be done.
    pub(super) cure: String,
}

impl Finding {
    pub(super) fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, found: found.into(), cure: String::new() }
    }

    pub(super) fn warn(check: &'static str, found: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { check, level: Level::Warn, found: found.into(), cure: cure.into() }
    }

    pub(super) fn fault(check: &'static str, found: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { check, level: Level::Fault, found: found.into(), cure: cure.into() }
    }

    pub(super) fn skip(check: &'static str, why: impl Into<String>) -> Self {
        Self { check, level: Level::Skip, found: why.into(), cure: String::new() }
    }

    /// The line for people, and one more for the cure.
    pub(super) fn in_words(&self, has_colours: bool) -> String {
        let (word, colour) = match self.level {
            Level::Ok => ("ok", "\x1b[32m"),
            Level::Warn => ("warn", "\x1b[33m"),
            Level::Fault => ("fault", "\x1b[31m"),
            Level::Skip => ("skip", "\x1b[2m"),
        };
        let (on, off) = if has_colours { (colour, "\x1b[0m") } else { ("", "") };
        let mut text = format!("{on}{word:5}{off} {:13} {}\n", self.check, printable(&self.found));
        if !self.cure.is_empty() {
            // Writing to a String never fails.
            let _ = writeln!(text, "{:20}cure: {}", "", printable(&self.cure));
        }
        text
    }
}

/// In characters: more isn't read.
const LONGEST: usize = 600;

/// Names in certificates and answers are a stranger's: nothing of theirs moves the cursor.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_colours_on_a_terminal_only_and_nothing_of_a_strangers() {
        let fault = Finding::fault("dns", "it is \x1b[2J bad", "mend it");

        assert_eq!(fault.in_words(false), "fault dns           it is  [2J bad\n                    cure: mend it\n");
        assert!(fault.in_words(true).starts_with("\x1b[31mfault\x1b[0m dns"));
        assert_eq!(Finding::ok("clock", "right").in_words(false), "ok    clock         right\n");
    }
}
