//! Mounts: `[SOURCE:]TARGET[:OPTIONS]`.
//!
//! [Specification](https://github.com/compose-spec/compose-spec/blob/main/05-services.md#short-syntax-6)

/// What is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeKind {
    /// A volume; one without a source is anonymous.
    Volume,
    /// A path of the host.
    Bind,
}

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeShort {
    /// What is mounted.
    pub kind: VolumeKind,
    /// The volume's name or the host's path.
    pub source: Option<String>,
    /// The path in the container.
    pub target: String,
    /// Whether writing is refused.
    pub read_only: bool,
    /// The propagation of a bind mount.
    pub propagation: Option<String>,
    /// The SELinux label of a bind mount: `z` or `Z`.
    pub selinux: Option<String>,
    /// Whether an empty volume is not filled from the image.
    pub nocopy: bool,
}

/// Why a text is not a mount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{spec}` is not a mount: {why}; write it like data:/var/lib/data or ./src:/src:ro")]
pub struct VolumeError {
    spec: String,
    why: &'static str,
}

/// Parses the short form. Options that are not known are ignored, as Compose does.
///
/// # Errors
/// [`VolumeError`] where a part is empty or there are too many.
pub fn parse_volume(spec: &str) -> Result<VolumeShort, VolumeError> {
    let fail = |why| Err(VolumeError { spec: spec.to_owned(), why });
    if spec.is_empty() {
        return fail("it is empty");
    }
    let parts = if spec.len() <= 2 { vec![spec] } else { parts(spec) };
    if parts.iter().any(|part| part.is_empty()) {
        return fail("a part between colons is empty");
    }
    let (source, target, options) = match parts[..] {
        [target] => (None, target, ""),
        [source, target] => (Some(source), target, ""),
        [source, target, options] => (Some(source), target, options),
        _ => return fail("it has too many colons"),
    };
    let kind = match source.is_some_and(is_path) {
        true => VolumeKind::Bind,
        false => VolumeKind::Volume,
    };
    let mut volume = VolumeShort {
        kind,
        source: source.map(str::to_owned),
        target: target.to_owned(),
        read_only: false,
        propagation: None,
        selinux: None,
        nocopy: false,
    };
    for option in options.split(',') {
        match option {
            "ro" => volume.read_only = true,
            "rw" => volume.read_only = false,
            "nocopy" => volume.nocopy = true,
            "z" | "Z" => volume.selinux = Some(option.to_owned()),
            "rprivate" | "private" | "rshared" | "shared" | "rslave" | "slave" => {
                volume.propagation = Some(option.to_owned());
            }
            _ => {}
        }
    }
    Ok(volume)
}

/// The text cut at its colons, but for those behind a drive letter and within `${…}`.
fn parts(spec: &str) -> Vec<&str> {
    let (mut parts, mut start, mut nested) = (Vec::new(), 0, 0_usize);
    for (at, c) in spec.char_indices() {
        let part = &spec[start..at];
        match c {
            '$' if spec[at + 1..].starts_with('{') => nested += 1,
            '}' => nested = nested.saturating_sub(1),
            ':' if nested == 0 && !is_drive(part) => {
                parts.push(part);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&spec[start..]);
    parts
}

fn is_drive(part: &str) -> bool {
    let mut chars = part.chars();
    chars.next().is_some_and(char::is_alphabetic) && chars.next().is_none()
}

/// Whether a source is a path and not a name.
pub(crate) fn is_path(source: &str) -> bool {
    let mut chars = source.chars();
    source.starts_with(['.', '/', '~'])
        || source.starts_with("\\\\")
        || (chars.next().is_some_and(char::is_alphabetic) && chars.next() == Some(':'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn binds_and_volumes() {
        let bind = parse_volume("~/src:/src:ro,z,rslave").unwrap();
        assert_eq!(bind.kind, VolumeKind::Bind);
        assert!(bind.read_only);
        assert_eq!(bind.selinux.as_deref(), Some("z"));
        assert_eq!(bind.propagation.as_deref(), Some("rslave"));
        let volume = parse_volume("data:/data:nocopy").unwrap();
        assert_eq!((volume.kind, volume.nocopy), (VolumeKind::Volume, true));
        assert_eq!(parse_volume("C:\\a:D:\\b").unwrap().target, "D:\\b");
    }

    #[test]
    fn what_is_no_mount() {
        for spec in ["", ":/a", "abc:", "abc::ro", "name:/a:ro:x"] {
            assert!(parse_volume(spec).is_err(), "{spec}");
        }
    }
}
