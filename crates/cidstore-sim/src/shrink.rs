//! The shortest history that still fails.

use crate::generate::{Action, Live, Plan};
use crate::history::run;

/// Leaves out whatever is not needed for the failure: actions, and what happens beside them. Which
/// failure it is does not matter: mostly it stays the same.
pub fn shortest(mut plan: Plan) -> Plan {
    let size = |plan: &Plan| plan.actions.iter().map(|action| 1 + beside_of(action)).sum::<usize>();
    loop {
        let before = size(&plan);
        leave_out(&mut plan, |plan| Some(&mut plan.actions));
        for i in 0..plan.actions.len() {
            leave_out(&mut plan, |plan| beside(&mut plan.actions[i]));
        }
        if size(&plan) == before {
            return plan;
        }
    }
}

/// What happens beside an action, if it is one of the maintainer's.
fn beside(action: &mut Action) -> Option<&mut Vec<(u64, Live)>> {
    match action {
        Action::Step(beside) | Action::Checkpoint(beside) | Action::Merge(_, beside) => Some(beside),
        _ => None,
    }
}

fn beside_of(action: &Action) -> usize {
    match action {
        Action::Step(beside) | Action::Checkpoint(beside) | Action::Merge(_, beside) => beside.len(),
        _ => 0,
    }
}

/// Leaves out parts of a list, half of it at first, then one at a time.
fn leave_out<T>(plan: &mut Plan, list: impl Fn(&mut Plan) -> Option<&mut Vec<T>>) {
    let len = |plan: &mut Plan| list(plan).map_or(0, |list| list.len());
    let mut width = len(plan).div_ceil(2);
    while width > 0 {
        let mut at = 0;
        while at < len(plan) {
            let mut shorter = plan.clone();
            if let Some(list) = list(&mut shorter) {
                let end = list.len().min(at + width);
                list.drain(at..end);
            }
            if run(&shorter, 0).is_err() {
                *plan = shorter;
            } else {
                at += width;
            }
        }
        width /= 2;
    }
}
