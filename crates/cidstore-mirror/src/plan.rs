//! Where to begin, after each connect: a decision without any doing.

use crate::cursor::Position;
use cidstore_types::Seq;

/// What is owed to Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// The log after this seq.
    Tail {
        /// Redis has everything up to it.
        after: Seq,
        /// There is no epoch key yet.
        create_epoch: bool,
    },
    /// Everything, from the store.
    Rebuild {
        /// For the log line.
        why: &'static str,
        /// What is there was written in another form, and is not to be left as it is.
        replace: bool,
    },
}

/// What the epoch keys say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Epoch {
    /// Everything up to this seq is in this Redis.
    pub seq: Seq,
    /// All of it is in the form that is configured.
    pub form_fits: bool,
}

/// What is known when a connection stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    /// The epoch key of this Redis.
    pub epoch: Option<Epoch>,
    /// The newest seq that was announced in a stream.
    pub announced: Option<Seq>,
    /// This side's cursor.
    pub cursor: Position,
    /// The data has the same history as when the cursor was moved last: an epoch key that is behind
    /// only was not moved yet.
    pub same_history: bool,
    /// The newest seq that Redis may rightly know: nothing beyond it was sent yet.
    pub newest_sent: Seq,
    /// The oldest seq in the log; one beyond the newest when it is empty.
    pub log_first: Seq,
    /// Somebody wants a rebuild.
    pub rebuild_wanted: bool,
}

impl Known {
    /// Where to begin: at the lesser of cursor and epoch key, since each of them may be behind but
    /// neither is ahead of what is there; at nothing without an epoch key, since then Redis is new or
    /// has lost its data. The log must reach back to there, else the store has to tell.
    pub fn plan(self) -> Plan {
        let Self { epoch, announced, cursor, same_history, newest_sent, log_first, rebuild_wanted } = self;
        let replace = epoch.is_some_and(|epoch| !epoch.form_fits);
        let rebuild = |why| Plan::Rebuild { why, replace };
        let epoch = epoch.map(|epoch| epoch.seq);
        if cursor.rebuild_owed {
            return rebuild("an earlier rebuild was not finished");
        }
        if rebuild_wanted {
            return rebuild("somebody asked for it");
        }
        if epoch.max(announced).is_some_and(|known| known > newest_sent) {
            return rebuild("Redis knows mutations that the log has lost");
        }
        let after = match epoch {
            None => 0,
            Some(_) if same_history => cursor.seq,
            Some(epoch) => epoch.min(cursor.seq),
        };
        if replace {
            return rebuild("Redis has triples in another form than is configured");
        }
        if after + 1 >= log_first {
            return Plan::Tail { after, create_epoch: epoch.is_none() };
        }
        rebuild(match (epoch, cursor.seq) {
            (None, 0) => "Redis is new to this store",
            (None, _) => "Redis has lost its data",
            (Some(_), _) => "the log does not reach back to where Redis is",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(epoch: Option<Seq>, cursor: Seq, newest_sent: Seq, log_first: Seq) -> Known {
        let epoch = epoch.map(|seq| Epoch { seq, form_fits: true });
        let cursor = Position { seq: cursor, rebuild_owed: false };
        Known {
            epoch,
            announced: None,
            cursor,
            same_history: false,
            newest_sent,
            log_first,
            rebuild_wanted: false,
        }
    }

    fn plan(epoch: Option<Seq>, cursor: Seq, newest_sent: Seq, log_first: Seq) -> Plan {
        known(epoch, cursor, newest_sent, log_first).plan()
    }

    #[test]
    fn begins_at_the_lesser_of_cursor_and_epoch() {
        let tail = |after, create_epoch| Plan::Tail { after, create_epoch };
        assert_eq!(plan(Some(7), 9, 20, 1), tail(7, false));
        assert_eq!(plan(Some(9), 7, 20, 8), tail(7, false));
        assert_eq!(plan(None, 0, 20, 1), tail(0, true));
        // Lost data, but the log is whole.
        assert_eq!(plan(None, 9, 20, 1), tail(0, true));
        // Only the connection was lost, or the data with it.
        let known = Known { same_history: true, ..known(Some(7), 9, 20, 1) };
        assert_eq!(known.plan(), tail(9, false));
        assert!(matches!(Known { rebuild_wanted: true, ..known }.plan(), Plan::Rebuild { .. }));
        assert_eq!(Known { epoch: None, ..known }.plan(), tail(0, true));
    }

    #[test]
    fn rebuilds_when_the_log_is_not_enough() {
        let rebuilds = |plan| matches!(plan, Plan::Rebuild { .. });
        assert!(rebuilds(plan(None, 9, 20, 5)));
        assert!(rebuilds(plan(None, 0, 20, 2)));
        assert!(rebuilds(plan(Some(3), 3, 20, 5)));
        assert!(rebuilds(plan(Some(21), 20, 20, 1)));
        let cursor = Position { seq: 3, rebuild_owed: true };
        assert!(rebuilds(Known { cursor, same_history: true, ..known(Some(3), 3, 20, 1) }.plan()));
        // The epoch key is moved some moments after what it tells of.
        assert!(rebuilds(Known { announced: Some(21), ..known(Some(20), 20, 20, 1) }.plan()));
        assert!(!rebuilds(Known { announced: Some(20), ..known(Some(19), 19, 20, 1) }.plan()));
    }

    #[test]
    fn another_form_is_replaced() {
        let known = known(Some(7), 5, 20, 1);
        let replaces = |known: Known| matches!(known.plan(), Plan::Rebuild { replace: true, .. });
        assert!(!replaces(known));
        let other = Known { epoch: Some(Epoch { seq: 7, form_fits: false }), ..known };
        assert!(replaces(other));
        // Also where a rebuild is owed already.
        assert!(replaces(Known { cursor: Position { seq: 0, rebuild_owed: true }, ..other }));
        assert!(replaces(Known { newest_sent: 6, ..other }));
    }
}
