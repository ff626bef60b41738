//! Datatypes as they stand in files: each says its byte order, none depends on the machine.

use std::ffi::CStr;

use ::hdf5_sys::h5i::hid_t;
use ::hdf5_sys::h5t::{
    H5T_C_S1, H5T_IEEE_F64LE, H5T_STD_U8LE, H5T_STD_U32LE, H5T_STD_U64BE, H5T_STD_U64LE, H5T_class_t,
    H5T_cset_t, H5T_str_t, H5Tcopy, H5Tcreate, H5Tequal, H5Tget_class, H5Tget_size, H5Tinsert,
    H5Tis_variable_str, H5Tset_cset, H5Tset_size, H5Tset_strpad,
};

use super::Hdf5Error;
use super::column::Kind;
use super::session::{Object, Session};

/// Lanes of a CID, most significant first.
const LANES: [&CStr; 4] = [c"high", c"high_mid", c"low_mid", c"low"];
/// CIDs of a triple.
const PLACES: [&CStr; 3] = [c"subject", c"predicate", c"object"];
/// Size of a lane in bytes.
const LANE_BYTES: usize = 8;
/// Size of a CID in bytes.
const CID_BYTES: usize = LANE_BYTES * LANES.len();

/// A datatype that this module made or read, with its size in bytes.
pub(super) struct Type<'s> {
    object: Object<'s>,
    bytes: usize,
}

impl<'s> Type<'s> {
    /// The datatype of a column's elements.
    pub(super) fn of(session: &'s Session<'_>, kind: Kind) -> Result<Self, Hdf5Error> {
        match kind {
            Kind::Triple => Self::triple(session),
            Kind::Cid => Self::cid(session),
            Kind::F64 => Self::copy(session, *H5T_IEEE_F64LE, 8),
            Kind::U32 => Self::copy(session, *H5T_STD_U32LE, 4),
            Kind::U64 => Self::copy(session, *H5T_STD_U64LE, 8),
            Kind::U8 => Self::copy(session, *H5T_STD_U8LE, 1),
        }
    }

    /// Text of exactly `bytes` bytes: UTF-8, filled up with NUL.
    pub(super) fn text(session: &'s Session<'_>, bytes: usize) -> Result<Self, Hdf5Error> {
        let text = Self::copy(session, *H5T_C_S1, bytes)?;
        let id = text.object.id();
        // SAFETY: a live datatype of ours, a copy, so it may be changed.
        session.check("size", "a text type", unsafe { H5Tset_size(id, bytes) })?;
        // SAFETY: as above.
        session.check("set up", "a text type", unsafe { H5Tset_strpad(id, H5T_str_t::H5T_STR_NULLPAD) })?;
        // SAFETY: as above.
        session.check("set up", "a text type", unsafe { H5Tset_cset(id, H5T_cset_t::H5T_CSET_UTF8) })?;
        Ok(text)
    }

    /// A compound without padding: its members one after another.
    pub(super) fn compound(session: &'s Session<'_>, members: &[(&CStr, &Self)]) -> Result<Self, Hdf5Error> {
        let bytes = members.iter().map(|(_, member)| member.bytes).sum();
        // SAFETY: creating a type has no precondition beyond the lock, which the session holds.
        let id = unsafe { H5Tcreate(H5T_class_t::H5T_COMPOUND, bytes) };
        let object = session.own("create", "a compound type", id)?;
        let mut offset = 0;
        for (name, member) in members {
            // SAFETY: both types live, the name ends with NUL.
            let status = unsafe { H5Tinsert(object.id(), name.as_ptr(), offset, member.id()) };
            session.check("extend", "a compound type", status)?;
            offset += member.bytes;
        }
        Ok(Self { object, bytes })
    }

    /// Wraps a type that was read from a file.
    pub(super) fn found(session: &'s Session<'_>, of: &str, id: hid_t) -> Result<Self, Hdf5Error> {
        let object = session.own("read the type of", of, id)?;
        // SAFETY: a live datatype.
        let bytes = unsafe { H5Tget_size(object.id()) };
        if bytes == 0 {
            return Err(session.failed("size the type of", of));
        }
        Ok(Self { object, bytes })
    }

    /// Whether both are the same type: class, size, byte order, members and their offsets.
    pub(super) fn equals(&self, session: &Session<'_>, other: &Self) -> Result<bool, Hdf5Error> {
        // SAFETY: both datatypes live.
        let equal = unsafe { H5Tequal(self.id(), other.id()) };
        Ok(session.check("compare", "types", equal)? > 0)
    }

    /// Whether it is text of a fixed size.
    pub(super) fn is_fixed_text(&self, session: &Session<'_>) -> Result<bool, Hdf5Error> {
        // SAFETY: a live datatype.
        if unsafe { H5Tget_class(self.id()) } != H5T_class_t::H5T_STRING {
            return Ok(false);
        }
        // SAFETY: a live datatype.
        let variable = unsafe { H5Tis_variable_str(self.id()) };
        Ok(session.check("inspect", "a text type", variable)? == 0)
    }

    /// Class and size, for messages.
    pub(super) fn describe(&self) -> String {
        // SAFETY: a live datatype.
        let class = match unsafe { H5Tget_class(self.id()) } {
            H5T_class_t::H5T_INTEGER => "an integer",
            H5T_class_t::H5T_FLOAT => "a float",
            H5T_class_t::H5T_STRING => "a text",
            H5T_class_t::H5T_COMPOUND => "a compound",
            H5T_class_t::H5T_ARRAY => "an array",
            H5T_class_t::H5T_VLEN => "a variable-length value",
            _ => "a value",
        };
        format!("{class} of {} bytes", self.bytes)
    }

    /// Size of a value in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The id, valid as long as `self`.
    pub(super) fn id(&self) -> hid_t {
        self.object.id()
    }

    fn triple(session: &'s Session<'_>) -> Result<Self, Hdf5Error> {
        let cid = Self::cid(session)?;
        Self::compound(session, &PLACES.map(|name| (name, &cid)))
    }

    fn cid(session: &'s Session<'_>) -> Result<Self, Hdf5Error> {
        let lane = Self::copy(session, *H5T_STD_U64BE, LANE_BYTES)?;
        let cid = Self::compound(session, &LANES.map(|name| (name, &lane)))?;
        debug_assert_eq!(cid.bytes, CID_BYTES);
        Ok(cid)
    }

    fn copy(session: &'s Session<'_>, from: hid_t, bytes: usize) -> Result<Self, Hdf5Error> {
        // SAFETY: `from` is one of the library's own types, which live as long as the library.
        let id = unsafe { H5Tcopy(from) };
        Ok(Self { object: session.own("copy", "a type", id)?, bytes })
    }
}
