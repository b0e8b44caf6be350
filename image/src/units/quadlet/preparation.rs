//! What the guest does for a container of engine crun before each start
//! ([`activator::manifest::Preparation`]).

use super::resource;
use crate::config::Secret as Source;
use crate::container::{Container, Network, VolumeSource, Written};
use crate::finding::Finding;
use crate::oci::{self, ContainerImage};
use crate::tree::Tree;
use crate::units::keys::Keys;
use crate::units::suggest;
use crate::units::syntax::shorten;
use activator::manifest::{
    DeviceNode, ImageFolder, Preparation, Secret, SecretTarget, VolumeFolder,
};

/// Variables that `HttpProxy=`, which is on unless it is off, passes on where they are set.
const PROXIES: [&str; 8] = [
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "NO_PROXY",
];

pub(super) fn of(keys: &mut Keys<'_>, container: &Container) -> Preparation {
    let mut pass_environment = container.pass_environment.clone();
    if container.http_proxy != Some(false) {
        pass_environment.extend(PROXIES.map(str::to_owned));
    }
    let device = |device: &crate::container::Device| DeviceNode {
        source: device.source.clone(),
        destination: device.destination.clone(),
        permissions: device.permissions.clone(),
        optional: device.optional,
    };
    Preparation {
        environment_files: environment_files(keys, container),
        pass_environment,
        host_environment: container.environment_host == Some(true),
        fixed_environment: container.environment.iter().map(|(name, _)| name.clone()).collect(),
        devices: container.devices.iter().map(device).collect(),
        // Names of users are looked up when the image is known.
        volumes: volumes(container, &ContainerImage::new("", Tree::plain())),
        secrets: secrets(keys, container),
        network_of: network_of(keys, container),
        root: oci::root_ids(container),
    }
}

/// Those of the guest. One beside the unit is read when the container is built.
fn environment_files(keys: &mut Keys<'_>, container: &Container) -> Vec<String> {
    let mut paths = vec![];
    for file in &container.environment_files {
        let path = &file.text;
        if path.starts_with('/') {
            paths.push(path.clone());
        } else {
            let message = format!("`EnvironmentFile={}` is not an absolute path", shorten(path));
            keys.findings.push(
                Finding::error(file.span.clone(), message)
                    .label("expected a path of the guest")
                    .help(
                        "put the file there with `[files]` in appliance.toml, and name that path",
                    ),
            );
        }
    }
    paths
}

/// Folders that have to be there, whoever made them.
pub(super) fn volumes(container: &Container, image: &ContainerImage) -> Vec<VolumeFolder> {
    let root = oci::root_folder(container);
    let owner = oci::user_ids(container, image);
    let mut folders = vec![];
    for (number, volume) in oci::volumes(container).into_iter().enumerate() {
        let given = |option: &str| volume.options.iter().any(|it| it == option);
        let give = given("U");
        if given("O") {
            let folder = oci::overlay_folder(container, number);
            for name in ["upper", "work"] {
                let path = format!("{folder}/{name}");
                folders.push(VolumeFolder { path, fresh: true, ..VolumeFolder::default() });
            }
        }
        match &volume.source {
            VolumeSource::Path(_) if !give => {}
            VolumeSource::Path(path) => {
                let path = path.clone();
                folders.push(VolumeFolder { path, owner, give, ..VolumeFolder::default() });
            }
            source => {
                let copies = !given("nocopy") && !container.image.is_empty();
                let path = volume.destination.clone();
                let copy_from = copies.then(|| ImageFolder { root: root.clone(), path });
                // One without a name goes with the container, as with `podman run --rm`.
                let fresh = *source == VolumeSource::Anonymous;
                if let Some(path) = oci::volume_folder(container, source, &volume.destination) {
                    folders.push(VolumeFolder { path, copy_from, owner, give, fresh });
                }
            }
        }
    }
    for path in oci::given_away(container) {
        folders.push(VolumeFolder { path, owner, give: true, ..VolumeFolder::default() });
    }
    folders
}

/// `NAME[,type=mount|env][,target=T][,uid=U][,gid=G][,mode=M]`
fn secrets(keys: &mut Keys<'_>, container: &Container) -> Vec<Secret> {
    let mut secrets = vec![];
    for (number, written) in container.secrets.iter().enumerate() {
        let parsed = match oci::secret(&written.text) {
            Ok(parsed) => parsed,
            Err(option) => {
                wrong(keys, written, &option);
                continue;
            }
        };
        let known = &keys.facts.input.config.secret;
        let Some(source) = known.get(&parsed.name) else {
            let near = suggest::nearest(&parsed.name, known.keys().map(String::as_str));
            let help = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    format!("say in appliance.toml where it comes from: `[secret.{}]`", parsed.name)
                }
            };
            let message = format!("there is no secret `{}`", shorten(&parsed.name));
            keys.findings
                .push(Finding::error(written.span.clone(), message).label("unknown").help(help));
            continue;
        };
        let Some(owner) = oci::ids_outside(container, (parsed.uid, parsed.gid)) else {
            let (uid, gid) = (parsed.uid, parsed.gid);
            let message = format!("`Secret=` is for user {uid} and group {gid}");
            keys.findings.push(
                Finding::error(written.span.clone(), message)
                    .label("the container's user namespace has not both")
                    .help("name ids that `UIDMap=` and `GIDMap=`, or the user's ranges, have"),
            );
            continue;
        };
        let target = match &parsed.variable {
            Some(name) => SecretTarget::Variable(name.clone()),
            None => SecretTarget::File { name: parsed.file(number), owner, mode: parsed.mode },
        };
        secrets.push(Secret { source: path_of(&parsed.name, source), target });
    }
    secrets
}

fn path_of(name: &str, source: &Source) -> String {
    match source {
        Source::File(_) => format!("{}/{name}", Source::FOLDER),
        Source::Path(path) => path.clone(),
        Source::Credential(name) => format!("{}/{name}/raw", Source::CREDENTIALS),
    }
}

fn wrong(keys: &mut Keys<'_>, written: &Written, option: &str) {
    let message = format!("`Secret=` does not take `{}`", shorten(option));
    keys.findings.push(
        Finding::error(written.span.clone(), message)
            .label("expected NAME, then type=, target=, uid=, gid=, mode=")
            .help("see podman-run(1), --secret"),
    );
}

/// The id of the container whose network this one shares.
fn network_of(keys: &mut Keys<'_>, container: &Container) -> Option<String> {
    let Network::Container(name) = &container.network else { return None };
    let name = match name.ends_with(".container") {
        true => resource::name(keys, "Network", name, &container.span_of("Network"))?,
        false => name.clone(),
    };
    Some(match &container.owner {
        Some(owner) => format!("user-{}-{name}", owner.uid),
        None => name,
    })
}
