//! A 256-bit content id and the forms it is written in.

use std::fmt;
use std::str::FromStr;

/// A 256-bit content id: four u64 lanes `high, high_mid, low_mid, low`, kept as their 32 big-endian
/// bytes in that order, so that byte order is numeric order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Cid(pub [u8; 32]);

/// Why a text, array or map is not a CID. The message says what was found and what was expected;
/// where it was found is for the caller to add.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CidError {
    /// Not one of the text forms.
    #[error("{found:?} is not a CID: expected E(high,high_mid,low_mid,low), E(high,low) or 64 hex digits")]
    Text {
        /// The beginning of the offending text (at most 80 characters).
        found: String,
    },
    /// A lane is not an unsigned integer of 64 bits.
    #[error("lane {lane} of the CID is {found}: expected an integer from 0 to 2^64-1")]
    Lane {
        /// Position of the lane, from 0.
        lane: usize,
        /// What stood there.
        found: String,
    },
    /// A wrong number of lanes.
    #[error("a CID of {found} lanes: expected 4 (or 2, for a 128-bit id)")]
    LaneCount {
        /// How many there were.
        found: usize,
    },
    /// A wrong number of bytes.
    #[error("a CID of {found} bytes: expected 32")]
    Length {
        /// How many there were.
        found: usize,
    },
}

impl Cid {
    /// The CID of all zero bits. In the key form, the predicate of a stored pair.
    pub const ZERO: Self = Self([0; 32]);
    /// The greatest CID.
    pub const MAX: Self = Self([0xff; 32]);

    /// Builds a CID from its lanes `[high, high_mid, low_mid, low]`.
    pub fn from_lanes(lanes: [u64; 4]) -> Self {
        let mut bytes = [0; 32];
        for (chunk, lane) in bytes.chunks_exact_mut(8).zip(lanes) {
            chunk.copy_from_slice(&lane.to_be_bytes());
        }
        Self(bytes)
    }

    /// Builds a CID from a 128-bit id `[high, low]`, zero-extended: lanes `0, 0, high, low`.
    pub fn from_two_lanes([high, low]: [u64; 2]) -> Self {
        Self::from_lanes([0, 0, high, low])
    }

    /// Builds a CID from 4 or 2 lanes.
    ///
    /// # Errors
    /// [`CidError::LaneCount`] for any other number.
    pub fn from_lane_slice(lanes: &[u64]) -> Result<Self, CidError> {
        match *lanes {
            [a, b, c, d] => Ok(Self::from_lanes([a, b, c, d])),
            [high, low] => Ok(Self::from_two_lanes([high, low])),
            _ => Err(CidError::LaneCount { found: lanes.len() }),
        }
    }

    /// The lanes `[high, high_mid, low_mid, low]`.
    pub fn lanes(&self) -> [u64; 4] {
        let (chunks, _) = self.0.as_chunks::<8>();
        [
            u64::from_be_bytes(chunks[0]),
            u64::from_be_bytes(chunks[1]),
            u64::from_be_bytes(chunks[2]),
            u64::from_be_bytes(chunks[3]),
        ]
    }

    /// The 32 big-endian bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 lower-case hex digits.
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }

    /// Reads 32 bytes.
    ///
    /// # Errors
    /// [`CidError::Length`] for any other length.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, CidError> {
        <[u8; 32]>::try_from(bytes).map(Self).map_err(|_| CidError::Length { found: bytes.len() })
    }

    /// Reads any text form: `E(a,b,c,d)` (canonical), `E(high,low)`, or 64 hex digits. Spaces after
    /// commas are allowed.
    ///
    /// # Errors
    /// [`CidError`] with what was found and what was expected.
    pub fn parse(text: &str) -> Result<Self, CidError> {
        let bytes = text.as_bytes();
        if let Some(inner) = bytes.strip_prefix(b"E(").and_then(|t| t.strip_suffix(b")")) {
            return parse_lanes(inner);
        }
        if bytes.len() == 64
            && let Some(cid) = from_hex(bytes)
        {
            return Ok(Self(cid));
        }
        Err(CidError::Text { found: excerpt(bytes) })
    }
}

/// Decimal lanes separated by commas, each comma followed by any number of spaces.
fn parse_lanes(text: &[u8]) -> Result<Cid, CidError> {
    let mut lanes = [0u64; 4];
    let mut count = 0;
    let mut at = 0;
    loop {
        let start = at;
        let mut value: u64 = 0;
        let mut digits = 0;
        while let Some(digit) = text.get(at).map(|b| b.wrapping_sub(b'0')).filter(|d| *d <= 9) {
            value = value
                .checked_mul(10)
                .and_then(|v| v.checked_add(u64::from(digit)))
                .ok_or_else(|| lane_error(text, start, count))?;
            digits += 1;
            at += 1;
        }
        if digits == 0 || !matches!(text.get(at), None | Some(b',')) {
            return Err(lane_error(text, start, count));
        }
        if count == 4 {
            let found = text.split(|b| *b == b',').count();
            return Err(CidError::LaneCount { found });
        }
        lanes[count] = value;
        count += 1;
        if at == text.len() {
            break;
        }
        at += 1;
        while text.get(at) == Some(&b' ') {
            at += 1;
        }
    }
    Cid::from_lane_slice(&lanes[..count])
}

fn lane_error(text: &[u8], start: usize, lane: usize) -> CidError {
    let end = text[start..].iter().position(|b| *b == b',').map_or(text.len(), |n| start + n);
    CidError::Lane { lane, found: excerpt(&text[start..end]) }
}

fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(80).collect()
}

/// Lower-case hex digits of `bytes`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// The 32 bytes that 64 hex digits of either case stand for.
pub(crate) fn from_hex(text: &[u8]) -> Option<[u8; 32]> {
    fn digit(byte: u8) -> Option<u8> {
        char::from(byte).to_digit(16).map(|d| d as u8)
    }
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    let mut bytes = [0; 32];
    if pairs.len() != bytes.len() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

/// The canonical text, `E(high,high_mid,low_mid,low)`.
impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d] = self.lanes();
        write!(f, "E({a},{b},{c},{d})")
    }
}

impl fmt::Debug for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Cid {
    type Err = CidError;

    fn from_str(text: &str) -> Result<Self, CidError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_every_text_form() {
        let cid = Cid::from_lanes([1, 2, 3, 4]);
        assert_eq!(Cid::parse("E(1,2,3,4)"), Ok(cid));
        assert_eq!(Cid::parse("E(1, 2,  3, 4)"), Ok(cid));
        assert_eq!(Cid::parse(&cid.to_hex()), Ok(cid));
        assert_eq!(Cid::parse(&cid.to_hex().to_uppercase()), Ok(cid));
        assert_eq!(Cid::parse("E(123,456)"), Ok(Cid::from_lanes([0, 0, 123, 456])));
    }

    #[test]
    fn refuses_what_is_no_cid_and_says_which_lane() {
        let lane = |text| match Cid::parse(text) {
            Err(CidError::Lane { lane, found }) => (lane, found),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(lane("E(18446744073709551616,0)"), (0, "18446744073709551616".into()));
        assert_eq!(lane("E(1,-2,3,4)"), (1, "-2".into()));
        assert_eq!(lane("E(1,2,3.5,4)"), (2, "3.5".into()));
        assert_eq!(lane("E(1,2,3,)"), (3, String::new()));
        assert_eq!(lane("E( 1,2)"), (0, " 1".into()));
        assert_eq!(Cid::parse("E(1,2,3)"), Err(CidError::LaneCount { found: 3 }));
        assert_eq!(Cid::parse("E(1,2,3,4,5,6)"), Err(CidError::LaneCount { found: 6 }));
        assert!(matches!(Cid::parse("e(1,2)"), Err(CidError::Text { .. })));
        assert!(matches!(Cid::parse(""), Err(CidError::Text { .. })));
        assert!(matches!(Cid::parse(&"g".repeat(64)), Err(CidError::Text { .. })));
    }

    proptest! {
        #[test]
        fn text_and_bytes_round_trip_and_order_is_numeric(a: [u64; 4], b: [u64; 4]) {
            let (x, y) = (Cid::from_lanes(a), Cid::from_lanes(b));
            prop_assert_eq!(Cid::parse(&x.to_string()), Ok(x));
            prop_assert_eq!(Cid::parse(&x.to_hex()), Ok(x));
            prop_assert_eq!(x.lanes(), a);
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        }

        #[test]
        fn parsing_never_panics(text in ".{0,100}", inner in "[0-9, .-]{0,100}") {
            let _ = Cid::parse(&text);
            let _ = Cid::parse(&format!("E({inner})"));
        }
    }
}
