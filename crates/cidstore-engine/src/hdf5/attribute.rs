//! Attributes: small values beside a group or dataset.

use std::ffi::c_void;

use ::hdf5_sys::h5a::{H5Acreate2, H5Aexists, H5Aget_space, H5Aget_type, H5Aopen, H5Aread, H5Awrite};
use ::hdf5_sys::h5p::H5P_DEFAULT;

use super::Hdf5Error;
use super::column::Kind;
use super::file::c_string;
use super::session::{Object, Session};
use super::space::Space;
use super::types::Type;

/// Longest text read from an attribute, in bytes.
const TEXT_BYTES_MAX: usize = 4096;

/// A group or dataset and its path, of which attributes are written or read.
pub(super) struct Attributes<'a, 's> {
    pub(super) session: &'a Session<'s>,
    pub(super) object: &'a Object<'a>,
    pub(super) path: &'a str,
}

impl Attributes<'_, '_> {
    /// Writes a number of 32 bits.
    pub(super) fn write_u32(&self, name: &str, value: u32) -> Result<(), Hdf5Error> {
        let kind = Type::of(self.session, Kind::U32)?;
        self.write(name, &kind, &Space::scalar(self.session)?, &value.to_le_bytes())
    }

    /// Writes a number of 64 bits.
    pub(super) fn write_u64(&self, name: &str, value: u64) -> Result<(), Hdf5Error> {
        let kind = Type::of(self.session, Kind::U64)?;
        self.write(name, &kind, &Space::scalar(self.session)?, &value.to_le_bytes())
    }

    /// Writes bytes, as an array.
    pub(super) fn write_bytes(&self, name: &str, bytes: &[u8]) -> Result<(), Hdf5Error> {
        let kind = Type::of(self.session, Kind::U8)?;
        self.write(name, &kind, &Space::line(self.session, bytes.len() as u64)?, bytes)
    }

    /// Writes text; an empty one as a single NUL, since a text of no bytes cannot be.
    pub(super) fn write_text(&self, name: &str, text: &str) -> Result<(), Hdf5Error> {
        let bytes = if text.is_empty() { &[0] } else { text.as_bytes() };
        let kind = Type::text(self.session, bytes.len())?;
        self.write(name, &kind, &Space::scalar(self.session)?, bytes)
    }

    /// Reads a number of 32 bits.
    pub(super) fn read_u32(&self, name: &str) -> Result<u32, Hdf5Error> {
        let bytes = self.read_exactly(name, Kind::U32, 1)?;
        Ok(u32::from_le_bytes(bytes.try_into().expect("read_exactly checked the size")))
    }

    /// Reads a number of 64 bits.
    pub(super) fn read_u64(&self, name: &str) -> Result<u64, Hdf5Error> {
        let bytes = self.read_exactly(name, Kind::U64, 1)?;
        Ok(u64::from_le_bytes(bytes.try_into().expect("read_exactly checked the size")))
    }

    /// Reads an array of `N` bytes.
    pub(super) fn read_bytes<const N: usize>(&self, name: &str) -> Result<[u8; N], Hdf5Error> {
        let bytes = self.read_exactly(name, Kind::U8, N as u64)?;
        Ok(bytes.try_into().expect("read_exactly checked the size"))
    }

    /// Reads text of a fixed size.
    pub(super) fn read_text(&self, name: &str) -> Result<String, Hdf5Error> {
        let (attribute, kind, count) = self.open(name)?;
        let place = self.place(name);
        if !kind.is_fixed_text(self.session)? || kind.bytes() > TEXT_BYTES_MAX || count != 1 {
            let found = format!("{count} × {}", kind.describe());
            let expected = format!("one text of a fixed size, at most {TEXT_BYTES_MAX} bytes");
            return Err(self.session.mismatch(&place, "the value", found, expected));
        }
        let mut bytes = self.read(&place, &attribute, &kind, count)?;
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        bytes.truncate(end);
        String::from_utf8(bytes)
            .map_err(|e| self.session.mismatch(&place, "the text", e.to_string(), "UTF-8"))
    }

    fn write(&self, name: &str, kind: &Type<'_>, space: &Space<'_>, bytes: &[u8]) -> Result<(), Hdf5Error> {
        // Holds for every caller above; the length is what makes the write below sound.
        assert_eq!(bytes.len() as u64, space.elements() * kind.bytes() as u64, "size of attribute {name}");
        let place = self.place(name);
        let c_name = c_string(self.session, name)?;
        // SAFETY: object, type and space live, the name ends with NUL.
        let id = unsafe {
            H5Acreate2(self.object.id(), c_name.as_ptr(), kind.id(), space.id(), H5P_DEFAULT, H5P_DEFAULT)
        };
        let attribute = self.session.own("create", &place, id)?;
        // SAFETY: memory and file type are the same, and `bytes` has as many bytes as the attribute.
        let status = unsafe { H5Awrite(attribute.id(), kind.id(), bytes.as_ptr().cast::<c_void>()) };
        self.session.check("write", &place, status).map(drop)
    }

    fn read_exactly(&self, name: &str, kind: Kind, count: u64) -> Result<Vec<u8>, Hdf5Error> {
        let (attribute, found, found_count) = self.open(name)?;
        let expected = Type::of(self.session, kind)?;
        let place = self.place(name);
        if found_count != count || !found.equals(self.session, &expected)? {
            let found = format!("{found_count} × {}", found.describe());
            return Err(self.session.mismatch(&place, "the value", found, format!("{count} × {kind:?}")));
        }
        self.read(&place, &attribute, &expected, count)
    }

    /// Opens an attribute; returns its type and number of elements too.
    fn open(&self, name: &str) -> Result<(Object<'_>, Type<'_>, u64), Hdf5Error> {
        let place = self.place(name);
        let c_name = c_string(self.session, name)?;
        // SAFETY: the object lives, the name ends with NUL.
        let exists = unsafe { H5Aexists(self.object.id(), c_name.as_ptr()) };
        if self.session.check("look up", &place, exists)? == 0 {
            return Err(self.session.mismatch(&place, "the attribute", "missing", "a value"));
        }
        // SAFETY: as above.
        let id = unsafe { H5Aopen(self.object.id(), c_name.as_ptr(), H5P_DEFAULT) };
        let attribute = self.session.own("open", &place, id)?;
        // SAFETY: the attribute lives.
        let kind = Type::found(self.session, &place, unsafe { H5Aget_type(attribute.id()) })?;
        // SAFETY: the attribute lives.
        let space = Space::found(self.session, &place, unsafe { H5Aget_space(attribute.id()) })?;
        let count = space.elements();
        Ok((attribute, kind, count))
    }

    fn read(
        &self,
        place: &str,
        attribute: &Object<'_>,
        kind: &Type<'_>,
        count: u64,
    ) -> Result<Vec<u8>, Hdf5Error> {
        let mut bytes = vec![0; kind.bytes() * count as usize];
        // SAFETY: the memory type equals the file's, has no pointers (callers checked), and the
        // buffer holds `count` of it, which is how many the attribute has.
        let status = unsafe { H5Aread(attribute.id(), kind.id(), bytes.as_mut_ptr().cast::<c_void>()) };
        self.session.check("read", place, status)?;
        Ok(bytes)
    }

    fn place(&self, name: &str) -> String {
        format!("{}@{name}", self.path)
    }
}
