//! Base 64 (RFC 4648, 4), in which the corpus keeps its requests.

pub(crate) fn decode(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.bytes().filter(|&b| b != b'=');
    let values = digits.map(|b| ALPHABET.iter().position(|&a| a == b).expect("base64") as u32);
    let (mut out, mut bits, mut held) = (Vec::new(), 0, 0);
    for value in values {
        held = held << 6 | value;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((held >> bits) as u8);
        }
    }
    out
}
