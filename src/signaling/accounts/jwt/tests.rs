use ring::signature::Ed25519KeyPair;
use ring::signature::KeyPair;
use serde_json::json;

use super::*;
use crate::clock::Clock;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// A thousand seconds into 1970, by which all tokens here go.
fn now() -> Now {
    Clock::anchored(Duration::from_secs(1000)).now()
}

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", base64(header.to_string()), base64(claims.to_string()))
}

fn hs256(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let text = unsigned(header, claims);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text.as_bytes());
    format!("{text}.{}", base64(tag))
}

fn eddsa(header: &Value, claims: &Value, key: &Ed25519KeyPair) -> String {
    let text = unsigned(header, claims);
    format!("{text}.{}", base64(key.sign(text.as_bytes())))
}

fn alice() -> Value {
    json!({ "sub": "alice", "exp": 2000 })
}

fn by_secret() -> Verifier {
    Verifier::new(vec![Key::secret(SECRET).unwrap()], None, None).unwrap()
}

fn by_public_key() -> Verifier {
    Verifier::new(vec![Key::ed25519(pair(1).public_key().as_ref()).unwrap()], None, None).unwrap()
}

fn pem(public: &[u8]) -> String {
    let der = BASE64_STANDARD.encode([ED25519_SPKI, public].concat());
    format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n")
}

#[test]
fn a_token_of_either_algorithm_says_whose_it_is() {
    let alice = Name::new("alice").unwrap();

    assert_eq!(
        by_secret().check(&hs256(&json!({ "alg": "HS256", "typ": "JWT" }), &self::alice(), SECRET), now()),
        Ok(alice.clone())
    );
    for alg in ["EdDSA", "Ed25519"] {
        let token = eddsa(&json!({ "alg": alg, "kid": "any" }), &self::alice(), &pair(1));
        assert_eq!(by_public_key().check(&token, now()), Ok(alice.clone()));
    }
}

#[test]
fn the_example_of_rfc_8037_has_a_good_signature() {
    let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    let set = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": x }] }).to_string();
    let verifier = Verifier::new(Key::from_jwks(&set).unwrap(), None, None).unwrap();
    let token = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";

    // Its payload is a sentence and not claims: that is found out only behind the signature.
    assert_eq!(verifier.check(token, now()), Err(Invalid::Malformed));
    assert_eq!(verifier.check(&token.replace(".hg", ".hh"), now()), Err(Invalid::Signature));
}

#[test]
fn the_algorithm_is_the_keys_and_never_what_a_token_says() {
    let claims = alice();
    let public = pair(1);
    let public = public.public_key().as_ref();
    let none = |alg: &str| format!("{}.", unsigned(&json!({ "alg": alg }), &claims));

    for alg in ["none", "None", "nOnE", "NONE", "", "HS256", "HS384", "HS512", "RS256", "ES256", "PS256", "EdDSA"] {
        by_secret().check(&none(alg), now()).unwrap_err();
        by_public_key().check(&none(alg), now()).unwrap_err();
    }
    for secret in [public, pem(public).as_bytes(), base64(public).as_bytes(), b"", &[0; 32]] {
        let forged = hs256(&json!({ "alg": "HS256" }), &claims, secret);
        assert_eq!(by_public_key().check(&forged, now()), Err(Invalid::Algorithm));
        let forged = hs256(&json!({ "alg": "EdDSA" }), &claims, secret);
        assert_eq!(by_public_key().check(&forged, now()), Err(Invalid::Signature));
    }
    let other = eddsa(&json!({ "alg": "EdDSA" }), &claims, &pair(2));
    assert_eq!(by_public_key().check(&other, now()), Err(Invalid::Signature));
    assert_eq!(by_secret().check(&other, now()), Err(Invalid::Algorithm));
    for brings in [
        json!({ "alg": "EdDSA", "jwk": { "kty": "OKP", "crv": "Ed25519", "x": base64(pair(2).public_key()) } }),
        json!({ "alg": "EdDSA", "jku": "https://evil.example/keys", "x5u": "https://evil.example/" }),
    ] {
        assert_eq!(by_public_key().check(&eddsa(&brings, &claims, &pair(2)), now()), Err(Invalid::Signature));
    }
}

#[test]
fn extensions_that_must_be_understood_are_not() {
    for crit in [json!(["exp"]), json!(["b64"]), json!([]), json!(null), json!("x")] {
        let token = hs256(&json!({ "alg": "HS256", "crit": crit }), &alice(), SECRET);

        assert_eq!(by_secret().check(&token, now()), Err(Invalid::Algorithm), "{crit}");
    }
}

#[test]
fn a_token_is_good_in_its_time_and_a_minute_around_it() {
    let check = |claims: Value| by_secret().check(&hs256(&json!({ "alg": "HS256" }), &claims, SECRET), now()).err();

    for (claims, wrong) in [
        (json!({ "sub": "a", "exp": 1000 }), None),
        (json!({ "sub": "a", "exp": 940.5 }), None),
        (json!({ "sub": "a", "exp": 940 }), Some(Invalid::Expired)),
        (json!({ "sub": "a", "exp": 0 }), Some(Invalid::Expired)),
        (json!({ "sub": "a", "exp": -1e300 }), Some(Invalid::Expired)),
        (json!({ "sub": "a", "exp": 1e300 }), None),
        (json!({ "sub": "a", "exp": 2000, "nbf": 1060, "iat": 5000 }), None),
        (json!({ "sub": "a", "exp": 2000, "nbf": 1061 }), Some(Invalid::NotYet)),
        (json!({ "sub": "a" }), Some(Invalid::Malformed)),
        (json!({ "sub": "a", "exp": "2000" }), Some(Invalid::Malformed)),
        (json!({ "sub": "a", "exp": null }), Some(Invalid::Malformed)),
        (json!({ "sub": "a", "exp": 2000, "nbf": "99999999999" }), Some(Invalid::Malformed)),
        (json!({ "sub": "a", "exp": 2000, "nbf": null }), Some(Invalid::Malformed)),
        (json!({ "sub": "a", "exp": [2000] }), Some(Invalid::Malformed)),
    ] {
        assert_eq!(check(claims.clone()), wrong, "{claims}");
    }
}

#[test]
fn issuer_and_audience_are_those_that_were_named() {
    let key = || vec![Key::secret(SECRET).unwrap()];
    let named = Verifier::new(key(), Some("us".into()), Some("calls".into())).unwrap();
    let check = |verifier: &Verifier, more: Value| {
        let mut claims = alice();
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        verifier.check(&hs256(&json!({ "alg": "HS256" }), &claims, SECRET), now()).err()
    };

    for (more, wrong) in [
        (json!({ "iss": "us", "aud": "calls" }), None),
        (json!({ "iss": "us", "aud": ["mail", "calls"] }), None),
        (json!({ "aud": "calls" }), Some(Invalid::Issuer)),
        (json!({ "iss": "US", "aud": "calls" }), Some(Invalid::Issuer)),
        (json!({ "iss": ["us"], "aud": "calls" }), Some(Invalid::Malformed)),
        (json!({ "iss": "us" }), Some(Invalid::Audience)),
        (json!({ "iss": "us", "aud": ["mail"] }), Some(Invalid::Audience)),
        (json!({ "iss": "us", "aud": [] }), Some(Invalid::Audience)),
        (json!({ "iss": "us", "aud": { "calls": 1 } }), Some(Invalid::Malformed)),
    ] {
        assert_eq!(check(&named, more.clone()), wrong, "{more}");
    }
    assert_eq!(check(&by_secret(), json!({ "iss": "anyone" })), None);
    assert_eq!(check(&by_secret(), json!({ "aud": "mail" })), Some(Invalid::Audience), "meant for somebody else");
}

#[test]
fn a_subject_is_a_name_as_it_stands() {
    for (sub, name) in [
        (json!("alice"), true),
        (json!("__proto__"), true),
        (json!("Zo\u{eb}"), true),
        (json!("Zoe\u{308}"), false),
        (json!(""), false),
        (json!("a\u{200b}"), false),
        (json!("x".repeat(65)), false),
        (json!(7), false),
        (json!(null), false),
    ] {
        let token = hs256(&json!({ "alg": "HS256" }), &json!({ "sub": sub, "exp": 2000 }), SECRET);

        assert_eq!(by_secret().check(&token, now()).is_ok(), name, "{sub}");
    }
    let nobody = hs256(&json!({ "alg": "HS256" }), &json!({ "exp": 2000 }), SECRET);
    assert_eq!(by_secret().check(&nobody, now()), Err(Invalid::Malformed));
}

#[test]
fn a_token_is_written_in_one_way() {
    let good = hs256(&json!({ "alg": "HS256" }), &alice(), SECRET);
    let (signed, tag) = good.rsplit_once('.').unwrap();
    let signs = |header: &str, claims: &str| {
        let text = format!("{header}.{claims}");
        format!("{text}.{}", base64(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), text.as_bytes())))
    };
    // The last character of 32 bytes in Base64 has two bits that count for nothing.
    let digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = digits.find(tag.chars().last().unwrap()).unwrap();
    let loose = format!("{signed}.{}{}", &tag[..tag.len() - 1], &digits[last ^ 1..=last ^ 1]);
    let (header, claims) = (base64(r#"{"alg":"HS256"}"#), base64(alice().to_string()));

    assert!(by_secret().check(&signs(&header, &claims), now()).is_ok());
    for bad in [
        String::new(),
        ".".into(),
        "..".into(),
        "a.b".into(),
        signed.into(),
        loose,
        format!("{good}="),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.{tag}"),
        format!(" {good}"),
        format!("{good}\n"),
        signs(&format!("{header}="), &claims),
        signs(&header, &BASE64_STANDARD.encode(alice().to_string() + "  >>>???")),
        signs(&base64(r#"["HS256",null,false]"#), &claims),
        signs(&header, &base64(r#"["alice",2000]"#)),
        signs(&base64(r#"{"alg":"HS256","alg":"HS256"}"#), &claims),
        signs(&header, &base64(r#"{"sub":"alice","sub":"bob","exp":2000}"#)),
        signs(&header, &base64(r#"{"sub":"alice","exp":1e999}"#)),
        signs(&header, &base64([b'{', 0xff, b'}'])),
        signs(&header, &base64("[".repeat(4000))),
        json!({ "protected": header, "payload": claims, "signature": tag }).to_string(),
    ] {
        assert_eq!(by_secret().check(&bad, now()), Err(Invalid::Malformed), "{bad}");
    }
}

#[test]
fn of_a_set_the_named_key_counts_and_other_kinds_are_passed_over() {
    let public = |seed| base64(pair(seed).public_key());
    let set = json!({ "keys": [
        { "kty": "RSA", "kid": "rsa", "n": "AQAB", "e": "AQAB" },
        { "kty": "EC", "crv": "P-256", "kid": "ec" },
        { "kty": "OKP", "crv": "X25519", "kid": "x", "x": public(3) },
        { "kty": "OKP", "crv": "Ed25519", "kid": "enc", "use": "enc", "x": public(3) },
        { "kty": "OKP", "crv": "Ed25519", "kid": "ops", "key_ops": ["sign"], "x": public(3) },
        { "kty": "oct", "kid": "512", "alg": "HS512", "k": base64(SECRET) },
        { "kty": 7 },
        "nothing",
        { "kty": "OKP", "crv": "Ed25519", "kid": "one", "use": "sig", "alg": "EdDSA", "x": public(1) },
        { "kty": "OKP", "crv": "Ed25519", "kid": "two", "key_ops": ["verify"], "x": public(2) },
        { "kty": "oct", "kid": "secret", "alg": "HS256", "k": base64(SECRET) },
    ]});
    let keys = Key::from_jwks(&set.to_string()).unwrap();
    assert_eq!(keys.len(), 3);
    let verifier = Verifier::new(keys, None, None).unwrap();

    for (header, seed, wrong) in [
        (json!({ "alg": "EdDSA", "kid": "one" }), 1, None),
        (json!({ "alg": "EdDSA", "kid": "two" }), 2, None),
        (json!({ "alg": "EdDSA" }), 2, None),
        (json!({ "alg": "EdDSA", "kid": "one" }), 2, Some(Invalid::Signature)),
        (json!({ "alg": "EdDSA", "kid": "secret" }), 1, Some(Invalid::Algorithm)),
        (json!({ "alg": "EdDSA", "kid": "x" }), 3, Some(Invalid::Algorithm)),
        (json!({ "alg": "EdDSA", "kid": "enc" }), 3, Some(Invalid::Algorithm)),
        (json!({ "alg": "EdDSA" }), 3, Some(Invalid::Signature)),
        (json!({ "alg": "EdDSA", "kid": 1 }), 1, Some(Invalid::Malformed)),
    ] {
        assert_eq!(verifier.check(&eddsa(&header, &alice(), &pair(seed)), now()).err(), wrong, "{header}");
    }
    let by_secret = hs256(&json!({ "alg": "HS256", "kid": "secret" }), &alice(), SECRET);
    assert!(verifier.check(&by_secret, now()).is_ok());
    let by_other_name = hs256(&json!({ "alg": "HS256", "kid": "512" }), &alice(), SECRET);
    assert_eq!(verifier.check(&by_other_name, now()), Err(Invalid::Algorithm));
}

#[test]
fn keys_that_can_not_be_used_are_refused_when_they_are_read() {
    let set = |key: Value| Key::from_jwks(&json!({ "keys": [key] }).to_string()).err();

    assert_eq!(Key::secret(&SECRET[1..]).err(), Some(BadKey::Short));
    assert_eq!(set(json!({ "kty": "oct", "k": base64("short") })), Some(BadKey::Bad));
    assert_eq!(set(json!({ "kty": "oct" })), Some(BadKey::Bad));
    assert_eq!(set(json!({ "kty": "OKP", "crv": "Ed25519", "x": base64([1; 31]) })), Some(BadKey::Bad));
    assert_eq!(set(json!({ "kty": "OKP", "crv": "Ed25519", "x": "a=" })), Some(BadKey::Bad));
    assert_eq!(set(json!({ "kty": "RSA" })), Some(BadKey::None));
    for bad in ["", "[]", "{}", "{\"keys\":{}}", "-----BEGIN PUBLIC KEY-----"] {
        assert_eq!(Key::from_jwks(bad).err(), Some(BadKey::NotASet), "{bad}");
    }
    let ed25519 = |member: &str, wrong: Value| {
        let mut key = json!({ "kty": "OKP", "crv": "Ed25519", "x": base64(pair(1).public_key()) });
        key[member] = wrong;
        set(key)
    };
    assert_eq!(ed25519("kid", json!(null)), None);
    assert_eq!(ed25519("kid", json!(1)), Some(BadKey::Member("kid")));
    assert_eq!(ed25519("key_ops", json!("verify")), Some(BadKey::Member("key_ops")));
    assert_eq!(ed25519("key_ops", json!(["verify", 1])), Some(BadKey::Member("key_ops")));
    assert_eq!(ed25519("x", json!(1)), Some(BadKey::Member("x")));
    let keys = |count| (0..count).map(|_| Key::secret(SECRET).unwrap()).collect();
    assert!(Verifier::new(keys(MAX_KEYS), None, None).is_ok());
    assert_eq!(Verifier::new(keys(MAX_KEYS + 1), None, None).err(), Some(BadKey::TooMany));
    let many = json!({ "keys": vec![json!({ "kty": "RSA" }); MAX_KEYS + 1] });
    assert_eq!(Key::from_jwks(&many.to_string()).err(), Some(BadKey::NotASet));
}

#[test]
fn a_public_key_is_read_from_pem_and_nothing_else_is() {
    let public = pair(1);
    let public = public.public_key().as_ref();
    let good = pem(public);

    let key = Key::from_pem(&good).unwrap_or_else(|bad| panic!("{bad}"));
    let token = eddsa(&json!({ "alg": "EdDSA" }), &alice(), &pair(1));
    assert!(Verifier::new(vec![key], None, None).unwrap().check(&token, now()).is_ok());
    for bad in [
        String::new(),
        good.replace("PUBLIC", "PRIVATE"),
        good.replace("MCow", "MCox"),
        good.replace("-----END", "\n-----END").replace("MCow", "MCo"),
        pem(&public[1..]),
        pem(&[public, public].concat()),
        format!("{good}{good}"),
    ] {
        assert_eq!(Key::from_pem(&bad).err(), Some(BadKey::NotPem), "{bad}");
    }
}
