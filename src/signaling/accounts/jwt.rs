//! Signed tokens (JWT, RFC 7519): who its issuer says that a member is, checked against keys that the operator named.
//!
//! Ours, for no crate fits: the last `jsonwebtoken` over ring, 9.3.1, takes an `nbf` of a wrong type for none at all
//! (CVE-2026-25537), and those since bring a second implementation of cryptography with them, the one in C and the other
//! with RSA. Here is the little of it that signing in takes: one compact form (RFC 7515, section 7.1), two algorithms, each
//! fixed by its key and never by the token, and the claims that say who, from whom, for whom and when.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::hmac;
use ring::signature;
use ring::signature::UnparsedPublicKey;
use serde::Deserialize;
use serde::Deserializer;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::clock::Now;
use crate::signaling::name::Name;

/// The largest file of keys, in bytes.
pub const MAX_KEY_FILE: usize = 256 * 1024;
/// How many keys there may be.
pub const MAX_KEYS: usize = 64;
/// The shortest HMAC key, in bytes (RFC 7518, section 3.2).
const SHORTEST_SECRET: usize = 32;
/// How far two clocks may be apart.
const LEEWAY: Duration = Duration::from_secs(60);

/// Checks tokens.
pub struct Verifier {
    /// Capped by [`MAX_KEYS`].
    keys: Vec<Key>,
    issuer: Option<String>,
    audience: Option<String>,
}

/// A key that tokens may be signed with. It never shows itself.
pub struct Key {
    id: Option<String>,
    check: Check,
}

/// What a key checks signatures by.
enum Check {
    Hs256(hmac::Key),
    EdDsa(UnparsedPublicKey<[u8; ED25519]>),
}

/// Why a token is nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Not three parts in Base64 for URLs, of which the first two are the JSON they should be.
    #[error("not a signed token")]
    Malformed,
    /// Signed in a way that isn't known here, or isn't that of the key; or with extensions that must be understood.
    #[error("signed in a way that is not accepted")]
    Algorithm,
    /// By none of the keys.
    #[error("signed with none of the keys")]
    Signature,
    /// Its time is over.
    #[error("expired")]
    Expired,
    /// Its time has not come.
    #[error("not valid yet")]
    NotYet,
    /// From somebody else than `signaling.accounts.jwt.issuer`.
    #[error("from another issuer than signaling.accounts.jwt.issuer")]
    Issuer,
    /// For somebody else than `signaling.accounts.jwt.audience`.
    #[error("for another audience than signaling.accounts.jwt.audience")]
    Audience,
    /// What it calls its subject can't be a name.
    #[error("its \"sub\" can't be a member's name")]
    Subject,
}

/// Why there is no key to be had of what the operator named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// A secret that could be guessed.
    #[error("is shorter than {SHORTEST_SECRET} bytes: write a long random text, such as `openssl rand -hex 32` prints")]
    Short,
    /// Not the PEM of an Ed25519 key.
    #[error(
        "is no Ed25519 public key in PEM: write what `openssl pkey -pubout` prints for a key of `openssl genpkey -algorithm ed25519`"
    )]
    NotPem,
    /// Not a JWK Set.
    #[error("is no JWK Set: write a JSON object whose \"keys\" is a list of keys, at most {MAX_KEYS}")]
    NotASet,
    /// A key of a kind that is known says something that it can't.
    #[error(
        "has a key of kty \"oct\" whose \"k\" is shorter than {SHORTEST_SECRET} bytes, or one of kty \"OKP\" whose \"x\" is no Ed25519 key: mend it or take it out"
    )]
    Bad,
    /// A key of a kind that is known has something of a wrong type.
    #[error("has a key whose \"{0}\" is not of the type that RFC 7517 has it of: mend it or take it out")]
    Member(&'static str),
    /// In all.
    #[error("has too many keys: leave at most {MAX_KEYS}, of secret, public_key and jwks together")]
    TooMany,
    /// None of the keys can be used.
    #[error("has no key for signatures of kty \"oct\" (HS256), or \"OKP\" with crv \"Ed25519\" (EdDSA)")]
    None,
}

impl Verifier {
    /// Takes what one of `keys` signed, from `issuer` if one is named, and for `audience`.
    ///
    /// # Errors
    ///
    /// [`BadKey::TooMany`].
    pub fn new(keys: Vec<Key>, issuer: Option<String>, audience: Option<String>) -> Result<Self, BadKey> {
        if keys.len() > MAX_KEYS { Err(BadKey::TooMany) } else { Ok(Self { keys, issuer, audience }) }
    }

    /// Whose `token` is. It costs what its length does, which the caller bounds.
    ///
    /// # Errors
    ///
    /// [`Invalid`], for a token that proves nothing.
    pub fn check(&self, token: &str, now: Now) -> Result<Name, Invalid> {
        let (signed, signature) = token.rsplit_once('.').ok_or(Invalid::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Invalid::Malformed)?;
        if claims.contains('.') {
            return Err(Invalid::Malformed);
        }
        let header: Header = part(header)?;
        if header.crit {
            return Err(Invalid::Algorithm);
        }
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).map_err(|_| Invalid::Malformed)?;
        let named = self.named(header.kid.as_deref());
        let fits = |key: &&Key| key.is_for(&header.alg);
        if !named.clone().any(|key| fits(&key)) {
            return Err(Invalid::Algorithm);
        }
        if !named.filter(fits).any(|key| key.signed(signed.as_bytes(), &signature)) {
            return Err(Invalid::Signature);
        }
        // What it says counts only from here on.
        self.judge(part(claims)?, now)
    }

    /// The keys that a token may mean: those by the name it says, and those without name.
    fn named<'a>(&'a self, kid: Option<&'a str>) -> impl Iterator<Item = &'a Key> + Clone {
        self.keys.iter().filter(move |key| match (kid, &key.id) {
            (Some(kid), Some(id)) => kid == id,
            (None, _) | (_, None) => true,
        })
    }

    fn judge(&self, claims: Claims, now: Now) -> Result<Name, Invalid> {
        let (now, leeway) = (now.unix.as_secs_f64(), LEEWAY.as_secs_f64());
        if claims.exp + leeway <= now {
            return Err(Invalid::Expired);
        }
        if claims.nbf.is_some_and(|nbf| nbf - leeway > now) {
            return Err(Invalid::NotYet);
        }
        if self.issuer.is_some() && self.issuer != claims.iss {
            return Err(Invalid::Issuer);
        }
        // What names its audience is for nobody else (RFC 7519, section 4.1.3).
        let for_us = match (&self.audience, &claims.aud) {
            (None, None) => true,
            (Some(us), Some(Audience::One(one))) => us == one,
            (Some(us), Some(Audience::Many(many))) => many.contains(us),
            (Some(_), None) | (None, Some(_)) => false,
        };
        if !for_us {
            return Err(Invalid::Audience);
        }
        let name = Name::new(&claims.sub).map_err(|_| Invalid::Subject)?;
        // Two subjects must not be one member.
        if name.as_str() == claims.sub { Ok(name) } else { Err(Invalid::Subject) }
    }
}

impl Key {
    /// A secret for HS256.
    ///
    /// # Errors
    ///
    /// [`BadKey::Short`].
    pub fn secret(secret: &[u8]) -> Result<Self, BadKey> {
        if secret.len() < SHORTEST_SECRET {
            return Err(BadKey::Short);
        }
        Ok(Self { id: None, check: Check::Hs256(hmac::Key::new(hmac::HMAC_SHA256, secret)) })
    }

    /// An Ed25519 public key as PEM has it (RFC 7468, section 13; RFC 8410, section 4).
    ///
    /// # Errors
    ///
    /// [`BadKey::NotPem`].
    pub fn from_pem(pem: &str) -> Result<Self, BadKey> {
        let body = pem.trim().strip_prefix("-----BEGIN PUBLIC KEY-----").ok_or(BadKey::NotPem)?;
        let body = body.strip_suffix("-----END PUBLIC KEY-----").ok_or(BadKey::NotPem)?;
        let body: String = body.split_ascii_whitespace().collect();
        let der = BASE64_STANDARD.decode(body).map_err(|_| BadKey::NotPem)?;
        Self::ed25519(der.strip_prefix(ED25519_SPKI).ok_or(BadKey::NotPem)?).ok_or(BadKey::NotPem)
    }

    /// Those of a JWK Set that can be used here; of others, it may have as many as it likes (RFC 7517, section 5).
    ///
    /// # Errors
    ///
    /// [`BadKey`], when that leaves none, or one is broken.
    pub fn from_jwks(text: &str) -> Result<Vec<Self>, BadKey> {
        let set: JwkSet = serde_json::from_str(text).map_err(|_| BadKey::NotASet)?;
        if set.keys.len() > MAX_KEYS {
            return Err(BadKey::NotASet);
        }
        if let Some(member) = set.keys.iter().filter(|key| is_known(key)).find_map(misfit) {
            return Err(BadKey::Member(member));
        }
        let jwks = set.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        let keys: Vec<_> = jwks.filter(Jwk::is_of_use).map(Jwk::into_key).collect::<Result<_, _>>()?;
        if keys.is_empty() { Err(BadKey::None) } else { Ok(keys) }
    }

    fn ed25519(public: &[u8]) -> Option<Self> {
        let public = public.try_into().ok()?;
        Some(Self { id: None, check: Check::EdDsa(UnparsedPublicKey::new(&signature::ED25519, public)) })
    }

    /// Whether `alg` is what this key is for. Its one other name is Ed25519's (RFC 9864, section 2.2).
    fn is_for(&self, alg: &str) -> bool {
        match self.check {
            Check::Hs256(_) => alg == "HS256",
            Check::EdDsa(_) => matches!(alg, "EdDSA" | "Ed25519"),
        }
    }

    fn signed(&self, text: &[u8], signature: &[u8]) -> bool {
        match &self.check {
            Check::Hs256(key) => hmac::verify(key, text, signature).is_ok(),
            Check::EdDsa(key) => key.verify(text, signature).is_ok(),
        }
    }
}

/// An Ed25519 public key, in bytes (RFC 8032, section 5.1.5).
const ED25519: usize = 32;
/// What stands before it as a SubjectPublicKeyInfo (RFC 8410, section 4).
const ED25519_SPKI: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The header, as far as it matters. Of what may stand once, twice is an error.
#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default, deserialize_with = "said")]
    kid: Option<String>,
    /// Whether it has extensions that must be understood (RFC 7515, section 4.1.11): none is.
    #[serde(default, deserialize_with = "is_said")]
    crit: bool,
}

/// The claims that matter. One that is there and isn't what it should be spoils them all.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
    #[serde(default, deserialize_with = "said")]
    nbf: Option<f64>,
    #[serde(default, deserialize_with = "said")]
    iss: Option<String>,
    #[serde(default, deserialize_with = "said")]
    aud: Option<Audience>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Value>,
}

/// A key as JSON (RFC 7517, section 4; RFC 8037, section 2).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    k: Option<String>,
    crv: Option<String>,
    x: Option<String>,
}

impl Jwk {
    fn is_of_use(&self) -> bool {
        let purpose = self.purpose.as_deref().is_none_or(|purpose| purpose == "sig");
        let verifies = self.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        let alg = self.alg.as_deref();
        let known = match (self.kty.as_str(), self.crv.as_deref()) {
            ("oct", _) => matches!(alg, None | Some("HS256")),
            ("OKP", Some("Ed25519")) => matches!(alg, None | Some("EdDSA" | "Ed25519")),
            (_, _) => false,
        };
        purpose && verifies && known
    }

    fn into_key(self) -> Result<Key, BadKey> {
        let bytes = |text: Option<String>| BASE64_URL_SAFE_NO_PAD.decode(text?).ok();
        let key = if self.kty == "oct" {
            Key::secret(&bytes(self.k).ok_or(BadKey::Bad)?).map_err(|_| BadKey::Bad)?
        } else {
            bytes(self.x).and_then(|x| Key::ed25519(&x)).ok_or(BadKey::Bad)?
        };
        Ok(Key { id: self.kid, ..key })
    }
}

/// Whether `key` is of a kind that can be used here.
fn is_known(key: &Value) -> bool {
    let [kty, crv] = ["kty", "crv"].map(|member| key.get(member).and_then(Value::as_str));
    matches!((kty, crv), (Some("oct"), _) | (Some("OKP"), Some("Ed25519")))
}

/// What `key` has of another type than it should (RFC 7517, section 4).
fn misfit(key: &Value) -> Option<&'static str> {
    let is_wrong = |member: &str, is_right: fn(&Value) -> bool| {
        key.get(member).is_some_and(|value| !value.is_null() && !is_right(value))
    };
    let texts = ["kid", "alg", "use", "k", "crv", "x"];
    let is_list = |value: &Value| value.as_array().is_some_and(|ops| ops.iter().all(Value::is_string));
    let wrong = texts.into_iter().find(|member| is_wrong(member, Value::is_string));
    wrong.or_else(|| is_wrong("key_ops", is_list).then_some("key_ops"))
}

/// One part of a token: a JSON object in Base64 for URLs, in the one way to write it.
fn part<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, Invalid> {
    let json = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| Invalid::Malformed)?;
    // The parser would take an array for an object with its fields in order.
    if !json.trim_ascii_start().starts_with(b"{") {
        return Err(Invalid::Malformed);
    }
    serde_json::from_slice(&json).map_err(|_| Invalid::Malformed)
}

/// A field that is there and so must be what it should; `null` is nothing else's absence.
fn said<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

fn is_said<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

#[cfg(test)]
mod tests;
