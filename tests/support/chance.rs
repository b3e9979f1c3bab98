//! Random choices that can be repeated.

/// Where choices come from.
pub(crate) struct Chance(u64);

impl Chance {
    /// From `RELAY_TEST_SEED`, else from the system. The seed is printed: a failing test shows it.
    pub(crate) fn new() -> Self {
        let seed = match std::env::var("RELAY_TEST_SEED") {
            Ok(seed) => seed.parse().expect("RELAY_TEST_SEED is a number"),
            Err(_) => rand::random(),
        };
        eprintln!("RELAY_TEST_SEED={seed}");
        Self(seed)
    }

    /// A number below `end` (SplitMix64).
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}
