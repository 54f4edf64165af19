//! Secrets by which a client comes back: ours for its session, or its own for its name.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::digest;
use subtle::ConstantTimeEq;

use crate::credentials::random;

/// 128 random bits, told to one client alone.
#[derive(Clone)]
pub struct Secret([u8; 16]);

impl Secret {
    /// One that nobody can guess.
    pub fn new() -> Self {
        Self(random())
    }

    /// As the client is told it: Base64 for URLs.
    pub fn reveal(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.0)
    }

    /// Whether `text` says it. Takes as long for every text of the right length.
    pub fn is(&self, text: &str) -> bool {
        BASE64_URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| self.0.ct_eq(&bytes).into())
    }
}

impl Default for Secret {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A text that a client chose, remembered by its digest: as short for every text, and of no use to who sees it.
#[derive(Clone)]
pub struct Token([u8; digest::SHA256_OUTPUT_LEN]);

impl Token {
    /// That of `text`.
    pub fn of(text: &str) -> Self {
        let mut hash = [0; digest::SHA256_OUTPUT_LEN];
        hash.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
        Self(hash)
    }

    /// Whether `other` is of the same text. Takes as long for every other.
    pub fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_its_own_text_and_no_other_and_never_shown() {
        let secret = Secret::new();
        let text = secret.reveal();

        assert!(secret.is(&text) && text.len() == 22);
        for other in ["", "x", &text[1..], &format!("{text}A"), &Secret::new().reveal()] {
            assert!(!secret.is(other), "{other}");
        }
        assert_eq!(format!("{secret:?}"), "Secret");
    }

    #[test]
    fn a_token_is_its_text_and_never_shown() {
        let token = Token::of("abc");

        assert!(token.is(&Token::of("abc")));
        for other in ["", "ab", "abcd", "Abc"] {
            assert!(!token.is(&Token::of(other)), "{other}");
        }
        assert_eq!(format!("{token:?}"), "Token");
    }
}
