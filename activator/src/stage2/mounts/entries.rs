//! What each key of a sandbox means for the paths, systemd.exec(5).

use super::super::directories::Place;
use super::{Entry, What};
use crate::manifest::{Mount, PathRule, ProtectHome, ProtectSystem, Sandbox};
use std::path::{Path, PathBuf};

/// All entries, in the order of the keys. What a unit names itself comes last, so that it is the
/// one that counts where a key covers the same path.
pub(super) fn of(sandbox: &Sandbox, places: &[Place<'_>], tmp: Option<&Path>) -> Vec<Entry> {
    let mut list = List(vec![]);
    if sandbox.mount_api_vfs && sandbox.root_directory.is_some() {
        for path in ["/proc", "/sys", "/dev"] {
            list.bind(path, Path::new(path), false);
        }
        list.add("/run", What::Temporary { options: "mode=0755".into(), read_only: false });
    }
    list.proc(sandbox);
    if sandbox.namespaces.ipc {
        list.add("/dev/mqueue", What::Queues);
    }
    list.system(sandbox.protect_system);
    list.home(sandbox.protect_home);
    list.kernel(sandbox);
    if sandbox.private_devices {
        list.add("/dev", What::Devices);
        for path in ["/dev/pts", "/dev/shm", "/dev/mqueue"] {
            list.add(path, What::ReadWrite);
        }
    }
    if let Some(tmp) = tmp {
        list.bind("/tmp", &tmp.join("tmp"), false);
        list.bind("/var/tmp", &tmp.join("var-tmp"), false);
    }
    if sandbox.root_directory.is_none() {
        list.directories(places, sandbox);
    }
    sandbox.mounts.iter().for_each(|mount| list.mount(mount));
    list.0
}

/// What a root of its own needs of the machine's: the service's directories and other paths.
pub(super) fn into_root(places: &[Place<'_>], extra: &[PathBuf], entries: &mut Vec<Entry>) {
    let bind = |source: &Path, target: &Path, read_only| Entry {
        path: target.to_owned(),
        optional: false,
        what: What::Bind { source: source.to_owned(), recursive: true, read_only },
    };
    entries.extend(
        places.iter().map(|place| bind(place.real(), &place.path, place.directory.read_only)),
    );
    entries.extend(extra.iter().map(|path| bind(path, path, true)));
}

struct List(Vec<Entry>);

impl List {
    /// What the machine may lack.
    fn add(&mut self, path: &str, what: What) {
        self.0.push(Entry { path: path.into(), optional: true, what });
    }

    fn bind(&mut self, path: &str, source: &Path, read_only: bool) {
        self.add(path, What::Bind { source: source.to_owned(), recursive: true, read_only });
    }

    fn system(&mut self, protect: ProtectSystem) {
        let read_only: &[&str] = match protect {
            ProtectSystem::No => &[],
            ProtectSystem::Yes => &["/usr", "/boot", "/efi", "/lib", "/lib64", "/bin", "/sbin"],
            ProtectSystem::Full => {
                &["/usr", "/boot", "/efi", "/lib", "/lib64", "/bin", "/sbin", "/etc"]
            }
            ProtectSystem::Strict => &["/"],
        };
        read_only.iter().for_each(|path| self.add(path, What::ReadOnly));
        if protect == ProtectSystem::Strict {
            // Other keys are about these.
            for path in ["/proc", "/sys", "/dev", "/home", "/run/user", "/root"] {
                self.add(path, What::ReadWrite);
            }
        }
    }

    fn home(&mut self, protect: ProtectHome) {
        let temporary = |mode: &str| What::Temporary { options: mode.into(), read_only: true };
        let (home, root) = match protect {
            ProtectHome::No => return,
            ProtectHome::Yes => (What::Inaccessible, What::Inaccessible),
            ProtectHome::ReadOnly => (What::ReadOnly, What::ReadOnly),
            ProtectHome::Tmpfs => (temporary("mode=0755"), temporary("mode=0700")),
        };
        self.add("/home", home.clone());
        self.add("/run/user", home);
        self.add("/root", root);
    }

    fn proc(&mut self, sandbox: &Sandbox) {
        let mut options = vec![];
        if !matches!(sandbox.protect_proc.as_str(), "" | "default") {
            options.push(format!("hidepid={}", sandbox.protect_proc));
        }
        if sandbox.proc_subset_pid {
            options.push("subset=pid".into());
        }
        if !options.is_empty() {
            self.add("/proc", What::Proc(options.join(",")));
        }
    }

    fn kernel(&mut self, sandbox: &Sandbox) {
        let mut add = |on: bool, paths: &[&str], what: What| {
            paths.iter().filter(|_| on).for_each(|path| self.add(path, what.clone()));
        };
        add(sandbox.protect_kernel_tunables, &TUNABLES, What::ReadOnly);
        add(
            sandbox.protect_kernel_tunables,
            &["/sys/fs/cgroup", "/sys/fs/selinux"],
            What::ReadWrite,
        );
        // Nothing there is a program; it is only as systemd has it.
        add(sandbox.protect_kernel_tunables, &["/sys"], What::NoExec);
        let secrets = &["/proc/kallsyms", "/proc/kcore"];
        add(sandbox.protect_kernel_tunables, secrets, What::Inaccessible);
        let modules = &["/usr/lib/modules", "/lib/modules"];
        add(sandbox.protect_kernel_modules, modules, What::Inaccessible);
        add(sandbox.protect_kernel_logs, &["/proc/kmsg", "/dev/kmsg"], What::Inaccessible);
        add(sandbox.protect_control_groups, &["/sys/fs/cgroup"], What::ReadOnly);
    }

    /// Those of a dynamic user come to their usual names by way of `private`.
    fn directories(&mut self, places: &[Place<'_>], sandbox: &Sandbox) {
        // Those that nothing else is about are writable as they are, without a namespace.
        let alone = self.0.is_empty() && sandbox.mounts.is_empty();
        for place in places {
            let read_only = place.directory.read_only;
            match &place.private {
                Some(private) => {
                    let root = private.ancestors().find(|it| it.ends_with("private"));
                    let root = root.unwrap_or(private).to_owned();
                    if !self.0.iter().any(|entry| entry.path == root) {
                        let what = What::Temporary { options: "mode=0755".into(), read_only: true };
                        self.0.push(Entry { path: root, optional: false, what });
                    }
                    let what = What::Bind { source: private.clone(), recursive: true, read_only };
                    self.0.push(Entry { path: private.clone(), optional: false, what });
                }
                None if alone && !read_only => {}
                None => {
                    let what = if read_only { What::ReadOnly } else { What::ReadWrite };
                    let path = place.path.clone();
                    self.0.push(Entry { path, optional: false, what });
                }
            }
        }
    }

    fn mount(&mut self, mount: &Mount) {
        let mut add = |rule: &PathRule, what| {
            let path = PathBuf::from(&rule.path);
            self.0.push(Entry { path, optional: rule.optional, what });
        };
        match mount {
            Mount::ReadWrite(rule) => add(rule, What::ReadWrite),
            Mount::ReadOnly(rule) => add(rule, What::ReadOnly),
            Mount::Inaccessible(rule) => add(rule, What::Inaccessible),
            Mount::Exec(rule) => add(rule, What::Exec),
            Mount::NoExec(rule) => add(rule, What::NoExec),
            Mount::Temporary(rule, options) => {
                let read_only = options.split(',').any(|option| option == "ro");
                add(rule, What::Temporary { options: options.clone(), read_only });
            }
            Mount::Bind(bind) => {
                let target = PathRule { path: bind.target.clone(), optional: bind.source.optional };
                let what = What::Bind {
                    source: PathBuf::from(&bind.source.path),
                    recursive: bind.recursive,
                    read_only: bind.read_only,
                };
                add(&target, what);
            }
        }
    }
}

/// `ProtectKernelTunables=`
const TUNABLES: [&str; 17] = [
    "/proc/acpi",
    "/proc/apm",
    "/proc/asound",
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/latency_stats",
    "/proc/mtrr",
    "/proc/scsi",
    "/proc/sys",
    "/proc/sysrq-trigger",
    "/proc/timer_stats",
    "/sys",
    "/sys/fs/bpf",
    "/sys/kernel/debug",
    "/sys/kernel/tracing",
    "/sys/kernel/security",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Directory, DirectoryKind};

    fn paths(entries: &[Entry], what: &What) -> Vec<String> {
        let found = entries.iter().filter(|entry| entry.what == *what);
        found.map(|entry| entry.path.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn nothing_asked_is_nothing_mounted() {
        assert_eq!(of(&Sandbox::default(), &[], None), []);
    }

    #[test]
    fn strict_leaves_what_others_protect() {
        let sandbox = Sandbox {
            protect_system: ProtectSystem::Strict,
            protect_home: ProtectHome::Yes,
            ..Sandbox::default()
        };
        let entries = of(&sandbox, &[], None);
        assert_eq!(paths(&entries, &What::ReadOnly), ["/"]);
        let rest = ["/proc", "/sys", "/dev", "/home", "/run/user", "/root"];
        assert_eq!(paths(&entries, &What::ReadWrite), rest);
        assert_eq!(paths(&entries, &What::Inaccessible), ["/home", "/run/user", "/root"]);
    }

    #[test]
    fn directories_alone_need_no_namespace() {
        let directory = |read_only| Directory {
            kind: DirectoryKind::State,
            path: "a".into(),
            links: vec![],
            mode: 0o755,
            read_only,
        };
        let found = |directory: &Directory, sandbox: &Sandbox| {
            let path = PathBuf::from("/var/lib/a");
            let place = Place { directory, path, private: None, links: vec![] };
            of(sandbox, &[place], None).pop().map(|entry| entry.what)
        };
        let (plain, strict) = (Sandbox::default(), ProtectSystem::Strict);
        let strict = Sandbox { protect_system: strict, ..Sandbox::default() };
        assert_eq!(found(&directory(false), &plain), None);
        assert_eq!(found(&directory(true), &plain), Some(What::ReadOnly));
        assert_eq!(found(&directory(false), &strict), Some(What::ReadWrite));
    }

    #[test]
    fn private_directories_are_bound_into_an_empty_one() {
        let directory = |path: &str| Directory {
            kind: DirectoryKind::State,
            path: path.into(),
            links: vec![],
            mode: 0o755,
            read_only: false,
        };
        let directories = [directory("a"), directory("b")];
        let place = |directory| Place {
            directory,
            path: Path::new("/var/lib").join(&directory.path),
            private: Some(Path::new("/var/lib/private").join(&directory.path)),
            links: vec![],
        };
        let places: Vec<Place<'_>> = directories.iter().map(place).collect();
        let entries = of(&Sandbox::default(), &places, None);
        let found: Vec<&str> = entries.iter().map(|it| it.path.to_str().unwrap()).collect();
        assert_eq!(found, ["/var/lib/private", "/var/lib/private/a", "/var/lib/private/b"]);
    }
}
