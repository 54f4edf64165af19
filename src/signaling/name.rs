//! Names that members may have: one way to write each, and nothing in it that the eye can't see.

use std::borrow::Borrow;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::digest::SHA256;
use ring::digest::digest;
use unicode_normalization::UnicodeNormalization;

use crate::credentials::random;

/// A member's name, in NFC, cheap to copy. `__proto__` and its friends are names like any other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(Arc<str>);

/// A text that can't be a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a name is 1 to {MAX_BYTES} bytes without control, direction or zero-width characters, and no space but U+0020 \
         between others"
)]
pub struct BadName;

/// The longest name, in bytes of its NFC form.
pub const MAX_BYTES: usize = 64;
/// The longest text worth normalising: NFC makes a text at most three times shorter.
const MAX_RAW_BYTES: usize = 3 * MAX_BYTES;

impl Name {
    /// The name that `text` spells.
    ///
    /// # Errors
    ///
    /// [`BadName`], for what no member may be called.
    pub fn new(text: &str) -> Result<Self, BadName> {
        if text.len() > MAX_RAW_BYTES {
            return Err(BadName);
        }
        let name: String = text.nfc().collect();
        if name.is_empty() || name.len() > MAX_BYTES || name.trim() != name || name.chars().any(is_unseen) {
            return Err(BadName);
        }
        Ok(Self(name.into()))
    }

    /// One that nobody has or could guess: a random UUID (RFC 9562, section 5.4).
    pub fn random() -> Self {
        let bits = u128::from_be_bytes(random());
        let versioned = bits & !(0xf << 76) & !(0b11 << 62) | 4 << 76 | 0b10 << 62;
        let hex = format!("{versioned:032x}");
        let mut text = String::with_capacity(36);
        for (n, digit) in hex.chars().enumerate() {
            if matches!(n, 8 | 12 | 16 | 20) {
                text.push('-');
            }
            text.push(digit);
        }
        Self(text.into())
    }

    /// The one of a room that its gateway's clients may call what they like: the same for the same text and no other
    /// (SHA-256, in Base64).
    pub fn of_any(text: &str) -> Self {
        Self(BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes())).into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Control characters, spaces of all widths but the usual, and what Unicode has renderers ignore or turn the direction
/// by: two names that look the same must be the same.
fn is_unseen(char: char) -> bool {
    char.is_control()
        || (char.is_whitespace() && char != ' ')
        || matches!(char,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_in_their_one_composed_form() {
        let composed = Name::new("Zo\u{eb}").unwrap();
        let decomposed = Name::new("Zoe\u{308}").unwrap();

        assert_eq!(composed, decomposed);
        assert_eq!(decomposed.as_str(), "Zo\u{eb}");
    }

    #[test]
    fn ordinary_names_of_any_script_are_taken() {
        let longest = "x".repeat(MAX_BYTES);
        for good in ["alice", "Bob Smith", "__proto__", "constructor", "名前", "أليس", "a", "🦀", &longest] {
            assert_eq!(Name::new(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn unseen_characters_and_wrong_lengths_are_refused() {
        let long = "x".repeat(MAX_BYTES + 1);
        let huge = "e\u{308}".repeat(20_000);
        for bad in [
            "",
            "a\nb",
            "a\0",
            "\u{7f}",
            "\u{202e}bob",
            "al\u{200b}ice",
            "a\u{2066}b",
            "\u{feff}a",
            " bob",
            "bob ",
            " ",
            "a\u{a0}b",
            "a\u{2003}b",
            "a\u{3000}b",
            "a\u{2800}b",
            &long,
            &huge,
        ] {
            assert_eq!(Name::new(bad), Err(BadName), "{bad:?}");
        }
    }

    #[test]
    fn any_text_has_a_name_of_its_own() {
        let huge = "x".repeat(100_000);
        let texts = ["", " ", "a", "A", "Zo\u{eb}", "Zoe\u{308}", "\0", "\u{202e}", &huge, &huge[1..]];
        let names: Vec<_> = texts.iter().map(|text| Name::of_any(text)).collect();

        for (n, name) in names.iter().enumerate() {
            assert_eq!(Name::new(name.as_str()).as_ref(), Ok(name));
            assert!(!names[..n].contains(name));
            assert_eq!(Name::of_any(texts[n]), *name);
        }
    }

    #[test]
    fn a_random_name_is_a_uuid_and_never_the_same() {
        let names: Vec<_> = (0..64).map(|_| Name::random()).collect();

        for (n, name) in names.iter().enumerate() {
            let parts: Vec<_> = name.as_str().split('-').map(str::len).collect();
            assert_eq!(parts, [8, 4, 4, 4, 12]);
            assert_eq!(name.as_str().as_bytes()[14], b'4');
            assert!(b"89ab".contains(&name.as_str().as_bytes()[19]), "{name:?}");
            assert!(!names[..n].contains(name));
            assert_eq!(Name::new(name.as_str()).as_ref(), Ok(name));
        }
    }
}
