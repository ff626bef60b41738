//! What the mirror's own keys and connections are called, and what the keys hold.

use crate::form::Form;
use crate::plan::Epoch;
use crate::slots::{SlotMap, epoch_tags, tag_of};
use cidstore_types::Seq;
use redis::Cmd;

/// What the keys and the name of a connection are made of.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    /// What follows [`EPOCH_KEYS`] in the epoch keys.
    epoch: String,
    /// What follows the seq in their values: the form of what is written, where it is not the default.
    form: String,
    /// The store's id, 32 hex digits.
    pub store: String,
    /// Name of the mirror's connections, the same for all of one store, database and prefix.
    pub connection: String,
}

/// Beginning of the epoch keys of all stores.
pub(crate) const EPOCH_KEYS: &str = "cidstore:mirror:";
/// Stands for the form while what has another one is being replaced.
const MIXED: &str = "mixed";

/// The seq that the value of an epoch key begins with.
pub(crate) fn seq_of(value: &str) -> Option<Seq> {
    value.split(' ').next().and_then(|seq| seq.parse().ok())
}

impl Names {
    pub fn new(store_id: [u8; 16], db: u32, prefix: &str, form: &Form) -> Self {
        let id = format!("{:032x}", u128::from_be_bytes(store_id));
        // No colon at the end without a prefix: that is the form for the default.
        let epoch = if prefix.is_empty() { id.clone() } else { format!("{id}:{prefix}") };
        let connection = format!("cidstore-mirror:{id}:{db}:{:08x}", crc32c::crc32c(prefix.as_bytes()));
        Self { epoch, form: form.text(), store: id, connection }
    }

    /// What an epoch key holds.
    pub fn epoch_value(&self, seq: Seq, is_mixed: bool) -> String {
        match (is_mixed, &*self.form) {
            (true, _) => format!("{seq} {MIXED}"),
            (false, "") => seq.to_string(),
            (false, form) => format!("{seq} {form}"),
        }
    }

    /// What it says.
    pub fn read_epoch(&self, value: &str) -> Option<Epoch> {
        let (_, form) = value.split_once(' ').unwrap_or((value, ""));
        Some(Epoch { seq: seq_of(value)?, form_fits: form == self.form })
    }

    /// The keys that tell how far this Redis is, each with the place of its server: the one key or, in a
    /// cluster, those of all tags, and one for each primary that has none of these.
    pub fn epoch_keys(&self, slots: Option<&SlotMap>) -> Vec<(usize, String)> {
        let Some(slots) = slots else { return vec![(0, format!("{EPOCH_KEYS}{}", self.epoch))] };
        let key = |tag: &str| format!("{EPOCH_KEYS}{{{tag}}}{}", self.epoch);
        let of_tag = |tag: &String| (slots.node_of(tag.as_bytes()), key(tag));
        let mut keys: Vec<_> = epoch_tags().iter().map(of_tag).collect();
        let others: Vec<_> =
            slots.without(&keys).into_iter().map(|(server, slot)| (server, key(&tag_of(slot)))).collect();
        keys.extend(others);
        keys
    }

    /// Whether `key` is the epoch key of another store that writes under the same prefix.
    pub fn is_other_store(&self, key: &[u8], prefix: &str) -> bool {
        let Some(mut rest) = key.strip_prefix(EPOCH_KEYS.as_bytes()) else { return false };
        if rest.first() == Some(&b'{') {
            let Some(end) = rest.iter().position(|byte| *byte == b'}') else { return false };
            rest = &rest[end + 1..];
        }
        let Some((id, after)) = rest.split_at_checked(32) else { return false };
        let same_prefix = if prefix.is_empty() {
            after.is_empty()
        } else {
            after.strip_prefix(b":") == Some(prefix.as_bytes())
        };
        same_prefix && id.iter().all(u8::is_ascii_hexdigit) && rest != self.epoch.as_bytes()
    }
}

/// Moves an epoch key that is there.
pub(crate) fn move_epoch(key: &str, value: &str) -> Cmd {
    redis::cmd("SET").arg(key).arg(value).arg("XX").take()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::form::ValueForm;

    #[test]
    fn epoch_keys_tell_the_form_where_it_is_not_the_default() {
        let of = |value| Names::new([1; 16], 0, "", &Form { value, ..Form::default() });
        let (json, hash) = (of(ValueForm::Json), of(ValueForm::Hash));
        assert_eq!(json.epoch_value(7, false), "7");
        assert_eq!(hash.epoch_value(7, false), "7 value=hash");
        let fits =
            |names: &Names, value: &str| names.read_epoch(value).map(|epoch| (epoch.seq, epoch.form_fits));
        assert_eq!((fits(&json, "7"), fits(&json, "7 value=hash")), (Some((7, true)), Some((7, false))));
        assert_eq!((fits(&hash, "7"), fits(&hash, "7 value=hash")), (Some((7, false)), Some((7, true))));
        for names in [&json, &hash] {
            assert_eq!(fits(names, &names.epoch_value(0, true)), Some((0, false)));
            assert_eq!((fits(names, ""), fits(names, "x value=hash")), (None, None));
        }
    }

    #[test]
    fn keys_of_other_stores_are_told_apart() {
        let of = |id, prefix| Names::new([id; 16], 0, prefix, &Form::default());
        let key = |names: &Names| names.epoch_keys(None)[0].1.clone().into_bytes();
        let in_cluster = |names: &Names| format!("{EPOCH_KEYS}{{17}}{}", names.epoch).into_bytes();
        let (plain, prefixed) = (of(1, ""), of(1, "t:"));
        assert_eq!(key(&plain), format!("cidstore:mirror:{}", "01".repeat(16)).into_bytes());
        assert_eq!(key(&prefixed), format!("cidstore:mirror:{}:t:", "01".repeat(16)).into_bytes());
        let (other, other_prefixed) = (of(2, ""), of(2, "t:"));
        for key in [key, in_cluster] {
            assert!(plain.is_other_store(&key(&other), ""));
            assert!(!plain.is_other_store(&key(&plain), ""));
            assert!(!plain.is_other_store(&key(&other_prefixed), ""));
            assert!(prefixed.is_other_store(&key(&other_prefixed), "t:"));
            assert!(!prefixed.is_other_store(&key(&other), "t:"));
        }
        for key in [&b"cidstore:mirror:"[..], b"cidstore:mirror:zz", b"cidstore:mirror:{1", &[0xff; 60]] {
            assert!(!plain.is_other_store(key, ""));
        }
    }
}
