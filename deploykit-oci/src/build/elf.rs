//! What a program needs to run: its loader and its libraries, as its ELF file names them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use deploykit_core::{Error, ErrorKind, Result};
use object::elf::{
    DT_NEEDED, DT_RPATH, DT_RUNPATH, EM_386, EM_AARCH64, EM_ARM, EM_PPC64, EM_RISCV, EM_S390,
    EM_X86_64, FileHeader32, FileHeader64, Machine,
};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::{Endianness, FileKind};

use crate::error::{error, on_path};
use crate::spec::Platform;

const READ: &str = "read a program";

/// A program, and what has to lie beside it.
pub(super) struct Program {
    pub(super) platform: Platform,
    /// Paths in the image, and the files of this machine that go there.
    pub(super) libraries: BTreeMap<String, PathBuf>,
}

/// What one ELF file says.
#[derive(Debug)]
struct Needs {
    machine: Machine,
    loader: Option<String>,
    libraries: Vec<String>,
    folders: Vec<String>,
}

impl Program {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let needs = read(path)?;
        let architecture = architecture(needs.machine).ok_or_else(|| {
            not_a_program(path, format!("the machine {} is not known", needs.machine.0))
        })?;
        let platform = Platform {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            variant: None,
        };
        let mut program = Self { platform, libraries: BTreeMap::new() };
        if let Some(loader) = needs.loader.clone() {
            program.add_libraries(path, needs, &loader)?;
        }
        Ok(program)
    }

    fn add_libraries(&mut self, path: &Path, needs: Needs, loader: &str) -> Result<()> {
        let machine = needs.machine;
        let system = system_folders(machine);
        let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
        let mut missing = BTreeSet::new();
        let mut waiting = vec![(path.to_owned(), needs)];
        while let Some((user, needs)) = waiting.pop() {
            let own = needs.folders.iter().map(|folder| expand(folder, &user));
            let folders: Vec<PathBuf> = own.chain(system.iter().cloned()).collect();
            for name in needs.libraries {
                if found.contains_key(&name) || loader.ends_with(&format!("/{name}")) {
                    continue;
                }
                match find(&name, &folders, machine) {
                    Some((library, needs)) => {
                        found.insert(name, library.clone());
                        waiting.push((library, needs));
                    }
                    None => {
                        missing.insert(format!("{name} (for {})", user.display()));
                    }
                }
            }
        }
        if !Path::new(loader).is_file() {
            missing.insert(format!("{loader} (the loader)"));
        }
        if !missing.is_empty() {
            let missing: Vec<String> = missing.into_iter().collect();
            let message = format!("libraries are missing: {}", missing.join(", "));
            let wrong = error(ErrorKind::NotFound, "find a program's libraries", message);
            return Err(wrong.with("program", path.display()));
        }
        // All go where the loader looks without being told: beside the C library.
        let folder = found
            .iter()
            .find(|(name, _)| name.starts_with("libc."))
            .and_then(|(_, library)| library.parent())
            .map_or_else(|| "/lib".to_owned(), |folder| folder.display().to_string());
        self.libraries.insert(loader.to_owned(), PathBuf::from(loader));
        for (name, library) in found {
            self.libraries.insert(format!("{folder}/{name}"), library);
        }
        Ok(())
    }
}

/// The first library of this name that is for the machine.
fn find(name: &str, folders: &[PathBuf], machine: Machine) -> Option<(PathBuf, Needs)> {
    folders.iter().find_map(|folder| {
        let path = folder.join(name);
        let needs = read(&path).ok().filter(|needs| needs.machine == machine)?;
        Some((path, needs))
    })
}

/// `$ORIGIN` is the folder of the file that says it.
fn expand(folder: &str, user: &Path) -> PathBuf {
    let origin = user.parent().unwrap_or(Path::new("/")).display().to_string();
    PathBuf::from(folder.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin))
}

/// Where the loader of this machine looks: what its configuration lists, and the usual folders.
fn system_folders(machine: Machine) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    let mut files = vec![PathBuf::from("/etc/ld.so.conf")];
    if let Ok(entries) = fs::read_dir("/etc/ld.so.conf.d") {
        let mut more: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
        more.sort();
        files.extend(more);
    }
    for text in files.iter().filter_map(|file| fs::read_to_string(file).ok()) {
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        folders.extend(lines.filter(|line| line.starts_with('/')).map(PathBuf::from));
    }
    let triple = match machine {
        EM_X86_64 => "x86_64-linux-gnu",
        EM_AARCH64 => "aarch64-linux-gnu",
        EM_386 => "i386-linux-gnu",
        EM_ARM => "arm-linux-gnueabihf",
        EM_RISCV => "riscv64-linux-gnu",
        EM_S390 => "s390x-linux-gnu",
        _ => "powerpc64le-linux-gnu",
    };
    for folder in ["/lib", "/usr/lib"] {
        folders.push(Path::new(folder).join(triple));
    }
    folders.extend(["/lib64", "/usr/lib64", "/lib", "/usr/lib"].map(PathBuf::from));
    folders
}

fn architecture(machine: Machine) -> Option<&'static str> {
    Some(match machine {
        EM_X86_64 => "amd64",
        EM_AARCH64 => "arm64",
        EM_386 => "386",
        EM_ARM => "arm",
        EM_RISCV => "riscv64",
        EM_S390 => "s390x",
        EM_PPC64 => "ppc64le",
        _ => return None,
    })
}

fn not_a_program(path: &Path, why: String) -> Error {
    let message = format!("it is no Linux program: {why}");
    error(ErrorKind::Invalid, READ, message).with("path", path.display())
}

fn read(path: &Path) -> Result<Needs> {
    let bytes = fs::read(path).map_err(on_path(READ, path))?;
    let needs = match FileKind::parse(bytes.as_slice()) {
        Ok(FileKind::Elf32) => needs::<FileHeader32<Endianness>>(&bytes),
        Ok(FileKind::Elf64) => needs::<FileHeader64<Endianness>>(&bytes),
        Ok(other) => return Err(not_a_program(path, format!("{other:?} instead of ELF"))),
        Err(cause) => return Err(not_a_program(path, cause.to_string())),
    };
    needs.map_err(|cause| not_a_program(path, cause.to_string()))
}

fn needs<H: FileHeader<Endian = Endianness>>(bytes: &[u8]) -> object::read::Result<Needs> {
    let header = H::parse(bytes)?;
    let endian = header.endian()?;
    let mut needs = Needs {
        machine: header.e_machine(endian),
        loader: None,
        libraries: Vec::new(),
        folders: Vec::new(),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    for segment in header.program_headers(endian, bytes)? {
        if let Some(loader) = segment.interpreter(endian, bytes)? {
            needs.loader = Some(text(loader));
        }
    }
    let sections = header.sections(endian, bytes)?;
    let Some((dynamic, link)) = sections.dynamic(endian, bytes)? else { return Ok(needs) };
    let strings = sections.strings(endian, bytes, link)?;
    for entry in dynamic {
        let value = || entry.string(endian, strings).map(text);
        match entry.tag(endian) {
            DT_NEEDED => needs.libraries.push(value()?),
            DT_RPATH | DT_RUNPATH => {
                needs.folders.extend(value()?.split(':').map(str::to_owned));
            }
            _ => {}
        }
    }
    Ok(needs)
}
