//! A systemd unit that brings the apps of a local backend back after a boot.

use std::path::{Path, PathBuf};

use deploykit::{Deployer, Error, ErrorKind, Result};

use crate::file;
use crate::output::Output;

/// The first line of the units that this program writes.
const MARK: &str = "# Written by deployctl autostart.";

#[derive(clap::Args)]
pub struct AutostartArguments {
    /// Where to write the unit [default: where systemd looks for the caller's own units]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl AutostartArguments {
    pub fn run(&self, deployer: &Deployer, output: &Output) -> Result<()> {
        let backend = deployer.backend();
        if backend.name() != "local" {
            let message = format!("{} brings its apps back by itself", backend.name());
            return Err(Error::new(ErrorKind::Unsupported, "write a unit", message));
        }
        let folder = backend.identity();
        let program =
            std::env::current_exe().map_err(|e| file::failed("find", "this program", e))?;
        let unit = unit(&program, &folder);
        let place = Place::of_caller();
        let path = match &self.out {
            Some(path) => path.clone(),
            None => place.folder()?.join(name(&folder)),
        };
        refuse_foreign(&path)?;
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)
                .map_err(|e| file::failed("make", parent.display(), e))?;
        }
        file::write(&path, &unit)?;
        output.value(&serde_json::json!({ "unit": path }), || {
            let shown = path.display();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            format!("{shown} is written; switch it on with\n{}", place.commands(&name))
        })
    }
}

/// Looking at a local backend starts its supervisor, which starts what shall run; both belong to
/// the unit from then on.
fn unit(program: &Path, folder: &str) -> String {
    let program = quoted(&program.display().to_string());
    let url = quoted(&format!("local://{folder}"));
    format!(
        "{MARK}\n\
         [Unit]\n\
         Description=DeployKit apps in {}\n\
         Wants=network-online.target\n\
         After=network-online.target\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         ExecStart={program} --on {url} status\n\
         \n\
         [Install]\n\
         WantedBy=default.target\n",
        folder.replace('%', "%%")
    )
}

/// A word of a command line in a unit
/// ([systemd.service(5)](https://www.freedesktop.org/software/systemd/man/latest/systemd.service.html#Command%20lines)).
fn quoted(word: &str) -> String {
    let escaped = word.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{}\"", escaped.replace('%', "%%").replace('$', "$$"))
}

/// The name of the unit of a state folder.
fn name(folder: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._".contains(c) { c } else { '-' };
    let folder: String = folder.trim_matches('/').chars().map(plain).collect();
    format!("deploykit-{folder}.service")
}

/// A unit that somebody else wrote stays.
fn refuse_foreign(path: &Path) -> Result<()> {
    match std::fs::read_to_string(path) {
        Ok(text) if !text.starts_with(MARK) => {
            let message = "there is a file that is not deployctl's; move it, or choose another \
                           place by --out";
            let error = Error::new(ErrorKind::AlreadyExists, "write a unit", message);
            Err(error.with("file", path.display()))
        }
        _ => Ok(()),
    }
}

/// Whose systemd is meant.
enum Place {
    System,
    User,
}

impl Place {
    fn of_caller() -> Self {
        if rustix::process::geteuid().is_root() { Self::System } else { Self::User }
    }

    fn folder(&self) -> Result<PathBuf> {
        match self {
            Self::System => Ok("/etc/systemd/system".into()),
            Self::User => {
                let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
                let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".config"));
                let config = config.or_else(home).ok_or_else(|| {
                    let message = "neither XDG_CONFIG_HOME nor HOME is set; name a file by --out";
                    Error::new(ErrorKind::NotFound, "find the folder of units", message)
                })?;
                Ok(config.join("systemd/user"))
            }
        }
    }

    fn commands(&self, unit: &str) -> String {
        match self {
            Self::System => format!("  systemctl daemon-reload\n  systemctl enable --now {unit}"),
            Self::User => format!(
                "  systemctl --user daemon-reload\n  systemctl --user enable --now {unit}\n  \
                 loginctl enable-linger"
            ),
        }
    }
}
