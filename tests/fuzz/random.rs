//! Chance that is the same in every run, and what it does to an input.

/// Xorshift64*: enough to mutate by.
pub(super) struct Random(u64);

/// Bytes that decoders treat specially.
const TELLING: [u8; 12] = [0x00, 0x01, 0x03, 0x04, 0x16, 0x3F, 0x40, 0x7F, 0x80, 0xFF, b'{', b'"'];

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `end`, which is not 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % end
    }

    pub(super) fn one_of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    /// Changes the input in one of the ways in which it goes wrong on the wire or in an attacker's hands.
    pub(super) fn mutate(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        let till = at + self.below((input.len() - at).min(64) + 1);
        match self.below(9) {
            0 => input.truncate(at),
            1 => drop(input.drain(at..till)),
            2 => input.insert(at, *self.one_of(&TELLING)),
            3 => input.extend_from_within(at..till),
            4 => {
                let part = input[at..till].to_vec();
                input.splice(at..at, part);
            }
            5 => {
                let other = self.one_of(corpus);
                let from = self.below(other.len() + 1);
                input.splice(at..till, other[from..].iter().copied());
            }
            6 if at < input.len() => input[at] = *self.one_of(&TELLING),
            7 if at < input.len() => input[at] = self.below(256).to_le_bytes()[0],
            _ if at < input.len() => input[at] ^= 1 << self.below(8),
            _ => input.extend_from_slice(&[0; 4]),
        }
    }
}
