//! Starting a process: its own group, an exact environment, output straight to a file.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::logs::open_for_append;

/// The variable that names the instance a process belongs to.
pub(crate) const INSTANCE_MARKER: &str = "DEPLOYKIT_INSTANCE";
/// The variable that names the state folder (by its id) that a process belongs to.
pub(crate) const FOLDER_MARKER: &str = "DEPLOYKIT_FOLDER";

/// What to start.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) executable: PathBuf,
    /// What the program sees as its own name.
    pub(crate) name: String,
    pub(crate) args: Vec<String>,
    /// The whole environment but for the markers.
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) folder: PathBuf,
    /// Where standard output goes.
    pub(crate) out: PathBuf,
    /// Where standard error goes.
    pub(crate) err: PathBuf,
    pub(crate) instance: String,
    pub(crate) folder_id: String,
}

impl Launch {
    /// Starts it and says its pid. The caller must wait for the process.
    ///
    /// Blocks for about a millisecond.
    pub(super) fn start(&self) -> io::Result<u32> {
        let mut tries = 0;
        loop {
            match self.command()?.spawn() {
                Ok(child) => return Ok(child.id()),
                Err(e) if is_busy(&e, &mut tries) => std::thread::sleep(BUSY),
                Err(e) => return Err(e),
            }
        }
    }

    fn command(&self) -> io::Result<Command> {
        let out = open_for_append(&self.out)?;
        let err = open_for_append(&self.err)?;
        let mut command = Command::new(&self.executable);
        command
            .arg0(&self.name)
            .args(&self.args)
            .env_clear()
            .envs(&self.env)
            .env(INSTANCE_MARKER, &self.instance)
            .env(FOLDER_MARKER, &self.folder_id)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0);
        Ok(command)
    }
}

/// The pause before an executable that is busy is tried again.
const BUSY: Duration = Duration::from_millis(5);

/// Whether to try again: an executable that was just written is still open for writing in a child
/// of its writer that was forked meanwhile and has not reached its exec yet.
fn is_busy(error: &io::Error, tries: &mut u32) -> bool {
    *tries += 1;
    error.kind() == io::ErrorKind::ExecutableFileBusy && *tries < 100
}
