//! Mutations of corpus files for a stable compiler: no coverage guides them, but the same seed gives the same row.

/// A row of numbers that looks random and always is the same: xorshift64*.
pub struct Numbers(u64);

impl Numbers {
    /// The row that a seed begins.
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15 | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`; 0 when that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap_or(0).checked_rem(limit).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }
}

/// Numbers that formats often get wrong.
const EDGES: [u8; 10] = [0, 1, 9, 10, 13, 32, 34, 0x7f, 0x80, 0xff];

/// No mutation grows beyond this.
pub const LONGEST: usize = 64 * 1024;

/// One to eight changes to one of the `seeds`, with pieces of the others and `words` of the format.
pub fn mutate(numbers: &mut Numbers, seeds: &[Vec<u8>], words: &[&str]) -> Vec<u8> {
    let mut data = seeds.get(numbers.below(seeds.len())).cloned().unwrap_or_default();
    for _ in 0..=numbers.below(8) {
        change(&mut data, numbers, seeds, words);
    }
    data.truncate(LONGEST);
    data
}

fn change(data: &mut Vec<u8>, numbers: &mut Numbers, seeds: &[Vec<u8>], words: &[&str]) {
    let at = numbers.below(data.len() + 1);
    let end = (at + 1 + numbers.below(32)).min(data.len());
    match numbers.below(10) {
        0 => flip(data, at, numbers),
        1 => set(data, at, numbers.byte()),
        2 => set(data, at, EDGES[numbers.below(EDGES.len())]),
        3 => data.insert(at, numbers.byte()),
        4 => drop(data.drain(at.min(end)..end)),
        5 => data.truncate(at),
        6 => {
            let piece = data[at.min(end)..end].to_vec();
            let to = numbers.below(data.len() + 1);
            insert(data, to, &piece.repeat(1 + numbers.below(4)));
        }
        7 => {
            let other = seeds.get(numbers.below(seeds.len())).map_or(&[][..], Vec::as_slice);
            let from = numbers.below(other.len() + 1);
            let to = from + numbers.below(other.len() - from + 1);
            insert(data, at, &other[from..to]);
        }
        _ => match words.get(numbers.below(words.len())) {
            Some(word) => insert(data, at, word.as_bytes()),
            None => flip(data, at, numbers),
        },
    }
}

fn flip(data: &mut [u8], at: usize, numbers: &mut Numbers) {
    if let Some(byte) = data.get_mut(at) {
        *byte ^= 1 << numbers.below(8);
    }
}

fn set(data: &mut [u8], at: usize, value: u8) {
    if let Some(byte) = data.get_mut(at) {
        *byte = value;
    }
}

fn insert(data: &mut Vec<u8>, at: usize, piece: &[u8]) {
    data.splice(at..at, piece.iter().copied());
}
