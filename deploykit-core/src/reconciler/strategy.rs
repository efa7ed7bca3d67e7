//! How many instances to start and to end next: pure arithmetic.

use crate::model::Rolling;

/// The instances of a service at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    /// How many new ones there shall be in this stage.
    pub(super) new_wanted: u32,
    /// How many old ones may stay in this stage.
    pub(super) old_wanted: u32,
    /// New ones that exist.
    pub(super) new: u32,
    /// Of these, how many count as ready.
    pub(super) new_ready: u32,
    /// Old ones that exist.
    pub(super) old: u32,
    /// Of these, how many are ready.
    pub(super) old_ready: u32,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moves {
    /// How many new ones to start.
    pub(super) start: u32,
    /// How many old ones to end, those that are not ready first.
    pub(super) end_old: u32,
    /// How many new ones to end, because there are too many.
    pub(super) end_new: u32,
}

/// The next moves of a rolling stage: at no moment are there more than wanted plus `surge`
/// instances, nor fewer than wanted less `unavailable` ready ones, as far as that lies with us.
pub(super) fn rolling(counts: Counts, rolling: Rolling) -> Moves {
    let Counts { new_wanted, old_wanted, new, new_ready, old, old_ready } = counts;
    let wanted = new_wanted + old_wanted;
    let end_new = new.saturating_sub(new_wanted);
    let room = (wanted + rolling.surge).saturating_sub(new + old);
    let start = new_wanted.saturating_sub(new).min(room);

    let excess = old.saturating_sub(old_wanted);
    let unready = old - old_ready;
    let floor = wanted.saturating_sub(rolling.unavailable);
    let spare = (new_ready + old_ready).saturating_sub(floor);
    // An old one that is not ready serves nobody, so ending it costs nothing.
    let end_old = excess.min(unready + spare);
    Moves { start, end_old, end_new }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// From any start, with every started instance getting ready, the wanted state is reached
        /// within the bounds.
        #[test]
        fn reaches_the_goal_within_bounds(
            wanted in 0u32..12, new in 0u32..15, old in 0u32..15, broken in 0u32..15,
            surge in 0u32..4, unavailable in 0u32..4,
        ) {
            prop_assume!(surge + unavailable > 0);
            let policy = Rolling { surge, unavailable };
            let mut c = Counts {
                new_wanted: wanted, old_wanted: 0, new, new_ready: new,
                old, old_ready: old - broken.min(old),
            };
            let before = c.new_ready + c.old_ready;
            let floor = wanted.saturating_sub(unavailable).min(before);
            let ceiling = (wanted + surge).max(c.new + c.old);
            for _ in 0..100 {
                let moves = rolling(c, policy);
                if moves == (Moves { start: 0, end_old: 0, end_new: 0 }) {
                    break;
                }
                let unready = c.old - c.old_ready;
                c.new = c.new + moves.start - moves.end_new;
                c.old -= moves.end_old;
                c.old_ready -= moves.end_old.saturating_sub(unready);
                c.new_ready = c.new_ready.min(c.new);
                prop_assert!(c.new + c.old <= ceiling, "{c:?}");
                prop_assert!(c.new_ready + c.old_ready >= floor, "{c:?}");
                c.new_ready = c.new;
            }
            prop_assert_eq!((c.new, c.old), (wanted, 0));
        }
    }
}
