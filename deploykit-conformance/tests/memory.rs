//! The kit on the backend in memory.

use std::process::ExitCode;
use std::sync::Arc;

use deploykit_conformance::{Bed, Connected, Kit};
use deploykit_core::model::ImageSpec;
use deploykit_core::{Reconciler, memory};

fn main() -> ExitCode {
    Kit::new(|bed: Bed| async move {
        let host = bed.once(|| {
            let host = memory::Host::new();
            host.image_store().lose(&ImageSpec::binary("/nonexistent/testapp"));
            host
        });
        bed.answered_by(host.clone());
        let connected: Connected = Ok(Arc::new(Reconciler::new(bed.faulty(host))));
        connected
    })
    .image(ImageSpec::binary("testapp"), "testapp")
    .simulated()
    .run()
}
