//! What a process sees of the file tree, and what it may do there.

use serde_json::{Map, Value, json};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// All the paths that were asked for; null if none was.
pub(crate) fn all<'a>(paths: impl Iterator<Item = &'a str>) -> Value {
    let seen: Map<String, Value> = paths.map(|path| (path.to_owned(), one(path))).collect();
    if seen.is_empty() { Value::Null } else { seen.into() }
}

fn one(path: &str) -> Value {
    let at = Path::new(path);
    let about = match at.symlink_metadata() {
        Ok(about) => about,
        Err(error) => return error.kind().to_string().into(),
    };
    let kind = about.file_type();
    let word = match () {
        () if kind.is_dir() => "directory",
        () if kind.is_symlink() => "link",
        () if kind.is_socket() => "socket",
        () if kind.is_fifo() => "fifo",
        () if kind.is_char_device() => "character device",
        () if kind.is_block_device() => "block device",
        () => "file",
    };
    let mut seen = json!({
        "kind": word,
        "mode": format!("{:04o}", about.mode() & 0o7777),
        "owner": format!("{}:{}", about.uid(), about.gid()),
    });
    if kind.is_symlink() {
        let target = std::fs::read_link(at).map(|it| it.display().to_string());
        seen["target"] = target.unwrap_or_default().into();
        return seen;
    }
    let writable = rustix::fs::access(at, rustix::fs::Access::WRITE_OK);
    seen["write"] =
        writable.map_or_else(|errno| errno.kind().to_string(), |()| "yes".into()).into();
    if let Ok(mount) = rustix::fs::statvfs(at) {
        let flags = rustix::fs::StatVfsMountFlags::RDONLY
            | rustix::fs::StatVfsMountFlags::NOSUID
            | rustix::fs::StatVfsMountFlags::NODEV
            | rustix::fs::StatVfsMountFlags::NOEXEC;
        seen["mount"] = format!("{:?}", mount.f_flag & flags).into();
    }
    if kind.is_dir() {
        let entries = std::fs::read_dir(at).map(|all| {
            let mut names: Vec<String> =
                all.flatten().map(|it| it.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        });
        seen["entries"] = match entries {
            Ok(names) if names.len() > 24 => "many".into(),
            Ok(names) => json!(names),
            Err(error) => error.kind().to_string().into(),
        };
    }
    seen
}
