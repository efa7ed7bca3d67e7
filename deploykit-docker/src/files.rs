//! Files that are put into a container before it starts, or that an image is made of.

use std::collections::BTreeMap;

use deploykit_core::{ErrorKind, Result};

use crate::error::error;

/// Files, folders and links by their absolute paths.
#[derive(Debug, Default)]
pub(crate) struct Files(BTreeMap<String, Content>);

#[derive(Debug)]
enum Content {
    File(Vec<u8>, u32),
    Folder(u32),
    Link(String),
}

impl Files {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A file of root's, with its permissions.
    pub(crate) fn file(&mut self, path: impl Into<String>, content: impl Into<Vec<u8>>, mode: u32) {
        self.0.insert(path.into(), Content::File(content.into(), mode));
    }

    /// A folder of root's, with its permissions.
    pub(crate) fn folder(&mut self, path: impl Into<String>, mode: u32) {
        self.0.insert(path.into(), Content::Folder(mode));
    }

    /// A symbolic link.
    pub(crate) fn link(&mut self, path: String, target: String) {
        self.0.insert(path, Content::Link(target));
    }

    /// The archive that the engine unpacks at `/`, the same for the same content. Folders that are
    /// missing it makes itself.
    pub(crate) fn archive(&self) -> Result<Vec<u8>> {
        let failed = |e: std::io::Error| {
            error(ErrorKind::Invalid, "put files into a container", e.to_string())
        };
        let mut archive = tar::Builder::new(Vec::new());
        for (path, content) in &self.0 {
            let path = path.trim_start_matches('/');
            let mut header = tar::Header::new_gnu();
            header.set_mtime(0);
            match content {
                Content::File(bytes, mode) => {
                    header.set_mode(*mode);
                    header.set_size(bytes.len() as u64);
                    archive.append_data(&mut header, path, bytes.as_slice()).map_err(failed)?;
                }
                Content::Folder(mode) => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(*mode);
                    header.set_size(0);
                    archive.append_data(&mut header, path, std::io::empty()).map_err(failed)?;
                }
                Content::Link(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_mode(0o777);
                    header.set_size(0);
                    archive.append_link(&mut header, path, target).map_err(failed)?;
                }
            }
        }
        archive.into_inner().map_err(failed)
    }
}
