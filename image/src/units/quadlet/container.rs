//! `[Container]` becomes a [`Container`].

use super::capability;
use super::reader::{Reader, SECTION};
use crate::container::{
    CgroupsMode, Container, Health, Notify, Reload, SHM_SIZE, STOP_TIMEOUT, SecurityLabels,
    UserNamespace,
};
use crate::finding::{Finding, Span};
use crate::units::keys::Keys;
use crate::units::quoting::{self, Escapes};
use crate::units::value::{self, Expected, signal, size};
use std::collections::BTreeMap;

/// Reads `[Container]`; None if it has nothing to run, which is a finding.
pub(crate) fn read(keys: &mut Keys<'_>, environment: &[String]) -> Option<Container> {
    Reader::new(keys, environment).container()
}

impl Reader<'_, '_> {
    fn container(&mut self) -> Option<Container> {
        let unit = self.keys.unit;
        let image = self.last("Image").filter(|image| !image.text.is_empty());
        let rootfs = self.written("Rootfs");
        let span = unit.section_span(SECTION);
        let image_span =
            image.as_ref().map_or_else(|| span.clone(), |image| image.assignment.value.span());
        let image = image.map(|image| image.text).unwrap_or_default();
        if image.is_empty() == rootfs.is_none() {
            self.what_to_run(&span, rootfs.is_some());
            return None;
        }
        let name = self.name();
        let container = Container {
            owner: self.keys.facts.manager.rootless(self.keys.facts.input),
            lines: self.lines(),
            rootfs,
            exec: self.exec(),
            entrypoint: self.entrypoint(),
            working_directory: self.absolute("WorkingDir"),
            host_name: self.host_name(),
            read_only: self.boolean("ReadOnly"),
            read_only_tmpfs: self.boolean("ReadOnlyTmpfs").unwrap_or(true),
            volatile_tmp: self.boolean("VolatileTmp").unwrap_or(false),
            tmpfs: self.tmpfs(),
            volumes: self.volumes(),
            mounts: self.words_written("Mount", Escapes::Decode),
            devices: self.devices(),
            secrets: self.words_written("Secret", Escapes::Decode),
            stop_signal: self.stop_signal(),
            stop_timeout: self
                .typed("StopTimeout", |text| {
                    value::number(text, 0, i64::from(i32::MAX)).map(|seconds| seconds as u64)
                })
                .unwrap_or(STOP_TIMEOUT),
            run_init: self.boolean("RunInit").unwrap_or(false),
            notify: self.notify(),
            reload: self.reload(),
            health: self.health(),
            log_driver: self.written("LogDriver"),
            log_options: self.words_written("LogOpt", Escapes::Literal),
            ..Container::new(span, unit.name.as_str(), &name, &image)
        };
        let container = Container { image_span, ..container };
        let container = self.process(container);
        let container = self.limited(container);
        let container = self.network_keys(container);
        Some(self.of_podman(container))
    }

    /// Who it runs as, with which environment and rights.
    fn process(&mut self, container: Container) -> Container {
        let mut environment = vec![];
        let mut pass_environment = vec![];
        for (name, value) in self.assignments("Environment") {
            match value {
                Some(value) => environment.push((name, value)),
                None => pass_environment.push(name),
            }
        }
        Container {
            environment,
            pass_environment,
            environment_files: self.words_written("EnvironmentFile", Escapes::Decode),
            environment_host: self.boolean("EnvironmentHost"),
            http_proxy: self.boolean("HttpProxy"),
            user: self.user(),
            groups: self.all_written("GroupAdd"),
            user_namespace: UserNamespace {
                mode: self.written("UserNS"),
                uid_maps: self.words_written("UIDMap", Escapes::Literal),
                gid_maps: self.words_written("GIDMap", Escapes::Literal),
                sub_uid: self.written("SubUIDMap"),
                sub_gid: self.written("SubGIDMap"),
                remap_users: self.written("RemapUsers"),
                remap_uid: self.words_written("RemapUid", Escapes::Literal),
                remap_gid: self.words_written("RemapGid", Escapes::Literal),
                remap_uid_size: self.written("RemapUidSize"),
                ..UserNamespace::default()
            },
            timezone: self.written("Timezone"),
            add_capabilities: self.capabilities("AddCapability"),
            drop_capabilities: self.capabilities("DropCapability"),
            no_new_privileges: self.boolean("NoNewPrivileges").unwrap_or(false),
            seccomp_profile: self.written("SeccompProfile"),
            app_armor: self.written("AppArmor"),
            security_labels: SecurityLabels {
                disable: self.boolean("SecurityLabelDisable").unwrap_or(false),
                nested: self.boolean("SecurityLabelNested").unwrap_or(false),
                kind: self.written("SecurityLabelType"),
                file_type: self.written("SecurityLabelFileType"),
                level: self.written("SecurityLabelLevel"),
            },
            ..container
        }
    }

    /// What it may use, see and touch.
    fn limited(&mut self, container: Container) -> Container {
        Container {
            cgroups_mode: self.cgroups_mode(),
            pids_limit: self.pids_limit(),
            memory: self.typed("Memory", size::podman),
            shm_size: self
                .typed("ShmSize", |text| size::podman(text).map(i64::unsigned_abs))
                .unwrap_or(SHM_SIZE),
            sysctls: self.sysctls(),
            ulimits: self.ulimits(),
            ulimit_host: self.values("Ulimit").iter().any(|text| text.text == "host"),
            annotations: self.pairs("Annotation"),
            labels: self.pairs("Label"),
            mask: self.colon_paths("Mask"),
            unmask: self.colon_paths("Unmask"),
            ..container
        }
    }

    /// What only Podman can do.
    fn of_podman(&mut self, container: Container) -> Container {
        Container {
            pod: self.written("Pod"),
            start_with_pod: self.boolean("StartWithPod"),
            pull: self.written("Pull"),
            retry: self.written("Retry"),
            retry_delay: self.written("RetryDelay"),
            auto_update: self.written("AutoUpdate"),
            modules: self.all_written("ContainersConfModule"),
            global_arguments: self.words_written("GlobalArgs", Escapes::Decode),
            podman_arguments: self.words_written("PodmanArgs", Escapes::Decode),
            ..container
        }
    }

    fn what_to_run(&mut self, span: &Span, both: bool) {
        if self.keys.unit.broken {
            return;
        }
        let finding = match both {
            true => Finding::error(span.clone(), "the container has `Image=` and `Rootfs=`")
                .label("which of them?")
                .help("take one of them out"),
            false => Finding::error(span.clone(), "the container has no `Image=`")
                .label("nothing to run")
                .help("add `Image=NAME`, and map NAME in appliance.toml: `[image.\"NAME\"]`"),
        };
        self.keys.findings.push(finding);
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
        self.command("Exec")
    }

    /// The words of the last value.
    fn command(&mut self, key: &str) -> Option<Vec<String>> {
        let unit = self.keys.unit;
        let line = unit.all(SECTION, key).next_back()?;
        if line.value.text.is_empty() {
            return None;
        }
        let text = self.keys.expand(line)?;
        let split = quoting::split(&text.text, Escapes::Decode);
        if let Some(range) = split.unknown.first() {
            self.keys.findings.push(
                Finding::error(
                    text.span_of(range.clone()),
                    format!("`{key}=` has an escape that does not exist"),
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

    fn cgroups_mode(&mut self) -> CgroupsMode {
        const MODES: [&str; 4] = ["split", "enabled", "no-conmon", "disabled"];
        self.typed("CgroupsMode", |text| match text {
            "split" => Ok(CgroupsMode::Split),
            "enabled" => Ok(CgroupsMode::Enabled),
            "no-conmon" => Ok(CgroupsMode::NoConmon),
            "disabled" => Ok(CgroupsMode::Disabled),
            _ => Err(Expected::OneOf(&MODES)),
        })
        .unwrap_or_default()
    }

    fn notify(&mut self) -> Notify {
        self.typed("Notify", |text| match value::boolean(text) {
            Ok(true) => Ok(Notify::Container),
            Ok(false) => Ok(Notify::Runtime),
            Err(_) if text == "healthy" => Ok(Notify::Healthy),
            Err(_) => Err(Expected::Other("yes, no or `healthy`")),
        })
        .unwrap_or_default()
    }

    fn reload(&mut self) -> Option<Reload> {
        let command = self.command("ReloadCmd");
        let signal = self.written("ReloadSignal");
        match (command, signal) {
            (Some(_), Some(signal)) => {
                self.keys.findings.push(
                    Finding::error(signal.span, "there is a `ReloadCmd=` as well")
                        .label("one of them")
                        .help("take one of the two out, as Podman would say"),
                );
                None
            }
            (Some(words), None) => Some(Reload::Command(words)),
            (None, signal) => signal.map(Reload::Signal),
        }
    }

    fn health(&mut self) -> Health {
        Health {
            command: self.written("HealthCmd"),
            interval: self.written("HealthInterval"),
            timeout: self.written("HealthTimeout"),
            retries: self.written("HealthRetries"),
            start_period: self.written("HealthStartPeriod"),
            on_failure: self.written("HealthOnFailure"),
            startup_command: self.written("HealthStartupCmd"),
            startup_interval: self.written("HealthStartupInterval"),
            startup_timeout: self.written("HealthStartupTimeout"),
            startup_retries: self.written("HealthStartupRetries"),
            startup_success: self.written("HealthStartupSuccess"),
            log_destination: self.written("HealthLogDestination"),
            max_log_count: self.written("HealthMaxLogCount"),
            max_log_size: self.written("HealthMaxLogSize"),
        }
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
