//! What holds for every sequence of bytes. Used by the fuzz targets and, on the seeds, by an
//! ordinary test.
#![allow(dead_code)]

use cidstore_proto::{
    Encoding, Format, Limits, ReplyKind, decode_notification, decode_reply, decode_request, encode_request,
    find_request_id,
};

/// Of bytes that come as a request: they are refused with a reason, or they are valid, and then what
/// was read can be written in every form and is read as the same again.
pub fn request(bytes: &[u8]) {
    let limits = Limits { batch_triples_max: 1000, ..Limits::default() };
    let decoded = decode_request(bytes, &limits, 1.5);
    // Who only looks for the name finds the same.
    let named =
        decoded.as_ref().map_or_else(|rejection| &rejection.request_id, |request| &request.request_id);
    assert_eq!(&find_request_id(bytes, &limits), named);
    let request = match decoded {
        Err(rejection) => return assert!(!rejection.message.is_empty()),
        Ok(request) => request,
    };
    assert_eq!(request.encoding, Encoding::of(bytes));
    for (_, form) in Format::ALL {
        let mut out = Vec::new();
        encode_request(&request.command, request.encoding, request.request_id.as_ref(), form, &mut out);
        // A form with longer CIDs may reach a limit that the original kept.
        let wide = Limits { message_bytes_max: usize::MAX, depth_max: 100, ..limits.clone() };
        assert_eq!(decode_request(&out, &wide, 1.5).as_ref(), Ok(&request), "{form:?}");
    }
}

/// Of bytes that come as a reply or notification: they are read, or an error says why not.
pub fn reply(bytes: &[u8]) {
    const KINDS: [ReplyKind; 10] = [
        ReplyKind::Pong,
        ReplyKind::Inserted,
        ReplyKind::Deleted,
        ReplyKind::Page,
        ReplyKind::Count,
        ReplyKind::Values,
        ReplyKind::Triple,
        ReplyKind::Changes,
        ReplyKind::Map,
        ReplyKind::Sealed,
    ];
    for kind in KINDS {
        if let Err(error) = decode_reply(bytes, kind) {
            assert!(!error.to_string().is_empty());
        }
    }
    let _ = decode_notification(bytes);
}
