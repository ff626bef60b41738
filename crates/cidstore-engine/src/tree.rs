//! A tournament of streams: the tree of losers of Knuth (TAOCP volume 3, 5.4.1).
//!
//! Each stream has a code, and the least code wins. Every inner node remembers who lost there, so that
//! after the winner's code has changed one match on each level finds the next winner.

/// The code of a stream that has ended.
pub const ENDED: u64 = u64::MAX;

/// A stream in the tournament.
#[derive(Debug, Clone, Copy)]
pub struct Player {
    /// The less, the better.
    pub code: u64,
    /// Its number.
    pub stream: u32,
}

/// The tournament.
pub struct Tree {
    /// The winner, then the losers: the node `i` has the nodes `2i` and `2i + 1` below it, and stream
    /// `s` of `n` enters below node `(s + n) / 2`.
    nodes: Vec<Player>,
}

/// Whether the first of two wins. `tie` decides where their codes are the same, and may give the one
/// that loses another code.
fn wins(a: &mut Player, b: &mut Player, tie: &mut impl FnMut(&mut Player, &mut Player) -> bool) -> bool {
    if a.code == b.code { tie(a, b) } else { a.code < b.code }
}

impl Tree {
    /// The tournament of streams `0..`, by their codes. `tie` says of two with the same code whether the
    /// first wins, and may give the one that loses another code.
    pub fn new(
        codes: impl ExactSizeIterator<Item = u64>,
        tie: &mut impl FnMut(&mut Player, &mut Player) -> bool,
    ) -> Self {
        let n = codes.len();
        let nobody = Player { code: ENDED, stream: 0 };
        let mut nodes = vec![nobody; n.max(1)];
        // Where a match has only one side yet, that side waits.
        let mut waits = vec![true; n.max(1)];
        for (stream, code) in codes.enumerate() {
            let mut player = Player { code, stream: stream as u32 };
            let mut at = usize::midpoint(stream, n);
            while at > 0 && !std::mem::replace(&mut waits[at], false) {
                if wins(&mut nodes[at], &mut player, tie) {
                    std::mem::swap(&mut nodes[at], &mut player);
                }
                at /= 2;
            }
            nodes[at] = player;
        }
        Self { nodes }
    }

    /// Who has the least code, [`ENDED`] when nobody is left.
    pub fn winner(&self) -> Player {
        self.nodes[0]
    }

    /// Gives the winner a new code. `tie` as in [`Tree::new`].
    pub fn replace(&mut self, code: u64, tie: &mut impl FnMut(&mut Player, &mut Player) -> bool) {
        let mut player = Player { code, stream: self.nodes[0].stream };
        let mut at = usize::midpoint(player.stream as usize, self.nodes.len());
        while at > 0 {
            let mut other = self.nodes[at];
            let other_wins = if other.code == player.code {
                tie(&mut other, &mut player)
            } else {
                other.code < player.code
            };
            // Who wins cannot be predicted, so this is written to be done without a branch.
            let (winner, loser) = (
                Player {
                    code: if other_wins { other.code } else { player.code },
                    stream: if other_wins { other.stream } else { player.stream },
                },
                Player {
                    code: if other_wins { player.code } else { other.code },
                    stream: if other_wins { player.stream } else { other.stream },
                },
            );
            self.nodes[at] = loser;
            player = winner;
            at /= 2;
        }
        self.nodes[0] = player;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn streams_come_out_in_order(mut streams in vec(vec(0u64..1000, 0..20), 0..20)) {
            // The stream in the code's last bits makes codes unique: there is no tie.
            for (i, stream) in streams.iter_mut().enumerate() {
                stream.sort_unstable();
                for code in stream {
                    *code = *code << 8 | i as u64;
                }
            }
            let mut expected: Vec<u64> = streams.concat();
            expected.sort_unstable();
            let mut rests: Vec<_> = streams.iter().map(|stream| stream.iter().copied()).collect();
            let no_tie = &mut |a: &mut Player, b: &mut Player| {
                assert_eq!((a.code, b.code), (ENDED, ENDED));
                true
            };
            let first: Vec<u64> = rests.iter_mut().map(|rest| rest.next().unwrap_or(ENDED)).collect();
            let mut tree = Tree::new(first.into_iter(), no_tie);
            for code in expected {
                let winner = tree.winner();
                prop_assert_eq!(winner.code, code);
                prop_assert_eq!(u64::from(winner.stream), code & 0xff);
                tree.replace(rests[winner.stream as usize].next().unwrap_or(ENDED), no_tie);
            }
            prop_assert_eq!(tree.winner().code, ENDED);
        }
    }
}
