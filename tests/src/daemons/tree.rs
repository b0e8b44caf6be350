//! Packages as a file tree, and a daemon's units compiled with those that lie in it.

use super::daemon::{Daemon, Group};
use crate::{Units, command};
use activator::manifest::Manifest;
use rouse::cache::Cache;
use rouse::debian::architecture::Architecture as Debians;
use rouse::debian::tools::{self, Freshness};
use rouse::debian::{Debian, Error};
use rouse::finding::Finding;
use std::path::{Path, PathBuf};

/// Accounts of all daemons, with the numbers that their packages' scripts might give them.
pub const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    lp:x:7:7:lp:/var/spool/lpd:/usr/sbin/nologin\n\
    www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n\
    sshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n\
    messagebus:x:101:101::/nonexistent:/usr/sbin/nologin\n\
    _rpc:x:102:65534::/run/rpcbind:/usr/sbin/nologin\n\
    _tang:x:103:103::/nonexistent:/usr/sbin/nologin\n\
    mysql:x:104:104::/var/lib/mysql:/usr/sbin/nologin\n\
    distccd:x:105:65534::/nonexistent:/usr/sbin/nologin\n\
    dovecot:x:106:106::/usr/lib/dovecot:/usr/sbin/nologin\n\
    dovenull:x:107:107::/nonexistent:/usr/sbin/nologin\n\
    systemd-journal-gateway:x:108:108::/nonexistent:/usr/sbin/nologin\n\
    pcscd:x:109:109::/nonexistent:/usr/sbin/nologin\n\
    polkitd:x:111:111::/nonexistent:/usr/sbin/nologin\n\
    ann:x:1000:1000:Ann:/home/ann:/bin/sh\n\
    nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
/// Their groups.
pub const GROUP: &str = "root:x:0:\nadm:x:4:\ntty:x:5:\nlp:x:7:\nwww-data:x:33:\nshadow:x:42:\n\
    lpadmin:x:99:\nmessagebus:x:101:\n_tang:x:103:\nmysql:x:104:\ndovecot:x:106:\n\
    dovenull:x:107:\nsystemd-journal-gateway:x:108:\npcscd:x:109:\nsystemd-journal:x:110:\n\
    polkitd:x:111:\n\
    ann:x:1000:\nnogroup:x:65534:\n";
/// The host name of all.
pub const HOST_NAME: &str = "daemons";

/// The packages of a group, unpacked.
pub fn unpacked(group: &Group) -> Result<PathBuf, Error> {
    let debian = Debian::new(Cache::open_at(&command::cache())?, None);
    let roots: Vec<&str> = group.packages.iter().map(String::as_str).collect();
    let host = Debians::host().unwrap();
    tools::tree(&debian, &format!("daemons-{}", group.name), &roots, host, Freshness::Kept)
}

/// A daemon's units. The error is what the compiler says.
pub fn compiled(daemon: &Daemon, tree: &Path) -> Result<Manifest, String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in &daemon.units {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let (mut packaged, mut links) = (vec![], vec![]);
    for below in ["usr/lib/systemd/system", "etc/systemd/system"] {
        collect(tree, Path::new(below), &mut packaged, &mut links);
    }
    let has_file = |path: &str| {
        tree.join(path.trim_start_matches('/')).symlink_metadata().is_ok()
            || daemon.files.iter().any(|(file, ..)| file == path)
    };
    let units = Units {
        folder: folder.path(),
        name: HOST_NAME,
        passwd: PASSWD,
        group: GROUP,
        packaged: &packaged,
        links: &links,
        enable: &daemon.enable,
        has_file: &has_file,
    };
    units.compile().map_err(|errors| {
        let text = |it: &Finding| format!("{} ({})", it.message, it.help.as_deref().unwrap_or(""));
        errors.iter().map(text).collect::<Vec<_>>().join("\n")
    })
}

/// Unit files below a folder of a tree, and links among them: paths without the first `/`.
fn collect(
    tree: &Path,
    below: &Path,
    units: &mut Vec<(String, String)>,
    links: &mut Vec<(String, String)>,
) {
    for entry in std::fs::read_dir(tree.join(below)).into_iter().flatten() {
        let entry = entry.unwrap();
        let path = below.join(entry.file_name());
        let name = path.to_str().unwrap().to_owned();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            collect(tree, &path, units, links);
        } else if kind.is_symlink() {
            let target = std::fs::read_link(entry.path()).unwrap();
            match target == Path::new("/dev/null") {
                true => units.push((name, String::new())),
                false => links.push((name, target.to_str().unwrap().to_owned())),
            }
        } else {
            units.push((name, std::fs::read_to_string(entry.path()).unwrap()));
        }
    }
}
