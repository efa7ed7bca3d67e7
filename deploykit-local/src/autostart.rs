//! Bringing the apps of a folder back after a boot, by systemd.

use std::path::Path;

use deploykit_core::{Error, ErrorKind, Result};

use crate::config::LocalConfig;
use crate::error::BACKEND;
use crate::reexec::{Orders, VARIABLE};

/// Whose systemd runs the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The user's own: `~/.config/systemd/user`. It starts at the user's first login, or at the
    /// boot with `loginctl enable-linger`.
    User,
    /// The machine's: `/etc/systemd/system`. It runs as `user`.
    System,
}

/// The text of a [systemd unit](https://www.freedesktop.org/software/systemd/man/latest/systemd.service.html)
/// that runs the folder's supervisor from the boot on, which starts every app as it was.
///
/// `program` is an installed program that calls [`init`](crate::init) first, like `deployctl`;
/// `user` is whose folder it is.
///
/// ```
/// use deploykit_local::{LocalConfig, Scope, systemd_unit};
/// let config = LocalConfig::new("/srv/apps").keys("/etc/deploykit/keys");
/// let unit = systemd_unit(&config, "/usr/bin/deployctl".as_ref(), Scope::System, "deploy")?;
/// assert!(unit.contains("ExecStart=\"/usr/bin/deployctl\""));
/// assert!(unit.contains("User=deploy"));
/// # Ok::<(), deploykit_core::Error>(())
/// ```
///
/// # Errors
/// `Invalid` where a path is not absolute or holds a line break, which a unit cannot express.
pub fn systemd_unit(
    config: &LocalConfig,
    program: &Path,
    scope: Scope,
    user: &str,
) -> Result<String> {
    for path in [program, &config.folder, &config.keys] {
        let fits = path.to_str().is_some_and(|text| !text.contains(['\n', '\r']));
        if !path.is_absolute() || !fits {
            let message = format!("{} must be an absolute path in one line", path.display());
            return Err(Error::new(ErrorKind::Invalid, "write a systemd unit", message).on(BACKEND));
        }
    }
    let orders =
        Orders { folder: config.folder.clone(), keys: config.keys.clone(), detached: false };
    let orders = serde_json::to_string(&orders).map_err(|e| {
        Error::new(ErrorKind::Invalid, "write a systemd unit", e.to_string()).on(BACKEND)
    })?;
    let (run_as, wanted_by) = match scope {
        Scope::User => (String::new(), "default.target"),
        Scope::System => (format!("User={user}\n"), "multi-user.target"),
    };
    Ok(format!(
        "[Unit]\n\
         Description=DeployKit apps of {folder}\n\
         After=network.target\n\
         \n\
         [Service]\n\
         {run_as}\
         Environment={environment}\n\
         ExecStart={program}\n\
         # A supervisor that ends leaves its instances running; the next one adopts them.\n\
         KillMode=process\n\
         Restart=on-failure\n\
         \n\
         [Install]\n\
         WantedBy={wanted_by}\n",
        folder = config.folder.display().to_string().replace('%', "%%"),
        environment = quote(&format!("{VARIABLE}={orders}")),
        // A command, unlike a setting, has its variables expanded.
        program = quote(&program.display().to_string()).replace('$', "$$"),
    ))
}

/// A word as systemd reads it back: quoted, its escapes and specifiers doubled.
fn quote(word: &str) -> String {
    let escaped = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_unit_quotes_what_systemd_would_read_otherwise() {
        let config = LocalConfig::new("/srv/100% \"apps\"").keys("/keys");
        let unit = systemd_unit(&config, "/opt/my tools/ctl".as_ref(), Scope::User, "me").unwrap();
        let environment = "Environment=\"DEPLOYKIT_SUPERVISE={\\\"folder\\\":\\\"/srv/100%% \\\\\\\"apps\\\\\\\"\\\",\
             \\\"keys\\\":\\\"/keys\\\",\\\"detached\\\":false}\"\n";
        assert!(unit.contains(environment), "{unit}");
        assert!(unit.contains("ExecStart=\"/opt/my tools/ctl\"\n"), "{unit}");
        assert!(!unit.contains("User="), "{unit}");
        assert!(unit.ends_with("[Install]\nWantedBy=default.target\n"), "{unit}");
        let relative = systemd_unit(&config, "ctl".as_ref(), Scope::User, "me").unwrap_err();
        assert_eq!(relative.message(), "ctl must be an absolute path in one line");
    }
}
