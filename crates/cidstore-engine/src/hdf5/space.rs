//! Dataspaces: how many elements a dataset or attribute has.

use std::ptr;

use ::hdf5_sys::h5i::hid_t;
use ::hdf5_sys::h5s::{
    H5S_class_t, H5S_seloper_t, H5Screate, H5Screate_simple, H5Sget_simple_extent_dims,
    H5Sget_simple_extent_ndims, H5Sget_simple_extent_npoints, H5Sselect_hyperslab,
};

use super::Hdf5Error;
use super::session::{Object, Session};

/// A dataspace of rank 0 or 1, or one found in a file.
pub(super) struct Space<'s> {
    object: Object<'s>,
    elements: u64,
}

impl<'s> Space<'s> {
    /// One element, rank 0.
    pub(super) fn scalar(session: &'s Session<'_>) -> Result<Self, Hdf5Error> {
        // SAFETY: creating a space has no precondition beyond the lock, which the session holds.
        let id = unsafe { H5Screate(H5S_class_t::H5S_SCALAR) };
        Ok(Self { object: session.own("create", "a dataspace", id)?, elements: 1 })
    }

    /// `elements` of them, rank 1.
    pub(super) fn line(session: &'s Session<'_>, elements: u64) -> Result<Self, Hdf5Error> {
        // SAFETY: one dimension for rank 1; null means that the greatest size is the current one.
        let id = unsafe { H5Screate_simple(1, &raw const elements, ptr::null()) };
        Ok(Self { object: session.own("create", "a dataspace", id)?, elements })
    }

    /// Wraps a space that was read from a file.
    pub(super) fn found(session: &'s Session<'_>, of: &str, id: hid_t) -> Result<Self, Hdf5Error> {
        let object = session.own("read the size of", of, id)?;
        // SAFETY: a live dataspace.
        let elements = unsafe { H5Sget_simple_extent_npoints(object.id()) };
        let elements = u64::try_from(elements).map_err(|_| session.failed("read the size of", of))?;
        Ok(Self { object, elements })
    }

    /// Checks that the rank is 1 and that it cannot grow.
    pub(super) fn require_line(&self, session: &Session<'_>, of: &str) -> Result<(), Hdf5Error> {
        // SAFETY: a live dataspace.
        let rank = unsafe { H5Sget_simple_extent_ndims(self.id()) };
        if session.check("read the rank of", of, rank)? != 1 {
            return Err(session.mismatch(of, "the rank", rank, 1));
        }
        let (mut now, mut most) = (0, 0);
        // SAFETY: both outputs take one dimension, and the rank is 1.
        let status = unsafe { H5Sget_simple_extent_dims(self.id(), &raw mut now, &raw mut most) };
        session.check("read the size of", of, status)?;
        if now != most {
            return Err(session.mismatch(of, "the greatest size", most, now));
        }
        Ok(())
    }

    /// Selects `count` elements from `start`; for a space of rank 1.
    pub(super) fn select(&self, session: &Session<'_>, start: u64, count: u64) -> Result<(), Hdf5Error> {
        // SAFETY: a live dataspace of rank 1: one number for each; null means stride and block 1.
        let status = unsafe {
            H5Sselect_hyperslab(
                self.id(),
                H5S_seloper_t::H5S_SELECT_SET,
                &raw const start,
                ptr::null(),
                &raw const count,
                ptr::null(),
            )
        };
        session.check("select from", "a dataspace", status).map(drop)
    }

    /// How many elements it has.
    pub(super) fn elements(&self) -> u64 {
        self.elements
    }

    /// The id, valid as long as `self`.
    pub(super) fn id(&self) -> hid_t {
        self.object.id()
    }
}
