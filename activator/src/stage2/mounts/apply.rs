//! Carries the entries out.
//!
//! Whatever is bound is taken hold of before anything is mounted: a bind finds its source as the
//! machine has it, though another entry hides it. The new mount API (Linux 5.12) does all of it
//! by fds, so that no path is looked up twice with another meaning.

use super::super::error::{At, Failed, Stage};
use super::super::sys::{self, MountFlags};
use super::{Entry, INACCESSIBLE, What, devices, table};
use rustix::fs::{self, AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{self, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

type Done<T> = Result<T, Errno>;

/// An entry with its real path and what is to be mounted there.
struct Prepared {
    path: PathBuf,
    entry: Entry,
    source: Source,
}

enum Source {
    None,
    Tree(OwnedFd),
    Devices(devices::Nodes),
}

/// Makes the namespace and everything in it.
pub(super) fn enter(entries: &[Entry], root: Option<&Path>) -> Result<(), Failed> {
    // Read last, when /proc may be another.
    sys::leave_mounts().at(Stage::Namespace, || "make a mount namespace".into())?;
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount::mount_change("/", flags).at(Stage::Namespace, || "leave the machine's mounts".into())?;
    let info = std::fs::File::open("/proc/self/mountinfo")
        .at(Stage::Namespace, || "open /proc/self/mountinfo".into())?;
    let base = match root {
        Some(root) => bind_root(root)
            .at(Stage::Namespace, || format!("take {} as the root", root.display()))?,
        None => open_path("/").at(Stage::Namespace, || "open the root".into())?,
    };

    let mut prepared = vec![];
    for entry in entries {
        let failed = || format!("find {}", entry.path.display());
        prepared.extend(prepare(base.as_fd(), entry).at(Stage::Namespace, failed)?);
    }
    // Parents first; of the same path what is mounted before what is only about it.
    let depth = |it: &Prepared| it.path.components().count();
    prepared.sort_by_key(|it| (depth(it), !it.entry.what.mounts()));
    drop_hidden(&mut prepared);
    for it in &prepared {
        let path = it.entry.path.display();
        match carry_out(base.as_fd(), it) {
            Err(Errno::NOENT) if it.entry.optional => {}
            done => done.at(Stage::Namespace, || format!("mount over {path}"))?,
        }
    }
    set_flags(info, &prepared)?;
    if root.is_some() {
        change_root(base.as_fd()).at(Stage::Namespace, || "change the root".into())?;
    }
    Ok(())
}

fn open_path(path: impl rustix::path::Arg) -> Done<OwnedFd> {
    fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY, Mode::empty())
}

/// A mount of its own, which pivot_root(2) wants.
fn bind_root(root: &Path) -> Done<OwnedFd> {
    let tree = clone_tree(CWD, root, true)?;
    place(&tree, open_path(root)?.as_fd())?;
    open_path(root)
}

fn change_root(base: BorrowedFd) -> Done<()> {
    rustix::process::fchdir(base)?;
    rustix::process::pivot_root(".", ".")?;
    mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")
}

/// None if the path is missing and may be.
fn prepare(base: BorrowedFd, entry: &Entry) -> Done<Option<Prepared>> {
    let source = match &entry.what {
        What::Bind { source, recursive, .. } => match clone_tree(CWD, source, *recursive) {
            Ok(tree) => Source::Tree(tree),
            Err(Errno::NOENT) if entry.optional => return Ok(None),
            Err(errno) => return Err(errno),
        },
        What::Devices => Source::Devices(devices::Nodes::take()?),
        _ => Source::None,
    };
    let found = match find(base, &entry.path) {
        Err(Errno::NOENT) => match (&source, &entry.what) {
            // Where it is to appear is made, as systemd does.
            (Source::Tree(tree), _) => make_target(base, &entry.path, is_directory(tree.as_fd())),
            (_, What::Temporary { .. }) if !entry.optional => make_target(base, &entry.path, true),
            _ => Err(Errno::NOENT),
        },
        found => found,
    };
    let found = match found {
        Ok(found) => found,
        Err(Errno::NOENT | Errno::ROFS) if entry.optional => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let source = match entry.what {
        What::Inaccessible => {
            let kind = if is_directory(found.as_fd()) { "directory" } else { "file" };
            Source::Tree(clone_tree(CWD, &Path::new(INACCESSIBLE).join(kind), false)?)
        }
        _ => source,
    };
    let path = path_of(found.as_fd())?;
    Ok(Some(Prepared { path, entry: entry.clone(), source }))
}

/// Links are followed, but never out of the root.
fn find(base: BorrowedFd, path: &Path) -> Done<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    fs::openat2(base, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)
}

/// Where a file really is, as we see it.
fn path_of(fd: BorrowedFd) -> Done<PathBuf> {
    use std::os::fd::AsRawFd;
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    std::fs::read_link(link)
        .map_err(|error| Errno::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO)))
}

fn make_target(base: BorrowedFd, path: &Path, directory: bool) -> Done<OwnedFd> {
    let mut at = PathBuf::from("/");
    let names: Vec<Component<'_>> =
        path.components().filter(|it| matches!(it, Component::Normal(_))).collect();
    for (index, name) in names.iter().enumerate() {
        let parent = find(base, &at)?;
        at.push(name);
        if find(base, &at).is_ok() {
            continue;
        }
        let name = name.as_os_str();
        if index + 1 < names.len() || directory {
            fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
        } else {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644))?;
        }
    }
    find(base, path)
}

fn is_directory(fd: BorrowedFd) -> bool {
    fs::fstat(fd).is_ok_and(|it| fs::FileType::from_raw_mode(it.st_mode).is_dir())
}

pub(super) fn clone_tree(at: BorrowedFd, path: &Path, recursive: bool) -> Done<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    mount::open_tree(at, path, flags)
}

/// Mounts a tree over what an fd is of.
pub(super) fn place(tree: &OwnedFd, over: BorrowedFd) -> Done<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    mount::move_mount(tree, "", over, "", flags)
}

/// Below what is inaccessible nothing has to be done.
fn drop_hidden(prepared: &mut Vec<Prepared>) {
    let hidden: Vec<PathBuf> = prepared
        .iter()
        .filter(|it| it.entry.what == What::Inaccessible)
        .map(|it| it.path.clone())
        .collect();
    prepared.retain(|it| {
        !hidden.iter().any(|top| it.path.starts_with(top) && it.path != *top)
            && (it.entry.what == What::Inaccessible || !hidden.contains(&it.path))
    });
}

fn carry_out(base: BorrowedFd, it: &Prepared) -> Done<()> {
    // Again, since another may lie over it by now; it is a path without links.
    let over = match (reopen(base, it), &it.source) {
        // What was there lies under another mount now.
        (Err(Errno::NOENT), Source::Tree(tree)) => {
            make_target(base, &inside(base, it)?, is_directory(tree.as_fd()))?
        }
        (over, _) => over?,
    };
    match (&it.entry.what, &it.source) {
        (_, Source::Tree(tree)) => place(tree, over.as_fd()),
        (_, Source::Devices(nodes)) => nodes.mount(over.as_fd()),
        (What::Temporary { options, .. }, _) => place(&temporary(options)?, over.as_fd()),
        (What::Proc(options), _) => place(&file_system("proc", options)?, over.as_fd()),
        (What::Queues, _) => place(&file_system("mqueue", "")?, over.as_fd()),
        // Only a mount can have flags of its own.
        _ if is_mount(over.as_fd())? => Ok(()),
        _ => {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC
                | OpenTreeFlags::AT_RECURSIVE
                | OpenTreeFlags::AT_EMPTY_PATH;
            place(&mount::open_tree(&over, "", flags)?, over.as_fd())
        }
    }
}

fn reopen(base: BorrowedFd, it: &Prepared) -> Done<OwnedFd> {
    find(base, &inside(base, it)?)
}

/// The entry's path as it is in the root.
fn inside(base: BorrowedFd, it: &Prepared) -> Done<PathBuf> {
    let root = path_of(base)?;
    let inside = it.path.strip_prefix(&root).map_err(|_| Errno::NOENT)?;
    Ok(Path::new("/").join(inside))
}

fn is_mount(fd: BorrowedFd) -> Done<bool> {
    let found = fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
    Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// A tmpfs with mount(8)'s options.
pub(super) fn temporary(options: &str) -> Done<OwnedFd> {
    file_system("tmpfs", options)
}

fn file_system(kind: &str, options: &str) -> Done<OwnedFd> {
    let context = mount::fsopen(kind, mount::FsOpenFlags::FSOPEN_CLOEXEC)?;
    let mut flags = mount::MountAttrFlags::MOUNT_ATTR_NOSUID;
    if kind != "tmpfs" {
        flags |= mount::MountAttrFlags::MOUNT_ATTR_NOEXEC | mount::MountAttrFlags::MOUNT_ATTR_NODEV;
    } else {
        flags |= mount::MountAttrFlags::MOUNT_ATTR_NODEV;
    }
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            // The flags of a mount, which are none of the file system's; `ro` comes later.
            "ro" | "rw" | "nodev" | "strictatime" => {}
            "nosuid" => flags |= mount::MountAttrFlags::MOUNT_ATTR_NOSUID,
            "suid" => flags -= mount::MountAttrFlags::MOUNT_ATTR_NOSUID,
            "dev" => flags -= mount::MountAttrFlags::MOUNT_ATTR_NODEV,
            "noexec" => flags |= mount::MountAttrFlags::MOUNT_ATTR_NOEXEC,
            "exec" => flags -= mount::MountAttrFlags::MOUNT_ATTR_NOEXEC,
            "noatime" => flags |= mount::MountAttrFlags::MOUNT_ATTR_NOATIME,
            option => match option.split_once('=') {
                Some((key, value)) => mount::fsconfig_set_string(context.as_fd(), key, value)?,
                None => mount::fsconfig_set_flag(context.as_fd(), option)?,
            },
        }
    }
    if kind == "tmpfs" && !options.split(',').any(|option| option.starts_with("mode=")) {
        mount::fsconfig_set_string(context.as_fd(), "mode", "0755")?;
    }
    mount::fsconfig_create(context.as_fd())?;
    mount::fsmount(context.as_fd(), mount::FsMountFlags::FSMOUNT_CLOEXEC, flags)
}

/// Every mount that can be reached gets the flags of the deepest entry around it.
fn set_flags(mut info: std::fs::File, prepared: &[Prepared]) -> Result<(), Failed> {
    let mut text = vec![];
    io::Read::read_to_end(&mut info, &mut text)
        .at(Stage::Namespace, || "read /proc/self/mountinfo".into())?;
    for mounted in table::parse(&text) {
        let flags = MountFlags {
            read_only: deepest(prepared, &mounted.path, What::read_only) == Some(true),
            no_exec: deepest(prepared, &mounted.path, What::no_exec) == Some(true),
        };
        if flags != MountFlags::default() {
            set_flags_of(&mounted, flags)
                .at(Stage::Namespace, || format!("protect {}", mounted.path.display()))?;
        }
    }
    Ok(())
}

/// What the last of the deepest entries around a path says.
fn deepest(
    prepared: &[Prepared],
    path: &Path,
    says: impl Fn(&What) -> Option<bool>,
) -> Option<bool> {
    let around = prepared.iter().filter(|it| path.starts_with(&it.path));
    let told = around.filter_map(|it| Some((it.path.components().count(), says(&it.entry.what)?)));
    told.max_by_key(|(depth, _)| *depth).map(|(_, said)| said)
}

fn set_flags_of(mounted: &table::Mounted, flags: MountFlags) -> Done<()> {
    let open = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = match fs::openat(CWD, &mounted.path, open, Mode::empty()) {
        // It lies under another mount, where nobody can reach it.
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        fd => fd?,
    };
    let found = fs::statx(&fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    match found.stx_mnt_id == mounted.id {
        true => sys::set_mount_flags(fd.as_fd(), flags),
        // The same.
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(path: &str, what: What) -> Prepared {
        let entry = Entry { path: path.into(), optional: false, what };
        Prepared { path: path.into(), entry, source: Source::None }
    }

    #[test]
    fn the_deepest_entry_counts_and_of_two_the_last() {
        let all = [
            prepared("/", What::ReadOnly),
            prepared("/a", What::ReadWrite),
            prepared("/a/b", What::NoExec),
            prepared("/a/b/c", What::ReadOnly),
            prepared("/d", What::ReadWrite),
            prepared("/d", What::ReadOnly),
        ];
        let read_only = |path: &str| deepest(&all, Path::new(path), What::read_only);
        let found = ["/", "/x", "/a", "/a/b", "/a/b/c/d", "/ab", "/d/e"].map(read_only);
        let expected = [true, true, false, false, true, true, true].map(Some);
        assert_eq!(found, expected);
        assert_eq!(deepest(&all, Path::new("/a/b/c"), What::no_exec), Some(true));
        assert_eq!(deepest(&all, Path::new("/a"), What::no_exec), None);
    }

    #[test]
    fn what_lies_in_the_inaccessible_is_left_out() {
        let mut all = vec![
            prepared("/a", What::Inaccessible),
            prepared("/a", What::ReadOnly),
            prepared("/a/b", What::ReadWrite),
            prepared("/ab", What::ReadWrite),
        ];
        drop_hidden(&mut all);
        let left: Vec<&Path> = all.iter().map(|it| it.path.as_path()).collect();
        assert_eq!(left, [Path::new("/a"), Path::new("/ab")]);
    }
}
