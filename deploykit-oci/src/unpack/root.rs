//! A folder that nothing leads out of. Every step goes from an open folder to a name in it,
//! without following a link: links are read and walked here, with the folder as their root.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, XattrFlags, chownat, fchmod, fsetxattr, linkat,
    mkdirat, openat, readlinkat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::{join, split};

/// Linux's own limit.
const MOST_LINKS: u32 = 40;
const FOLDER: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

pub(super) struct Root {
    folder: OwnedFd,
    /// Only root may give files away.
    sets_owners: bool,
}

fn leads_out() -> io::Error {
    io::ErrorKind::InvalidInput.into()
}

impl Root {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let folder = openat(CWD, path, FOLDER | OFlags::DIRECTORY, Mode::empty())?;
        Ok(Self { folder, sets_owners: rustix::process::geteuid().is_root() })
    }

    /// Opens the folder at a path, making what is missing where `make` says so.
    fn walk(&self, path: &str, make: bool) -> io::Result<OwnedFd> {
        let parts = |path: &[u8]| -> Vec<Vec<u8>> {
            path.split(|b| *b == b'/').rev().map(<[u8]>::to_vec).collect()
        };
        let mut above = vec![self.folder.try_clone()?];
        let mut rest = parts(path.as_bytes());
        let mut links = 0;
        while let Some(part) = rest.pop() {
            let Some(here) = above.last() else { return Err(leads_out()) };
            let name = std::ffi::OsStr::from_bytes(&part);
            match part.as_slice() {
                b"" | b"." => continue,
                b".." if above.len() == 1 => return Err(leads_out()),
                b".." => {
                    above.pop();
                    continue;
                }
                _ => {}
            }
            let next = match openat(here, name, FOLDER, Mode::empty()) {
                Err(Errno::NOENT) if make => {
                    mkdirat(here, name, Mode::from(0o755))?;
                    openat(here, name, FOLDER, Mode::empty())?
                }
                opened => opened?,
            };
            match FileType::from_raw_mode(rustix::fs::fstat(&next)?.st_mode) {
                FileType::Directory => above.push(next),
                FileType::Symlink => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(leads_out());
                    }
                    let target = readlinkat(here, name, Vec::new())?.into_bytes();
                    if target.starts_with(b"/") {
                        above.truncate(1);
                    }
                    rest.extend(parts(&target));
                }
                _ => return Err(leads_out()),
            }
        }
        above.pop().ok_or_else(leads_out)
    }

    /// The open folder above a path, and the path's last part.
    fn parent<'p>(&self, path: &'p str, make: bool) -> io::Result<(OwnedFd, &'p str)> {
        let (folder, name) = split(path).ok_or_else(leads_out)?;
        Ok((self.walk(folder, make)?, name))
    }

    fn own(&self, folder: &OwnedFd, name: &str, owner: (u32, u32)) -> io::Result<()> {
        if self.sets_owners {
            let (user, group) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
            chownat(folder, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    pub(super) fn folder(&self, path: &str, owner: (u32, u32)) -> io::Result<()> {
        let (folder, name) = self.parent(path, true)?;
        match statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {}
            Ok(_) => {
                unlinkat(&folder, name, AtFlags::empty())?;
                mkdirat(&folder, name, Mode::from(0o700))?;
            }
            Err(_) => mkdirat(&folder, name, Mode::from(0o700))?,
        }
        self.own(&folder, name, owner)
    }

    pub(super) fn file(
        &self,
        path: &str,
        mode: u32,
        owner: (u32, u32),
        time: u64,
        attributes: &[(String, Vec<u8>)],
        content: &mut impl Read,
    ) -> io::Result<()> {
        let (folder, name) = self.parent(path, true)?;
        remove(&folder, name)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW;
        let mut file =
            File::from(openat(&folder, name, flags | OFlags::CLOEXEC, Mode::from(0o600))?);
        io::copy(content, &mut file)?;
        self.own(&folder, name, owner)?;
        // After the owner: giving a file away takes its set-user bit.
        fchmod(&file, Mode::from(mode))?;
        for (name, value) in attributes {
            // Not every file system keeps them, and not everybody may set each.
            match fsetxattr(&file, name.as_str(), value, XattrFlags::empty()) {
                Ok(()) | Err(Errno::NOTSUP | Errno::PERM | Errno::ACCESS) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(time)) {
            Some(time) => file.set_modified(time),
            None => Ok(()),
        }
    }

    pub(super) fn symlink(&self, path: &str, target: &[u8], owner: (u32, u32)) -> io::Result<()> {
        let (folder, name) = self.parent(path, true)?;
        remove(&folder, name)?;
        symlinkat(target, &folder, name)?;
        self.own(&folder, name, owner)
    }

    pub(super) fn hard_link(&self, path: &str, target: &str) -> io::Result<()> {
        let (from, original) = self.parent(target, false)?;
        let stat = statat(&from, original, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(leads_out());
        }
        let (folder, name) = self.parent(path, true)?;
        remove(&folder, name)?;
        Ok(linkat(&from, original, &folder, name, AtFlags::empty())?)
    }

    /// Removes what is at a path, if there is something.
    pub(super) fn remove(&self, path: &str) -> io::Result<()> {
        match self.parent(path, false) {
            Ok((folder, name)) => remove(&folder, name),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Removes what is in a folder, but for what is to be kept and the folders above that.
    pub(super) fn clear(&self, path: &str, keep: &BTreeSet<String>) -> io::Result<()> {
        let folder = match self.walk(path, false) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            folder => folder?,
        };
        for entry in fs::read_dir(through(&folder))? {
            let name = entry?.file_name();
            let Some(name) = name.to_str() else { return Err(leads_out()) };
            let path = join(path, name);
            let below = format!("{path}/");
            if keep.range(below.clone()..).next().is_some_and(|kept| kept.starts_with(&below)) {
                self.clear(&path, keep)?;
            } else if !keep.contains(&path) {
                remove(&folder, name)?;
            }
        }
        Ok(())
    }

    /// Sets the modes of folders, of those within others first.
    pub(super) fn set_folder_modes(&self, modes: BTreeMap<String, u32>) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for (path, mode) in modes.iter().rev() {
            // A later layer may have put something else there.
            let Ok((folder, name)) = self.parent(path, false) else { continue };
            if let Ok(found) = openat(&folder, name, flags, Mode::empty()) {
                fchmod(found, Mode::from(*mode))?;
            }
        }
        Ok(())
    }
}

/// The path of an open folder, for what the standard library does without following links.
fn through(folder: &impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", folder.as_fd().as_raw_fd()))
}

fn remove(folder: &OwnedFd, name: &str) -> io::Result<()> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => fs::remove_dir_all(through(folder).join(name)),
        Err(e) => Err(e.into()),
    }
}
