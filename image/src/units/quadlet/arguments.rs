//! `PodmanArgs=` for the engine crun: options of podman-run(1) that a bundle can carry. What has
//! a key of its own is as if the key had been written; the rest is refused by name.

use super::capability;
use crate::container::{
    Container, DeviceRule, Extra, Network, Notify, Space, Volume, VolumeSource, Written,
};
use crate::finding::Finding;
use crate::units::syntax::shorten;
use crate::units::value::{self, Expected, signal, size};

/// Options without a value, or with `=true` and `=false`.
const FLAGS: [&str; 24] = [
    "detach",
    "disable-content-trust",
    "env-host",
    "http-proxy",
    "init",
    "interactive",
    "no-healthcheck",
    "no-hostname",
    "no-hosts",
    "oom-kill-disable",
    "passwd",
    "privileged",
    "publish-all",
    "quiet",
    "read-only",
    "read-only-tmpfs",
    "replace",
    "rm",
    "rmi",
    "rootfs",
    "sig-proxy",
    "tls-verify",
    "tty",
    "unsetenv-all",
];
/// Letters of options with a value.
const SHORT: [(&str, &str); 8] = [
    ("e", "env"),
    ("v", "volume"),
    ("u", "user"),
    ("w", "workdir"),
    ("h", "hostname"),
    ("l", "label"),
    ("m", "memory"),
    ("c", "cpu-shares"),
];
/// Options that a bundle has no use for, and loses nothing without.
const IDLE: [&str; 6] = ["rm", "replace", "pull", "detach-keys", "authfile", "tls-verify"];

/// Takes the words of `PodmanArgs=` into the container's fields; findings for those that need
/// Podman, or do not parse.
pub(crate) fn apply(container: &mut Container, findings: &mut Vec<Finding>) {
    let words = std::mem::take(&mut container.podman_arguments);
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let Some((name, inline)) = split(&word.text) else {
            findings.push(refused(word, &word.text));
            continue;
        };
        let value = match inline {
            Some(value) => value,
            None if FLAGS.contains(&name.as_str()) => "true".to_owned(),
            None => match rest.next() {
                Some(next) => next.text.clone(),
                None => {
                    findings.push(wrong(word, &name, &Expected::Other("a value behind it")));
                    continue;
                }
            },
        };
        let value = Written { text: value, span: word.span.clone() };
        match set(container, &name, &value) {
            Ok(true) => {}
            Ok(false) => findings.push(refused(word, &format!("--{name}"))),
            Err(expected) => findings.push(wrong(word, &name, &expected)),
        }
    }
    container.podman_arguments = words;
}

/// The name of an option, and its value if it is in the same word.
fn split(word: &str) -> Option<(String, Option<String>)> {
    if let Some(long) = word.strip_prefix("--") {
        return Some(match long.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (long.to_owned(), None),
        });
    }
    let short = word.strip_prefix('-')?;
    let (_, name) = SHORT.iter().find(|(letter, _)| short.starts_with(letter))?;
    let value = short[1..].strip_prefix('=').unwrap_or(&short[1..]);
    Some(((*name).to_owned(), Some(value.to_owned()).filter(|value| !value.is_empty())))
}

fn refused(word: &Written, name: &str) -> Finding {
    let message = format!("`PodmanArgs={}` needs Podman", shorten(name));
    Finding::error(word.span.clone(), message)
        .label("refused by the engine crun")
        .help("take it out, or set `engine = \"podman\"` in appliance.toml")
}

fn wrong(word: &Written, name: &str, expected: &Expected) -> Finding {
    let message = format!("`PodmanArgs=--{name}` does not take `{}`", shorten(&word.text));
    Finding::error(word.span.clone(), message)
        .label(format!("expected {expected}"))
        .help("see podman-run(1), or take it out")
}

/// False if only Podman can do it.
fn set(it: &mut Container, name: &str, value: &Written) -> Result<bool, Expected> {
    let text = value.text.as_str();
    let some = || Some(value.clone());
    match name {
        "add-host" => it.add_hosts.push(value.clone()),
        "annotation" => it.annotations.push(pair(text)?),
        "cap-add" => it.add_capabilities.extend(capabilities(text)?),
        "cap-drop" => it.drop_capabilities.extend(capabilities(text)?),
        "dns" => it.dns.push(value.clone()),
        "dns-option" => it.dns_options.push(value.clone()),
        "dns-search" => it.dns_search.push(value.clone()),
        "entrypoint" if text.starts_with('[') => {
            let words = serde_json::from_str(text);
            it.entrypoint = Some(words.map_err(|_| Expected::Other("a JSON array of words"))?);
        }
        "entrypoint" => it.entrypoint = Some(vec![text.to_owned()]),
        "env" => match text.split_once('=') {
            Some((name, value)) => {
                it.environment.retain(|(other, _)| other != name);
                it.environment.push((name.to_owned(), value.to_owned()));
            }
            None => it.pass_environment.push(text.to_owned()),
        },
        "env-file" => it.environment_files.push(value.clone()),
        "env-host" => it.environment_host = Some(value::boolean(text)?),
        "http-proxy" => it.http_proxy = Some(value::boolean(text)?),
        "group-add" => it.groups.push(value.clone()),
        "health-cmd" => it.health.command = some(),
        "health-interval" => it.health.interval = some(),
        "health-on-failure" => it.health.on_failure = some(),
        "health-retries" => it.health.retries = some(),
        "health-start-period" => it.health.start_period = some(),
        "health-timeout" => it.health.timeout = some(),
        "health-startup-cmd" => it.health.startup_command = some(),
        "health-startup-interval" => it.health.startup_interval = some(),
        "health-startup-retries" => it.health.startup_retries = some(),
        "health-startup-success" => it.health.startup_success = some(),
        "health-startup-timeout" => it.health.startup_timeout = some(),
        "hostname" => it.host_name = Some(text.to_owned()),
        "init" => it.run_init = value::boolean(text)?,
        "label" => it.labels.push(pair(text).unwrap_or_else(|_| (text.into(), String::new()))),
        "log-driver" => it.log_driver = some(),
        "log-opt" => it.log_options.push(value.clone()),
        "mount" => it.mounts.push(value.clone()),
        "no-healthcheck" => {
            if value::boolean(text)? {
                it.health.command = Some(Written { text: "none".into(), ..value.clone() });
            }
        }
        "network" | "net" => {
            it.network = match text {
                "none" => Network::None,
                "host" => Network::Host,
                _ => return Ok(false),
            }
        }
        "read-only" => it.read_only = Some(value::boolean(text)?),
        "read-only-tmpfs" => it.read_only_tmpfs = value::boolean(text)?,
        "sdnotify" => {
            it.notify = match text {
                "container" => Notify::Container,
                "healthy" => Notify::Healthy,
                "conmon" | "ignore" => Notify::Runtime,
                _ => return Err(Expected::OneOf(&["container", "conmon", "healthy", "ignore"])),
            }
        }
        "secret" => it.secrets.push(value.clone()),
        "security-opt" => return security(it, value),
        "shm-size" => it.shm_size = size::podman(text)?.unsigned_abs(),
        "stop-signal" => {
            signal::number(text)?;
            it.stop_signal = Some(text.to_owned());
        }
        "stop-timeout" => it.stop_timeout = number(text, 0, i64::from(i32::MAX))?.unsigned_abs(),
        "sysctl" => it.sysctls.push(pair(text)?),
        "systemd" if text == "always" => return Ok(false),
        "systemd" => it.extra.no_systemd = !value::boolean(text)?,
        "tmpfs" => {
            let (path, options) = text.split_once(':').unwrap_or((text, ""));
            it.tmpfs.push((value::path(path)?, list(options)));
        }
        "tz" => it.timezone = some(),
        "uidmap" => it.user_namespace.uid_maps.push(value.clone()),
        "gidmap" => it.user_namespace.gid_maps.push(value.clone()),
        "userns" => it.user_namespace.mode = some(),
        "subuidname" => it.user_namespace.sub_uid = some(),
        "subgidname" => it.user_namespace.sub_gid = some(),
        "ulimit" => {
            let (name, limits) = text.split_once('=').ok_or(LIMIT)?;
            let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
            let one = |text: &str| match text {
                "-1" => Ok(u64::MAX),
                text => text.parse().map_err(|_| LIMIT),
            };
            it.ulimits.retain(|(other, ..)| other != name);
            it.ulimits.push((name.to_owned(), one(soft)?, one(hard)?));
        }
        "user" => it.user = Some(text.to_owned()),
        "volume" => it.volumes.push(volume(value)?),
        "workdir" => it.working_directory = Some(value::path(text)?),
        "pids-limit" => it.pids_limit = Some(number(text, -1, i64::MAX)?),
        "memory" => it.memory = Some(size::podman(text)?),
        name if IDLE.contains(&name) => {}
        name => return extra(&mut it.extra, name, text),
    }
    Ok(true)
}

const LIMIT: Expected = Expected::Other("`name=soft:hard`, such as `nofile=1024:4096`");

fn extra(extra: &mut Extra, name: &str, text: &str) -> Result<bool, Expected> {
    let space = |without: bool| match text {
        "private" => Ok(Space::Own),
        "host" => Ok(Space::Guest),
        "none" if without => Ok(Space::Without),
        _ => Err(Expected::Other("`private` or `host`")),
    };
    match name {
        "cpus" => {
            let period = 100_000;
            let cpus: f64 = text.parse().map_err(|_| Expected::Other("a number such as 1.5"))?;
            extra.cpu_period = Some(period);
            extra.cpu_quota = Some((cpus * period as f64).round() as i64);
        }
        "cpu-shares" => extra.cpu_shares = Some(number(text, 0, 262_144)?.unsigned_abs()),
        "cpu-quota" => extra.cpu_quota = Some(number(text, -1, i64::MAX)?),
        "cpu-period" => extra.cpu_period = Some(number(text, 0, 1_000_000)?.unsigned_abs()),
        "cpuset-cpus" => extra.cpuset_cpus = Some(text.to_owned()),
        "cpuset-mems" => extra.cpuset_mems = Some(text.to_owned()),
        "memory-swap" if text == "-1" => extra.memory_swap = Some(-1),
        "memory-swap" => extra.memory_swap = Some(size::podman(text)?),
        "memory-reservation" => extra.memory_reservation = Some(size::podman(text)?),
        "oom-score-adj" => {
            extra.oom_score_adjust = i32::try_from(number(text, -1000, 1000)?).ok();
        }
        "umask" => {
            let umask = u32::from_str_radix(text, 8).ok().filter(|umask| *umask <= 0o777);
            extra.umask = Some(umask.ok_or(Expected::Mode)?);
        }
        "cgroup-conf" => extra.cgroup_files.push(pair(text)?),
        "device-cgroup-rule" => extra.device_rules.push(rule(text)?),
        "privileged" => extra.privileged = value::boolean(text)?,
        "pid" => extra.pid = space(false)?,
        "ipc" => extra.ipc = space(true)?,
        "uts" => extra.uts = space(false)?,
        "cgroupns" => extra.cgroup = space(false)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn security(it: &mut Container, value: &Written) -> Result<bool, Expected> {
    let (name, rest) = value.text.split_once(['=', ':']).unwrap_or((&value.text, ""));
    let rest = Written { text: rest.to_owned(), span: value.span.clone() };
    let paths = || rest.text.split(':').map(str::to_owned);
    match name {
        "no-new-privileges" => it.no_new_privileges = rest.text != "false",
        "seccomp" => it.seccomp_profile = Some(rest),
        "apparmor" => it.app_armor = Some(rest),
        "mask" => it.mask.extend(paths()),
        "unmask" => it.unmask.extend(paths()),
        // Only with SELinux.
        "label" => {}
        _ => return Ok(false),
    }
    Ok(true)
}

fn number(text: &str, least: i64, most: i64) -> Result<i64, Expected> {
    value::number(text, least, most)
}

fn pair(text: &str) -> Result<(String, String), Expected> {
    let (name, value) = text.split_once('=').ok_or(Expected::Other("`name=value`"))?;
    Ok((name.to_owned(), value.to_owned()))
}

fn list(text: &str) -> Vec<String> {
    text.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn capabilities(text: &str) -> Result<Vec<String>, Expected> {
    text.split(',').map(capability::parse).collect()
}

fn volume(value: &Written) -> Result<Volume, Expected> {
    let mut parts = value.text.splitn(3, ':');
    let first = parts.next().unwrap_or_default();
    let (source, destination) = match parts.next() {
        Some(destination) => (first, destination),
        None => ("", first),
    };
    let source = match source {
        "" => VolumeSource::Anonymous,
        path if path.starts_with(['/', '.']) => VolumeSource::Path(path.into()),
        name => VolumeSource::Name(name.into()),
    };
    let options = list(parts.next().unwrap_or_default());
    Ok(Volume { source, destination: value::path(destination)?, options, span: value.span.clone() })
}

/// `c 10:* rwm`
fn rule(text: &str) -> Result<DeviceRule, Expected> {
    let parsed = || {
        let mut words = text.split_whitespace();
        let kind = words.next()?.chars().next().filter(|kind| "abc".contains(*kind))?;
        let (major, minor) = words.next()?.split_once(':')?;
        let access = words.next()?;
        let one = |text: &str| match text {
            "*" => Some(None),
            number => number.parse().ok().map(Some),
        };
        let fits = access.chars().all(|letter| "rwm".contains(letter));
        let rule =
            DeviceRule { kind, major: one(major)?, minor: one(minor)?, access: access.into() };
        fits.then_some(rule)
    };
    parsed().ok_or(Expected::Other("a rule such as `c 10:* rwm`"))
}
