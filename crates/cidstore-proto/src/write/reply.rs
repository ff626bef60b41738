//! The bytes of a reply.

use super::writer::Writer;
use crate::{ChangeEntry, Encoding, Format, Reply, RequestId, VERSION};
use cidstore_types::{Cid, Metadata, Op, Triple, TripleRecord};

/// Appends a reply to `out`. Every reply is a map with `version`, with `request_id` if the request
/// had one, and with `status: "ok"` unless it is an error.
pub fn encode_reply(
    reply: &Reply<'_>,
    encoding: Encoding,
    request_id: Option<&RequestId>,
    out: &mut Vec<u8>,
) {
    let mut to = Writer::new(out, encoding);
    let own = match reply {
        Reply::Error { .. } | Reply::Pong { .. } | Reply::Sealed { .. } | Reply::Triple { .. } => 2,
        Reply::Deleted { .. } | Reply::Count { .. } | Reply::Changes { .. } | Reply::Triples { .. } => 3,
        Reply::Inserted { triple_hash, .. } => 3 + usize::from(triple_hash.is_some()),
        Reply::Page { cursor, records, format, .. } => {
            let apart = records.is_some() && *format != Format::E;
            4 + usize::from(cursor.is_some()) + usize::from(apart)
        }
        Reply::Values { cursor, .. } => 4 + usize::from(cursor.is_some()),
        Reply::Map(map) => 1 + map.len(),
    };
    to.map(own + 1 + usize::from(request_id.is_some()));
    if !matches!(reply, Reply::Error { .. }) {
        to.key("status");
        to.str("ok");
    }
    body(&mut to, reply);
    to.key("version");
    to.str(VERSION);
    if let Some(id) = request_id {
        to.key("request_id");
        to.request_id(id);
    }
    to.end_map();
}

fn body(to: &mut Writer<'_>, reply: &Reply<'_>) {
    match reply {
        Reply::Pong { time } => {
            to.key("time");
            to.float(*time);
        }
        Reply::Inserted { inserted, seq, triple_hash } => {
            number(to, "inserted", *inserted);
            number(to, "seq", *seq);
            if let Some(hash) = triple_hash {
                to.key("triple_hash");
                to.hex(&hash.0);
            }
        }
        Reply::Deleted { deleted, seq } => {
            number(to, "deleted", *deleted);
            number(to, "seq", *seq);
        }
        Reply::Page { rows, records, cursor, as_of, format } => {
            page(to, rows, *records, *format);
            end_of_page(to, *cursor, *as_of);
        }
        Reply::Count { count, as_of } => {
            number(to, "count", *count);
            number(to, "as_of", *as_of);
        }
        Reply::Values { rows, cursor, as_of } => {
            to.key("results");
            to.array(rows.len());
            for row in *rows {
                to.cid_lanes(row.o());
            }
            to.end_array();
            end_of_page(to, *cursor, *as_of);
        }
        Reply::Triple { triple } => {
            to.key("triple");
            to.value(triple);
        }
        Reply::Triples { triples, as_of } => {
            to.key("results");
            to.array(triples.len());
            for triple in *triples {
                match triple {
                    Some(triple) => to.value(triple),
                    None => to.nil(),
                }
            }
            to.end_array();
            number(to, "as_of", *as_of);
        }
        Reply::Changes { changes, next, format } => {
            to.key("changes");
            to.array(changes.len());
            for entry in *changes {
                change(to, entry, *format);
            }
            to.end_array();
            number(to, "next", *next);
        }
        Reply::Map(map) => {
            for (key, value) in *map {
                to.key(key);
                to.value(value);
            }
        }
        Reply::Sealed { seq } => number(to, "seq", *seq),
        Reply::Error { code, message } => {
            number(to, "error_code", code.number().into());
            to.key("error_msg");
            to.str(message);
        }
    }
}

fn number(to: &mut Writer<'_>, key: &str, value: u64) {
    to.key(key);
    to.uint(value);
}

fn end_of_page(to: &mut Writer<'_>, cursor: Option<&[u8]>, as_of: u64) {
    to.key("more");
    to.bool(cursor.is_some());
    if let Some(cursor) = cursor {
        to.key("cursor");
        to.bin(cursor);
    }
    number(to, "as_of", as_of);
}

pub(super) fn cid(to: &mut Writer<'_>, cid: Cid, format: Format) {
    match format {
        Format::E => to.cid_text(cid),
        Format::List => to.cid_lanes(cid),
        Format::Bin | Format::Packed => to.bin(&cid.0),
        Format::Hex => to.hex(&cid.0),
    }
}

fn page(to: &mut Writer<'_>, rows: &[Triple], records: Option<&[TripleRecord]>, format: Format) {
    to.key("results");
    if format == Format::Packed {
        to.packed(rows);
    } else {
        to.array(rows.len());
        for (i, row) in rows.iter().enumerate() {
            if format == Format::E {
                let record = records.and_then(|records| records.get(i));
                to.map(3 + record.map_or(0, record_len));
                parts(to, row, format);
                if let Some(record) = record {
                    columns(to, record.created_at, &record.metadata);
                }
                to.end_map();
            } else {
                to.array(3);
                for part in [row.s(), row.p(), row.o()] {
                    cid(to, part, format);
                }
                to.end_array();
            }
        }
        to.end_array();
    }
    if let (Some(records), true) = (records, format != Format::E) {
        to.key("metadata");
        to.array(records.len());
        for record in records {
            to.map(record_len(record));
            columns(to, record.created_at, &record.metadata);
            to.end_map();
        }
        to.end_array();
    }
}

fn parts(to: &mut Writer<'_>, row: &Triple, format: Format) {
    for (key, part) in [("s", row.s()), ("p", row.p()), ("o", row.o())] {
        to.key(key);
        cid(to, part, format);
    }
}

pub(super) fn metadata_len(metadata: &Metadata) -> usize {
    usize::from(metadata.provenance.is_some())
        + usize::from(metadata.schema_version.is_some())
        + usize::from(metadata.confidence.is_some())
}

fn record_len(record: &TripleRecord) -> usize {
    1 + metadata_len(&record.metadata)
}

/// `created_at` and what metadata there is, as entries of a map.
fn columns(to: &mut Writer<'_>, created_at: f64, metadata: &Metadata) {
    to.key("created_at");
    to.float(created_at);
    metadata_fields(to, metadata);
}

/// What metadata there is, as [`metadata_len`] entries of a map.
pub(super) fn metadata_fields(to: &mut Writer<'_>, metadata: &Metadata) {
    if let Some(provenance) = &metadata.provenance {
        to.key("provenance");
        to.map(provenance.len());
        for (key, value) in provenance {
            to.key(key);
            to.value(value);
        }
        to.end_map();
    }
    if let Some(version) = &metadata.schema_version {
        to.key("schema_version");
        to.str(version);
    }
    if let Some(confidence) = metadata.confidence {
        to.key("confidence");
        to.float(confidence);
    }
}

fn change(to: &mut Writer<'_>, entry: &ChangeEntry<'_>, format: Format) {
    let metadata = entry.metadata.map(Metadata::from_stored).unwrap_or_default();
    to.map(6 + metadata_len(&metadata));
    number(to, "seq", entry.seq);
    to.key("op");
    to.str(match entry.op {
        Op::Insert => "insert",
        Op::Delete => "delete",
    });
    parts(to, &entry.triple, format);
    columns(to, entry.created_at, &metadata);
    to.end_map();
}
