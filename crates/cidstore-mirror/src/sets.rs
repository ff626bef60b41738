//! The sets beside the triples: of each subject and predicate, and of each predicate and object, the hashes
//! of their triples, by which one goes on to the triples themselves.

use crate::form::Sets;
use crate::value::write_hex;
use cidstore_types::Triple;

/// Hex digits of two CIDs.
const PAIR_DIGITS: usize = 128;

/// One of the two kinds of sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sp,
    Po,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Sp, Self::Po];

    /// Stands between prefix and digits in the keys.
    fn mark(self) -> &'static str {
        match self {
            Self::Sp => "sp:",
            Self::Po => "po:",
        }
    }

    /// Makes the key of the triple's set out of one that ends with the prefix.
    pub fn write_key(self, key: &mut Vec<u8>, triple: &Triple) {
        let pair = match self {
            Self::Sp => [triple.s(), triple.p()],
            Self::Po => [triple.p(), triple.o()],
        };
        key.extend_from_slice(self.mark().as_bytes());
        for cid in pair {
            write_hex(key, cid.as_bytes());
        }
    }

    /// Which kind of set a key names.
    pub fn of_key(key: &[u8], prefix: &str) -> Option<Self> {
        let rest = key.strip_prefix(prefix.as_bytes())?;
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        Self::ALL.into_iter().find(|kind| {
            rest.strip_prefix(kind.mark().as_bytes())
                .is_some_and(|pair| pair.len() == PAIR_DIGITS && pair.iter().all(is_digit))
        })
    }
}

impl Sets {
    /// Those that are kept.
    pub(crate) fn kinds(self) -> &'static [Kind] {
        match self {
            Self::None => &[],
            Self::Sp => &[Kind::Sp],
            Self::Po => &[Kind::Po],
            Self::Both => &Kind::ALL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cidstore_types::Cid;

    #[test]
    fn keys_name_their_pair_and_are_recognized() {
        let cid = |low| Cid::from_two_lanes([0, low]);
        let triple = Triple::new(cid(1), cid(2), cid(3));
        for (kind, pair) in [(Kind::Sp, [1, 2]), (Kind::Po, [2, 3])] {
            let mut key = b"t:".to_vec();
            kind.write_key(&mut key, &triple);
            let pair = pair.map(|low| cid(low).to_hex()).concat();
            assert_eq!(String::from_utf8(key.clone()).unwrap(), format!("t:{}{pair}", kind.mark()));
            assert_eq!(Kind::of_key(&key, "t:"), Some(kind));
            assert_eq!(Kind::of_key(&key, ""), None);
            assert_eq!(Kind::of_key(&key[..key.len() - 1], "t:"), None);
            assert_eq!(Kind::of_key(&key.to_ascii_uppercase(), "T:"), None);
        }
        assert_eq!(Kind::of_key(triple.hash().to_hex().as_bytes(), ""), None);
    }
}
