//! config.json, OCI runtime specification 1.2, as Podman 5.4 makes it.

use super::mount::{Point, mounts};
use super::{Activation, Bundle, Context, capability, seccomp, user, wrong};
use crate::config::Ids;
use crate::container::{Container, Network};
use crate::finding::Finding;
use activator::manifest;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// PATH of a container whose image does not set it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// RLIMIT_NOFILE and RLIMIT_NPROC of a container; the kernel's default fs.nr_open.
const LIMIT: u64 = 1_048_576;

const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
];

const READ_ONLY: [&str; 6] =
    ["/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

pub(super) fn compile(container: &Container, context: Context<'_>) -> Result<Bundle, Finding> {
    let image = context.image;
    let identity = user::resolve(&image.files, container.user.as_deref().or(image.user.as_deref()))
        .map_err(|error| {
            wrong(&container.span, error.to_string()).help("give the user and group as numbers")
        })?;
    let host_name = container.host_name.clone().unwrap_or_else(|| container.name.clone());
    let environment = environment(container, context, &identity.home, &host_name);
    let arguments = arguments(container, context, &environment)?;
    let directory = container.working_directory.as_ref().or(image.working_directory.as_ref());
    let directory = directory.map_or("/", String::as_str);
    let capabilities = capability::merge(&container.add_capabilities, &container.drop_capabilities)
        .map_err(|error| wrong(&container.span, error.to_string()))?;
    let mounts = mounts(container);
    let seccomp = match context.seccomp {
        Some(profile) => seccomp::convert(profile, context.architecture, &capabilities)
            .map_err(|error| wrong(&container.span, format!("failed to {error}")))?,
        None => Value::Null,
    };

    let mut process = json!({
        "user": {
            "uid": identity.uid,
            "gid": identity.gid,
            "umask": 0o022,
            "additionalGids": identity.groups,
        },
        "args": arguments,
        "env": environment.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
        "cwd": directory,
        "capabilities": sets(&capabilities, &container.add_capabilities, identity.uid),
        "rlimits": rlimits(container),
        "noNewPrivileges": container.no_new_privileges,
    });
    if let Some(process) = process.as_object_mut() {
        process.retain(|_, value| *value != Value::Bool(false));
    }
    let mut linux = json!({
        "namespaces": namespaces(container),
        "uidMappings": container.owner.as_ref().map(|it| mapping(it.uid, it.subuids)),
        "gidMappings": container.owner.as_ref().map(|it| mapping(it.gid, it.subgids)),
        "cgroupsPath": cgroup(container),
        "resources": resources(container),
        "sysctl": sysctls(container),
        "maskedPaths": paths(&MASKED, &container.mask, &container.unmask),
        "readonlyPaths": paths(&READ_ONLY, &[], &container.unmask),
        "seccomp": seccomp,
    });
    if let Some(linux) = linux.as_object_mut() {
        linux.retain(|_, value| !value.is_null());
    }
    let annotations: BTreeMap<&String, &String> =
        container.annotations.iter().map(|(name, value)| (name, value)).collect();
    let root = match container.writes() {
        true => json!({ "path": manifest::Container::writable_root(&container.id()) }),
        false => json!({ "path": image.folder(), "readonly": true }),
    };
    let list: Vec<Value> = mounts.iter().map(|(path, mount)| mount.to_json(path)).collect();
    let specification = json!({
        "ociVersion": "1.2.0",
        "process": process,
        "root": root,
        "hostname": host_name,
        "mounts": list,
        "annotations": annotations,
        "linux": linux,
    });

    let mut mount_points: BTreeMap<String, Point> =
        mounts.into_iter().map(|(path, mount)| (path, mount.point)).collect();
    // It has to be there, too.
    if directory != "/" {
        mount_points.entry(directory.into()).or_insert(Point::Directory);
    }
    // Made by crun in what is mounted there, not in the image.
    mount_points.retain(|path, _| !path.starts_with("/dev/") && !path.starts_with("/sys/"));
    Ok(Bundle {
        id: container.id(),
        specification,
        host_name,
        image: image.folder(),
        writable: container.writes(),
        mount_points,
    })
}

/// Sorted by name; a later source of the same name wins.
fn environment(
    container: &Container,
    context: Context<'_>,
    home: &str,
    host_name: &str,
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut set = |name: &str, value: &str| all.insert(name.to_owned(), value.to_owned());
    set("PATH", PATH);
    set("container", "podman");
    set("HOME", home);
    set("HOSTNAME", host_name);
    for (name, value) in context.image.environment.iter().chain(&container.environment) {
        set(name, value);
    }
    if context.activation == Activation::Sockets {
        set("LISTEN_FDS", manifest::Container::LISTEN_FDS);
        set("LISTEN_FDNAMES", manifest::Container::LISTEN_FDNAMES);
        // The container's first process has a pid namespace of its own.
        set("LISTEN_PID", "1");
    }
    all
}

/// Entrypoint and command, podman-run(1): an entrypoint of the container's drops the image's
/// command, an Exec= replaces it.
fn arguments(
    container: &Container,
    context: Context<'_>,
    environment: &BTreeMap<String, String>,
) -> Result<Vec<String>, Finding> {
    let image = context.image;
    let command = match (&container.exec, &container.entrypoint) {
        (Some(exec), _) => exec.as_slice(),
        (None, Some(_)) => &[],
        (None, None) => &image.command,
    };
    let entrypoint = container.entrypoint.as_ref().unwrap_or(&image.entrypoint);
    let arguments: Vec<String> = entrypoint.iter().chain(command).cloned().collect();
    let Some(program) = arguments.first() else {
        let message =
            format!("neither image `{}` nor the container says what to run", image.reference);
        return Err(wrong(&container.image_span, message)
            .help("give `entrypoint` or `command` in appliance.toml, or `Exec=` here"));
    };
    let search_path = environment.get("PATH").map_or("", String::as_str);
    if !image.has_program(program, search_path) {
        let message = format!("image `{}` has no program `{program}`", image.reference);
        return Err(wrong(&container.image_span, message)
            .help("the program comes from `cargo` or `files` of the image in appliance.toml"));
    }
    Ok(arguments)
}

/// A user other than root keeps the bounding set, but has only what was asked for in words.
fn sets(all: &std::collections::BTreeSet<&str>, added: &[String], uid: u32) -> Value {
    if uid == 0 {
        return json!({ "bounding": all, "effective": all, "permitted": all });
    }
    let added: std::collections::BTreeSet<&str> = match added {
        added if added.iter().any(|name| name == capability::EVERY) => all.clone(),
        added => added.iter().map(String::as_str).collect(),
    };
    json!({
        "bounding": all,
        "effective": added,
        "permitted": added,
        "inheritable": added,
        "ambient": added,
    })
}

fn rlimits(container: &Container) -> Vec<Value> {
    let mut limits =
        BTreeMap::from([("RLIMIT_NOFILE", (LIMIT, LIMIT)), ("RLIMIT_NPROC", (LIMIT, LIMIT))]);
    for (name, soft, hard) in &container.ulimits {
        if let Some(name) = rlimit(name) {
            limits.insert(name, (*soft, *hard));
        }
    }
    let limit = |(name, (soft, hard))| json!({ "type": name, "soft": soft, "hard": hard });
    limits.into_iter().map(limit).collect()
}

/// podman-run(1)'s name for a limit to getrlimit(2)'s.
pub(super) fn rlimit(name: &str) -> Option<&'static str> {
    Some(match name {
        "as" => "RLIMIT_AS",
        "core" => "RLIMIT_CORE",
        "cpu" => "RLIMIT_CPU",
        "data" => "RLIMIT_DATA",
        "fsize" => "RLIMIT_FSIZE",
        "locks" => "RLIMIT_LOCKS",
        "memlock" => "RLIMIT_MEMLOCK",
        "msgqueue" => "RLIMIT_MSGQUEUE",
        "nice" => "RLIMIT_NICE",
        "nofile" => "RLIMIT_NOFILE",
        "nproc" => "RLIMIT_NPROC",
        "rss" => "RLIMIT_RSS",
        "rtprio" => "RLIMIT_RTPRIO",
        "rttime" => "RLIMIT_RTTIME",
        "sigpending" => "RLIMIT_SIGPENDING",
        "stack" => "RLIMIT_STACK",
        _ => return None,
    })
}

fn namespaces(container: &Container) -> Vec<Value> {
    let mut kinds = vec!["pid", "ipc", "uts", "mount", "cgroup"];
    if container.network == Network::None {
        kinds.insert(1, "network");
    }
    if container.owner.is_some() {
        kinds.insert(0, "user");
    }
    kinds.into_iter().map(|kind| json!({ "type": kind })).collect()
}

/// Root in the container is the user, the next one the first subordinate id.
fn mapping(own: u32, subordinate: Ids) -> Value {
    json!([
        { "containerID": 0, "hostID": own, "size": 1 },
        { "containerID": 1, "hostID": subordinate.first, "size": subordinate.count },
    ])
}

/// Below the cgroup that the activator makes for the service.
fn cgroup(container: &Container) -> String {
    let service = &container.service;
    match &container.owner {
        Some(owner) => format!("/rouse/user-{}/{service}/payload", owner.uid),
        None => format!("/rouse/{service}/payload"),
    }
}

fn resources(container: &Container) -> Value {
    // crun allows null, zero, full, random, urandom, tty, ptmx and the pts by itself.
    let mut resources = Map::new();
    resources.insert("devices".into(), json!([{ "allow": false, "access": "rwm" }]));
    if let Some(limit) = container.pids_limit {
        resources.insert("pids".into(), json!({ "limit": limit }));
    }
    if let Some(limit) = container.memory {
        // Podman's default for the sum of memory and swap.
        let swap = limit.saturating_mul(2);
        resources.insert("memory".into(), json!({ "limit": limit, "swap": swap }));
    }
    Value::Object(resources)
}

fn sysctls(container: &Container) -> BTreeMap<&str, &str> {
    let mut sysctls = BTreeMap::new();
    if container.network == Network::None {
        sysctls.insert("net.ipv4.ping_group_range", "0 0");
    }
    sysctls.extend(container.sysctls.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    sysctls
}

/// The defaults and what is added, without what is unmasked: a path, one that ends in `*`, or
/// ALL.
fn paths(defaults: &[&str], add: &[String], unmask: &[String]) -> Vec<String> {
    let split = |paths: &[String]| -> Vec<String> {
        paths.iter().flat_map(|paths| paths.split(':')).map(str::to_owned).collect()
    };
    let unmask = split(unmask);
    let is_unmasked = |path: &&str| {
        unmask.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => pattern.eq_ignore_ascii_case("all") || pattern == path,
        })
    };
    let kept = defaults.iter().filter(|path| !is_unmasked(path)).map(|path| (*path).to_owned());
    kept.chain(split(add)).collect()
}
