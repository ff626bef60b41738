//! Datasets of rank 1: contiguous and unfiltered, or virtual over those of other files.

use std::ffi::c_void;

use ::hdf5_sys::h5d::{
    H5D_alloc_time_t, H5D_fill_time_t, H5D_layout_t, H5Dcreate2, H5Dget_create_plist, H5Dget_offset,
    H5Dget_space, H5Dget_type, H5Dopen2, H5Dread, H5Dwrite,
};
use ::hdf5_sys::h5p::{
    H5P_DEFAULT, H5Pget_external_count, H5Pget_layout, H5Pget_nfilters, H5Pset_alloc_time, H5Pset_fill_time,
    H5Pset_layout, H5Pset_virtual,
};
use ::hdf5_sys::h5s::H5S_ALL;

use super::Hdf5Error;
use super::attribute::Attributes;
use super::file::{c_string, dataset_creation_list, require_own_object};
use super::session::{Object, Session};
use super::space::Space;
use super::types::Type;

/// What `H5Dget_offset` returns for "nowhere".
const NO_ADDRESS: u64 = u64::MAX;

/// An open dataset of rank 1 whose type was checked or given.
pub(super) struct Dataset<'a, 's> {
    session: &'a Session<'s>,
    path: &'a str,
    object: Object<'a>,
    elements: u64,
}

/// Rows of another file's dataset, as a part of a virtual one.
pub(super) struct Source<'a> {
    /// Path of the file, relative to the folder of the file that refers to it.
    pub(super) file: &'a str,
    /// How many elements its dataset has.
    pub(super) elements: u64,
}

impl<'a, 's> Dataset<'a, 's> {
    /// Creates one whose elements are contiguous. It has no space until something is written to it.
    pub(super) fn create(
        session: &'a Session<'s>,
        file: &Object<'_>,
        path: &'a str,
        kind: &Type<'_>,
        elements: u64,
    ) -> Result<Self, Hdf5Error> {
        let list = dataset_creation_list(session)?;
        // SAFETY: a live dataset creation list.
        let status = unsafe { H5Pset_layout(list.id(), H5D_layout_t::H5D_CONTIGUOUS) };
        session.check("set up", path, status)?;
        // SAFETY: as above.
        let status = unsafe { H5Pset_alloc_time(list.id(), H5D_alloc_time_t::H5D_ALLOC_TIME_LATE) };
        session.check("set up", path, status)?;
        // SAFETY: as above.
        let status = unsafe { H5Pset_fill_time(list.id(), H5D_fill_time_t::H5D_FILL_TIME_NEVER) };
        session.check("set up", path, status)?;
        Self::create_with(session, file, path, kind, elements, &list)
    }

    /// Creates one that shows the dataset of the same path in each of `sources`, one after another.
    pub(super) fn create_virtual(
        session: &'a Session<'s>,
        file: &Object<'_>,
        path: &'a str,
        kind: &Type<'_>,
        sources: &[Source<'_>],
    ) -> Result<Self, Hdf5Error> {
        let elements = sources.iter().map(|source| source.elements).sum();
        let list = dataset_creation_list(session)?;
        let c_path = c_string(session, path)?;
        let place = Space::line(session, elements)?;
        let mut start = 0;
        for source in sources.iter().filter(|source| source.elements > 0) {
            place.select(session, start, source.elements)?;
            let whole = Space::line(session, source.elements)?;
            // A percent sign would begin a pattern.
            let c_file = c_string(session, &source.file.replace('%', "%%"))?;
            // SAFETY: list and spaces live, both texts end with NUL. The source is not opened.
            let status = unsafe {
                H5Pset_virtual(list.id(), place.id(), c_file.as_ptr(), c_path.as_ptr(), whole.id())
            };
            session.check("map", path, status)?;
            start += source.elements;
        }
        Self::create_with(session, file, path, kind, elements, &list)
    }

    fn create_with(
        session: &'a Session<'s>,
        file: &Object<'_>,
        path: &'a str,
        kind: &Type<'_>,
        elements: u64,
        list: &Object<'_>,
    ) -> Result<Self, Hdf5Error> {
        let space = Space::line(session, elements)?;
        let c_path = c_string(session, path)?;
        // SAFETY: file, type, space and list live, the name ends with NUL.
        let id = unsafe {
            H5Dcreate2(file.id(), c_path.as_ptr(), kind.id(), space.id(), H5P_DEFAULT, list.id(), H5P_DEFAULT)
        };
        Ok(Self { session, path, object: session.own("create", path, id)?, elements })
    }

    /// Opens one of this very file and checks rank and type.
    pub(super) fn open(
        session: &'a Session<'s>,
        file: &Object<'_>,
        path: &'a str,
        expected: &Type<'_>,
    ) -> Result<Self, Hdf5Error> {
        let dataset = Self::open_any(session, file, path)?;
        let found = dataset.kind()?;
        if !found.equals(session, expected)? {
            // Two types of one size can differ in byte order or names: the message says so.
            let expected = format!("{} as the format describes it", expected.describe());
            return Err(session.mismatch(path, "the type", found.describe(), expected));
        }
        Ok(dataset)
    }

    /// Opens one of this very file and checks the rank.
    pub(super) fn open_any(
        session: &'a Session<'s>,
        file: &Object<'_>,
        path: &'a str,
    ) -> Result<Self, Hdf5Error> {
        require_own_object(session, file, path)?;
        let c_path = c_string(session, path)?;
        // SAFETY: the file lives, the name ends with NUL.
        let id = unsafe { H5Dopen2(file.id(), c_path.as_ptr(), H5P_DEFAULT) };
        let object = session.own("open", path, id)?;
        // SAFETY: the dataset lives.
        let space = Space::found(session, path, unsafe { H5Dget_space(object.id()) })?;
        space.require_line(session, path)?;
        Ok(Self { session, path, object, elements: space.elements() })
    }

    /// Checks that its bytes stand in the file as they are: contiguous, unfiltered, not in other files.
    pub(super) fn require_plain(&self) -> Result<(), Hdf5Error> {
        // SAFETY: the dataset lives.
        let id = unsafe { H5Dget_create_plist(self.object.id()) };
        let list = self.session.own("inspect", self.path, id)?;
        // SAFETY: a live dataset creation list.
        let layout = unsafe { H5Pget_layout(list.id()) };
        if layout != H5D_layout_t::H5D_CONTIGUOUS {
            return Err(self.session.mismatch(self.path, "the layout", format!("{layout:?}"), "contiguous"));
        }
        // SAFETY: as above.
        let filters = unsafe { H5Pget_nfilters(list.id()) };
        if self.session.check("inspect", self.path, filters)? != 0 {
            return Err(self.session.mismatch(self.path, "the number of filters", filters, 0));
        }
        // SAFETY: as above.
        let files = unsafe { H5Pget_external_count(list.id()) };
        if self.session.check("inspect", self.path, files)? != 0 {
            return Err(self.session.mismatch(self.path, "the number of external files", files, 0));
        }
        Ok(())
    }

    /// Where its bytes begin in the file; `None` if it has no space.
    pub(super) fn offset(&self) -> Option<u64> {
        // SAFETY: the dataset lives.
        let offset = unsafe { H5Dget_offset(self.object.id()) };
        (offset != NO_ADDRESS).then_some(offset)
    }

    /// Gives it its space in the file, by writing zero bytes to the first element.
    pub(super) fn allocate(&self) -> Result<(), Hdf5Error> {
        if self.elements == 0 {
            return Ok(());
        }
        let kind = self.kind()?;
        let first = Space::line(self.session, self.elements)?;
        first.select(self.session, 0, 1)?;
        let one = Space::line(self.session, 1)?;
        let zeros = vec![0_u8; kind.bytes()];
        let from = zeros.as_ptr().cast::<c_void>();
        // SAFETY: one element is written, and `zeros` has the bytes of one, in the file's own type.
        let status =
            unsafe { H5Dwrite(self.object.id(), kind.id(), one.id(), first.id(), H5P_DEFAULT, from) };
        self.session.check("allocate", self.path, status).map(drop)
    }

    /// Writes all elements; `bytes` are those of the file.
    pub(super) fn write(&self, kind: &Type<'_>, bytes: &[u8]) -> Result<(), Hdf5Error> {
        // Holds for every caller; the length is what makes the write below sound.
        assert_eq!(bytes.len() as u64, self.elements * kind.bytes() as u64, "bytes of {}", self.path);
        if bytes.is_empty() {
            return Ok(());
        }
        let from = bytes.as_ptr().cast::<c_void>();
        // SAFETY: memory and file type are the same, and `bytes` has as many bytes as the dataset.
        let status = unsafe { H5Dwrite(self.object.id(), kind.id(), H5S_ALL, H5S_ALL, H5P_DEFAULT, from) };
        self.session.check("write", self.path, status).map(drop)
    }

    /// Reads all elements, as the bytes of the file. `kind` is its type, as [`open`](Self::open) checked.
    pub(super) fn read(&self, kind: &Type<'_>) -> Result<Vec<u8>, Hdf5Error> {
        let found = self.kind()?;
        // Checked by the caller; it is what makes the read below sound.
        assert!(found.equals(self.session, kind)?, "type of {}", self.path);
        let bytes = self.elements.checked_mul(kind.bytes() as u64).and_then(|n| usize::try_from(n).ok());
        let bytes =
            bytes.ok_or_else(|| self.session.mismatch(self.path, "the size", self.elements, "less"))?;
        let mut buffer = vec![0; bytes];
        if buffer.is_empty() {
            return Ok(buffer);
        }
        let to = buffer.as_mut_ptr().cast::<c_void>();
        // SAFETY: memory and file type are the same, without pointers, and the buffer has as many
        // bytes as the dataset.
        let status = unsafe { H5Dread(self.object.id(), kind.id(), H5S_ALL, H5S_ALL, H5P_DEFAULT, to) };
        self.session.check("read", self.path, status)?;
        Ok(buffer)
    }

    /// Its type.
    pub(super) fn kind(&self) -> Result<Type<'a>, Hdf5Error> {
        // SAFETY: the dataset lives.
        Type::found(self.session, self.path, unsafe { H5Dget_type(self.object.id()) })
    }

    /// How many elements it has.
    pub(super) fn elements(&self) -> u64 {
        self.elements
    }

    /// Its attributes.
    pub(super) fn attributes(&self) -> Attributes<'_, 's> {
        Attributes { session: self.session, object: &self.object, path: self.path }
    }
}
