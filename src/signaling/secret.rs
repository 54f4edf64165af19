//! The secret by which a client takes its session up again.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
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
}
