//! Dates as HTTP writes them: the `Date` field's format, IMF-fixdate (RFC 9110, 5.6.7), and that of JSON bodies, RFC 3339. The
//! clock belongs to the caller.

const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// The last second that four digits of a year can tell: 9999-12-31 23:59:59. Later ones are written as this one.
const LAST_SECOND: u64 = 253_402_300_799;

/// Seconds since 1970 as `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(crate) fn imf_fixdate(unix_seconds: u64) -> [u8; 29] {
    let seconds = unix_seconds.min(LAST_SECOND);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let mut out = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    out[..3].copy_from_slice(DAYS[(days % 7) as usize]);
    put2(&mut out[5..7], day);
    out[8..11].copy_from_slice(MONTHS[(month - 1) as usize]);
    put2(&mut out[12..14], year / 100);
    put2(&mut out[14..16], year % 100);
    put2(&mut out[17..19], second / 3600);
    put2(&mut out[20..22], second / 60 % 60);
    put2(&mut out[23..25], second % 60);
    out
}

/// Milliseconds since 1970 as `1994-11-06T08:49:37.250Z`.
pub(crate) fn rfc3339(unix_ms: u64) -> String {
    let ms = unix_ms.min(LAST_SECOND * 1000 + 999);
    let (days, second) = (ms / 86_400_000, ms / 1000 % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second, ms) = (second / 3600, second / 60 % 60, second % 60, ms % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Year, month and day of a count of days since 1970. Years are counted from March, so that the leap day comes last
/// and months before it have a fixed pattern of lengths (153 days every five months).
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_1970: u64 = 719_468;
    const DAYS_IN_ERA: u64 = 146_097;
    let days = days + DAYS_TO_1970;
    let (era, of_era) = (days / DAYS_IN_ERA, days % DAYS_IN_ERA);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let (month, next_year) = if from_march < 10 { (from_march + 3, 0) } else { (from_march - 9, 1) };
    (era * 400 + year_of_era + next_year, month, day)
}

fn put2(out: &mut [u8], n: u64) {
    out[0] = b'0' + (n / 10 % 10) as u8;
    out[1] = b'0' + (n % 10) as u8;
}

#[cfg(test)]
mod tests {
    use super::{imf_fixdate, rfc3339};

    #[test]
    fn formats_known_dates() {
        let known: [(u64, &[u8; 29]); 7] = [
            (0, b"Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, b"Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, b"Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_800, b"Wed, 01 Mar 2000 00:00:00 GMT"),
            (1_735_689_599, b"Tue, 31 Dec 2024 23:59:59 GMT"),
            (4_107_542_400, b"Mon, 01 Mar 2100 00:00:00 GMT"),
            (253_402_300_799, b"Fri, 31 Dec 9999 23:59:59 GMT"),
        ];
        for (seconds, text) in known {
            assert_eq!(&imf_fixdate(seconds), text);
        }
        assert_eq!(imf_fixdate(u64::MAX), imf_fixdate(253_402_300_799));
    }

    #[test]
    fn formats_known_times() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (784_111_777_250, "1994-11-06T08:49:37.250Z"),
            (951_782_400_001, "2000-02-29T00:00:00.001Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(ms), text);
        }
        assert_eq!(rfc3339(u64::MAX), rfc3339(253_402_300_799_999));
    }
}
