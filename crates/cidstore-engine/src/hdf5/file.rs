//! Files, groups and links of HDF5: created so that the same description gives the same bytes.

use std::ffi::{CStr, CString, c_void};

use ::hdf5_sys::h5f::{
    H5F_ACC_RDONLY, H5F_ACC_RDWR, H5F_ACC_TRUNC, H5F_close_degree_t, H5F_libver_t, H5Fclose, H5Fcreate,
    H5Fopen,
};
use ::hdf5_sys::h5g::{H5Gcreate2, H5Gopen2};
use ::hdf5_sys::h5l::{H5Lcreate_external, H5Lexists, H5Lget_val};
use ::hdf5_sys::h5p::{
    H5P_CLS_DATASET_CREATE, H5P_CLS_FILE_ACCESS, H5P_CLS_FILE_CREATE, H5P_CLS_GROUP_CREATE, H5P_DEFAULT,
    H5Pcreate, H5Pset_alignment, H5Pset_attr_phase_change, H5Pset_fapl_stdio, H5Pset_fclose_degree,
    H5Pset_file_locking, H5Pset_libver_bounds, H5Pset_link_phase_change, H5Pset_obj_track_times,
    H5Pset_small_data_block_size,
};

use super::Hdf5Error;
use super::session::{Object, Session};

/// Links and attributes that an object keeps in its header, where one checksum covers them all,
/// before HDF5 would move them to a heap. No object of a run or a catalog has more, but for the
/// group of a catalog's runs.
const COMPACT_MAX: u32 = 64;

/// How a file is opened.
#[derive(Clone, Copy)]
pub(super) enum Access {
    /// To read a file on the disk.
    ReadDisk,
    /// To read a file in memory.
    Read,
    /// To give datasets their space, each at a multiple of this many bytes.
    Allocate {
        /// In bytes.
        alignment: u64,
    },
}

/// Creates an empty file in memory at `path`, replacing what is there.
pub(super) fn create<'s>(session: &'s Session<'_>, path: &CStr) -> Result<Object<'s>, Hdf5Error> {
    let access = access_list(session)?;
    in_memory(session, &access)?;
    let creation = creation_list(session, *H5P_CLS_FILE_CREATE)?;
    compact_links(session, &creation)?;
    // SAFETY: the path ends with NUL, both property lists live and are of the classes asked for.
    let id = unsafe { H5Fcreate(path.as_ptr(), H5F_ACC_TRUNC, creation.id(), access.id()) };
    session.own("create", "the file", id)
}

/// Opens the file at `path`.
pub(super) fn open<'s>(
    session: &'s Session<'_>,
    path: &CStr,
    access: Access,
) -> Result<Object<'s>, Hdf5Error> {
    let list = access_list(session)?;
    if !matches!(access, Access::ReadDisk) {
        in_memory(session, &list)?;
    }
    let flags = match access {
        Access::ReadDisk | Access::Read => H5F_ACC_RDONLY,
        Access::Allocate { alignment } => {
            // SAFETY: a live file access list. A threshold of 1 aligns every allocation, and only
            // datasets are allocated in a file opened like this.
            let status = unsafe { H5Pset_alignment(list.id(), 1, alignment) };
            session.check("set up", "alignment", status)?;
            // SAFETY: as above. Size 0: small datasets are not packed into a common block.
            let status = unsafe { H5Pset_small_data_block_size(list.id(), 0) };
            session.check("set up", "alignment", status)?;
            H5F_ACC_RDWR
        }
    };
    // SAFETY: the path ends with NUL, the property list lives and is of the class asked for.
    let id = unsafe { H5Fopen(path.as_ptr(), flags, list.id()) };
    session.own("open", "the file", id)
}

/// Closes a file that was written, so that all of it is in the file.
///
/// # Errors
/// If something could not be written, or an object of the file is still open.
pub(super) fn close(session: &Session<'_>, file: Object<'_>) -> Result<(), Hdf5Error> {
    // SAFETY: the id is live, and is given up by its owner.
    let status = unsafe { H5Fclose(file.into_id()) };
    session.check("close", "the file", status).map(drop)
}

/// Creates a group.
pub(super) fn create_group<'s>(
    session: &'s Session<'_>,
    at: &Object<'_>,
    name: &str,
) -> Result<Object<'s>, Hdf5Error> {
    let creation = creation_list(session, *H5P_CLS_GROUP_CREATE)?;
    compact_links(session, &creation)?;
    let c_name = c_string(session, name)?;
    // SAFETY: location and property list live, the name ends with NUL.
    let id = unsafe { H5Gcreate2(at.id(), c_name.as_ptr(), H5P_DEFAULT, creation.id(), H5P_DEFAULT) };
    session.own("create", name, id)
}

/// Opens the root group, which carries the attributes of a file.
pub(super) fn root<'s>(session: &'s Session<'_>, file: &Object<'_>) -> Result<Object<'s>, Hdf5Error> {
    // SAFETY: the file lives, the name ends with NUL.
    let id = unsafe { H5Gopen2(file.id(), c"/".as_ptr(), H5P_DEFAULT) };
    session.own("open", "/", id)
}

/// Links `name` in a group to the root of another file, by path.
pub(super) fn link_file(
    session: &Session<'_>,
    at: &Object<'_>,
    name: &str,
    target: &str,
) -> Result<(), Hdf5Error> {
    let c_name = c_string(session, name)?;
    let c_target = c_string(session, target)?;
    // SAFETY: the group lives, all texts end with NUL. The target is not opened by this.
    let status = unsafe {
        H5Lcreate_external(
            c_target.as_ptr(),
            c"/".as_ptr(),
            at.id(),
            c_name.as_ptr(),
            H5P_DEFAULT,
            H5P_DEFAULT,
        )
    };
    session.check("link", name, status).map(drop)
}

/// Checks that every step of `path` is a hard link: an object of this file and no other.
pub(super) fn require_own_object(
    session: &Session<'_>,
    file: &Object<'_>,
    path: &str,
) -> Result<(), Hdf5Error> {
    let ends = path.match_indices('/').map(|(at, _)| at).filter(|&at| at > 0).chain([path.len()]);
    for step in ends.map(|end| &path[..end]) {
        let c_step = c_string(session, step)?;
        // SAFETY: the file lives, the name ends with NUL.
        let exists = unsafe { H5Lexists(file.id(), c_step.as_ptr(), H5P_DEFAULT) };
        if session.check("look up", step, exists)? == 0 {
            return Err(session.mismatch(step, "the object", "missing", "a dataset or group"));
        }
        let mut first_byte = 0_u8;
        let to = (&raw mut first_byte).cast::<c_void>();
        // This call reads what a soft or external link points to and fails for a hard link. (The one
        // that tells a link's type is not the same in all versions of HDF5.)
        // SAFETY: the file lives, the name ends with NUL, one byte at most is written to `to`.
        let status = unsafe { H5Lget_val(file.id(), c_step.as_ptr(), to, 1, H5P_DEFAULT) };
        if status >= 0 {
            return Err(session.mismatch(step, "the link", "a soft or external one", "a hard one"));
        }
    }
    Ok(())
}

/// A property list for creating datasets.
pub(super) fn dataset_creation_list<'s>(session: &'s Session<'_>) -> Result<Object<'s>, Hdf5Error> {
    creation_list(session, *H5P_CLS_DATASET_CREATE)
}

/// A property list for creating objects, without what would differ from one time to the next.
fn creation_list<'s>(
    session: &'s Session<'_>,
    class: ::hdf5_sys::h5i::hid_t,
) -> Result<Object<'s>, Hdf5Error> {
    let list = property_list(session, class)?;
    // SAFETY: a live object creation list.
    let status = unsafe { H5Pset_obj_track_times(list.id(), 0) };
    session.check("set up", "creation", status)?;
    // SAFETY: as above.
    let status = unsafe { H5Pset_attr_phase_change(list.id(), COMPACT_MAX, COMPACT_MAX / 2) };
    session.check("set up", "creation", status)?;
    Ok(list)
}

/// Makes a group keep its links in its header.
fn compact_links(session: &Session<'_>, list: &Object<'_>) -> Result<(), Hdf5Error> {
    // SAFETY: a live group creation list; a file's creation list is one for its root.
    let status = unsafe { H5Pset_link_phase_change(list.id(), COMPACT_MAX, COMPACT_MAX / 2) };
    session.check("set up", "creation", status).map(drop)
}

/// A property list for opening files: formats of HDF5 1.10, no locks, and nothing open after close.
fn access_list<'s>(session: &'s Session<'_>) -> Result<Object<'s>, Hdf5Error> {
    let list = property_list(session, *H5P_CLS_FILE_ACCESS)?;
    let id = list.id();
    // SAFETY: a live file access list.
    let status =
        unsafe { H5Pset_libver_bounds(id, H5F_libver_t::H5F_LIBVER_V110, H5F_libver_t::H5F_LIBVER_V110) };
    session.check("set up", "format versions", status)?;
    // SAFETY: as above.
    let status = unsafe { H5Pset_file_locking(id, 0, 1) };
    session.check("set up", "file locking", status)?;
    // SAFETY: as above.
    let status = unsafe { H5Pset_fclose_degree(id, H5F_close_degree_t::H5F_CLOSE_SEMI) };
    session.check("set up", "closing", status)?;
    Ok(list)
}

/// Makes a file access list one for files in memory.
///
/// HDF5's default driver wants to know what the path's symbolic links lead to, which for memory is
/// nothing. The driver over C streams opens the path and asks no more.
fn in_memory(session: &Session<'_>, list: &Object<'_>) -> Result<(), Hdf5Error> {
    // SAFETY: a live file access list.
    let status = unsafe { H5Pset_fapl_stdio(list.id()) };
    session.check("set up", "the file driver", status).map(drop)
}

fn property_list<'s>(
    session: &'s Session<'_>,
    class: ::hdf5_sys::h5i::hid_t,
) -> Result<Object<'s>, Hdf5Error> {
    // SAFETY: `class` is one of the library's own classes.
    let id = unsafe { H5Pcreate(class) };
    session.own("create", "a property list", id)
}

/// A name for HDF5.
pub(super) fn c_string(session: &Session<'_>, text: &str) -> Result<CString, Hdf5Error> {
    CString::new(text).map_err(|_| Hdf5Error::Spec {
        file: session.file(),
        what: "a name",
        found: format!("{text:?}"),
        expected: "no NUL character".to_owned(),
    })
}
