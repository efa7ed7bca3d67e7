//! Hashes that are the same in every process, and Maglev's table.

use std::sync::Arc;

use super::state::State;

/// How many places the table of Maglev has: a prime, a hundred for each of 655 instances.
const SLOTS: usize = 65_537;

/// FNV-1a (<http://www.isthe.com/chongo/tech/comp/fnv/>), its bits mixed once more.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mixed(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold), 0)
}

/// Two hashes as one, by the finaliser of SplitMix64.
pub(crate) fn mixed(one: u64, other: u64) -> u64 {
    let mut x = one ^ other.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A key's place in the table.
pub(super) fn slot(key: u64) -> usize {
    usize::try_from(key % SLOTS as u64).unwrap_or_default()
}

/// The table of section 3.4 of Maglev's paper: each instance in its turn takes the next free
/// place in an order of its own.
pub(super) fn table(states: &[Arc<State>]) -> Vec<u32> {
    const FREE: u32 = u32::MAX;
    let below = |hash: u64, limit: usize| usize::try_from(hash % limit as u64).unwrap_or_default();
    // Where each one is in its order, and its step to the next place.
    let order = |state: &Arc<State>| {
        (below(mixed(state.hash, 1), SLOTS), below(mixed(state.hash, 2), SLOTS - 1) + 1)
    };
    let mut orders: Vec<_> = states.iter().map(order).collect();
    let mut table = vec![FREE; SLOTS];
    let mut taken = 0;
    while !orders.is_empty() {
        for (instance, (place, step)) in orders.iter_mut().enumerate() {
            while table[*place] != FREE {
                *place = (*place + *step) % SLOTS;
            }
            table[*place] = u32::try_from(instance).unwrap_or_default();
            taken += 1;
            if taken == SLOTS {
                return table;
            }
        }
    }
    table
}
