//! What runs containers: the packages of each engine, and what of them an image takes.

use crate::appliance::Appliance;
use crate::config::Engine;

/// Podman's default seccomp profile and containers.conf(5); for the engine crun, the first alone.
const COMMON: &str = "golang-github-containers-common";
/// policy.json and registries.conf.
const IMAGE: &str = "golang-github-containers-image";

/// Packages of which an image takes some programs, with what these need.
///
/// crun is Debian's, 0.6 MB, with its libraries (C library, libsystemd, libseccomp, libcap, yajl):
/// 5.2 MB for crun 1.21 of amd64, 2 MB with zstd. Debian has no static crun, and one of our own
/// would need a C compiler for each architecture, and somebody to follow its security updates.
pub(super) fn packages(appliance: &Appliance) -> &'static [&'static str] {
    const PODMAN: [&str; 7] =
        ["aardvark-dns", "catatonit", "conmon", "crun", "netavark", "nftables", "podman"];
    const ROOTLESS: [&str; 9] = [
        "aardvark-dns",
        "catatonit",
        "conmon",
        "crun",
        "netavark",
        "nftables",
        "passt",
        "podman",
        "uidmap",
    ];
    match (appliance.config.engine, appliance.config.users.is_empty()) {
        (Engine::Crun, _) => &["crun"],
        (Engine::Podman, true) => &PODMAN,
        (Engine::Podman, false) => &ROOTLESS,
    }
}

/// Packages of which an image takes files, without what they depend on.
pub(super) fn alone(appliance: &Appliance) -> &'static [&'static str] {
    match appliance.config.engine {
        Engine::Crun => &[COMMON],
        Engine::Podman => &[COMMON, IMAGE],
    }
}

/// The programs, and files that no program names.
pub(super) fn roots(appliance: &Appliance) -> Vec<&'static str> {
    if appliance.config.engine == Engine::Crun {
        return vec!["/usr/bin/crun"];
    }
    let mut roots = vec![
        "/etc/containers",
        "/usr/bin/catatonit",
        "/usr/bin/conmon",
        "/usr/bin/crun",
        "/usr/bin/podman",
        // Names of containers on a network, and the rules of packets.
        "/usr/lib/podman/aardvark-dns",
        "/usr/lib/podman/netavark",
        "/usr/sbin/nft",
        "/usr/share/containers/containers.conf",
        "/usr/share/containers/seccomp.json",
    ];
    if !appliance.config.users.is_empty() {
        roots.extend([
            "/usr/bin/newgidmap",
            "/usr/bin/newuidmap",
            "/usr/bin/pasta",
            "/usr/libexec/podman/rootlessport",
        ]);
    }
    roots
}
