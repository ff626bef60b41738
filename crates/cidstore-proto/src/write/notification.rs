//! The bytes of a notification.

use super::writer::Writer;
use crate::{Encoding, Notification, VERSION};
use cidstore_types::{Op, Triple};

/// The bytes of a notification: a map whose first field is `type`, so that subscribers can choose by
/// the leading bytes.
pub fn encode_notification(notification: &Notification<'_>, encoding: Encoding) -> Vec<u8> {
    let mut out = Vec::with_capacity(match notification {
        Notification::Many { triples, .. } => 64 + triples.len() * 270,
        _ => 512,
    });
    let mut to = Writer::new(&mut out, encoding);
    let (kind, entries) = match notification {
        Notification::Heartbeat { .. } => ("heartbeat", 4),
        Notification::One { op: Op::Insert, .. } => ("insert", 5),
        Notification::One { op: Op::Delete, .. } => ("delete", 5),
        Notification::Many { op: Op::Insert, .. } => ("batch_insert", 5),
        Notification::Many { op: Op::Delete, .. } => ("batch_delete", 5),
        Notification::Rejected { .. } => ("rejected", 5),
        Notification::Mirror { .. } => ("mirror", 4),
    };
    to.map(entries);
    to.key("type");
    to.str(kind);
    match notification {
        Notification::Heartbeat { seq, time } => {
            to.key("seq");
            to.uint(*seq);
            to.key("time");
            to.float(*time);
        }
        Notification::One { triple, seq, .. } => {
            to.key("args");
            args(&mut to, triple);
            to.key("seq");
            to.uint(*seq);
            to.key("triple_hash");
            to.hex(&triple.hash().0);
        }
        Notification::Many { triples, first_seq, .. } => {
            to.key("args");
            to.array(triples.len());
            for triple in *triples {
                args(&mut to, triple);
            }
            to.end_array();
            to.key("first_seq");
            to.uint(*first_seq);
            to.key("seq");
            to.uint((first_seq + triples.len() as u64).saturating_sub(1));
        }
        Notification::Rejected { request_id, code, message } => {
            to.key("request_id");
            match request_id {
                Some(id) => to.request_id(id),
                None => to.nil(),
            }
            to.key("error_code");
            to.uint(code.number().into());
            to.key("error_msg");
            to.str(message);
        }
        Notification::Mirror { state, lag } => {
            to.key("state");
            to.str(state);
            to.key("lag");
            match lag {
                Some(lag) => to.uint(*lag),
                None => to.nil(),
            }
        }
    }
    to.key("version");
    to.str(VERSION);
    to.end_map();
    out
}

fn args(to: &mut Writer<'_>, triple: &Triple) {
    to.array(3);
    for part in [triple.s(), triple.p(), triple.o()] {
        to.cid_text(part);
    }
    to.end_array();
}
