//! Which files of packages a guest has no use for.

/// Folders below /usr/share that are for package managers, desktops and shells of people.
const SHARE: &[&str] = &[
    "applications",
    "bash-completion",
    "bug",
    "fish",
    "gdb",
    "icons",
    "initramfs-tools",
    "lintian",
    "menu",
    "pixmaps",
    "zsh",
];

/// Folders below /usr/share that people read: manuals, licences, translations.
const DOCUMENTATION: &[&str] = &["common-licenses", "doc", "doc-base", "info", "locale", "man"];

/// Other folders, and what makes them useless here.
const FOLDERS: &[&str] = &[
    "/etc/apparmor.d",     // no AppArmor
    "/etc/cron.d",         // no cron
    "/etc/cron.daily",     //
    "/etc/cron.weekly",    //
    "/etc/default",        // read by maintainer scripts and sysv scripts
    "/etc/init.d",         // sysv
    "/etc/logrotate.d",    // no logrotate
    "/etc/rc0.d",          // sysv
    "/etc/systemd",        // units are read by the builder
    "/usr/include",        // nothing is compiled
    "/usr/lib/sysusers.d", // read by the builder
    "/usr/lib/tmpfiles.d", // read by the builder
    "/var/cache/apt",      // no apt
    "/var/lib/dpkg",       // no dpkg
    "/var/lib/systemd",    //
    // Units are read by the builder; programs of the systemd packages stay.
    "/usr/lib/systemd/catalog",
    "/usr/lib/systemd/network",
    "/usr/lib/systemd/system",
    "/usr/lib/systemd/system-generators",
    "/usr/lib/systemd/system-preset",
    "/usr/lib/systemd/user",
    "/usr/lib/systemd/user-preset",
];

/// Whether a file of a package is documentation, or a translation. `/usr/share/doc/PACKAGE/
/// copyright` is as well: an image that is passed on without has to bring the licences in another
/// way.
pub fn is_documentation(path: &str) -> bool {
    let folder = path.strip_prefix("/usr/share/").and_then(|rest| rest.split('/').next());
    folder.is_some_and(|folder| DOCUMENTATION.contains(&folder))
}

/// Whether a file of a package that is no documentation belongs into an image. To be asked after
/// units, sysusers and tmpfiles have been read.
pub fn is_wanted(path: &str) -> bool {
    if FOLDERS.iter().any(|folder| is_at_or_below(path, folder)) {
        return false;
    }
    if let Some(rest) = path.strip_prefix("/usr/share/") {
        let folder = rest.split('/').next().unwrap_or_default();
        return !SHARE.contains(&folder);
    }
    if let Some(rest) = path.strip_prefix("/usr/lib/") {
        // Character set conversions and locales of glibc, headers' companions, static libraries;
        // with or without the architecture's folder above them.
        let useless = |part| matches!(part, "gconv" | "locale" | "pkgconfig" | "cmake" | "audit");
        return !rest.split('/').take(2).any(useless)
            && !rest.ends_with(".a")
            && !rest.ends_with(".la");
    }
    true
}

fn is_at_or_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_is_kept_and_what_is_read_is_not() {
        let kept = [
            "/usr/bin/crun",
            "/usr/lib/x86_64-linux-gnu/libc.so.6",
            "/usr/lib64/ld-linux-x86-64.so.2",
            "/usr/share/containers/seccomp.json",
            "/usr/share/zoneinfo/UTC",
            "/etc/lighttpd/lighttpd.conf",
            "/usr/lib/systemd/systemd-socket-proxyd",
            "/usr/lib/python3/dist-packages/audit/__init__.py",
        ];
        let dropped = [
            "/usr/share/icons/x.png",
            "/usr/lib/x86_64-linux-gnu/gconv/UTF-16.so",
            "/usr/lib/x86_64-linux-gnu/libcrun.a",
            "/usr/lib/systemd/system/podman.socket",
            "/usr/include/stdio.h",
            "/etc/init.d/lighttpd",
        ];
        assert_eq!(kept.map(is_wanted), [true; 8]);
        assert_eq!(dropped.map(is_wanted), [false; 6]);
        let read = ["/usr/share/doc/crun/copyright", "/usr/share/man/man1/crun.1.gz"];
        assert_eq!(read.map(is_documentation), [true; 2]);
        assert_eq!(kept.map(is_documentation), [false; 8]);
    }
}
