//! The behaviour kit that every DeployKit backend passes, and the dialled test application that
//! it deploys.
//!
//! A backend's author adds a test without the standard harness (`harness = false`), which is this
//! macro alone:
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use deploykit_core::{Reconciler, memory};
//! deploykit_conformance::main!(simulated, |bed| {
//!     let host = bed.once(memory::Host::new);
//!     bed.answered_by(host.clone());
//!     Ok(Arc::new(Reconciler::new(bed.faulty(host))))
//! });
//! ```
//!
//! The behaviours are chosen by the capabilities that the backend declares: what is declared is
//! exercised, what is not must be refused before anything is done. Options of the harness are
//! those of `cargo test`; `SEED=N` replays the faults of one seed, `DEPLOYKIT_SEEDS=N` tries N
//! of them.

pub mod apps;
mod bed;
mod behaviours;
mod client;
pub mod contract;
mod counting;
mod deployer;
mod faults;
mod faulty;
mod kit;
mod load;
mod test;
pub mod testapp;
#[cfg(feature = "vectors")]
pub mod vectors;

pub use bed::Bed;
pub use client::{Answer, Client};
pub use counting::Calls;
pub use faults::{Fault, Faults};
pub use faulty::Faulty;
pub use kit::{Connected, Kit};
pub use load::{Load, Outcome};
pub use test::Test;

/// The `main` of a test that runs the kit: see the [crate](self) for what is given to it.
///
/// The closure is async inside: it may use `.await` and `?`. `simulated` before it stands for
/// [`Kit::simulated`]; [`Kit`] has whatever else this macro leaves at its default.
#[macro_export]
macro_rules! main {
    (|$bed:ident| $connect:expr) => {
        $crate::main!(@ (std::convert::identity), $bed, $connect);
    };
    (simulated, |$bed:ident| $connect:expr) => {
        $crate::main!(@ ($crate::Kit::simulated), $bed, $connect);
    };
    (@ ($setting:path), $bed:ident, $connect:expr) => {
        fn main() -> std::process::ExitCode {
            let kit = $crate::Kit::new(|$bed: $crate::Bed| async move {
                let connected: $crate::Connected = $connect;
                connected
            });
            $setting(kit).run()
        }
    };
}
