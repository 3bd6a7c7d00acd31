//! Who asks, as a number, and which upstream is theirs: rendezvous hashing. Each upstream has a score for each key, and the highest
//! wins; so when one comes, goes or is out, only the keys that are its own move, each to its second best, and come back to it
//! later. The numbers are the same in every process, so that several edges agree.

/// A number for some bytes: FNV-1a, whose weak low bits are stirred afterwards.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x100_0000_01b3;
    stir(bytes.iter().fold(OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME)))
}

/// How much `key` belongs to the upstream of that number and weight: never negative, and of several upstreams each wins a share
/// of the keys that is its share of the weights (an exponential variable divided by its rate; the least wins, hence the inverse).
pub(crate) fn score(key: u64, upstream: u64, weight: u32) -> f64 {
    // 53 bits are what an f64 holds; the half keeps it away from 0 and 1.
    let uniform = ((stir(key ^ upstream) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    f64::from(weight) / -uniform.ln()
}

/// The finalizer of splitmix64: each bit of the input changes half of the output's.
fn stir(mut bits: u64) -> u64 {
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn winner(key: u64, upstreams: &[(u64, u32)]) -> u64 {
        let best = upstreams.iter().max_by(|a, b| score(key, a.0, a.1).total_cmp(&score(key, b.0, b.1)));
        best.unwrap().0
    }

    #[test]
    fn shares_are_those_of_the_weights_and_only_what_must_moves() {
        let all: Vec<_> =
            [("a", 1), ("b", 2), ("c", 5)].map(|(name, weight)| (hash(name.as_bytes()), weight)).into();
        let keys: Vec<u64> = (0..8000).map(|n| hash(format!("key-{n}").as_bytes())).collect();
        for (upstream, weight) in &all {
            let won = keys.iter().filter(|key| winner(**key, &all) == *upstream).count();
            assert!(won.abs_diff(1000 * *weight as usize) < 150, "{won} of {weight}");
        }
        let fewer = &all[..2];
        for key in &keys {
            let before = winner(*key, &all);
            assert!(before == all[2].0 || before == winner(*key, fewer));
        }
    }

    #[test]
    fn it_is_the_same_number_for_ever() {
        assert_eq!(hash(b"mobile-team"), hash(b"mobile-team"));
        assert_eq!(hash(b""), 0xf52a_15e9_a9b5_e89b);
    }
}
