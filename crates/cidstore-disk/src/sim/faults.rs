//! What goes wrong, and how often it did.

use std::collections::VecDeque;
use std::io::ErrorKind;

/// What a simulated medium went through so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Operations that change something: writes, syncs, names.
    pub operations: u64,
    /// Opens, maps and reads.
    pub reads: u64,
    /// Ends of the power.
    pub power_cuts: u64,
    /// Ends of the process alone.
    pub kills: u64,
    /// Parts of unsynced writes (sectors, lengths) that a power cut took.
    pub writes_lost: u64,
    /// Those that it left.
    pub writes_kept: u64,
    /// Unsynced changes of names that a power cut took.
    pub names_lost: u64,
    /// Those that it left.
    pub names_kept: u64,
    /// Operations that failed with an I/O error, power cuts apart.
    pub io_errors: u64,
    /// Operations that failed since the medium was full.
    pub full: u64,
    /// Reads that failed.
    pub read_errors: u64,
    /// Reads that returned less than there is.
    pub short_reads: u64,
    /// Bits flipped and files cut at rest.
    pub damaged: u64,
}

impl Tally {
    /// Each number with a name.
    pub fn entries(&self) -> [(&'static str, u64); 13] {
        [
            ("operations", self.operations),
            ("reads", self.reads),
            ("power_cuts", self.power_cuts),
            ("kills", self.kills),
            ("writes_lost", self.writes_lost),
            ("writes_kept", self.writes_kept),
            ("names_lost", self.names_lost),
            ("names_kept", self.names_kept),
            ("io_errors", self.io_errors),
            ("full", self.full),
            ("read_errors", self.read_errors),
            ("short_reads", self.short_reads),
            ("damaged", self.damaged),
        ]
    }
}

/// How a read fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFault {
    /// With an I/O error.
    Error,
    /// For lack of memory: nothing is wrong with the medium.
    NoMemory,
    /// It returns half of what is there.
    Short,
}

/// A change that is to fail.
#[derive(Clone, Copy)]
struct Failure {
    at: u64,
    kind: ErrorKind,
    /// So do all after it.
    for_good: bool,
    /// It stands for the end of the process or the power.
    end: bool,
}

/// Which operations are to fail, and what was done.
#[derive(Clone, Default)]
pub(super) struct Faults {
    pub(super) tally: Tally,
    change: Option<Failure>,
    read: Option<(u64, ReadFault)>,
    hit_end: bool,
    /// What was chosen to fail and was not reached yet outlives the process.
    pub(super) outlive: bool,
    /// The last operations as text, the oldest first, at most so many; kept where somebody asked.
    trace: Option<(usize, VecDeque<String>)>,
}

impl Faults {
    /// The `n`-th change from now fails; all after it as well, if `for_good`.
    pub(super) fn fail(&mut self, n: u64, kind: ErrorKind, for_good: bool) {
        self.change = Some(Failure { at: self.tally.operations + n, kind, for_good, end: false });
    }

    /// The `n`-th change from now is the last that is not done.
    pub(super) fn end(&mut self, n: u64) {
        let at = self.tally.operations + n;
        self.change = Some(Failure { at, kind: ErrorKind::Other, for_good: true, end: true });
    }

    /// The `n`-th read from now fails.
    pub(super) fn fail_read(&mut self, n: u64, fault: ReadFault) {
        self.read = Some((self.tally.reads + n, fault));
    }

    /// Nothing is to fail any more.
    pub(super) fn heal(&mut self) {
        (self.change, self.read, self.hit_end) = (None, None, false);
    }

    /// The process ends.
    pub(super) fn end_process(&mut self) {
        let reached = self.change.is_some_and(|it| it.at < self.tally.operations);
        if !self.outlive || reached {
            self.heal();
        }
    }

    /// Whether the operation chosen by [`Faults::end`] was reached.
    pub(super) fn has_ended(&self) -> bool {
        self.hit_end
    }

    /// Counts a change; how it fails, if it was chosen to.
    pub(super) fn change(&mut self) -> Option<ErrorKind> {
        let number = self.tally.operations;
        self.tally.operations += 1;
        let failure = self.change.filter(|it| it.at == number || (it.for_good && it.at < number))?;
        match (failure.end, failure.kind) {
            (true, _) => self.hit_end = true,
            (false, ErrorKind::StorageFull) => self.tally.full += 1,
            (false, _) => self.tally.io_errors += 1,
        }
        Some(failure.kind)
    }

    /// Counts a read; how it fails, if it was chosen to.
    pub(super) fn read(&mut self) -> Option<ReadFault> {
        let number = self.tally.reads;
        self.tally.reads += 1;
        let (_, fault) = self.read.take_if(|(at, _)| *at == number)?;
        match fault {
            ReadFault::Error | ReadFault::NoMemory => self.tally.read_errors += 1,
            ReadFault::Short => self.tally.short_reads += 1,
        }
        Some(fault)
    }

    pub(super) fn keep_trace(&mut self, lines: usize) {
        self.trace = Some((lines, VecDeque::new()));
    }

    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some((most, lines)) = &mut self.trace {
            if lines.len() == *most {
                lines.pop_front();
            }
            lines.push_back(format!("{:>6}  {}", self.tally.operations, line()));
        }
    }

    pub(super) fn trace(&self) -> Vec<String> {
        self.trace.iter().flat_map(|(_, lines)| lines).cloned().collect()
    }
}
