//! The columns of a run: names, element kinds, and which of them have the same length.

use std::fmt;
use std::ops::{Index, IndexMut};

/// Rows from one sample to the next.
pub const SAMPLE_ROWS: u64 = 16;

/// What one element of a dataset is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 96 bytes: compound `{subject, predicate, object}`, each `{high, high_mid, low_mid, low}` of
    /// big-endian u64.
    Triple,
    /// 32 bytes: compound `{high, high_mid, low_mid, low}` of big-endian u64.
    Cid,
    /// Little-endian IEEE-754 double, 8 bytes.
    F64,
    /// Little-endian u32.
    U32,
    /// Little-endian u64.
    U64,
    /// One byte.
    U8,
}

impl Kind {
    /// Size of an element in bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Triple => 96,
            Self::Cid => 32,
            Self::F64 | Self::U64 => 8,
            Self::U32 => 4,
            Self::U8 => 1,
        }
    }
}

/// Which columns agree in length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// One element for each triple.
    Rows,
    /// One element for each tombstone.
    Tombstones,
    /// One element for each triple that has metadata.
    MetadataRows,
    /// One element for each predicate that is listed.
    Predicates,
    /// One element for every [`SAMPLE_ROWS`]th triple, or none at all.
    Samples,
    /// A length of its own.
    Own,
}

/// A column of a run, in the order in which they stand in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ColumnId {
    /// The triples, sorted by subject, predicate, object.
    Triples,
    /// The triples that this run deletes, sorted in the same way.
    Tombstones,
    /// When each triple was inserted.
    CreatedAt,
    /// Row numbers of `triples` in the order predicate, object, subject.
    Pos,
    /// Row numbers of `triples` in the order object, subject, predicate.
    Osp,
    /// The first 32 bits of each triple's hash, as numbers, ascending.
    HashPrefix,
    /// Row number of `triples` for each element of `HashPrefix`.
    HashRow,
    /// Row numbers of `tombstones` in the order predicate, object, subject.
    TombstonePos,
    /// Row numbers of `tombstones` in the order object, subject, predicate.
    TombstoneOsp,
    /// Row numbers of the triples that have metadata, ascending.
    MetadataRow,
    /// End of each metadata text in `MetadataText`, in bytes; it begins where the one before ends.
    MetadataEnd,
    /// The metadata texts, one after another.
    MetadataText,
    /// Bloom filter over subjects of triples and tombstones.
    FilterSubject,
    /// Bloom filter over predicate and object of triples and tombstones.
    FilterPredicateObject,
    /// Bloom filter over objects of triples and tombstones.
    FilterObject,
    /// The predicates of the triples, ascending, each once; empty where there are many.
    Predicate,
    /// End of each predicate's rows in `Pos`; they begin where those of the one before end.
    PredicateEnd,
    /// Samples of `Triples`, by which they are searched; `docs/FORMAT.md` says what one is.
    SpoSample,
    /// Samples of `Pos`.
    PosSample,
    /// Samples of `Osp`.
    OspSample,
}

impl ColumnId {
    /// All of them, in file order.
    pub const ALL: [Self; 20] = [
        Self::Triples,
        Self::Tombstones,
        Self::CreatedAt,
        Self::Pos,
        Self::Osp,
        Self::HashPrefix,
        Self::HashRow,
        Self::TombstonePos,
        Self::TombstoneOsp,
        Self::MetadataRow,
        Self::MetadataEnd,
        Self::MetadataText,
        Self::FilterSubject,
        Self::FilterPredicateObject,
        Self::FilterObject,
        Self::Predicate,
        Self::PredicateEnd,
        Self::SpoSample,
        Self::PosSample,
        Self::OspSample,
    ];

    /// The samples, by [`Order`](crate::order::Order).
    pub const SAMPLES: [Self; 3] = [Self::SpoSample, Self::PosSample, Self::OspSample];

    /// Name of the dataset, relative to the file's root.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Triples => "triples",
            Self::Tombstones => "tombstones",
            Self::CreatedAt => "created_at",
            Self::Pos => "index/pos",
            Self::Osp => "index/osp",
            Self::HashPrefix => "index/hash_prefix",
            Self::HashRow => "index/hash_row",
            Self::TombstonePos => "tombstone_index/pos",
            Self::TombstoneOsp => "tombstone_index/osp",
            Self::MetadataRow => "metadata/row",
            Self::MetadataEnd => "metadata/end",
            Self::MetadataText => "metadata/text",
            Self::FilterSubject => "filter/subject",
            Self::FilterPredicateObject => "filter/predicate_object",
            Self::FilterObject => "filter/object",
            Self::Predicate => "index/predicate",
            Self::PredicateEnd => "index/predicate_end",
            Self::SpoSample => "index/spo_sample",
            Self::PosSample => "index/pos_sample",
            Self::OspSample => "index/osp_sample",
        }
    }

    /// What its elements are.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Triples | Self::Tombstones => Kind::Triple,
            Self::Predicate => Kind::Cid,
            Self::CreatedAt => Kind::F64,
            Self::Pos
            | Self::Osp
            | Self::HashPrefix
            | Self::HashRow
            | Self::TombstonePos
            | Self::TombstoneOsp
            | Self::MetadataRow
            | Self::PredicateEnd => Kind::U32,
            Self::MetadataEnd | Self::SpoSample | Self::PosSample | Self::OspSample => Kind::U64,
            Self::MetadataText | Self::FilterSubject | Self::FilterPredicateObject | Self::FilterObject => {
                Kind::U8
            }
        }
    }

    /// Which columns it agrees with in length.
    pub const fn length(self) -> Length {
        match self {
            Self::Triples | Self::CreatedAt | Self::Pos | Self::Osp | Self::HashPrefix | Self::HashRow => {
                Length::Rows
            }
            Self::Tombstones | Self::TombstonePos | Self::TombstoneOsp => Length::Tombstones,
            Self::MetadataRow | Self::MetadataEnd => Length::MetadataRows,
            Self::Predicate | Self::PredicateEnd => Length::Predicates,
            Self::SpoSample | Self::PosSample | Self::OspSample => Length::Samples,
            Self::MetadataText | Self::FilterSubject | Self::FilterPredicateObject | Self::FilterObject => {
                Length::Own
            }
        }
    }

    /// The column whose length `self` must have; `self` if the length is its own.
    #[must_use]
    pub const fn length_of(self) -> Self {
        match self.length() {
            Length::Rows => Self::Triples,
            Length::Tombstones => Self::Tombstones,
            Length::MetadataRows => Self::MetadataRow,
            Length::Predicates => Self::Predicate,
            Length::Samples => Self::SpoSample,
            Length::Own => self,
        }
    }

    /// The first version of the format that has it; in files of older ones it is empty.
    pub const fn since(self) -> u32 {
        match self {
            Self::Predicate | Self::PredicateEnd => 2,
            Self::SpoSample | Self::PosSample | Self::OspSample => 3,
            _ => 1,
        }
    }

    /// What the dataset's attribute `description` tells its readers.
    pub(super) const fn description(self) -> &'static str {
        match self {
            Self::Triples => "triples, sorted by subject, predicate, object",
            Self::Tombstones => "triples deleted by this run, sorted by subject, predicate, object",
            Self::CreatedAt => "when each row of /triples was inserted; seconds since 1970-01-01T00:00:00Z",
            Self::Pos => "row numbers of /triples, sorted by predicate, object, subject",
            Self::Osp => "row numbers of /triples, sorted by object, subject, predicate",
            Self::HashPrefix => "first 32 bits of SHA-256 of each row of /triples, ascending",
            Self::HashRow => "row number of /triples for each element of hash_prefix",
            Self::TombstonePos => "row numbers of /tombstones, sorted by predicate, object, subject",
            Self::TombstoneOsp => "row numbers of /tombstones, sorted by object, subject, predicate",
            Self::MetadataRow => "row numbers of /triples that have metadata, ascending",
            Self::MetadataEnd => "end of each row's metadata in text, in bytes; it begins at the end before",
            Self::MetadataText => "metadata of the rows in row, UTF-8 JSON, one after another",
            Self::FilterSubject => "Bloom filter over the subjects of /triples and /tombstones",
            Self::FilterPredicateObject => {
                "Bloom filter over predicate and object of /triples and /tombstones"
            }
            Self::FilterObject => "Bloom filter over the objects of /triples and /tombstones",
            Self::Predicate => "predicates of /triples, ascending, each once; empty where there are many",
            Self::PredicateEnd => "end of each predicate's rows in pos; they begin at the end before",
            Self::SpoSample => "of every 16th row of /triples 64 bits of the key, for searching",
            Self::PosSample => "of every 16th row in the order of pos 64 bits of the key, for searching",
            Self::OspSample => "of every 16th row in the order of osp 64 bits of the key, for searching",
        }
    }
}

impl ColumnId {
    /// The same for the dataset of that name in the catalog, which shows those of all runs.
    pub(super) const fn description_of_all(self) -> &'static str {
        match self {
            Self::Triples => {
                "triples of all runs, in the order of /run_table; see docs/FORMAT.md for the live set"
            }
            Self::Tombstones => "tombstones of all runs, in the order of /run_table",
            _ => self.description(),
        }
    }
}

impl fmt::Display for ColumnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.name())
    }
}

/// One `T` for each [`ColumnId`], indexed by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PerColumn<T>([T; ColumnId::ALL.len()]);

impl<T> PerColumn<T> {
    /// Calls `make` for each column, in file order.
    pub fn from_fn(mut make: impl FnMut(ColumnId) -> T) -> Self {
        Self(ColumnId::ALL.map(&mut make))
    }

    /// As [`from_fn`](Self::from_fn), stopping at the first error.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn try_from_fn<E>(mut make: impl FnMut(ColumnId) -> Result<T, E>) -> Result<Self, E>
    where
        T: Default,
    {
        let mut all = Self(ColumnId::ALL.map(|_| T::default()));
        for column in ColumnId::ALL {
            all[column] = make(column)?;
        }
        Ok(all)
    }

    /// Columns and values, in file order.
    pub fn iter(&self) -> impl Iterator<Item = (ColumnId, &T)> {
        ColumnId::ALL.into_iter().zip(&self.0)
    }
}

impl<T> Index<ColumnId> for PerColumn<T> {
    type Output = T;
    fn index(&self, column: ColumnId) -> &T {
        &self.0[column as usize]
    }
}

impl<T> IndexMut<ColumnId> for PerColumn<T> {
    fn index_mut(&mut self, column: ColumnId) -> &mut T {
        &mut self.0[column as usize]
    }
}
