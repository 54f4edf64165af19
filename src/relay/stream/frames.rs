//! Cuts a byte stream into STUN and ChannelData messages, whatever the parts it comes in.

use crate::wire::CHANNEL_HEADER;
use crate::wire::Kind;
use crate::wire::MAGIC_COOKIE;
use crate::wire::Malformed;
use crate::wire::STUN_HEADER;

/// Bytes that were read and are not taken yet. Holds less than one message and one read, once [`Frames::next_message`] has
/// given nothing more: a message is at most 64 KiB and its header long.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    taken: usize,
}

impl Frames {
    /// Where to read more into.
    pub fn space(&mut self) -> &mut Vec<u8> {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.reserve(READ);
        &mut self.bytes
    }

    /// How many bytes are not taken yet.
    pub(super) fn waiting(&self) -> usize {
        self.bytes.len() - self.taken
    }

    /// The next whole message, padding included; none until more is read.
    ///
    /// # Errors
    ///
    /// [`Malformed`] for what is neither STUN nor ChannelData: where the next message begins can't be told any more.
    pub fn next_message(&mut self) -> Result<Option<&[u8]>, Malformed> {
        let waiting = self.bytes.get(self.taken..).unwrap_or_default();
        let Some(length) = length(waiting)? else { return Ok(None) };
        let message = waiting.get(..length);
        self.taken += message.map_or(0, <[u8]>::len);
        Ok(message)
    }
}

/// Bytes to make room for at each read.
const READ: usize = 16 * 1024;

/// How long the message that begins so is: of STUN the header says (RFC 8489, section 6.2.2), ChannelData is padded to
/// four bytes on streams (RFC 8656, section 12.5). None: it takes more bytes to tell.
pub(in crate::relay) fn length(head: &[u8]) -> Result<Option<usize>, Malformed> {
    match (Kind::of(head), head) {
        (Kind::Stun, [_, _, l0, l1, c0, c1, c2, c3, ..]) => {
            let length = usize::from(u16::from_be_bytes([*l0, *l1]));
            if u32::from_be_bytes([*c0, *c1, *c2, *c3]) != MAGIC_COOKIE {
                return Err(Malformed::Header);
            }
            if length % 4 == 0 { Ok(Some(STUN_HEADER + length)) } else { Err(Malformed::Length) }
        }
        (Kind::ChannelData, [_, _, l0, l1, ..]) => {
            let length = usize::from(u16::from_be_bytes([*l0, *l1]));
            Ok(Some(CHANNEL_HEADER + length.next_multiple_of(4)))
        }
        (Kind::Stun | Kind::ChannelData, _) | (Kind::Other, []) => Ok(None),
        (Kind::Other, _) => Err(Malformed::Header),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A STUN message with so many bytes of attributes.
    fn stun(words: usize) -> Vec<u8> {
        let mut message = vec![7; STUN_HEADER + 4 * words];
        message[..2].copy_from_slice(&[0, 3]);
        message[2..4].copy_from_slice(&u16::try_from(4 * words).unwrap().to_be_bytes());
        message[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
        message
    }

    /// ChannelData with so many bytes of data, and its padding.
    fn channel_data(length: usize) -> Vec<u8> {
        let mut message = vec![9; CHANNEL_HEADER + length];
        message[..2].copy_from_slice(&[0x40, 0]);
        message[2..4].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        message.resize(CHANNEL_HEADER + length.next_multiple_of(4), 0);
        message
    }

    fn message() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![(0..30_usize).prop_map(stun), (0..120_usize).prop_map(channel_data)]
    }

    /// Every message that comes out when the bytes go in by such parts.
    fn cut(bytes: &[u8], mut parts: impl Iterator<Item = usize>) -> Result<Vec<Vec<u8>>, Malformed> {
        let (mut frames, mut out, mut rest) = (Frames::default(), Vec::new(), bytes);
        while !rest.is_empty() {
            let (part, more) = rest.split_at(parts.next().unwrap_or(1).clamp(1, rest.len()));
            frames.space().extend_from_slice(part);
            while let Some(message) = frames.next_message()? {
                out.push(message.to_vec());
            }
            rest = more;
        }
        Ok(out)
    }

    proptest! {
        #[test]
        fn messages_come_out_whole_and_in_order_however_they_are_split(
            messages in prop::collection::vec(message(), 0..12),
            parts in prop::collection::vec(1..200_usize, 0..60),
        ) {
            let bytes = messages.concat();

            prop_assert_eq!(cut(&bytes, parts.into_iter()).unwrap(), messages.clone());
            prop_assert_eq!(cut(&bytes, std::iter::repeat(1)).unwrap(), messages.clone(), "one byte at a time");
            prop_assert_eq!(cut(&bytes, std::iter::once(bytes.len())).unwrap(), messages, "pipelined");
        }

        #[test]
        fn no_bytes_at_all_bring_it_down_or_make_it_hold_more_than_a_message(bytes: Vec<u8>) {
            let mut frames = Frames::default();

            frames.space().extend_from_slice(&bytes);
            while let Ok(Some(message)) = frames.next_message() {
                prop_assert!(message.len() >= CHANNEL_HEADER);
            }

            prop_assert!(frames.space().len() <= bytes.len());
        }
    }

    #[test]
    fn the_largest_messages_fit() {
        let messages = [stun(0xFFFC / 4), channel_data(0xFFFF), stun(0)];

        assert_eq!(cut(&messages.concat(), std::iter::repeat(1000)).unwrap(), messages);
    }

    #[test]
    fn anything_else_is_an_error_as_soon_as_it_shows() {
        let all = |bytes: &[u8]| cut(bytes, std::iter::repeat(1)).err();

        assert_eq!(all(b"\x80"), Some(Malformed::Header));
        assert_eq!(all(b"GET / HTTP/1.1"), None, "reads as ChannelData of channel 0x4745, which nobody has bound");
        assert_eq!(all(b"\x16\x03\x01\x00\x00\x00\x00\x00"), Some(Malformed::Header), "no magic cookie");
        assert_eq!(all(b"\x00\x03\x00\x01\x21\x12\xA4\x42"), Some(Malformed::Length));
        assert_eq!(all(&[&stun(1)[..], b"\xFF"].concat()), Some(Malformed::Header), "behind a good one");
    }
}
