//! What is rendered is what an API server takes.

use super::kubectl;

pub(crate) async fn the_api_server_takes_it_strictly() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut checked = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let rendered = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let arguments =
            ["apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename", "-"];
        let said = kubectl(&arguments, &rendered);
        checked +=
            said.lines().filter(|l| l.ends_with("serverside-applied (server dry run)")).count();
    }
    assert!(checked >= 12, "{checked} objects");
}
