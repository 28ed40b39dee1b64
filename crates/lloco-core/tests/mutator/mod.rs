//! Changes bytes at random, the same way every time.
//!
//! Tests that do so take a second each; `LLOCO_FUZZ_SECONDS=10` gives each of them ten.
#![allow(unreachable_pub, reason = "a module of several tests")]

use std::time::Duration;

/// Random numbers, and what they do to bytes.
pub struct Mutator(pub u64);

impl Mutator {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit.max(1)
    }

    /// One to three changes: a byte, a bit, a cut, a copy, a number out of range.
    pub fn mutate(&mut self, bytes: &mut Vec<u8>) {
        const PIECES: [&[u8]; 8] =
            [b"-1", b"18446744073709551615", b"null", b"\"../../x\"", b"[[[[[[", b"\0", b"\xff\xff\xff\xff", b"1e999"];
        for _ in 0..1 + self.below(3) {
            let at = self.below(bytes.len() + 1);
            match self.below(6) {
                0 if at < bytes.len() => bytes[at] = self.below(256) as u8,
                1 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                2 => bytes.truncate(at),
                3 => {
                    let end = (at + self.below(40)).min(bytes.len());
                    bytes.drain(at..end);
                }
                4 => {
                    let end = (at + self.below(40)).min(bytes.len());
                    let copy = bytes[at..end].to_vec();
                    bytes.splice(at..at, copy);
                }
                _ => {
                    let piece = PIECES[self.below(PIECES.len())];
                    let end = (at + self.below(2 * piece.len())).min(bytes.len());
                    bytes.splice(at..end, piece.iter().copied());
                }
            }
        }
    }
}

/// How long to go on, for each test.
pub fn time() -> Duration {
    let seconds = std::env::var("LLOCO_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs_f64(seconds.unwrap_or(1.5))
}
