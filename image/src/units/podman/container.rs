//! `[Container]` becomes `podman run`.

use super::command::Command;
use super::health::Checks;
use super::lines::{Lines, Text};
use super::resources::Resources;
use super::{devices, health, mappings, storage};
use crate::finding::{Finding, Span};
use crate::units::definition::Definition;
use crate::units::files::QUADLETS;
use crate::units::manager::Manager;
use crate::units::quoting::{self, Escapes};
use crate::units::syntax::{Assignment, Header};
use crate::units::value::Expected;
use crate::units::well_known;

/// The service that a `.container` became.
pub(crate) struct Made {
    /// To be read as any other service.
    pub(crate) unit: Definition,
    /// `Image=`, with its specifiers, unless another unit makes the image or there is a `Rootfs=`.
    pub(crate) image: Option<(String, Span)>,
    pub(crate) health: Option<Box<Checks>>,
}

/// What is made of a `.container`.
pub(super) struct Maker<'a> {
    pub(super) lines: Lines<'a>,
    /// Other Quadlet files.
    pub(super) resources: &'a Resources,
    /// Whose the file is.
    manager: &'a Manager,
    /// Where the guest has the file.
    pub(super) folder: String,
    /// Lines of `[Unit]` that follow from `[Container]`.
    pub(super) unit: Vec<Assignment>,
    pub(super) run: Command,
}

/// Makes the service.
pub(crate) fn make(
    unit: &Definition,
    resources: &Resources,
    manager: &Manager,
    findings: &mut Vec<Finding>,
) -> Made {
    let lines = Lines { unit, section: "Container", findings };
    let run = Command::podman(lines.span());
    let folder = super::folder(manager);
    let mut maker = Maker { lines, resources, manager, folder, unit: vec![], run };
    maker.make()
}

impl Maker<'_> {
    fn make(&mut self) -> Made {
        let unit = self.lines.unit;
        let span = self.lines.span();
        let line = |key: &str, text: &str| Assignment::made("Unit", key, text, &span);
        let source = format!("{}/{}", self.folder, unit.quadlet.as_deref().unwrap_or_default());
        self.unit.push(line("SourcePath", &source));
        let mut sections: Vec<Assignment> = vec![];
        if self.has_default_dependencies() {
            let online = match self.manager.user() {
                None => well_known::NETWORK_ONLINE,
                Some(_) => well_known::NETWORK_ONLINE_OF_USERS,
            };
            sections.push(line("Wants", online));
            sections.push(line("After", online));
        }
        let mut service = vec![];
        let image = self.image();
        self.service(&mut service);
        self.unit.push(line("RequiresMountsFor", "%t/containers"));
        let stop = self.stop();
        service.push(stop.clone().line("ExecStop"));
        service.push(stop.ignoring_failure().line("ExecStopPost"));
        self.base();
        self.options();
        self.what_runs(image.as_ref());
        service.push(self.run.clone().line("ExecStart"));
        service.extend(self.reload());

        sections.extend(unit.assignments.iter().map(|line| self.kept(line)));
        sections.append(&mut self.unit);
        sections.extend(service);
        let rename = |name: &str| match name {
            "Container" | "Quadlet" => format!("X-{name}"),
            name => name.to_owned(),
        };
        for line in &mut sections {
            line.section = rename(&line.section);
        }
        let headers = unit.sections.iter();
        let headers =
            headers.map(|header| Header { name: rename(&header.name), span: header.span.clone() });
        let made = Definition {
            name: unit.name.clone(),
            quadlet: None,
            place: unit.place,
            sources: unit.sources.clone(),
            sections: headers.collect(),
            assignments: sections,
            broken: unit.broken,
            masked: unit.masked,
        };
        let pulled = image.filter(|image| !self.is_made_by_a_unit(&image.text));
        let health = health::of(self).map(Box::new);
        Made { unit: made, image: pulled.map(|image| (image.text, image.span)), health }
    }

    fn has_default_dependencies(&mut self) -> bool {
        let findings = &mut *self.lines.findings;
        let mut lines = Lines { unit: self.lines.unit, section: "Quadlet", findings };
        lines.boolean("DefaultDependencies").is_none_or(|(value, _)| value)
    }

    /// A line of the file as it stays. In `[Unit]` the names of Quadlet files stand for the
    /// services that they become.
    fn kept(&self, line: &Assignment) -> Assignment {
        let is_file = |word: &str| QUADLETS.iter().any(|end| word.ends_with(&format!(".{end}")));
        let words = quoting::split(&line.value.text, Escapes::Literal).words;
        if line.section != "Unit" || !words.iter().any(|word| is_file(&word.text)) {
            return line.clone();
        }
        let named = |word: quoting::Word| match self.resources.get(&word.text) {
            Some(resource) => resource.service.to_string(),
            None => word.text,
        };
        let text = words.into_iter().map(named).collect::<Vec<_>>().join(" ");
        Assignment {
            key_span: line.key_span.clone(),
            ..Assignment::made("Unit", &line.key, text, &line.value.span())
        }
    }

    /// What `[Service]` has beside commands.
    fn service(&mut self, service: &mut Vec<Assignment>) {
        let unit = self.lines.unit;
        let span = self.lines.span();
        let line = |key: &str, text: &str| Assignment::made("Service", key, text, &span);
        service.push(line("Environment", "PODMAN_SYSTEMD_UNIT=%n"));
        match unit.all("Service", "KillMode").next_back() {
            None => service.push(line("KillMode", "mixed")),
            Some(given) if ["mixed", "control-group"].contains(&given.value.text.as_str()) => {}
            Some(given) => {
                let expected = Expected::OneOf(&["mixed", "control-group"]);
                self.wrong_line(given, &expected);
            }
        }
        service.push(line("Delegate", "yes"));
        match unit.all("Service", "Type").next_back() {
            Some(given) if given.value.text == "oneshot" => {}
            Some(given) if !["notify", ""].contains(&given.value.text.as_str()) => {
                self.wrong_line(given, &Expected::OneOf(&["notify", "oneshot"]));
            }
            given => {
                if given.is_none_or(|given| given.value.text.is_empty()) {
                    service.push(line("Type", "notify"));
                }
                service.push(line("NotifyAccess", "all"));
            }
        }
        if !unit.has("Service", "SyslogIdentifier") {
            service.push(line("SyslogIdentifier", "%N"));
        }
        if let Some(start) = unit.all("Service", "ExecStart").next_back() {
            self.lines.findings.push(
                Finding::error(start.key_span.clone(), "`ExecStart=` is made from `[Container]`")
                    .label("refused in a Quadlet")
                    .help("take the line out, or write a `.service`"),
            );
        }
    }

    fn wrong_line(&mut self, line: &Assignment, expected: &Expected) {
        let text = Text { text: line.value.text.clone(), span: line.value.span() };
        self.lines.wrong(&line.key, &text, expected);
    }

    fn is_oneshot(&self) -> bool {
        let line = self.lines.unit.all("Service", "Type").next_back();
        line.is_some_and(|line| line.value.text == "oneshot")
    }

    /// Exactly one of `Image=` and `Rootfs=`.
    fn image(&mut self) -> Option<Text> {
        let image = self.lines.last("Image");
        let rootfs = self.lines.last("Rootfs");
        let finding = match (&image, &rootfs) {
            (None, None) if self.lines.unit.broken => return None,
            (None, None) => Finding::error(self.lines.span(), "the container has no `Image=`")
                .label("nothing to run")
                .help("add `Image=NAME`, and map NAME in appliance.toml: `[image.\"NAME\"]`"),
            (Some(_), Some(rootfs)) => {
                let message = "`Image=` and `Rootfs=` do not go together";
                Finding::error(rootfs.span.clone(), message)
                    .label("the container has one of them")
                    .help("take one of the two lines out")
            }
            _ => return image,
        };
        self.lines.findings.push(finding);
        None
    }

    fn is_made_by_a_unit(&self, image: &str) -> bool {
        [".image", ".build"].iter().any(|end| image.ends_with(end))
    }

    pub(super) fn name(&self) -> Text {
        let default = match &self.lines.unit.name.instance() {
            Some(_) => "systemd-%p_%i",
            None => "systemd-%N",
        };
        let named = self.lines.last("ContainerName");
        named.unwrap_or_else(|| Text { text: default.into(), span: self.lines.span() })
    }

    /// Podman, and the options that stand before every verb.
    fn base(&mut self) {
        let mut command = Command::podman(self.lines.span());
        for module in self.lines.all("ContainersConfModule") {
            command.text(&module.with(format!("--module={}", module.text)));
        }
        for word in self.lines.words("GlobalArgs", Escapes::Decode) {
            command.text(&word);
        }
        self.run = command;
    }

    fn stop(&mut self) -> Command {
        self.base();
        let mut command = self.run.clone();
        command.push("rm -v -f -i --cidfile=%t/%N.cid");
        command
    }

    fn reload(&mut self) -> Option<Assignment> {
        let words = self.lines.last_words("ReloadCmd");
        let signal = self.lines.last("ReloadSignal");
        self.base();
        match (words.as_slice(), signal) {
            ([], None) => return None,
            ([], Some(signal)) => {
                self.run.push("kill");
                self.run.option("--signal", &signal);
                self.run.text(&self.name());
            }
            (words, None) => {
                self.run.push("exec");
                self.run.text(&self.name());
                words.iter().for_each(|word| self.run.text(word));
            }
            (_, Some(signal)) => {
                let message = "`ReloadSignal=` and `ReloadCmd=` do not go together";
                self.lines.findings.push(
                    Finding::error(signal.span, message)
                        .label("a reload is one of them")
                        .help("take one of the two lines out"),
                );
                return None;
            }
        }
        Some(self.run.clone().line("ExecReload"))
    }

    /// All that stands between `run` and the image.
    fn options(&mut self) {
        self.run.push("run --name");
        let name = self.name();
        self.run.text(&name);
        self.run.push("--cidfile=%t/%N.cid --replace --rm");
        self.last(&[("LogDriver", "--log-driver")]);
        self.words("LogOpt", "--log-opt", "");
        match self.lines.last("CgroupsMode") {
            Some(mode) => self.run.option("--cgroups", &mode),
            None => self.run.push("--cgroups=split"),
        }
        self.last(&[
            ("Timezone", "--tz"),
            ("PidsLimit", "--pids-limit"),
            ("ShmSize", "--shm-size"),
            ("Memory", "--memory"),
            ("Entrypoint", "--entrypoint"),
            ("WorkingDir", "--workdir"),
            ("IP", "--ip"),
            ("IP6", "--ip6"),
            ("HostName", "--hostname"),
            ("StopSignal", "--stop-signal"),
            ("StopTimeout", "--stop-timeout"),
            ("Pull", "--pull"),
            ("Retry", "--retry"),
            ("RetryDelay", "--retry-delay"),
        ]);
        self.all(&[
            ("NetworkAlias", "--network-alias"),
            ("Ulimit", "--ulimit"),
            ("DNS", "--dns"),
            ("DNSOption", "--dns-option"),
            ("DNSSearch", "--dns-search"),
            ("GroupAdd", "--group-add"),
            ("AddHost", "--add-host"),
            ("Tmpfs", "--tmpfs"),
        ]);
        self.questions(&[
            ("RunInit", "--init"),
            ("EnvironmentHost", "--env-host"),
            ("HttpProxy", "--http-proxy"),
            ("ReadOnlyTmpfs", "--read-only-tmpfs"),
        ]);
        storage::networks(self);
        self.notify();
        self.security();
        devices::add(self);
        self.words("Sysctl", "--sysctl", "");
        self.questions(&[("ReadOnly", "--read-only")]);
        let read_only = self.lines.yes("ReadOnly").is_some();
        if let Some(text) = self.lines.yes("VolatileTmp").filter(|_| !read_only) {
            self.run.option("--tmpfs", &text.with("/tmp:rw,size=512M,mode=1777"));
        }
        mappings::add(self);
        storage::volumes(self);
        if let Some(update) = self.lines.last("AutoUpdate") {
            let label = format!("io.containers.autoupdate={}", update.text);
            self.run.option("--label", &update.with(label));
        }
        self.ports();
        self.pairs("Environment", "--env");
        self.pairs("Label", "--label");
        self.pairs("Annotation", "--annotation");
        storage::environment_files(self);
        self.arguments("Secret", "--secret");
        storage::mounts(self);
        self.health();
        self.pod();
        for word in self.lines.words("PodmanArgs", Escapes::Decode) {
            self.run.text(&word);
        }
    }

    fn last(&mut self, keys: &[(&str, &str)]) {
        for (key, option) in keys {
            if let Some(text) = self.lines.last(key) {
                self.run.option(option, &text);
            }
        }
    }

    fn all(&mut self, keys: &[(&str, &str)]) {
        for (key, option) in keys {
            for text in self.lines.all(key) {
                self.run.option(option, &text);
            }
        }
    }

    fn questions(&mut self, keys: &[(&str, &str)]) {
        for (key, option) in keys {
            match self.lines.boolean(key) {
                Some((true, text)) => self.run.text(&text.with(*option)),
                Some((false, text)) => self.run.text(&text.with(format!("{option}=false"))),
                None => {}
            }
        }
    }

    /// Words in which a backslash is only itself.
    fn words(&mut self, key: &str, option: &str, prefix: &str) {
        for word in self.lines.words(key, Escapes::Literal) {
            self.run.option(option, &word.with(format!("{prefix}{}", word.text)));
        }
    }

    /// Words with C's escapes.
    fn arguments(&mut self, key: &str, option: &str) {
        for word in self.lines.words(key, Escapes::Decode) {
            self.run.option(option, &word);
        }
    }

    fn pairs(&mut self, key: &str, option: &str) {
        for pair in self.lines.pairs(key).values() {
            self.run.option(option, pair);
        }
    }

    /// In the background, with word of its start; a oneshot service waits for the end itself.
    fn notify(&mut self) {
        if self.is_oneshot() {
            return;
        }
        let healthy =
            self.lines.last("Notify").filter(|it| it.text.eq_ignore_ascii_case("healthy"));
        match healthy {
            Some(text) => self.run.text(&text.with("--sdnotify=healthy")),
            None => match self.lines.yes("Notify") {
                Some(text) => self.run.text(&text.with("--sdnotify=container")),
                None => self.run.push("--sdnotify=conmon"),
            },
        }
        self.run.push("-d");
    }

    fn security(&mut self) {
        const OPTION: &str = "--security-opt";
        if let Some(text) = self.lines.yes("NoNewPrivileges") {
            self.run.text(&text.with("--security-opt=no-new-privileges"));
        }
        for (key, label) in
            [("SecurityLabelDisable", "label=disable"), ("SecurityLabelNested", "label=nested")]
        {
            if let Some(text) = self.lines.yes(key) {
                self.run.option(OPTION, &text.with(label));
            }
        }
        for (key, prefix) in [
            ("SecurityLabelType", "label=type:"),
            ("SecurityLabelFileType", "label=filetype:"),
            ("SecurityLabelLevel", "label=level:"),
            ("AppArmor", "apparmor="),
            ("SeccompProfile", "seccomp="),
        ] {
            if let Some(text) = self.lines.last(key) {
                self.run.option(OPTION, &text.with(format!("{prefix}{}", text.text)));
            }
        }
        for (key, prefix) in [("Mask", "mask="), ("Unmask", "unmask=")] {
            for word in self.lines.words(key, Escapes::Decode) {
                self.run.option(OPTION, &word.with(format!("{prefix}{}", word.text)));
            }
        }
        // What is dropped first can be added again.
        for (key, option) in [("DropCapability", "--cap-drop"), ("AddCapability", "--cap-add")] {
            for word in self.lines.words(key, Escapes::Literal) {
                self.run.option(option, &word.with(word.text.to_lowercase()));
            }
        }
    }

    fn ports(&mut self) {
        for port in self.lines.all("ExposeHostPort") {
            match is_port_range(&port.text) {
                true => self.run.option("--expose", &port),
                false => {
                    let expected = "a port or a range of ports, with `/tcp` or `/udp` behind";
                    self.lines.wrong("ExposeHostPort", &port, &Expected::Other(expected));
                }
            }
        }
        self.all(&[("PublishPort", "--publish")]);
    }

    fn health(&mut self) {
        for key in [
            "Cmd",
            "Interval",
            "OnFailure",
            "LogDestination",
            "MaxLogCount",
            "MaxLogSize",
            "Retries",
            "StartPeriod",
            "Timeout",
            "StartupCmd",
            "StartupInterval",
            "StartupRetries",
            "StartupSuccess",
            "StartupTimeout",
        ] {
            let mut option = String::from("--health");
            for c in key.chars() {
                if c.is_ascii_uppercase() {
                    option.push('-');
                }
                option.push(c.to_ascii_lowercase());
            }
            if let Some(text) = self.lines.last(&format!("Health{key}")) {
                self.run.option(&option, &text);
            }
        }
    }

    fn pod(&mut self) {
        let Some(pod) = self.lines.last("Pod") else { return };
        let resource = self.resources.get(&pod.text).filter(|_| pod.text.ends_with(".pod"));
        let Some(resource) = resource else {
            storage::nothing_there(self, "Pod", &pod, "a `.pod` file");
            return;
        };
        let service = &resource.service;
        let file = pod.with(format!("%t/{}.pod-id", service.stem()));
        self.run.option("--pod-id-file", &file);
        for key in ["BindsTo", "After"] {
            self.unit.push(Assignment::made("Unit", key, service.as_str(), &pod.span));
        }
    }

    /// The image and its arguments.
    fn what_runs(&mut self, image: Option<&Text>) {
        if let Some(image) = image {
            let image = storage::image(self, "Image", image);
            self.run.text(&image);
        } else if let Some(rootfs) = self.lines.last("Rootfs") {
            self.run.option("--rootfs", &rootfs);
        }
        for word in self.lines.last_words("Exec") {
            self.run.text(&word);
        }
    }
}

/// `80`, `80-90`, `80/tcp`
fn is_port_range(text: &str) -> bool {
    let ports = match text.split_once('/') {
        Some((ports, "tcp" | "udp")) => ports,
        Some(_) => return false,
        None => text,
    };
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match ports.split_once('-') {
        Some((first, last)) => number(first) && number(last),
        None => number(ports),
    }
}
