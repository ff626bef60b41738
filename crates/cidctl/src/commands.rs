//! The commands that are one question and its answer.

use crate::args::{Changes, Delete, Get, PatternArgs, Put, Query, TripleArgs};
use crate::exit::Failure;
use crate::labels;
use crate::terms::parse_term;
use cidstore_client::{Change, Client, QueryOptions};
use cidstore_types::{Cid, Metadata, Op, Pattern, Triple, TripleHash};
use serde_json::{Map, Value, json};
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Instant;

type Outcome = Result<(), Failure>;

/// Rows asked for at a time when everything is wanted.
const PAGE_ROWS: u64 = 10_000;

/// Prints one line: `text` for people, `value` for programs.
pub fn say(json: bool, text: &str, value: &Value) -> Outcome {
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{value}")?;
    } else {
        writeln!(out, "{text}")?;
    }
    Ok(())
}

fn pattern(args: &PatternArgs) -> Pattern {
    Pattern { s: args.s.0, p: args.p.0, o: args.o.0 }
}

fn triple(args: &TripleArgs) -> Triple {
    Triple::new(args.s.cid, args.p.cid, args.o.cid)
}

pub fn ping(client: &mut Client, json: bool) -> Outcome {
    let start = Instant::now();
    let time = client.ping()?;
    let millis = start.elapsed().as_secs_f64() * 1e3;
    say(json, &format!("ok, {millis:.2} ms"), &json!({"status": "ok", "time": time, "ms": millis}))
}

pub fn put(client: &mut Client, args: &Put, json: bool) -> Outcome {
    let provenance = match &args.provenance {
        None => None,
        Some(text) => Some(
            serde_json::from_str::<Map<String, Value>>(text)
                .map_err(|error| Failure::Usage(format!("--provenance: expected a JSON map: {error}")))?,
        ),
    };
    let metadata =
        Metadata { provenance, schema_version: args.schema_version.clone(), confidence: args.confidence };
    let triple = triple(&args.triple);
    let stored = client.insert(&triple, &metadata, args.created_at)?;
    let hash = triple.hash();
    say(
        json,
        &format!("stored as {hash}, seq {}", stored.seq),
        &json!({"inserted": stored.count, "seq": stored.seq, "triple_hash": hash.to_hex()}),
    )
}

pub fn delete(client: &mut Client, args: &Delete, json: bool) -> Outcome {
    let pattern = Pattern { s: args.s.0, p: args.p.0, o: args.o.0 };
    if pattern == Pattern::ALL {
        return Err(Failure::Usage("at least one of subject, predicate and object is needed".into()));
    }
    let gone = client.delete(&pattern)?;
    say(
        json,
        &format!("deleted {}, seq {}", gone.count, gone.seq),
        &json!({"deleted": gone.count, "seq": gone.seq}),
    )
}

pub fn count(client: &mut Client, args: &PatternArgs, json: bool) -> Outcome {
    let (count, as_of) = client.count(&pattern(args))?;
    say(json, &count.to_string(), &json!({"count": count, "as_of": as_of}))
}

pub fn get(client: &mut Client, args: &Get, json: bool) -> Outcome {
    let hash = match &*args.what {
        [hash] => TripleHash::parse(hash)
            .ok_or_else(|| Failure::Usage(format!("{hash:?}: expected a triple hash, 64 hex digits")))?,
        [s, p, o] => {
            let part = |text: &String| parse_term(text).map(|term| term.cid).map_err(Failure::Usage);
            Triple::new(part(s)?, part(p)?, part(o)?).hash()
        }
        _ => return Err(Failure::Usage("expected a triple hash, or subject, predicate and object".into())),
    };
    let record = client.get(&hash)?.ok_or(Failure::NothingFound)?;
    let pretty = serde_json::to_string_pretty(&record).expect("JSON values serialize");
    say(json, &pretty, &record)
}

pub fn checkpoint(client: &mut Client, json: bool) -> Outcome {
    let seq = client.checkpoint()?;
    say(json, &format!("sealed up to seq {seq}"), &json!({"status": "ok", "seq": seq}))
}

pub fn stats(client: &mut Client, metrics: bool, json: bool) -> Outcome {
    let map = if metrics { client.metrics()? } else { client.stats()? };
    let mut text = String::new();
    flatten(&mut text, "", &map);
    say(json, text.trim_end(), &map)
}

/// Nested maps as lines of `a.b value`.
fn flatten(text: &mut String, path: &str, value: &Value) {
    if let Value::Object(map) = value {
        for (name, value) in map {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            flatten(text, &path, value);
        }
    } else {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        writeln!(text, "{path:<40} {value}").expect("writing to a string");
    }
}

pub fn cid(terms: &[crate::terms::TermArg], hex: bool, json: bool) -> Outcome {
    for term in terms {
        let shown = if hex { term.cid.to_hex() } else { term.cid.to_string() };
        let value = json!({"cid": term.cid.to_string(), "hex": term.cid.to_hex(), "term": term.text});
        say(json, &shown, &value)?;
    }
    Ok(())
}

pub fn hash(args: &TripleArgs, json: bool) -> Outcome {
    let hash = triple(args).hash().to_hex();
    say(json, &hash, &json!({"triple_hash": hash}))
}

pub fn query(client: &mut Client, args: &Query, json: bool) -> Outcome {
    let pattern = pattern(&args.pattern);
    let mut left = if args.all { u64::MAX } else { args.limit };
    let mut cursor = match &args.cursor {
        None => None,
        Some(hex) => {
            Some(from_hex(hex).ok_or_else(|| Failure::Usage("--cursor: expected hex digits".into()))?)
        }
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let mut printed = 0;
    loop {
        let options = QueryOptions { limit: left.min(PAGE_ROWS), cursor: cursor.take() };
        let page = client.query(&pattern, &options)?;
        let labels = labels_of(args.labels.as_deref(), &page.rows)?;
        for row in &page.rows {
            print_row(&mut out, row, labels.as_ref(), json)?;
        }
        printed += page.rows.len() as u64;
        left -= page.rows.len() as u64;
        cursor = page.cursor;
        if cursor.is_none() || left == 0 || page.rows.is_empty() {
            if json {
                let cursor = cursor.as_deref().map(to_hex);
                let end =
                    json!({"rows": printed, "more": cursor.is_some(), "cursor": cursor, "as_of": page.as_of});
                writeln!(out, "{end}")?;
            }
            break;
        }
    }
    out.flush()?;
    if cursor.is_some() && !json {
        eprintln!("cidctl: there is more; --all prints all, --limit N more of it");
    }
    if printed == 0 { Err(Failure::NothingFound) } else { Ok(()) }
}

fn labels_of(file: Option<&Path>, rows: &[Triple]) -> Result<Option<HashMap<Cid, String>>, Failure> {
    let Some(file) = file else { return Ok(None) };
    let wanted: HashSet<Cid> = rows.iter().flat_map(|row| [row.s(), row.p(), row.o()]).collect();
    let found = labels::look_up(file, &wanted)
        .map_err(|error| Failure::Local(format!("{}: {error}", file.display())))?;
    Ok(Some(found))
}

/// With labels a row is N-Triples, except where a term is not in the file: its CID stands there.
fn print_row(
    out: &mut impl Write,
    row: &Triple,
    labels: Option<&HashMap<Cid, String>>,
    json: bool,
) -> io::Result<()> {
    let parts = [row.s(), row.p(), row.o()];
    if json {
        let mut map = Map::new();
        for (name, cid) in ["s", "p", "o"].into_iter().zip(parts) {
            map.insert(name.into(), cid.to_string().into());
        }
        if let Some(labels) = labels {
            for (name, cid) in ["s_term", "p_term", "o_term"].into_iter().zip(parts) {
                map.insert(name.into(), labels.get(&cid).cloned().into());
            }
        }
        return writeln!(out, "{}", Value::from(map));
    }
    let Some(labels) = labels else {
        let [s, p, o] = parts;
        return writeln!(out, "{s} {p} {o}");
    };
    for cid in parts {
        match labels.get(&cid) {
            Some(text) => write!(out, "{text} ")?,
            None => write!(out, "{cid} ")?,
        }
    }
    writeln!(out, ".")
}

pub fn changes(client: &mut Client, args: &Changes, json: bool) -> Outcome {
    let mut since = args.since;
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut out = BufWriter::new(io::stdout().lock());
    while left > 0 {
        let part = client.changes(since, left.min(PAGE_ROWS))?;
        if part.changes.is_empty() {
            break;
        }
        for change in part.changes.iter().take(left.try_into().unwrap_or(usize::MAX)) {
            print_change(&mut out, change, json)?;
        }
        left = left.saturating_sub(part.changes.len() as u64);
        since = part.next;
    }
    out.flush()?;
    Ok(())
}

pub fn print_change(out: &mut impl Write, change: &Change, json: bool) -> io::Result<()> {
    let op = match change.op {
        Op::Insert => "insert",
        Op::Delete => "delete",
    };
    let (seq, s, p, o) = (change.seq, change.triple.s(), change.triple.p(), change.triple.o());
    if json {
        let parts = (s.to_string(), p.to_string(), o.to_string());
        writeln!(out, "{}", json!({"seq": seq, "op": op, "s": parts.0, "p": parts.1, "o": parts.2}))
    } else {
        writeln!(out, "{seq} {op} {s} {p} {o}")
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string");
        text
    })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_survive_the_command_line() {
        let bytes = [0, 1, 0xab, 0xff];
        assert_eq!(to_hex(&bytes), "0001abff");
        assert_eq!(from_hex("0001abFF").as_deref(), Some(&bytes[..]));
        for bad in ["0", "zz", "é0"] {
            assert_eq!(from_hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn rows_with_labels_are_n_triples_as_far_as_the_labels_go() {
        let cid = |low| Cid::from_two_lanes([0, low]);
        let row = Triple::new(cid(1), cid(2), cid(3));
        let labels = HashMap::from([(cid(1), "<a:a>".to_owned()), (cid(3), "\"x y\"".to_owned())]);
        let shown = |labels: Option<&HashMap<_, _>>, json| {
            let mut out = Vec::new();
            print_row(&mut out, &row, labels, json).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(shown(None, false), "E(0,0,0,1) E(0,0,0,2) E(0,0,0,3)\n");
        assert_eq!(shown(Some(&labels), false), "<a:a> E(0,0,0,2) \"x y\" .\n");
        assert_eq!(
            shown(Some(&labels), true),
            "{\"s\":\"E(0,0,0,1)\",\"p\":\"E(0,0,0,2)\",\"o\":\"E(0,0,0,3)\",\"s_term\":\"<a:a>\",\"p_term\":null,\"o_term\":\"\\\"x y\\\"\"}\n"
        );
    }

    #[test]
    fn stats_of_any_depth_are_lines() {
        let mut text = String::new();
        flatten(&mut text, "", &json!({"a": 1, "b": {"c": "x", "d": {"e": null}}}));
        let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
        assert_eq!(lines, [["a", "1"], ["b.c", "x"], ["b.d.e", "null"]]);
    }
}
