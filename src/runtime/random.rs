//! Random numbers that must not be guessed: names of durable responses, ids of wakes, lives of subscriptions. A client that knows
//! the name of a durable response can read it where no key protects it, so every number comes from the kernel; none shares its
//! state with [`crate::telemetry::Ids`], whose generator can be computed from the request ids that it has made. The kernel is asked for a
//! block at a time: one system call for 32 numbers.

use std::fmt;
use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// Bytes that are fetched at once: getrandom(2) returns up to 256 whole and uninterrupted.
const BLOCK_BYTES: usize = 256;

/// A source of numbers that nobody can guess.
pub(crate) struct Nonces {
    block: [u8; BLOCK_BYTES],
    /// Bytes of the block that have been handed out.
    used: usize,
    #[cfg(test)]
    seeded: Option<crate::telemetry::Ids>,
}

impl Nonces {
    /// A source fed by the kernel.
    ///
    /// # Errors
    /// If the kernel has no random numbers for this process.
    pub(crate) fn from_os() -> io::Result<Nonces> {
        let mut block = [0; BLOCK_BYTES];
        fill(&mut block)?;
        Ok(Nonces {
            block,
            used: 0,
            #[cfg(test)]
            seeded: None,
        })
    }

    /// A source that repeats itself, for simulations.
    #[cfg(test)]
    pub(crate) fn from_seed(seed: [u8; 32]) -> Nonces {
        let seeded = Some(crate::telemetry::Ids::from_seed(seed));
        Nonces { block: [0; BLOCK_BYTES], used: BLOCK_BYTES, seeded }
    }

    /// The next number.
    ///
    /// # Panics
    /// If the kernel refuses what it granted when this source was made: a number from anywhere else could be guessed.
    pub(crate) fn next_u64(&mut self) -> u64 {
        #[cfg(test)]
        if let Some(seeded) = &mut self.seeded {
            return seeded.next_u64();
        }
        if self.used == BLOCK_BYTES {
            fill(&mut self.block).expect("the kernel gives random numbers, as it did at the start");
            self.used = 0;
        }
        let bytes = &mut self.block[self.used..self.used + 8];
        let number = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        // A number that was handed out is kept nowhere else.
        bytes.fill(0);
        self.used += 8;
        number
    }

    /// A name of 32 lowercase hexadecimal digits: 128 bits.
    pub(crate) fn name(&mut self) -> String {
        format!("{:016x}{:016x}", self.next_u64(), self.next_u64())
    }
}

/// Shows none of its numbers.
impl fmt::Debug for Nonces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonces")
    }
}

fn fill(block: &mut [u8; BLOCK_BYTES]) -> io::Result<()> {
    match getrandom(&mut block[..], GetRandomFlags::empty())? {
        BLOCK_BYTES => Ok(()),
        _ => Err(io::Error::other("getrandom returned fewer bytes than were requested")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Names of durable responses were drawn from the generator that makes request ids. Its state follows from 16,000 of these,
    /// and with it every name it had made and would make: whoever could send requests could read the responses of others.
    #[test]
    fn numbers_are_fresh_over_many_blocks_and_are_not_left_behind() {
        let mut nonces = Nonces::from_os().unwrap();
        let mut seen = HashSet::new();
        for at in 1..=10_000 {
            assert!(seen.insert(nonces.next_u64()));
            assert!(nonces.block[..nonces.used].iter().all(|&byte| byte == 0), "after {at} numbers");
        }
    }

    #[test]
    fn a_name_is_128_bits_of_hexadecimal_digits_and_two_sources_differ() {
        let [mut one, mut other] = [Nonces::from_os().unwrap(), Nonces::from_os().unwrap()];
        let name = one.name();
        assert_eq!(name.len(), 32);
        assert!(name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
        assert_ne!(name, other.name());
    }

    #[test]
    fn it_is_never_shown() {
        assert_eq!(format!("{:?}", Nonces::from_os().unwrap()), "Nonces");
    }
}
