//! The real cosign, as the judge.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use deploykit_oci::sign::Format;

pub struct Cosign {
    program: PathBuf,
    home: tempfile::TempDir,
}

/// A file of a key that cosign has made; the private one's password is `hunter2`.
pub fn key(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys").join(name)
}

impl Cosign {
    /// Where the program is; none where there is none, which is an error under CI.
    pub fn find() -> Option<Self> {
        let named = std::env::var_os("DEPLOYKIT_TEST_COSIGN").map(PathBuf::from);
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let found = named.or_else(|| {
            std::env::split_paths(&folders).map(|f| f.join("cosign")).find(|p| p.is_file())
        });
        let Some(program) = found else {
            let how = "name it by DEPLOYKIT_TEST_COSIGN=$(testbed/need cosign)";
            assert!(std::env::var_os("CI").is_none(), "cosign is missing; {how}");
            println!("SKIPPED: cosign is missing; {how}");
            return None;
        };
        Some(Self { program, home: tempfile::tempdir().unwrap() })
    }

    fn run(&self, args: &[&str], format: Format, image: &str) -> Output {
        let is_bundle = format!("--new-bundle-format={}", format == Format::Bundle);
        Command::new(&self.program)
            .args(args)
            .args([&is_bundle, "--allow-http-registry", image])
            .env("COSIGN_PASSWORD", "hunter2")
            .env("HOME", self.home.path())
            .output()
            .unwrap()
    }

    /// Signs an image with `tests/keys/cosign.key`, and tells no log of it.
    pub fn sign(&self, format: Format, image: &str) {
        let key = key("cosign.key");
        let args = ["sign", "--yes", "--tlog-upload=false", "--use-signing-config=false"];
        let args = [&args[..], &["--key", key.to_str().unwrap()]].concat();
        let ended = self.run(&args, format, image);
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }

    /// What it says of an image: what it has verified, or why not.
    pub fn verify(&self, format: Format, image: &str, public: &Path) -> Result<String, String> {
        let args = ["verify", "--insecure-ignore-tlog", "--key", public.to_str().unwrap()];
        let ended = self.run(&args, format, image);
        match ended.status.success() {
            true => Ok(String::from_utf8(ended.stdout).unwrap()),
            false => Err(String::from_utf8(ended.stderr).unwrap()),
        }
    }
}
