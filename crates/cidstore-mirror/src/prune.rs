//! Removing from the sets what the store does not have any more, and all of sets that are not kept any more.

use crate::connect::Connection;
use crate::failure::Failure;
use crate::link::is_wrong_type;
use crate::source::RebuildSource;
use crate::sweep::absent;
use cidstore_types::TripleHash;
use redis::{Cmd, Pipeline, Value};
use std::sync::Arc;

/// Sets read at once, and of each about so many members.
const SETS_AT_ONCE: usize = 64;
const MEMBERS_AT_ONCE: usize = 200;

/// Prunes sets, each given with whether it is kept. Members that are no hashes are somebody else's.
pub(crate) async fn run(
    server: &Connection,
    sets: &[(Vec<u8>, bool)],
    source: &Arc<dyn RebuildSource>,
) -> Result<(), Failure> {
    for group in sets.chunks(SETS_AT_ONCE) {
        // Each with the next cursor of SSCAN.
        let mut open: Vec<_> = group.iter().map(|(key, is_kept)| (key, *is_kept, 0)).collect();
        while !open.is_empty() {
            open = some(server, open, source).await?;
        }
    }
    Ok(())
}

type Open<'a> = (&'a Vec<u8>, bool, u64);

/// Prunes some members of each; returns those that have more.
async fn some<'a>(
    server: &Connection,
    open: Vec<Open<'a>>,
    source: &Arc<dyn RebuildSource>,
) -> Result<Vec<Open<'a>>, Failure> {
    let mut read = Pipeline::with_capacity(open.len());
    for (key, _, cursor) in &open {
        read.cmd("SSCAN").arg(key).arg(*cursor).arg("COUNT").arg(MEMBERS_AT_ONCE);
    }
    let mut more = Vec::new();
    let (mut stale, mut asked) = (vec![Vec::new(); open.len()], Vec::new());
    for (n, ((key, is_kept, _), reply)) in open.iter().zip(server.send(&read).await?).enumerate() {
        if let Value::ServerError(error) = &reply {
            let failure = Failure::from_server(error);
            // Of another type it is no set of ours; who may not read sets keeps none.
            if is_wrong_type(error) || failure.is_forbidden && !is_kept {
                continue;
            }
            return Err(failure.at(&server.address));
        }
        let (next, members): (u64, Vec<Vec<u8>>) =
            redis::from_redis_value(reply.clone()).map_err(|_| Failure::unexpected_reply("SSCAN", &reply))?;
        let hashes = members.iter().filter_map(|member| TripleHash::parse(std::str::from_utf8(member).ok()?));
        if *is_kept {
            asked.extend(hashes.map(|hash| (n, hash)));
        } else {
            stale[n].extend(hashes);
        }
        if next != 0 {
            more.push((*key, *is_kept, next));
        }
    }
    for (n, hash) in absent(source, asked).await? {
        stale[n].push(hash);
    }
    let mut remove = Pipeline::new();
    let mut kept = Vec::new();
    for ((key, is_kept, _), hashes) in open.iter().zip(&stale).filter(|(_, hashes)| !hashes.is_empty()) {
        remove.add_command(removal(key, hashes));
        kept.push(*is_kept);
    }
    if !remove.is_empty() {
        for (reply, is_kept) in server.send(&remove).await?.into_iter().zip(kept) {
            if let Value::ServerError(error) = reply {
                let failure = Failure::from_server(&error);
                if is_kept || !failure.is_forbidden {
                    return Err(failure.at(&server.address));
                }
            }
        }
    }
    Ok(more)
}

fn removal(key: &[u8], hashes: &[TripleHash]) -> Cmd {
    let mut command = redis::cmd("SREM");
    command.arg(key);
    for hash in hashes {
        command.arg(hash.to_hex());
    }
    command
}
