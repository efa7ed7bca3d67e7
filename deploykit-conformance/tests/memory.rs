//! The kit on the backend in memory.

use std::sync::Arc;

use deploykit_core::model::ImageSpec;
use deploykit_core::{Reconciler, memory};

deploykit_conformance::main!(simulated, |bed| {
    let host = bed.once(memory::Host::new);
    host.image_store().lose(&ImageSpec::binary("/nonexistent/testapp"));
    bed.answered_by(host.clone());
    Ok(Arc::new(Reconciler::new(bed.faulty(host))))
});
