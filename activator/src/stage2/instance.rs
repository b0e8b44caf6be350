//! The name of a connection's instance, which only PID 1 knows, takes the place that the host has
//! left for it in a template's texts.

use crate::manifest::{
    Command, CredentialSource, Device, Execution, INSTANCE, INSTANCE_UNESCAPED, Input, Mount,
    Output, Service, Unit, UnitKind,
};

/// Puts the instance's name into all texts of a unit that its processes use.
pub(super) fn fill(unit: &mut Unit, instance: &str) {
    let texts = match &mut unit.kind {
        UnitKind::Service(service) => {
            let lists = [
                &mut service.condition,
                &mut service.start_pre,
                &mut service.start,
                &mut service.start_post,
                &mut service.reload,
                &mut service.stop,
                &mut service.stop_post,
            ];
            let mut texts: Vec<&mut String> =
                lists.into_iter().flatten().flat_map(command).collect();
            if let Some(health) = &mut service.health {
                let startup = health.startup.as_mut().map(|startup| &mut startup.probe.command);
                let probes = [Some(&mut health.probe.command), startup];
                texts.extend(probes.into_iter().flatten().flat_map(command));
            }
            texts.extend(execution(&mut service.execution));
            texts
        }
        _ => return,
    };
    let unescaped = unescape(instance);
    for text in texts {
        put(text, instance, &unescaped);
    }
    let UnitKind::Service(Service { execution: Execution { stage2: Some(stage2), .. }, .. }) =
        &mut unit.kind
    else {
        return;
    };
    let credentials = stage2.credentials.iter_mut().filter_map(|it| match &mut it.source {
        CredentialSource::Text(bytes) => Some(bytes),
        CredentialSource::Path(_) => None,
    });
    for bytes in credentials.chain([&mut stage2.stdin_data]) {
        // What is no text has no name in it.
        if let Ok(text) = std::str::from_utf8(bytes) {
            let mut text = text.to_owned();
            put(&mut text, instance, &unescaped);
            *bytes = text.into_bytes();
        }
    }
}

fn put(text: &mut String, instance: &str, unescaped: &str) {
    for (hole, name) in [(INSTANCE, instance), (INSTANCE_UNESCAPED, unescaped)] {
        if text.contains(hole) {
            *text = text.replace(hole, name);
        }
    }
}

/// `systemd-escape --unescape`: `-` is a slash, `\xHH` a byte. What is no escape stays.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = tail.split_first_chunk::<3>().filter(|_| *first == b'\\');
        let escaped = escaped.and_then(|([x, digits @ ..], tail)| {
            let digits = std::str::from_utf8(digits).ok().filter(|_| *x == b'x')?;
            Some((u8::from_str_radix(digits, 16).ok()?, tail))
        });
        let (byte, tail) = escaped.unwrap_or((if *first == b'-' { b'/' } else { *first }, tail));
        bytes.push(byte);
        rest = tail;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn command(command: &mut Command) -> impl Iterator<Item = &mut String> {
    std::iter::once(&mut command.program).chain(&mut command.arguments)
}

fn execution(execution: &mut Execution) -> Vec<&mut String> {
    let mut texts: Vec<&mut String> = execution.environment.iter_mut().collect();
    texts.push(&mut execution.working_directory);
    if let Input::File(path) = &mut execution.stdin {
        texts.push(path);
    }
    for output in [&mut execution.stdout, &mut execution.stderr] {
        if let Output::File { path, .. } = output {
            texts.push(path);
        }
    }
    let Some(stage2) = &mut execution.stage2 else { return texts };
    texts.extend(stage2.environment_files.iter_mut().map(|file| &mut file.path));
    texts.extend(&mut stage2.unset_environment);
    texts.extend(&mut stage2.terminal);
    for directory in &mut stage2.directories {
        texts.push(&mut directory.path);
        texts.extend(&mut directory.links);
    }
    for credential in &mut stage2.credentials {
        if let CredentialSource::Path(path) = &mut credential.source {
            texts.push(path);
        }
    }
    let sandbox = &mut stage2.sandbox;
    texts.extend(&mut sandbox.root_directory);
    texts.extend(&mut sandbox.network_namespace_path);
    for rule in sandbox.devices.iter_mut().flat_map(|devices| &mut devices.rules) {
        let (Device::Path(name) | Device::Character(name) | Device::Block(name)) = &mut rule.device;
        texts.push(name);
    }
    for mount in &mut sandbox.mounts {
        match mount {
            Mount::ReadWrite(rule)
            | Mount::ReadOnly(rule)
            | Mount::Inaccessible(rule)
            | Mount::Exec(rule)
            | Mount::NoExec(rule) => texts.push(&mut rule.path),
            Mount::Temporary(rule, options) => texts.extend([&mut rule.path, options]),
            Mount::Bind(bind) => texts.extend([&mut bind.source.path, &mut bind.target]),
        }
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::*;

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescape(r"0-1-\x2frun\x2da-b"), "0/1//run-a/b");
        assert_eq!(unescape(r"a\x2"), r"a\x2");
        assert_eq!(unescape(r"a\xzz"), r"a\xzz");
    }

    #[test]
    fn no_text_is_forgotten() {
        let hole = || format!("/x/{INSTANCE}/{INSTANCE}");
        let rule = || PathRule { path: hole(), optional: false };
        let bind = Bind { source: rule(), target: hole(), read_only: false, recursive: true };
        let stage2 = Stage2 {
            environment_files: vec![EnvironmentFile { path: hole(), optional: false }],
            terminal: Some(hole()),
            directories: vec![Directory {
                kind: DirectoryKind::Runtime,
                path: hole(),
                links: vec![hole()],
                mode: 0,
                read_only: false,
            }],
            credentials: vec![Credential {
                name: "c".into(),
                source: CredentialSource::Path(hole()),
            }],
            sandbox: Sandbox {
                root_directory: Some(hole()),
                network_namespace_path: Some(hole()),
                devices: Some(Devices {
                    rules: [Device::Path, Device::Character, Device::Block]
                        .map(|kind| DeviceRule { device: kind(hole()), access: 7 })
                        .into(),
                    ..Devices::default()
                }),
                mounts: vec![
                    Mount::ReadWrite(rule()),
                    Mount::ReadOnly(rule()),
                    Mount::Inaccessible(rule()),
                    Mount::Exec(rule()),
                    Mount::NoExec(rule()),
                    Mount::Temporary(rule(), hole()),
                    Mount::Bind(bind),
                ],
                ..Sandbox::default()
            },
            ..Stage2::default()
        };
        let output = || Output::File { path: hole(), append: true, truncate: false };
        let execution = Execution {
            environment: vec![hole()],
            working_directory: hole(),
            stdin: Input::File(hole()),
            stdout: output(),
            stderr: output(),
            stage2: Some(Box::new(stage2)),
            ..Execution::default()
        };
        let commands =
            || vec![Command { program: hole(), arguments: vec![hole()], ..Command::default() }];
        let service = Service {
            condition: commands(),
            start_pre: commands(),
            start: commands(),
            start_post: commands(),
            reload: commands(),
            stop: commands(),
            stop_post: commands(),
            execution,
            ..Service::default()
        };
        let mut unit = Unit { kind: UnitKind::Service(service), ..Unit::default() };
        if let UnitKind::Service(service) = &mut unit.kind {
            service.execution.environment.push(format!("PATH_OF={INSTANCE_UNESCAPED}"));
        }
        fill(&mut unit, "1-2");
        let text = format!("{unit:?}");
        assert!(text.contains("PATH_OF=1/2\""), "{text}");
        assert!(!text.contains(INSTANCE), "{text}");
        assert!(text.contains("/x/1-2/1-2"));
    }

    #[test]
    fn texts_that_are_bytes_are_filled_too() {
        let bytes = |text: &str| text.as_bytes().to_vec();
        let credential = |text: &str| Credential {
            name: "c".into(),
            source: CredentialSource::Text(bytes(text)),
        };
        let stage2 = |text: &str| Stage2 {
            credentials: vec![credential(text)],
            stdin_data: bytes(text),
            ..Stage2::default()
        };
        let unit = |text: &str| {
            let stage2 = Some(Box::new(stage2(text)));
            let execution = Execution { stage2, ..Execution::default() };
            let service = Service { execution, ..Service::default() };
            Unit { kind: UnitKind::Service(service), ..Unit::default() }
        };
        let mut filled = unit(&format!("{INSTANCE} {INSTANCE_UNESCAPED}"));
        fill(&mut filled, "1-2");
        assert_eq!(filled, unit("1-2 1/2"));
    }
}
