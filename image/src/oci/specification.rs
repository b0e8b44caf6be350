//! config.json, OCI runtime specification 1.2, as Podman 5.4 makes it.

use super::mount::{Mount, Point, mounts};
use super::{
    Activation, Bundle, ContainerImage, Context, capability, files, pattern, storage, user,
    user_namespace, wrong,
};
use crate::container::{CgroupsMode, Container, Network, Root, Space};
use crate::finding::Finding;
use crate::tree::Last;
use activator::manifest;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

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
    let maps = user_namespace::maps(container);
    let identity = storage::identity(container, image).map_err(|error| {
        wrong(&container.span_of("User"), error.to_string())
            .help("give the user and group as numbers")
    })?;
    if storage::ids_outside(container, (identity.uid, identity.gid)).is_none() {
        let message = format!(
            "the container's user namespace has not both user {} and group {}, which it runs as",
            identity.uid, identity.gid
        );
        return Err(wrong(&container.span_of("User"), message)
            .label("no such ids in it")
            .help("name others with `User=`, or have them in `UIDMap=` and `GIDMap=`"));
    }
    let host_name = container.host_name.clone().unwrap_or_else(|| container.name.clone());
    let environment = environment(container, context, &identity.home, &host_name);
    let mounts = mounts(container, context, (identity.uid, identity.gid));
    let arguments = arguments(container, context, &environment, &mounts)?;
    let directory = container.working_directory.as_ref().or(image.working_directory.as_ref());
    let directory = directory.map_or("/", String::as_str);
    let capabilities = capabilities(container)?;
    let seccomp = super::filter::of(container, context, &capabilities)?;
    let groups = groups(container, context, identity.groups)?;
    // To Podman whom `keep-id` names is no root, even if the number is 0.
    let names_nobody = container.user.is_none() && image.user.is_none();
    let is_kept = names_nobody && user_namespace::kept(container).is_some();
    let is_root = identity.uid == 0 && !is_kept;

    let mut process = json!({
        "user": {
            "uid": identity.uid,
            "gid": identity.gid,
            "umask": container.extra.umask.unwrap_or(0o022),
            "additionalGids": groups,
        },
        "args": arguments,
        "env": environment.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
        "cwd": directory,
        "capabilities": sets(&capabilities, &container.add_capabilities, is_root),
        "rlimits": rlimits(container),
        "noNewPrivileges": container.no_new_privileges,
        "oomScoreAdj": container.extra.oom_score_adjust,
    });
    if let Some(process) = process.as_object_mut() {
        process.retain(|_, value| *value != Value::Bool(false) && !value.is_null());
    }
    let mut linux = json!({
        "namespaces": namespaces(container),
        "uidMappings": maps.as_ref().map(|(uids, _)| storage::mapping(uids)),
        "gidMappings": maps.as_ref().map(|(_, gids)| storage::mapping(gids)),
        "cgroupsPath": cgroup(container),
        "devices": (!container.devices.is_empty()).then(|| json!([])),
        "resources": resources(container),
        "rootfsPropagation": mounts.values().find_map(Mount::propagation),
        "sysctl": sysctls(container),
        "maskedPaths": hidden(container, &MASKED, &container.mask),
        "readonlyPaths": hidden(container, &READ_ONLY, &[]),
        "seccomp": seccomp,
    });
    if let Some(linux) = linux.as_object_mut() {
        linux.retain(|_, value| !value.is_null());
    }
    let mut annotations: BTreeMap<&str, &str> =
        container.annotations.iter().map(|(name, value)| (&**name, &**value)).collect();
    if keeps_groups(container) {
        annotations.insert("run.oci.keep_original_groups", "1");
    }
    let root = match container.root() {
        Root::Layer => json!({ "path": manifest::Container::writable_root(&container.id()) }),
        Root::Itself => json!({ "path": super::root_folder(container) }),
        Root::ReadOnly => json!({ "path": super::root_folder(container), "readonly": true }),
    };
    let list: Vec<Value> = mounts.iter().map(|(path, mount)| mount.to_json(path)).collect();
    let mut specification = json!({
        "ociVersion": "1.2.0",
        "process": process,
        "root": root,
        "hostname": host_name,
        "mounts": list,
        "annotations": annotations,
        "linux": linux,
    });

    if container.extra.uts == Space::Guest
        && let Some(top) = specification.as_object_mut()
    {
        top.remove("hostname");
    }

    let mut mount_points: BTreeMap<String, Point> =
        mounts.into_iter().map(|(path, mount)| (path, mount.point)).collect();
    // It has to be there, too.
    if directory != "/" {
        mount_points.entry(directory.into()).or_insert(Point::Directory);
    }
    // Made by crun in what is mounted there, not in the image.
    mount_points.retain(|path, _| !path.starts_with("/dev/") && !path.starts_with("/sys/"));
    if container.root() == Root::ReadOnly {
        for path in mount_points.keys() {
            image
                .files
                .resolve("", path, Last::Followed)
                .map_err(|at| no_way(container, path, &at))?;
        }
    }
    Ok(Bundle {
        id: container.id(),
        specification,
        hosts: files::hosts(container, &host_name),
        host_name,
        resolver: files::resolver(container),
        zone: super::zone(container, context)?,
        image: super::root_folder(container),
        root: container.root(),
        mount_points,
    })
}

/// What is mounted at a path has to be made there, and something of the image is in its way.
fn no_way(container: &Container, path: &str, at: &str) -> Finding {
    let image = &container.image;
    let message =
        format!("the container has a mount at {path}, but {at} is a file of image `{image}`");
    wrong(&container.span, message)
        .label("no place for it in the image")
        .help("mount it at another path")
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
    mounts: &BTreeMap<String, Mount>,
) -> Result<Vec<String>, Finding> {
    let image = context.image;
    let command = match (&container.exec, &container.entrypoint) {
        (Some(exec), _) => exec.as_slice(),
        (None, Some(_)) => &[],
        (None, None) => &image.command,
    };
    let entrypoint = container.entrypoint.as_ref().unwrap_or(&image.entrypoint);
    let mut arguments: Vec<String> = entrypoint.iter().chain(command).cloned().collect();
    let Some(program) = arguments.first() else {
        let message =
            format!("neither image `{}` nor the container says what to run", image.reference);
        return Err(wrong(&container.image_span, message)
            .help("give `entrypoint` or `command` in appliance.toml, or `Exec=` here"));
    };
    let search_path = environment.get("PATH").map_or("", String::as_str);
    // The folder of a Rootfs= is not looked into, and what is mounted is not known.
    let is_known =
        container.rootfs.is_none() && !may_be_mounted(program, search_path, image, mounts);
    if is_known && !image.has_program(program, search_path) {
        let message = format!("image `{}` has no program `{program}`", image.reference);
        return Err(wrong(&container.image_span, message)
            .help("the program comes from `cargo` or `files` of the image in appliance.toml"));
    }
    if !container.extra.no_systemd && is_systemd(&arguments) {
        let message = format!("Podman takes `{}` for systemd", arguments.join(" "));
        return Err(wrong(&container.image_span, message)
            .label("the engine crun has no /run, /tmp and cgroup for it to write to")
            .help(
                "set `engine = \"podman\"` in appliance.toml, or write \
                 `PodmanArgs=--systemd=false` if it is another init",
            ));
    }
    if container.run_init {
        let is_there = context.guest.is_none_or(|guest| guest.content(super::INIT).is_some());
        if !is_there {
            let message = format!("`RunInit=` takes {}, which the guest has not", super::INIT);
            return Err(wrong(&container.span_of("RunInit"), message)
                .help("add `catatonit` to `packages` in appliance.toml"));
        }
        let init = [super::INIT_IN_CONTAINER, "--"].map(str::to_owned);
        arguments.splice(0..0, init);
    }
    Ok(arguments)
}

/// What podman-run(1), `--systemd`, goes by.
fn is_systemd(arguments: &[String]) -> bool {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let program = match words.as_slice() {
        ["/bin/sh", "-c", program, ..] | [program, ..] => *program,
        [] => return false,
    };
    ["/sbin/init", "/usr/sbin/init", "/usr/local/sbin/init"].contains(&program)
        || program.rsplit('/').next() == Some("systemd")
}

/// Whether a program may come from elsewhere, by its path or in `search_path`.
fn may_be_mounted(
    program: &str,
    search_path: &str,
    image: &ContainerImage,
    mounts: &BTreeMap<String, Mount>,
) -> bool {
    let real = |path: &str| image.files.resolve("", path, Last::Followed).ok();
    let places = mounts.iter().filter(|(_, mount)| mount.brings_files());
    let places: Vec<String> = places.filter_map(|(path, _)| real(path)).collect();
    let is_below = |path: &str| {
        real(path)
            .is_some_and(|path| places.iter().any(|place| Path::new(&path).starts_with(place)))
    };
    match program.starts_with('/') {
        true => is_below(program),
        false => search_path.split(':').any(|folder| is_below(&format!("{folder}/{program}"))),
    }
}

fn capabilities(container: &Container) -> Result<std::collections::BTreeSet<&str>, Finding> {
    if container.extra.privileged {
        return Ok(capability::ALL.into_iter().collect());
    }
    capability::merge(&container.add_capabilities, &container.drop_capabilities)
        .map_err(|error| wrong(&container.span_of("AddCapability"), error.to_string()))
}

fn keeps_groups(container: &Container) -> bool {
    container.groups.iter().any(|group| group.text == "keep-groups")
}

/// `GroupAdd=`: numbers, or names of the image.
fn groups(
    container: &Container,
    context: Context<'_>,
    mut groups: Vec<u32>,
) -> Result<Vec<u32>, Finding> {
    for written in container.groups.iter().filter(|group| group.text != "keep-groups") {
        let group = user::group(&context.image.files, &written.text).map_err(|error| {
            wrong(&written.span, error.to_string()).help("give the group as a number")
        })?;
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    let kept = user_namespace::kept(container).map(|(_, gid)| gid);
    groups.extend(kept.filter(|gid| !groups.contains(gid)));
    Ok(groups)
}

/// A user other than root keeps the bounding set, but has only what was asked for in words.
fn sets(all: &std::collections::BTreeSet<&str>, added: &[String], is_root: bool) -> Value {
    if is_root {
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
    // `host` keeps those of whoever starts it.
    let mut limits = match container.ulimit_host {
        true => BTreeMap::new(),
        false => {
            BTreeMap::from([("RLIMIT_NOFILE", (LIMIT, LIMIT)), ("RLIMIT_NPROC", (LIMIT, LIMIT))])
        }
    };
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
    let extra = &container.extra;
    let own = |kind: &str, space| (space != Space::Guest).then(|| json!({ "type": kind }));
    let network = match &container.network {
        Network::Host => None,
        Network::Path(path) => Some(json!({ "type": "network", "path": path })),
        // The guest adds it when it knows the other's process.
        Network::Container(_) => None,
        _ => Some(json!({ "type": "network" })),
    };
    let all = [
        own("pid", extra.pid),
        network,
        own("ipc", extra.ipc),
        own("uts", extra.uts),
        own("mount", Space::Own),
        user_namespace::maps(container).map(|_| json!({ "type": "user" })),
        own("cgroup", extra.cgroup),
    ];
    all.into_iter().flatten().collect()
}

/// Below the cgroup that the activator makes for the service.
fn cgroup(container: &Container) -> Option<String> {
    let service = &container.service;
    match (container.cgroups_mode, &container.owner) {
        (CgroupsMode::Disabled, _) => None,
        (_, Some(owner)) => Some(format!("/rouse/user-{}/{service}/payload", owner.uid)),
        (_, None) => Some(format!("/rouse/{service}/payload")),
    }
}

fn resources(container: &Container) -> Value {
    let extra = &container.extra;
    let mut resources = Map::new();
    // crun allows null, zero, full, random, urandom, tty, ptmx and the pts by itself.
    let mut rules = vec![json!({ "allow": extra.privileged, "access": "rwm" })];
    for rule in &extra.device_rules {
        let mut json =
            json!({ "allow": true, "type": rule.kind.to_string(), "access": rule.access });
        for (name, number) in [("major", rule.major), ("minor", rule.minor)] {
            if let Some(number) = number {
                json[name] = number.into();
            }
        }
        rules.push(json);
    }
    resources.insert("devices".into(), rules.into());
    if container.cgroups_mode != CgroupsMode::Disabled
        && let Some(limit) = container.pids_limit
    {
        resources.insert("pids".into(), json!({ "limit": limit }));
    }
    // Podman's default for the sum of memory and swap is twice the memory.
    let swap = extra.memory_swap.or(container.memory.map(|limit| limit.saturating_mul(2)));
    let memory =
        [("limit", container.memory), ("swap", swap), ("reservation", extra.memory_reservation)];
    let cpu = [
        ("shares", extra.cpu_shares.map(Value::from)),
        ("quota", extra.cpu_quota.map(Value::from)),
        ("period", extra.cpu_period.map(Value::from)),
        ("cpus", extra.cpuset_cpus.clone().map(Value::from)),
        ("mems", extra.cpuset_mems.clone().map(Value::from)),
    ];
    let memory = memory.map(|(name, value)| (name, value.map(Value::from)));
    for (name, all) in [("memory", &memory[..]), ("cpu", &cpu[..])] {
        let given =
            all.iter().filter_map(|(name, value)| Some(((*name).to_owned(), value.clone()?)));
        let given: Map<String, Value> = given.collect();
        if !given.is_empty() {
            resources.insert(name.into(), given.into());
        }
    }
    if !extra.cgroup_files.is_empty() {
        let files =
            extra.cgroup_files.iter().map(|(file, value)| (file.clone(), value.clone().into()));
        resources.insert("unified".into(), Value::Object(files.collect()));
    }
    Value::Object(resources)
}

fn sysctls(container: &Container) -> BTreeMap<&str, &str> {
    let mut sysctls = BTreeMap::new();
    // It names group 0, which the kernel refuses in a user namespace without it.
    let has_root =
        user_namespace::maps(container).is_none_or(|(_, gids)| user_namespace::is_mapped(&gids, 0));
    let has_network = container.network != Network::Host;
    if has_root && has_network && !storage::has_anothers_network(container) {
        sysctls.insert("net.ipv4.ping_group_range", "0 0");
    }
    sysctls.extend(container.sysctls.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    sysctls
}

/// None where nothing is hidden at all.
fn hidden(container: &Container, defaults: &[&str], add: &[String]) -> Option<Vec<String>> {
    if container.extra.privileged {
        return None;
    }
    let paths = paths(defaults, add, &container.unmask);
    (!paths.is_empty()).then_some(paths)
}

/// The defaults and what is added, without what is unmasked: paths, patterns (`*` and `?`, which
/// stand for no slash), or ALL.
fn paths(defaults: &[&str], add: &[String], unmask: &[String]) -> Vec<String> {
    let split = |paths: &[String]| -> Vec<String> {
        paths.iter().flat_map(|paths| paths.split(':')).map(str::to_owned).collect()
    };
    let unmask = split(unmask);
    let is_unmasked = |path: &&str| {
        unmask.iter().any(|it| it.eq_ignore_ascii_case("all") || pattern::is_match(it, path))
    };
    let kept = defaults.iter().filter(|path| !is_unmasked(path)).map(|path| (*path).to_owned());
    kept.chain(split(add)).collect()
}
