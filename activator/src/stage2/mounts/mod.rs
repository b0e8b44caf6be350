//! What a service sees of the files: `ProtectSystem=`, `ReadWritePaths=`, `BindPaths=`,
//! `PrivateTmp=`, `RootDirectory=` and their kin, in a mount namespace of its own.
//!
//! All that is asked for is a list of [`Entry`]s ([`entries`]). It is carried out in two passes
//! ([`apply`]): first whatever is to be mounted, parents before what lies in them; then every
//! mount of the namespace gets its flags from the entry that lies deepest around it. So
//! `ReadWritePaths=` below a read-only tree, or a read-only path in that again, come out right
//! whatever the order, and a mount that was read-only before stays it.

mod apply;
mod devices;
mod entries;
mod table;

use super::directories::Place;
use super::error::{At, Failed, Stage};
use crate::manifest::{Sandbox, Stage2};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// One thing about one path, as the service sees the path.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    path: PathBuf,
    /// A path that is missing is no error.
    optional: bool,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    /// Nothing can be reached there, nor below.
    Inaccessible,
    ReadOnly,
    ReadWrite,
    NoExec,
    Exec,
    /// A tmpfs with these options.
    Temporary {
        options: String,
        read_only: bool,
    },
    /// Something else in its place. The source is as the machine sees it.
    Bind {
        source: PathBuf,
        recursive: bool,
        read_only: bool,
    },
    /// A /dev with harmless devices only.
    Devices,
    /// A /proc with these options.
    Proc(String),
    /// The message queues of the IPC namespace.
    Queues,
}

impl What {
    /// Whether something is mounted over what was there.
    fn mounts(&self) -> bool {
        !matches!(self, Self::ReadOnly | Self::ReadWrite | Self::NoExec | Self::Exec)
    }

    fn read_only(&self) -> Option<bool> {
        match self {
            Self::Inaccessible | Self::ReadOnly | Self::Devices => Some(true),
            Self::ReadWrite | Self::Proc(_) | Self::Queues => Some(false),
            Self::Temporary { read_only, .. } | Self::Bind { read_only, .. } => Some(*read_only),
            Self::NoExec | Self::Exec => None,
        }
    }

    fn no_exec(&self) -> Option<bool> {
        match self {
            Self::NoExec | Self::Devices | Self::Inaccessible => Some(true),
            Self::Exec => Some(false),
            _ => None,
        }
    }
}

/// What a unit's processes see, ready to be made.
#[derive(Debug)]
pub(super) struct View {
    entries: Vec<Entry>,
    root: Option<PathBuf>,
}

impl View {
    /// None: what the machine has. `tmp` is the folder of a private `/tmp` and `/var/tmp`.
    pub(super) fn of(
        stage2: &Stage2,
        places: &[Place<'_>],
        tmp: Option<&Path>,
        extra: &[PathBuf],
    ) -> Option<Self> {
        let Sandbox { namespaces, root_directory, .. } = &stage2.sandbox;
        let mut entries = entries::of(&stage2.sandbox, places, tmp);
        if root_directory.is_some() {
            entries::into_root(places, extra, &mut entries);
        } else {
            entries.extend(extra.iter().map(|path| Entry {
                path: path.clone(),
                optional: false,
                what: What::ReadOnly,
            }));
        }
        let wanted = !entries.is_empty() || namespaces.mounts || root_directory.is_some();
        wanted.then(|| Self { entries, root: root_directory.as_ref().map(PathBuf::from) })
    }

    /// In a mount namespace of our own.
    pub(super) fn enter(&self) -> Result<(), Failed> {
        make_sources().at(Stage::Namespace, || format!("make {INACCESSIBLE}"))?;
        apply::enter(&self.entries, self.root.as_deref())
    }
}

/// Below it, the two things that take the place of what is inaccessible.
const INACCESSIBLE: &str = "/run/rouse/inaccessible";

fn make_sources() -> io::Result<()> {
    let top = Path::new(INACCESSIBLE);
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(top)?;
    make_directory(&top.join("directory"), 0o000)?;
    let file = top.join("file");
    match std::fs::File::create_new(&file) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o000)),
    }
}

/// Unless it is there.
pub(super) fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    match std::fs::DirBuilder::new().create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        // Whatever the umask is.
        Ok(()) => std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)),
    }
}
