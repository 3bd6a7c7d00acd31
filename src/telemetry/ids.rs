//! Random identifiers: request ids, and the trace and span ids of [`super::trace`]. They must not collide; they need not
//! be unguessable, as nothing is granted for knowing one. So each core draws from its own xoshiro256++ generator
//! (Blackman and Vigna, "Scrambled linear pseudorandom number generators"), seeded once by the kernel: no system call a
//! request, no lock. A client that has seen enough request ids can compute all others, so everything that must not be guessed
//! comes from [`super::Nonces`].

use std::fmt;
use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// The longest `x-request-id` taken over from a client, in bytes.
pub(crate) const MAX_REQUEST_ID_BYTES: usize = 128;

/// One core's source of identifiers.
#[derive(Debug)]
pub struct Ids {
    state: [u64; 4],
}

impl Ids {
    /// A source seeded by the operating system.
    pub(crate) fn from_os() -> io::Result<Ids> {
        let mut seed = [0; 32];
        // Requests of up to 256 bytes are answered whole (getrandom(2)); anything else is an error to us.
        if getrandom(&mut seed, GetRandomFlags::empty())? != seed.len() {
            return Err(io::Error::other("getrandom gave fewer bytes than asked for"));
        }
        Ok(Ids::from_seed(seed))
    }

    /// A source that repeats itself, for tests.
    pub fn from_seed(seed: [u8; 32]) -> Ids {
        let mut state = [0; 4];
        for (word, bytes) in state.iter_mut().zip(seed.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        if state == [0; 4] {
            // The only state the generator cannot leave.
            state = [1; 4];
        }
        Ids { state }
    }

    /// A new request id.
    pub(crate) fn request_id(&mut self) -> RequestId {
        let mut id = *b"req_00000000000000000000000000000000";
        write_hex(&self.bytes16(), &mut id[4..]);
        RequestId(id)
    }

    /// Sixteen random bytes that are not all zero.
    pub(crate) fn bytes16(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.bytes8());
        bytes[8..].copy_from_slice(&self.next_u64().to_le_bytes());
        bytes
    }

    /// Eight random bytes that are not all zero.
    pub(crate) fn bytes8(&mut self) -> [u8; 8] {
        // Zero is no valid span id, and comes once in 2^64 numbers.
        let mut word = self.next_u64();
        while word == 0 {
            word = self.next_u64();
        }
        word.to_le_bytes()
    }

    /// The next random number; for jitter and load balancing too, but for no name and no token.
    pub(crate) fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }
}

/// An id made here: `req_` and 32 lowercase hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RequestId([u8; 36]);

impl RequestId {
    /// The id as text.
    pub(crate) fn as_str(&self) -> &str {
        // Only ever made of ASCII, by `Ids::request_id`.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a client's `x-request-id` may be taken over: 1 to 128 of the characters that ids are made of, so that it is
/// safe in a header, in a log and in a shell.
pub(crate) fn valid_request_id(id: &[u8]) -> bool {
    let is_id_char = |b: &u8| b.is_ascii_alphanumeric() || b"._:/+=@-".contains(b);
    (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.iter().all(is_id_char)
}

/// Writes `bytes` as lowercase hexadecimal digits into `out`, which has room for exactly that.
pub(crate) fn write_hex(bytes: &[u8], out: &mut [u8]) {
    debug_assert_eq!(out.len(), bytes.len() * 2);
    let (fours, rest) = bytes.as_chunks::<4>();
    let (eights, rest_out) = out.as_chunks_mut::<8>();
    for (four, eight) in fours.iter().zip(eights) {
        *eight = eight_digits(u32::from_be_bytes(*four));
    }
    for (byte, pair) in rest.iter().zip(rest_out.as_chunks_mut::<2>().0) {
        let [.., high, low] = eight_digits(u32::from(*byte));
        *pair = [high, low];
    }
}

/// The hexadecimal digits of a number, all eight made at once: an id has up to 32 of them, and a request has three ids.
#[inline]
fn eight_digits(number: u32) -> [u8; 8] {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // Each half byte moves into a byte of its own.
    let mut spread = u64::from(number);
    spread = (spread | spread << 16) & 0x0000_ffff_0000_ffff;
    spread = (spread | spread << 8) & 0x00ff_00ff_00ff_00ff;
    spread = (spread | spread << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // Those from ten on: six more carry into the bit above the half byte.
    let letters = (spread + 6 * ONES) >> 4 & ONES;
    let digits = spread + u64::from(b'0') * ONES + u64::from(b'a' - b'0' - 10) * letters;
    digits.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_generator_is_xoshiro256_plus_plus() {
        // What the authors' reference implementation gives first from the state 1, 2, 3, 4.
        let mut seed = [0; 32];
        for n in 0..4 {
            seed[n * 8] = n as u8 + 1;
        }
        let mut ids = Ids::from_seed(seed);
        assert_eq!(ids.next_u64(), 41_943_041);
        assert_eq!(ids.next_u64(), 58_720_359);
        assert_eq!(ids.next_u64(), 3_588_806_011_781_223);
    }

    #[test]
    fn request_ids_have_one_form_and_differ() {
        let mut ids = Ids::from_os().unwrap();
        let made: HashSet<RequestId> = (0..10_000).map(|_| ids.request_id()).collect();
        assert_eq!(made.len(), 10_000);
        for id in made {
            let digits = id.as_str().strip_prefix("req_").unwrap();
            assert_eq!(digits.len(), 32);
            assert!(digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
            assert!(valid_request_id(id.as_str().as_bytes()));
            assert_eq!(id.to_string(), id.as_str());
        }
    }

    #[test]
    fn hexadecimal_digits_are_those_of_the_formatter() {
        for byte in 0..=u8::MAX {
            let bytes: Vec<u8> = (0..19).map(|at: u8| byte.wrapping_mul(at | 1).wrapping_add(at)).collect();
            for length in 0..bytes.len() {
                let mut out = vec![0; length * 2];
                write_hex(&bytes[..length], &mut out);
                let expected: String = bytes[..length].iter().map(|byte| format!("{byte:02x}")).collect();
                assert_eq!(out, expected.as_bytes());
            }
        }
    }

    #[test]
    fn two_sources_differ() {
        assert_ne!(Ids::from_os().unwrap().request_id(), Ids::from_os().unwrap().request_id());
    }

    #[test]
    fn a_zero_seed_is_not_a_zero_stream() {
        let mut ids = Ids::from_seed([0; 32]);
        assert_ne!(ids.next_u64(), ids.next_u64());
    }

    #[test]
    fn a_clients_id_is_taken_over_only_if_harmless() {
        assert!(valid_request_id(b"a"));
        assert!(valid_request_id(b"Root=1-67891233-abcdef012345678912345678"));
        assert!(valid_request_id(b"user@host:req/1+2=3._-"));
        assert!(valid_request_id(&[b'x'; MAX_REQUEST_ID_BYTES]));
        assert!(!valid_request_id(&[b'x'; MAX_REQUEST_ID_BYTES + 1]));
        for bad in [&b""[..], b"a b", b"a\"b", b"a\r\nb", b"a\0", b"caf\xc3\xa9", b"a,b", b"a;b", b"$(x)"] {
            assert!(!valid_request_id(bad), "{bad:?}");
        }
    }
}
