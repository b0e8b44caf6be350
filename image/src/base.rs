//! What is in every image, whatever the appliance: directories, who is root, and `/init`.

use crate::tree::{Node, Tree, TreeError};
use activator::control::Programs;

pub use activator::{ACTIVATOR, INIT};

/// Who brings these files.
const ORIGIN: &str = "rouse";

/// Directories and their modes. PID 1 mounts something over most of them.
const DIRECTORIES: &[(&str, u32)] = &[
    ("/dev", 0o755),
    ("/etc", 0o755),
    ("/mnt", 0o755),
    ("/opt", 0o755),
    ("/proc", 0o555),
    ("/root", 0o700),
    ("/run", 0o755),
    ("/srv", 0o755),
    ("/sys", 0o555),
    ("/sysroot", 0o755),
    ("/tmp", 0o1777),
    ("/usr/bin", 0o755),
    ("/usr/lib", 0o755),
    ("/usr/lib64", 0o755),
    ("/usr/sbin", 0o755),
    ("/var", 0o755),
    ("/var/cache", 0o755),
    ("/var/lib", 0o755),
    ("/var/log", 0o755),
    ("/var/tmp", 0o1777),
];

const SYMLINKS: &[(&str, &str)] = &[
    ("/bin", "usr/bin"),
    ("/init", "usr/lib/rouse/init"),
    ("/lib", "usr/lib"),
    ("/lib64", "usr/lib64"),
    ("/sbin", "usr/sbin"),
    ("/usr/bin/activator", "../lib/rouse/activator"),
    ("/var/lock", "../run/lock"),
    ("/var/run", "../run"),
];

/// The activator is kill(1) where no package brings one: a great many units reload with it.
const KILL: (&str, &str) = ("/usr/bin/kill", "../lib/rouse/activator");

/// The image's /etc/passwd.
pub const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
/// The image's /etc/group.
pub const GROUP: &str = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n";
const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n\
    networks: files\nprotocols: files\nservices: files\n";
/// The image's /etc/os-release.
pub const OS_RELEASE: &str =
    "NAME=rouse\nID=rouse\nID_LIKE=debian\nPRETTY_NAME=\"rouse appliance\"\n";

/// The common part of all images. `name` is the appliance's, and its host name. `programs`
/// are the guest's, of its architecture.
pub fn tree(name: &str, programs: Programs<&[u8]>) -> Result<Tree, TreeError> {
    let mut tree = Tree::new();
    for (path, mode) in DIRECTORIES {
        tree.make_directory(path, *mode, ORIGIN)?;
    }
    for (path, target) in SYMLINKS {
        tree.insert(path, Node::symlink(*target, ORIGIN))?;
    }
    let hosts = hosts(name);
    let files = [
        ("/etc/group", GROUP),
        ("/etc/hostname", &format!("{name}\n")),
        ("/etc/hosts", &hosts),
        // Empty: programs that want an id make one for the time that they run, machine-id(5).
        ("/etc/machine-id", ""),
        ("/etc/nsswitch.conf", NSSWITCH),
        ("/etc/os-release", OS_RELEASE),
        ("/etc/passwd", PASSWD),
    ];
    for (path, text) in files {
        tree.insert(path, Node::file(text.as_bytes(), 0o644, ORIGIN))?;
    }
    tree.insert(ACTIVATOR, Node::file(programs.activator, 0o755, ORIGIN))?;
    tree.insert(INIT, Node::file(programs.init, 0o755, ORIGIN))?;
    Ok(tree)
}

/// What only an image gets that has nothing else in its place.
pub fn fill_gaps(tree: &mut Tree) -> Result<(), TreeError> {
    let (path, target) = KILL;
    match tree.node(path) {
        Some(_) => Ok(()),
        None => tree.insert(path, Node::symlink(target, ORIGIN)),
    }
}

/// Accounts of a container image of packages that come without Debian's own list.
const CONTAINER_PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
    www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n\
    nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const CONTAINER_GROUP: &str =
    "root:x:0:\ndaemon:x:1:\ntty:x:5:\nwww-data:x:33:\nnogroup:x:65534:\n";

/// Adds to the files of packages what they need to be the root of a container: directories and
/// links that every root has, and accounts, those of base-passwd where it is among them.
pub fn complete(tree: &mut Tree) -> Result<(), TreeError> {
    for (path, mode) in DIRECTORIES.iter().filter(|(path, _)| *path != "/sysroot") {
        tree.make_directory(path, *mode, ORIGIN)?;
    }
    for (path, target) in SYMLINKS.iter().filter(|(_, target)| !target.contains("rouse")) {
        if tree.node(path).is_none() {
            tree.insert(path, Node::symlink(*target, ORIGIN))?;
        }
    }
    for (path, master, text) in [
        ("/etc/passwd", "/usr/share/base-passwd/passwd.master", CONTAINER_PASSWD),
        ("/etc/group", "/usr/share/base-passwd/group.master", CONTAINER_GROUP),
        ("/etc/nsswitch.conf", "", NSSWITCH),
    ] {
        if tree.content(path).is_none() {
            let text = tree.content(master).map_or_else(|| text.as_bytes().into(), Clone::clone);
            tree.insert(path, Node::file(text, 0o644, ORIGIN))?;
        }
    }
    Ok(())
}

/// Whether every image has that path.
pub fn has(path: &str) -> bool {
    const FILES: [&str; 9] = [
        ACTIVATOR,
        INIT,
        "/etc/group",
        "/etc/hostname",
        "/etc/hosts",
        "/etc/machine-id",
        "/etc/nsswitch.conf",
        "/etc/os-release",
        "/etc/passwd",
    ];
    FILES.contains(&path)
        || path == KILL.0
        || DIRECTORIES.iter().any(|(directory, _)| *directory == path)
        || SYMLINKS.iter().any(|(link, _)| *link == path)
}

/// An /etc/hosts that knows the loopback and the machine's own name.
pub fn hosts(name: &str) -> String {
    let aliases = "ip6-localhost ip6-loopback";
    match name {
        "localhost" => format!("127.0.0.1 localhost\n::1 localhost {aliases}\n"),
        name => format!("127.0.0.1 localhost {name}\n::1 localhost {aliases} {name}\n"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Stand for a guest's programs.
    pub(crate) const PROGRAMS: Programs<&[u8]> = Programs { init: b"PID 1", activator: b"others" };

    #[test]
    fn each_program_has_its_names() {
        let tree = tree("echo", PROGRAMS).unwrap();
        assert_eq!(tree.content("/init").unwrap().as_ref(), b"PID 1");
        for path in ["/usr/bin/activator", "/bin/activator"] {
            assert_eq!(tree.content(path).unwrap().as_ref(), b"others", "{path}");
        }
        assert_eq!(tree.content("/etc/hostname").unwrap().as_ref(), b"echo\n");
        for (path, _) in tree.iter().filter(|(path, _)| path.starts_with("/etc/")) {
            assert!(has(path), "{path}");
        }
        assert_eq!(tree.node("/tmp").unwrap().mode, 0o1777);
        assert!(has("/usr/bin") && !has("/etc/ssh"));
        assert!(tree.node("/usr/bin/kill").is_none() && has("/usr/bin/kill"));
        let mut other = Tree::new();
        other.insert("/usr/bin/kill", Node::file(&b"procps"[..], 0o755, "procps")).unwrap();
        for (mut tree, content) in [(tree, &b"others"[..]), (other, b"procps")] {
            fill_gaps(&mut tree).unwrap();
            assert_eq!(tree.content("/usr/bin/kill").unwrap().as_ref(), content);
        }
    }
}
