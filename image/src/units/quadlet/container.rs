//! `[Container]` becomes a [`Container`].

use super::capability;
use crate::container::{Container, Network};
use crate::finding::{Finding, Span};
use crate::units::keys::{Keys, Text};
use crate::units::quoting::{self, Escapes};
use crate::units::syntax::{Assignment, shorten};
use crate::units::value::{self, Expected, signal, size};
use crate::units::variables;
use std::collections::BTreeMap;

const SECTION: &str = "Container";
/// `StopTimeout=`, containers.conf(5).
const STOP_TIMEOUT: u64 = 10;
/// `PidsLimit=`
const PIDS_LIMIT: i64 = 2048;
/// `ShmSize=`, 65536k as Podman counts it.
const SHM_SIZE: u64 = 65_536_000;

/// Reads `[Container]`; None if it has no image, which is a finding.
pub(crate) fn read(keys: &mut Keys<'_>, environment: &[String]) -> Option<Container> {
    let mut reader = Reader {
        variables: environment
            .iter()
            .filter_map(|variable| variable.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        keys,
    };
    reader.container()
}

struct Reader<'k, 'a> {
    keys: &'k mut Keys<'a>,
    /// Of the service: what a Quadlet says passes through a command line of systemd.
    variables: BTreeMap<String, String>,
}

impl<'a> Reader<'_, 'a> {
    fn container(&mut self) -> Option<Container> {
        let unit = self.keys.unit;
        let image = self.last("Image");
        let user = self.user();
        let container = Container {
            owner: self.keys.facts.manager.rootless(self.keys.facts.input),
            span: unit.section_span(SECTION),
            service: unit.name.to_string(),
            image: String::new(),
            image_span: unit.section_span(SECTION),
            name: self.name(),
            exec: self.exec(),
            entrypoint: self.entrypoint(),
            environment: self.pairs("Environment"),
            network: self.network(),
            user,
            working_directory: self.absolute("WorkingDir"),
            host_name: self.host_name(),
            add_capabilities: self.capabilities("AddCapability"),
            drop_capabilities: self.capabilities("DropCapability"),
            no_new_privileges: self.boolean("NoNewPrivileges").unwrap_or(false),
            read_only: self.boolean("ReadOnly"),
            read_only_tmpfs: self.boolean("ReadOnlyTmpfs").unwrap_or(true),
            tmpfs: self.tmpfs(),
            binds: self.binds(),
            pids_limit: self.pids_limit(),
            memory: self.typed("Memory", size::podman),
            shm_size: self
                .typed("ShmSize", |text| size::podman(text).map(i64::unsigned_abs))
                .unwrap_or(SHM_SIZE),
            sysctls: self.sysctls(),
            ulimits: self.ulimits(),
            annotations: self.annotations(),
            mask: self.colon_paths("Mask"),
            unmask: self.colon_paths("Unmask"),
            stop_signal: self.stop_signal(),
            stop_timeout: self
                .typed("StopTimeout", |text| {
                    value::number(text, 0, i64::from(i32::MAX)).map(|seconds| seconds as u64)
                })
                .unwrap_or(STOP_TIMEOUT),
        };
        let Some(image) = image.filter(|image| !image.text.is_empty()) else {
            if !unit.broken {
                self.keys.findings.push(
                    Finding::error(unit.section_span(SECTION), "the container has no `Image=`")
                        .label("nothing to run")
                        .help(
                            "add `Image=NAME`, and map NAME in appliance.toml: `[image.\"NAME\"]`",
                        ),
                );
            }
            return None;
        };
        for extension in [".image", ".build"] {
            if image.text.ends_with(extension) {
                let message = format!(
                    "`Image=` names a `{extension}` unit, which this version does not build"
                );
                self.keys.findings.push(
                    Finding::error(image.assignment.value.span(), message)
                        .label("refused")
                        .help("write the image's own name, and map it in appliance.toml"),
                );
            }
        }
        let image_span = image.assignment.value.span();
        Some(Container { image: image.text, image_span, ..container })
    }

    /// The last value with specifiers and variables replaced, and without a pair of quotes.
    fn last(&mut self, key: &str) -> Option<Text<'a>> {
        let unit = self.keys.unit;
        let line = unit.all(SECTION, key).next_back()?;
        let mut text = self.keys.expand(line)?;
        if let Some(inner) = text.text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            text.text = inner.to_owned();
        }
        text.text = self.variables(line, &text.text).concat();
        Some(text)
    }

    /// What systemd makes of the words of a command line.
    fn variables(&mut self, line: &Assignment, text: &str) -> Vec<String> {
        let mut problems = vec![];
        let expanded = variables::expand(text, &self.variables, &mut problems);
        for name in problems {
            let key = &line.key;
            let message =
                format!("`{key}=` uses the variable `{name}`, which `[Service]` does not set");
            self.keys.findings.push(
                Finding::warning(line.value.span(), message).label("becomes empty").help(format!(
                    "write `$$` for a dollar sign, or set `Environment={name}=...` in [Service]"
                )),
            );
        }
        expanded
    }

    /// Values since the last empty one, with the words of each.
    fn words(&mut self, key: &str, escapes: Escapes) -> Vec<(&'a Assignment, Vec<String>)> {
        let mut all = vec![];
        for line in self.keys.list(SECTION, key) {
            let Some(text) = self.keys.expand(line) else { continue };
            let split = quoting::split(&text.text, escapes);
            if let Some(range) = split.unknown.first() {
                // Podman drops the whole line here, with a warning that few would see.
                let message = format!("`{key}=` has an escape that does not exist");
                self.keys.findings.push(
                    Finding::error(text.span_of(range.clone()), message)
                        .label("unknown escape")
                        .help("write `\\\\` for a backslash"),
                );
                continue;
            }
            let mut words = vec![];
            for word in split.words {
                words.extend(self.variables(line, &word.text));
            }
            all.push((line, words));
        }
        all
    }

    /// Every value as a whole, since the last empty one.
    fn values(&mut self, key: &str) -> Vec<Text<'a>> {
        let mut values = vec![];
        for line in self.keys.list(SECTION, key) {
            let Some(mut text) = self.keys.expand(line) else { continue };
            text.text = self.variables(line, &text.text).concat();
            values.push(text);
        }
        values
    }

    fn typed<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, Expected>) -> Option<T> {
        let text = self.last(key).filter(|text| !text.text.is_empty())?;
        match parse(&text.text) {
            Ok(value) => Some(value),
            Err(expected) => {
                self.keys.bad(text.assignment, &expected);
                None
            }
        }
    }

    /// Podman takes everything that is not "yes" for "no"; here it is an error.
    fn boolean(&mut self, key: &str) -> Option<bool> {
        self.typed(key, value::boolean)
    }

    fn absolute(&mut self, key: &str) -> Option<String> {
        self.typed(key, value::path)
    }

    fn name(&mut self) -> String {
        let name = &self.keys.unit.name;
        let default = match name.instance() {
            Some(instance) => format!("systemd-{}_{instance}", name.prefix()),
            None => format!("systemd-{}", name.stem()),
        };
        self.typed("ContainerName", |text| {
            // Podman's rule for names; also one component of a path.
            let inner = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
            let fits = text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text.chars().all(inner)
                && text.len() <= 200;
            let expected = "a letter or digit, then letters, digits, `_`, `.` and `-`";
            fits.then(|| text.to_owned()).ok_or(Expected::Other(expected))
        })
        .unwrap_or(default)
    }

    fn exec(&mut self) -> Option<Vec<String>> {
        let unit = self.keys.unit;
        let line = unit.all(SECTION, "Exec").next_back()?;
        if line.value.text.is_empty() {
            return None;
        }
        let text = self.keys.expand(line)?;
        let split = quoting::split(&text.text, Escapes::Decode);
        if let Some(range) = split.unknown.first() {
            self.keys.findings.push(
                Finding::error(
                    text.span_of(range.clone()),
                    "`Exec=` has an escape that does not exist",
                )
                .label("unknown escape")
                .help("write `\\\\` for a backslash"),
            );
        }
        let mut words = vec![];
        for word in split.words {
            words.extend(self.variables(line, &word.text));
        }
        Some(words)
    }

    /// One word, or a JSON array of them.
    fn entrypoint(&mut self) -> Option<Vec<String>> {
        let text = self.last("Entrypoint").filter(|text| !text.text.is_empty())?;
        if !text.text.starts_with('[') {
            return Some(vec![text.text]);
        }
        match serde_json::from_str(&text.text) {
            Ok(words) => Some(words),
            Err(_) => {
                let expected = Expected::Other("a program, or a JSON array of words");
                self.keys.bad(text.assignment, &expected);
                None
            }
        }
    }

    /// `NAME=value` words, sorted, the last of a name wins.
    fn pairs(&mut self, key: &str) -> Vec<(String, String)> {
        let mut pairs = BTreeMap::new();
        for (line, words) in self.words(key, Escapes::Decode) {
            for word in words {
                match word.split_once('=') {
                    Some((name, value)) if !name.is_empty() => {
                        pairs.insert(name.to_owned(), value.to_owned());
                    }
                    _ => {
                        let message = match key {
                            "Environment" => {
                                "`NAME=value`: there is no host to copy a bare name from"
                            }
                            _ => "`name=value`",
                        };
                        self.keys.bad(line, &Expected::Other(message));
                    }
                }
            }
        }
        pairs.into_iter().collect()
    }

    fn annotations(&mut self) -> Vec<(String, String)> {
        let mut all: BTreeMap<_, _> = self.pairs("Label").into_iter().collect();
        all.extend(self.pairs("Annotation"));
        all.into_iter().collect()
    }

    /// Without the line Podman makes a bridge, which the engine crun does not.
    fn network(&mut self) -> Network {
        let unit = self.keys.unit;
        let values = self.values("Network");
        let Some(text) = values.last() else {
            if !unit.broken {
                self.keys.findings.push(
                    Finding::error(
                        unit.section_span(SECTION),
                        "the container has no `Network=`, and the engine crun makes no bridge",
                    )
                    .label("Podman would connect it to a bridge")
                    .help("add `Network=none`: activated sockets work with it; or `Network=host`"),
                );
            }
            return Network::None;
        };
        match text.text.as_str() {
            "none" => Network::None,
            "host" => Network::Host,
            _ => {
                let message =
                    format!("`Network={}` needs a network that Podman makes", shorten(&text.text));
                self.keys.findings.push(
                    Finding::error(text.assignment.value.span(), message)
                        .label("expected `none` or `host`")
                        .help("`Network=none` is enough for activated sockets; other networks will need `engine = \"podman\"`"),
                );
                Network::None
            }
        }
    }

    /// `User=` and `Group=` as `user[:group]`.
    fn user(&mut self) -> Option<String> {
        let user = self.last("User").filter(|text| !text.text.is_empty());
        let group = self.last("Group").filter(|text| !text.text.is_empty());
        match (user, group) {
            (None, None) => None,
            (Some(user), None) => Some(user.text),
            (Some(user), Some(group)) => Some(format!("{}:{}", user.text, group.text)),
            (None, Some(group)) => {
                self.keys.findings.push(
                    Finding::error(
                        group.assignment.key_span.clone(),
                        "`Group=` needs a `User=` beside it, as for Podman",
                    )
                    .label("whose group?")
                    .help("add `User=`"),
                );
                None
            }
        }
    }

    fn host_name(&mut self) -> Option<String> {
        self.typed("HostName", |text| {
            let fits = text.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c));
            let fits = fits && !text.starts_with(['-', '.']) && text.len() <= 64;
            let expected = "a host name of at most 64 letters, digits, `-` and `.`";
            fits.then(|| text.to_owned()).ok_or(Expected::Other(expected))
        })
    }

    fn capabilities(&mut self, key: &str) -> Vec<String> {
        let mut capabilities = vec![];
        for (line, words) in self.words(key, Escapes::Literal) {
            for word in words {
                match capability::parse(&word) {
                    Ok(capability) => capabilities.push(capability),
                    Err(expected) => self.keys.bad(line, &expected),
                }
            }
        }
        capabilities.sort();
        capabilities.dedup();
        capabilities
    }

    /// `/path[:option,option]`
    fn tmpfs(&mut self) -> Vec<(String, Vec<String>)> {
        let mut mounts = vec![];
        for text in self.values("Tmpfs") {
            let (path, options) = text.text.split_once(':').unwrap_or((&text.text, ""));
            match value::path(path) {
                Ok(path) => mounts.push((path, comma_list(options))),
                Err(expected) => self.keys.bad(text.assignment, &expected),
            }
        }
        mounts
    }

    /// `/source:/destination[:option,option]`
    fn binds(&mut self) -> Vec<(String, String, Vec<String>)> {
        const OPTIONS: [&str; 18] = [
            "ro", "rw", "z", "Z", "exec", "noexec", "suid", "nosuid", "dev", "nodev", "rbind",
            "bind", "private", "rprivate", "shared", "rshared", "slave", "rslave",
        ];
        let mut binds = vec![];
        for text in self.values("Volume") {
            let mut parts = text.text.splitn(3, ':');
            let source = parts.next().unwrap_or_default();
            let destination = parts.next().unwrap_or_default();
            let options = comma_list(parts.next().unwrap_or_default());
            if !source.starts_with('/') || destination.is_empty() {
                let expected = "`/source:/destination`: named volumes, and paths beside the unit, \
                                need Podman";
                self.keys.bad(text.assignment, &Expected::Other(expected));
                continue;
            }
            if let Some(option) = options.iter().find(|option| !OPTIONS.contains(&option.as_str()))
            {
                let message = format!(
                    "`Volume=` has the option `{option}`, which the engine crun does not know"
                );
                self.keys.findings.push(
                    Finding::error(text.assignment.value.span(), message)
                        .label("refused by the engine crun")
                        .help("take the option out; `ro` and `rw` and mount flags are taken"),
                );
                continue;
            }
            match (value::path(source), value::path(destination)) {
                (Ok(source), Ok(destination)) => binds.push((source, destination, options)),
                (Err(expected), _) | (_, Err(expected)) => {
                    self.keys.bad(text.assignment, &expected);
                }
            }
        }
        binds
    }

    fn pids_limit(&mut self) -> Option<i64> {
        let limit = self.typed("PidsLimit", |text| value::number(text, -1, i64::MAX));
        // Podman: 0 and -1 are unlimited.
        Some(limit.unwrap_or(PIDS_LIMIT)).filter(|limit| *limit > 0)
    }

    fn sysctls(&mut self) -> Vec<(String, String)> {
        let mut sysctls = BTreeMap::new();
        for (line, words) in self.words("Sysctl", Escapes::Literal) {
            for word in words {
                match word.split_once('=').filter(|(name, _)| !name.is_empty()) {
                    Some((name, value)) => {
                        sysctls.insert(name.to_owned(), value.to_owned());
                    }
                    None => self.keys.bad(line, &Expected::Other("`name=value`")),
                }
            }
        }
        sysctls.into_iter().collect()
    }

    /// `name=soft[:hard]`, -1 is unlimited.
    fn ulimits(&mut self) -> Vec<(String, u64, u64)> {
        const NAMES: [&str; 15] = [
            "core",
            "cpu",
            "data",
            "fsize",
            "locks",
            "memlock",
            "msgqueue",
            "nice",
            "nofile",
            "nproc",
            "rss",
            "rtprio",
            "rttime",
            "sigpending",
            "stack",
        ];
        let number = |text: &str| match text {
            "-1" => Some(u64::MAX),
            number => number.parse().ok(),
        };
        let mut limits = BTreeMap::new();
        for text in self.values("Ulimit") {
            let parsed = text.text.split_once('=').and_then(|(name, values)| {
                let (soft, hard) = values.split_once(':').unwrap_or((values, values));
                let (soft, hard) = (number(soft)?, number(hard)?);
                (NAMES.contains(&name) && soft <= hard).then(|| (name.to_owned(), (soft, hard)))
            });
            match parsed {
                Some((name, limit)) => {
                    limits.insert(name, limit);
                }
                None => {
                    let expected = Expected::Other("`name=soft:hard`, such as `nofile=1024:4096`");
                    self.keys.bad(text.assignment, &expected);
                }
            }
        }
        limits.into_iter().map(|(name, (soft, hard))| (name, soft, hard)).collect()
    }

    /// Paths with `:` between them; `ALL` for Unmask=.
    fn colon_paths(&mut self, key: &str) -> Vec<String> {
        let mut paths = vec![];
        for (line, words) in self.words(key, Escapes::Decode) {
            for part in words.iter().flat_map(|word| word.split(':')) {
                match value::path(part) {
                    _ if key == "Unmask" && part.eq_ignore_ascii_case("all") => {
                        paths.push("ALL".to_owned());
                    }
                    Ok(path) => paths.push(path),
                    Err(expected) => self.keys.bad(line, &expected),
                }
            }
        }
        paths
    }

    fn stop_signal(&mut self) -> Option<String> {
        self.typed("StopSignal", |text| signal::number(text).map(|_| text.to_owned()))
    }
}

fn comma_list(text: &str) -> Vec<String> {
    text.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Two containers must not have one name: crun knows them by it.
pub(crate) fn same_names(containers: &[(String, Container)], findings: &mut Vec<Finding>) {
    let mut seen: BTreeMap<String, &Span> = BTreeMap::new();
    for (service, container) in containers {
        if let Some(first) = seen.insert(container.id(), &container.span) {
            let message = format!("two containers have the name `{}`", container.name);
            findings.push(
                Finding::error(container.span.clone(), message)
                    .label(format!("the other is in {}", first.source.path))
                    .help(format!("give the container of {service} a `ContainerName=` of its own")),
            );
        }
    }
}
