//! The dialled test application as a program of its own.

fn main() -> std::process::ExitCode {
    deploykit_conformance::testapp::run()
}
