//! `backup` and `restore`: what people and programs see of them.

use crate::args::{Backup, Restore};
use crate::endpoints::Connection;
use crate::exit::Failure;
use crate::meter::{Meter, show, size};
use crate::sealing;
use cidstore_admin::HeldError;
use cidstore_admin::backup::{
    self, BackupError, BackupOptions, BackupReport, Listed, Method, RestoreOptions, RestoreReport,
};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::path::Path;
use std::time::SystemTime;

type Outcome = Result<(), Failure>;

fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

fn failed(error: &BackupError) -> Failure {
    match error {
        BackupError::Store(HeldError::Other { .. }) => Failure::Usage(error.to_string()),
        _ => Failure::Local(error.to_string()),
    }
}

pub fn backup(connection: &Connection, args: &Backup, json: bool) -> Outcome {
    if args.list {
        return list(args, json);
    }
    let catalog = args.store.catalog()?;
    let sealed = if args.no_checkpoint { None } else { sealing::seal(connection, &catalog)? };
    let options = BackupOptions {
        copy: args.copy,
        verify: args.verify,
        at_least: sealed.unwrap_or(0),
        keep: args.keep,
        now: now(),
    };
    let mut meter = Meter::new(!args.quiet);
    let report = backup::backup(&catalog, &args.dir, options, &mut |stage| show(&mut meter, stage));
    meter.end();
    let report = report.map_err(|error| failed(&error))?;
    for unreadable in &report.unreadable {
        eprintln!("cidctl: nothing was removed: {unreadable}");
    }
    for name in &report.mended {
        eprintln!("cidctl: {name} was damaged in the backup and was replaced");
    }
    if sealed.is_none() {
        eprintln!(
            "cidctl: no checkpoint was made: the backup ends at seq {}, where the store was last sealed",
            report.manifest.seq
        );
    }
    say_backup(&report, json)
}

fn say_backup(report: &BackupReport, json: bool) -> Outcome {
    let by = |method| report.added.iter().filter(|(_, by)| *by == method).count();
    let (linked, cloned, copied) = (by(Method::Link), by(Method::Clone), by(Method::Copy));
    let manifest = &report.manifest;
    let mut out = io::stdout().lock();
    if json {
        let map = json!({
            "generation": report.generation, "seq": manifest.seq, "rows": manifest.rows,
            "files": manifest.runs.len(), "bytes": manifest.bytes, "added": report.added.len(),
            "added_bytes": report.added_bytes, "linked": linked, "cloned": cloned, "copied": copied,
            "mended": report.mended, "pruned": report.pruned, "removed": report.removed.0,
            "removed_bytes": report.removed.1,
        });
        writeln!(out, "{map}")?;
        return Ok(());
    }
    writeln!(
        out,
        "generation {}: everything up to seq {}, {} run files, {}; {} of them new, {} ({linked} linked, {cloned} \
         cloned, {copied} copied)",
        report.generation,
        manifest.seq,
        manifest.runs.len(),
        size(manifest.bytes),
        report.added.len(),
        size(report.added_bytes),
    )?;
    if report.removed.0 > 0 || !report.pruned.is_empty() {
        let (files, bytes) = report.removed;
        writeln!(out, "removed generations {:?} and {files} run files, {}", report.pruned, size(bytes))?;
    }
    Ok(())
}

fn list(args: &Backup, json: bool) -> Outcome {
    let mut meter = Meter::new(!args.quiet);
    let listed = backup::list(&args.dir, args.verify, &mut |stage| show(&mut meter, stage));
    meter.end();
    let listed = listed.map_err(|error| failed(&error))?;
    let mut out = io::stdout().lock();
    for one in &listed {
        if json { writeln!(out, "{}", listed_json(one)) } else { writeln!(out, "{}", listed_text(one)) }?;
    }
    match listed.iter().filter(|one| one.damage.is_some()).count() {
        0 => Ok(()),
        damaged => {
            let (all, dir) = (listed.len(), args.dir.display());
            Err(Failure::Local(format!("{dir}: {damaged} of {all} generations are damaged")))
        }
    }
}

fn listed_json(one: &Listed) -> Value {
    let damage = one.damage.as_ref().map(ToString::to_string);
    let mut map = json!({"generation": one.generation, "damage": damage});
    if let Some(manifest) = &one.manifest {
        map["seq"] = manifest.seq.into();
        map["created_at"] = manifest.created_at.into();
        map["store_id"] = format!("{:032x}", u128::from_be_bytes(manifest.store_id())).into();
        map["rows"] = manifest.rows.into();
        map["files"] = manifest.runs.len().into();
        map["bytes"] = manifest.bytes.into();
    }
    map
}

fn listed_text(one: &Listed) -> String {
    let about = one.manifest.as_ref().map_or_else(String::new, |manifest| {
        format!(
            "  {}  store {:032x}  seq {}  {} run files, {}",
            utc(manifest.created_at),
            u128::from_be_bytes(manifest.store_id()),
            manifest.seq,
            manifest.runs.len(),
            size(manifest.bytes)
        )
    });
    let damage = one.damage.as_ref().map_or_else(String::new, |damage| format!("  DAMAGED: {damage}"));
    format!("{}{about}{damage}", one.generation)
}

/// A time as `2026-11-21 15:36:59 UTC`.
fn utc(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as i64;
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 1 March of year 0, in eras of 400 years: the leap day is then the last of its year.
    let day = day + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let (month, year) = (if month < 10 { month + 3 } else { month - 9 }, year + 400 * era);
    let year = year + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{date:02} {:02}:{:02}:{:02} UTC",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

pub fn restore(args: &Restore, json: bool) -> Outcome {
    let catalog = args.store.catalog()?;
    let options = RestoreOptions { generation: args.generation, link: args.link, now: now() };
    let mut meter = Meter::new(!args.quiet);
    let report = backup::restore(&args.dir, &catalog, options, &mut |stage| show(&mut meter, stage));
    meter.end();
    say_restore(&catalog, &report.map_err(|error| failed(&error))?, json)
}

fn say_restore(catalog: &Path, report: &RestoreReport, json: bool) -> Outcome {
    let manifest = &report.manifest;
    let mut out = io::stdout().lock();
    if json {
        let map = json!({
            "generation": report.generation, "seq": manifest.seq, "rows": manifest.rows,
            "files": manifest.runs.len(), "bytes": manifest.bytes, "kept": report.kept,
            "resumes_after": report.resumes_after,
        });
        writeln!(out, "{map}")?;
        return Ok(());
    }
    writeln!(
        out,
        "restored generation {} of {} to {}: everything up to seq {}, {} run files, {}. Its next mutation gets \
         seq {}, and all followers read it anew",
        report.generation,
        utc(manifest.created_at),
        catalog.display(),
        manifest.seq,
        manifest.runs.len(),
        size(manifest.bytes),
        report.resumes_after + 1,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_people_expect() {
        for (seconds, text) in [
            (0.0, "1970-01-01 00:00:00 UTC"),
            (951_782_399.9, "2000-02-28 23:59:59 UTC"),
            (951_782_400.0, "2000-02-29 00:00:00 UTC"),
            (1_735_689_599.0, "2024-12-31 23:59:59 UTC"),
            (4_107_542_400.0, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(seconds), text);
        }
    }
}
