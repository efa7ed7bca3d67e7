//! The secrets of an app. A value comes from a file, a variable or standard input, never from an
//! argument, which every user of the machine could read.

use std::io::{Read, stdin};
use std::path::PathBuf;

use clap::Subcommand;
use deploykit::model::{AppName, SecretName};
use deploykit::{Result, SecretValue};

use crate::Backend;
use crate::file::failed;
use crate::output::{Output, table};

#[derive(Subcommand)]
pub enum SecretCommand {
    /// Add a version; the next `up` rolls the services that mount it.
    ///
    /// The value is read from standard input, less one line break at its end, where nothing else
    /// is asked for.
    Set {
        app: AppName,
        name: SecretName,
        #[command(flatten)]
        source: Source,
    },
    /// List the secrets with their newest versions.
    Ls { app: AppName },
    /// Remove every version of a secret that no kept revision uses.
    Rm { app: AppName, name: SecretName },
}

#[derive(clap::Args)]
#[group(multiple = false)]
pub struct Source {
    /// Take the value of this environment variable.
    #[arg(long, value_name = "VARIABLE")]
    from_env: Option<String>,
    /// Take the content of this file, as it is.
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
}

impl Source {
    fn read(&self) -> Result<SecretValue> {
        if let Some(variable) = &self.from_env {
            return SecretValue::from_env(variable);
        }
        if let Some(path) = &self.from_file {
            let value = std::fs::read(path).map_err(|e| failed("read", path.display(), e))?;
            return Ok(SecretValue::new(value));
        }
        let mut value = Vec::new();
        let read = stdin().read_to_end(&mut value);
        read.map_err(|e| failed("read", "standard input", e))?;
        if value.last() == Some(&b'\n') {
            value.pop();
        }
        Ok(SecretValue::new(value))
    }
}

impl SecretCommand {
    pub async fn run(&self, backend: &Backend, output: &Output) -> Result<()> {
        match self {
            Self::Set { app, name, source } => {
                let value = source.read()?;
                let deployer = backend.open().await?;
                let version = deployer.secrets(app).put(name, value).await?;
                let answer = serde_json::json!({ "secret": name, "version": version });
                output.value(&answer, || format!("{name} is at version {version}"))
            }
            Self::Ls { app } => {
                let secrets = backend.open().await?.secrets(app).list().await?;
                let answer: Vec<_> = secrets
                    .iter()
                    .map(
                        |(name, version)| serde_json::json!({ "secret": name, "version": version }),
                    )
                    .collect();
                let row =
                    |(name, version): &(SecretName, u64)| [name.to_string(), version.to_string()];
                let rows = || table(["SECRET", "VERSION"], secrets.iter().map(row).collect());
                output.value(&answer, rows)
            }
            Self::Rm { app, name } => {
                backend.open().await?.secrets(app).remove(name).await?;
                let answer = serde_json::json!({ "removed": name });
                output.value(&answer, || format!("{name} is removed"))
            }
        }
    }
}
