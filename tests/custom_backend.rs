//! The behaviour kit on the backend of `examples/custom_backend.rs`: what an author does whose
//! backend is in a repository of its own.

#[allow(dead_code, reason = "the example's own main")]
#[path = "../examples/custom_backend.rs"]
mod custom_backend;

use std::sync::Arc;

use custom_backend::Shelf;
use deploykit::Reconciler;
use deploykit::model::ImageSpec;

deploykit_conformance::main!(simulated, |bed| {
    let shelf = bed.once(|| Shelf::new(50));
    shelf.host.image_store().lose(&ImageSpec::binary("/nonexistent/testapp"));
    bed.answered_by(shelf.host.clone());
    Ok(Arc::new(Reconciler::new(bed.faulty(shelf))))
});
