//! Nonces without state: a time and a keyed MAC over it, the client's address and its transport.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::hmac;
use subtle::ConstantTimeEq;

use crate::address::FiveTuple;
use crate::address::Transport;
use crate::clock::Now;
use crate::credentials::random;

/// How long a nonce is good for.
pub(super) const LIFETIME: Duration = Duration::from_secs(600);

/// The nonce cookie and the set of security features, of which there is one: password algorithms (RFC 8489, section 9.2).
///
/// The RFC's text counts the bits of the set from the left, its erratum 6290 from the right: the first one is set from
/// either end, and what the other way of counting makes of it is assigned to nothing.
const COOKIE: &str = "obMatJos2gAAB";

/// Whether password algorithms are offered to this client: over UDP a longer challenge would be a better reflection.
pub(super) fn offers_algorithms(client: FiveTuple) -> bool {
    match client.transport {
        Transport::Udp => false,
        Transport::Tcp | Transport::Tls => true,
    }
}

/// What a nonce is to the client that brings it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    /// Issued to it within [`LIFETIME`].
    Fresh,
    /// Issued to it before: it is old, but proves that the client receives at its address.
    Stale,
    /// Not issued to it.
    Foreign,
}

/// Makes and checks nonces. A stranger's costs no memory, and nobody else's address can use it.
#[derive(Debug)]
pub(super) struct Nonces {
    key: hmac::Key,
}

const TIME: usize = 4;
const MAC: usize = 8;

impl Nonces {
    /// With a key of its own, so that a restart makes every earlier nonce stale.
    pub(super) fn new() -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &random::<32>()) }
    }

    /// A nonce for this client, from now on: 16 characters, behind [`COOKIE`] where algorithms are offered.
    pub(super) fn issue(&self, client: FiveTuple, now: Now) -> String {
        let time = seconds(now).to_be_bytes();
        let mut nonce = [0; TIME + MAC];
        let (head, mac) = nonce.split_at_mut(TIME);
        head.copy_from_slice(&time);
        mac.copy_from_slice(&self.mac(time, client));
        let mut text = if offers_algorithms(client) { COOKIE.to_owned() } else { String::new() };
        BASE64_URL_SAFE_NO_PAD.encode_string(nonce, &mut text);
        text
    }

    /// Whether `nonce` was issued to this client, and how long ago.
    pub(super) fn age(&self, nonce: &[u8], client: FiveTuple, now: Now) -> Age {
        let own = if offers_algorithms(client) { nonce.strip_prefix(COOKIE.as_bytes()) } else { Some(nonce) };
        let Some(nonce) = own else { return Age::Foreign };
        let mut bytes = [0; TIME + MAC];
        if BASE64_URL_SAFE_NO_PAD.decode_slice(nonce, &mut bytes) != Ok(TIME + MAC) {
            return Age::Foreign;
        }
        let [t0, t1, t2, t3, mac @ ..] = bytes;
        let time = [t0, t1, t2, t3];
        let age = seconds(now).wrapping_sub(u32::from_be_bytes(time));
        match bool::from(self.mac(time, client).ct_eq(&mac)) {
            false => Age::Foreign,
            true if u64::from(age) < LIFETIME.as_secs() => Age::Fresh,
            true => Age::Stale,
        }
    }

    fn mac(&self, time: [u8; TIME], client: FiveTuple) -> [u8; MAC] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&time);
        context.update(&match client.client.ip() {
            std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            std::net::IpAddr::V6(v6) => v6.octets(),
        });
        context.update(&client.client.port().to_be_bytes());
        context.update(match client.transport {
            Transport::Udp => b"u",
            Transport::Tcp => b"t",
            Transport::Tls => b"s",
        });
        context.sign().as_ref().first_chunk().copied().unwrap_or_default()
    }
}

/// Unix time modulo 2^32: ages are differences of it.
fn seconds(now: Now) -> u32 {
    (now.unix.as_secs() & 0xFFFF_FFFF) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn client(addr: &str, transport: Transport) -> FiveTuple {
        FiveTuple::new(transport, addr.parse().unwrap(), "192.0.2.9:3478".parse().unwrap())
    }

    #[test]
    fn a_nonce_is_good_for_its_client_for_ten_minutes_and_no_longer() {
        let (nonces, now) = (Nonces::new(), Clock::system().now());
        let alice = client("192.0.2.1:5000", Transport::Udp);

        let nonce = nonces.issue(alice, now);

        assert_eq!(nonce.len(), 16);
        assert_eq!(nonces.age(nonce.as_bytes(), alice, now.after(LIFETIME - Duration::from_secs(1))), Age::Fresh);
        assert_eq!(nonces.age(nonce.as_bytes(), alice, now.after(LIFETIME)), Age::Stale);
    }

    #[test]
    fn a_nonce_from_another_address_transport_or_server_is_foreign() {
        let (nonces, now) = (Nonces::new(), Clock::system().now());
        let alice = client("192.0.2.1:5000", Transport::Udp);
        let nonce = nonces.issue(alice, now);

        for other in [
            client("192.0.2.1:5001", Transport::Udp),
            client("192.0.2.2:5000", Transport::Udp),
            client("192.0.2.1:5000", Transport::Tls),
        ] {
            assert_eq!(nonces.age(nonce.as_bytes(), other, now), Age::Foreign);
        }
        assert_eq!(Nonces::new().age(nonce.as_bytes(), alice, now), Age::Foreign);
        for junk in [&b""[..], b"AAAAAAAAAAAAAAAA", b"%s%s%s%s%s%s%s%s", &[0xFF; 16], &[b'A'; 700]] {
            assert_eq!(nonces.age(junk, alice, now), Age::Foreign);
        }
    }
}
