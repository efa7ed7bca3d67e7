//! Versions of an image in a repository: what there is, what goes to another repository, and what
//! is kept.

mod list;
mod promote;
mod retention;

pub use list::{Version, versions};
pub use promote::{Promotion, promote};
pub use retention::{Kept, PrunePlan, Pruned, Reason, live_digests, plan_prune};
