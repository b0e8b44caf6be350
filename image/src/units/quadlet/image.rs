//! `.image` files for the engine crun: `Image=a.image` is the image that a.image names. It is put
//! into the appliance when that is built, so there is nothing to pull in the guest, and no service
//! that would. A `.build` is the same ([`build`](super::build)).

use crate::config::{Config, FILE};
use crate::container::{Container, Written};
use crate::finding::Finding;
use crate::oci;
use crate::units::Architecture;
use crate::units::definition::Definition;
use crate::units::keys::Keys;
use crate::units::suggest;
use crate::units::syntax::{Assignment, shorten};

/// Why keys that are about pulling do nothing.
pub(super) const AT_BUILD: &str = "the image is put into the appliance when that is built";

/// Every key of `[Image]` up to Podman 5.8 that does not matter, and what does instead.
const PULLING: [(&str, &str); 8] = [
    ("AllTags", AT_BUILD),
    ("AuthFile", "the build asks who `podman login` of this machine is"),
    ("CertDir", "the build trusts whom this machine trusts"),
    ("Creds", "the build asks who `podman login` of this machine is"),
    ("Policy", AT_BUILD),
    ("Retry", AT_BUILD),
    ("RetryDelay", AT_BUILD),
    ("TLSVerify", "`plain-http` of `[registry.\"...\"]` in appliance.toml says it"),
];
/// Those that only Podman can do.
const REFUSED: [&str; 4] = ["ContainersConfModule", "DecryptionKey", "GlobalArgs", "PodmanArgs"];

/// `Image=a.image`, and `Mount=type=image,source=a.image`, become the image of that file.
pub(crate) fn name(keys: &mut Keys<'_>, container: &mut Container) {
    if is_file(&container.image) {
        let file = std::mem::take(&mut container.image);
        let name = super::resource::name(keys, "Image", &file, &container.image_span);
        container.image = name.map_or(file, |name| reference(&name).to_owned());
    }
    for written in &mut container.mounts {
        let Some(file) = oci::mounted_image(written).filter(|file| is_file(file)) else { continue };
        if let Some(name) = super::resource::name(keys, "Mount", &file, &written.span) {
            let text =
                written.text.replacen(&format!("={file}"), &format!("={}", reference(&name)), 1);
            *written = Written { text, span: written.span.clone() };
        }
    }
}

/// Whether an image is named by a Quadlet file.
pub(crate) fn is_file(image: &str) -> bool {
    image.ends_with(".image") || image.ends_with(".build")
}

/// Without the transport that is Podman's default, containers-transports(5).
fn reference(image: &str) -> &str {
    image.strip_prefix("docker://").unwrap_or(image)
}

/// Checks a `.image`.
pub(crate) fn check_image(
    unit: &Definition,
    config: &Config,
    guest: Architecture,
    findings: &mut Vec<Finding>,
) {
    for line in lines(unit, "Image", findings) {
        let (key, value) = (line.key.as_str(), line.value.text.as_str());
        match key {
            "Image" | "ImageTag" | "ServiceName" => {}
            _ if value.is_empty() => {}
            "OS" if value == "linux" => {}
            "Arch" if is_of(guest, value) => {}
            "Arch" | "OS" | "Variant" => findings.push(
                Finding::error(
                    line.value.span(),
                    format!("`{key}={}` is not what the guest runs", shorten(value)),
                )
                .label("refused by the engine crun")
                .help("take the line out: images are taken for the guest's architecture"),
            ),
            _ => match PULLING.iter().find(|(known, _)| *known == key) {
                Some((_, why)) => {
                    let message = format!("`{key}=` has no effect: {why}");
                    findings.push(Finding::note(line.key_span.clone(), message));
                }
                None => findings.push(refused(line, "Image", &keys_of_images())),
            },
        }
    }
    let last = |key: &str| {
        let line = unit.all("Image", key).next_back()?;
        Some(line).filter(|line| !line.value.text.is_empty())
    };
    let Some(image) = last("Image") else {
        findings.push(without(unit, "Image", "Image"));
        return;
    };
    // A path of the guest, where nothing is pulled.
    let from = image.value.text.trim_matches('"');
    let elsewhere = ["dir:", "docker-archive:", "oci:", "oci-archive:", "containers-storage:"];
    let tag = last("ImageTag").map_or(from, |line| line.value.text.trim_matches('"'));
    if elsewhere.iter().any(|transport| from.starts_with(transport))
        && !config.image.contains_key(tag)
    {
        findings.push(
            Finding::error(
                image.value.span(),
                format!("nothing says where `{from}` is at build time"),
            )
            .label("a place in the guest")
            .help(table(tag, "from", "docker-archive:PATH")),
        );
    }
}

/// What to add to appliance.toml.
fn table(image: &str, key: &str, value: &str) -> String {
    format!("add to {FILE}: `[image.\"{image}\"]`, and below it `{key} = \"{value}\"`")
}

/// The lines of the section of a file. A note about each of another section: it is about a
/// service that there is not.
pub(super) fn lines<'u>(
    unit: &'u Definition,
    own: &str,
    findings: &mut Vec<Finding>,
) -> Vec<&'u Assignment> {
    let mut lines = vec![];
    for line in &unit.assignments {
        let (section, key) = (line.section.as_str(), line.key.as_str());
        match section {
            _ if section.starts_with("X-") || key.starts_with("X-") => {}
            _ if section == own => lines.push(line),
            "Unit" if key == "Description" => {}
            "Service" if key == "WorkingDirectory" && own == "Build" => {}
            _ => {
                let message = format!("`{}=` has no effect: {AT_BUILD}", shorten(key));
                findings.push(Finding::note(line.key_span.clone(), message));
            }
        }
    }
    lines
}

fn keys_of_images() -> Vec<&'static str> {
    let named = ["Arch", "Image", "ImageTag", "OS", "ServiceName", "Variant"];
    PULLING.iter().map(|(key, _)| *key).chain(REFUSED).chain(named).collect()
}

pub(super) fn refused(line: &Assignment, section: &str, known: &[&'static str]) -> Finding {
    let (key, span) = (shorten(&line.key), line.key_span.clone());
    if known.contains(&line.key.as_str()) {
        return Finding::error(span, format!("`{key}=` of an image needs Podman"))
            .label("refused by the engine crun")
            .help(super::USE_PODMAN);
    }
    let help = match suggest::nearest(&line.key, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}=`?"),
        None => "see podman-systemd.unit(5) for the keys that there are".into(),
    };
    Finding::error(span, format!("`{key}=` is unknown in `[{section}]`"))
        .label("unknown")
        .help(help)
}

pub(super) fn without(unit: &Definition, section: &str, key: &str) -> Finding {
    let message = format!("`{}` has no `{key}=`", unit_name(unit));
    Finding::error(unit.section_span(section), message)
        .label("names no image")
        .help(format!("add `{key}=NAME`"))
}

pub(super) fn unit_name(unit: &Definition) -> &str {
    unit.quadlet.as_deref().unwrap_or_default()
}

/// Whether that is the guest's architecture, in Go's words or the kernel's.
pub(super) fn is_of(guest: Architecture, text: &str) -> bool {
    let names = match guest {
        Architecture::X86_64 => ["amd64", "x86_64"],
        Architecture::Aarch64 => ["arm64", "aarch64"],
    };
    names.contains(&text)
}
