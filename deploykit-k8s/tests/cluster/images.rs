//! Images that are made here.

use deploykit_core::Change;
use deploykit_core::model::*;

use super::{Bed, kubectl, web};

pub(crate) async fn files_become_an_image_that_does_not_run_as_root() {
    let bed = Bed::new().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("page"), "a page").unwrap();
    let program = Some(std::env::current_exe().unwrap());
    let copies = vec![ImageCopy::new(folder.path(), "/srv")];
    let files = ImageFiles { program, copies, ..ImageFiles::default() };
    let app = || {
        let mut app = bed.only(web());
        let web = app.services.get_mut("web").unwrap();
        // Put into the image when that is pushed.
        (web.image, web.stop_signal) = (ImageSpec::files(files.clone()), Signal::Int);
        app
    };
    bed.up(app()).await.unwrap();
    let ready = bed.deployer.prepare(app()).await.unwrap();
    let plan = bed.deployer.plan(Change::Deploy(Box::new(ready))).await.unwrap();
    assert!(plan.is_empty(), "{plan}");
    // Said by the image, which the level `restricted` goes by where the pod says nothing.
    let selector = format!("deploykit.dev/app={}", bed.app);
    let who = "jsonpath={.items[0].spec.securityContext.runAsNonRoot} \
               {.items[0].spec.securityContext.runAsUser}";
    let said = kubectl(&["get", "pods", "--selector", &selector, "--output", who], "");
    assert_eq!(said.trim(), "true");
    bed.down().await;
}
