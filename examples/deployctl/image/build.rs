//! Building an image.

use std::path::PathBuf;

use deploykit::model::ImageSpec;
use deploykit::oci::spec::Platform;
use deploykit::oci::{Compression, Images, Layout, Reference, RegistryClient};
use deploykit::{Error, ErrorKind, Result};

use super::{platform, reference, said, watched};
use crate::file;
use crate::output::Output;

#[derive(clap::Args)]
pub struct BuildArguments {
    /// What the image is called, like registry.example/shop/web:1.2
    #[arg(value_parser = reference)]
    name: Reference,
    #[command(flatten)]
    source: Source,
    /// The platform of an image of files, like linux/arm64 [default: this machine's]
    #[arg(long, value_name = "OS/ARCHITECTURE", value_parser = platform, conflicts_with = "binary")]
    platform: Option<Platform>,
    /// Compress with zstd, which Docker takes from 23.0.
    #[arg(long)]
    zstd: bool,
    /// Push it, too.
    #[arg(long)]
    push: bool,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// This program, with the libraries that it names and a /tmp.
    #[arg(long, value_name = "PROGRAM")]
    binary: Option<PathBuf>,
    /// What this file says, as YAML or JSON: the `image` of a service, like
    /// `files: {copies: [{from: static, to: /srv}], entrypoint: [/srv/run]}`; `-` for standard
    /// input.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Source {
    fn image(&self) -> Result<ImageSpec> {
        match (&self.binary, &self.file) {
            (Some(program), _) => Ok(ImageSpec::binary(program)),
            (None, Some(path)) => {
                let text = file::text(path)?;
                serde_saphyr::from_str(&text).map_err(|e| {
                    Error::new(ErrorKind::Invalid, "read the image's file", e.to_string())
                        .with("file", path.display())
                })
            }
            (None, None) => {
                // clap asks for one of the two.
                Err(Error::new(ErrorKind::Invalid, "build an image", "nothing to build it of"))
            }
        }
    }
}

impl BuildArguments {
    pub async fn run(
        &self,
        store: &Layout,
        client: &RegistryClient,
        output: &Output,
    ) -> Result<()> {
        let image = self.source.image()?;
        let client = watched(client, output);
        let mut images = Images::new(store.clone(), client.clone());
        if let Some(platform) = &self.platform {
            images = images.platform(platform.clone());
        }
        if self.zstd {
            images = images.compression(Compression::Zstd);
        }
        let name = self.name.clone().pinned();
        let built = images.build_as(&image, self.push.then_some(&name)).await?;
        // Before the answer: bars end with it.
        drop((client, images));
        store.tag(&name.to_string(), &built)?;
        said(if self.push { "pushed" } else { "built" }, &name, &built, output)
    }
}
