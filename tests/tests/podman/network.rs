//! Podman in a guest with a network and a disk: images are pulled from a real registry on the
//! host's loopback, built with it, and pushed there; names are found on networks of containers; a
//! user does the same through pasta; and what is stored outlives the VM.

use crate::client::Api;
use crate::{ANNS, PORT, image};
use rouse_tests::container_registry::{Access, ContainerRegistry, ask};
use rouse_tests::images::{Compression, Image, machine, tar};
use rouse_tests::{Appliance, Rouse, Vm};
use std::sync::Arc;

/// The host's loopback, as the guest sees it.
const HOST: &str = "10.0.2.2";

const TABLES: &str = "
[network]

[disk]
size = \"4G\"
path = \"/var/lib/containers\"
";

/// It speaks HTTP alone. The port is the test's, any: a prefix without one is for all.
const REGISTRIES: &str =
    "[[registry]]\nprefix = \"10.0.2.2\"\nlocation = \"10.0.2.2\"\ninsecure = true\n";

fn appliance() -> Appliance {
    let appliance = Appliance::podman().with("registries.conf", REGISTRIES).replace(
        "appliance.toml",
        "[files]\n",
        "[files]\n\"/etc/containers/registries.conf.d/50-host.conf\" = \"registries.conf\"\n",
    );
    let toml = std::fs::read_to_string(appliance.path().join("appliance.toml")).unwrap();
    appliance.with("appliance.toml", &(toml + TABLES))
}

/// A registry with busybox as `test/busy:1`.
fn registry() -> ContainerRegistry {
    let registry = ContainerRegistry::start(Access::Anybody);
    let busybox = std::fs::read(image::busybox()).unwrap();
    let files = tar(&[("bin/busybox", 0o755, &busybox), ("bin/sh", 0o755, &busybox)]);
    let config = serde_json::json!({ "Env": ["PATH=/bin"], "Cmd": ["/bin/sh"] });
    let image = Image::new(machine(), &config, &[(files, Compression::Gzip)]);
    registry.push("test/busy", "1", &image);
    registry
}

#[test]
fn podman_with_a_network_and_a_disk() {
    if !crate::asked("network") {
        rouse_tests::skipped("Podman's pulls and builds; .ci/full sets ROUSE_TEST_PODMAN");
        return;
    }
    let (rouse, appliance, registry) = (Arc::new(Rouse::new()), appliance(), registry());
    let port = registry.address.rsplit(':').next().unwrap();
    let remote = format!("{HOST}:{port}");
    let vm = Vm::start_in(rouse.clone(), &appliance, "nets", &[]);
    println!("{}", vm.announced);
    let api = |port: u32| Api::new(vm.rouse.runtime().join(format!("nets/{port}.sock")));
    let (roots, anns) = (api(PORT), api(ANNS));
    for api in [&roots, &anns] {
        an_image_is_pulled(api, &remote);
        one_is_built_through_the_network(api, &remote);
    }
    one_is_pushed(&roots, &registry, &remote);
    names_are_found(&roots, &remote);
    roots.docker(["create", "--name", "kept", "--network", "none", "built:1"]);
    assert_eq!(vm.poweroff(), 0);

    let vm = Vm::start_in(rouse, &appliance, "nets", &[]);
    let listed = roots.docker(["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    assert!(listed.contains("test/busy:1") && listed.contains("built:1"), "{listed}");
    assert_eq!(roots.docker(["start", "-a", "kept"]), "{}");
    assert_eq!(vm.poweroff(), 0);
}

fn an_image_is_pulled(api: &Api, remote: &str) {
    let name = format!("{remote}/test/busy:1");
    api.docker(["pull", "-q", &name]);
    let run = ["run", "--rm", "--network", "none", &name, "busybox", "echo", "pulled"];
    assert_eq!(api.docker(run), "pulled\n");
    // Through a bridge and its firewall, or a user's pasta.
    let url = format!("http://{remote}/v2/");
    let run = ["run", "--rm", &name, "busybox", "wget", "-q", "-O", "-", &url];
    assert_eq!(api.docker(run), "{}");
}

/// RUN has the network of a container.
fn one_is_built_through_the_network(api: &Api, remote: &str) {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "FROM {remote}/test/busy:1\nRUN busybox wget -q -O /page http://{remote}/v2/\n\
         CMD [\"/bin/busybox\", \"cat\", \"/page\"]\n"
    );
    std::fs::write(folder.path().join("Containerfile"), text).unwrap();
    api.podman(["build", "-q", "-t", "built:1", folder.path().to_str().unwrap()]);
    assert_eq!(api.docker(["run", "--rm", "--network", "none", "built:1"]), "{}");
}

fn one_is_pushed(api: &Api, registry: &ContainerRegistry, remote: &str) {
    let name = format!("{remote}/test/pushed:1");
    api.docker(["tag", "built:1", &name]);
    api.docker(["push", &name]);
    let accept = [("Accept", "application/vnd.oci.image.manifest.v1+json")];
    let reply = ask(&registry.address, "GET", "/v2/test/pushed/manifests/1", &accept, b"");
    assert_eq!(reply.status, 200, "{}", reply.headers);
    let manifest: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(manifest["layers"].as_array().map(Vec::len), Some(2), "{manifest}");
}

/// aardvark-dns knows who is on a network.
fn names_are_found(api: &Api, remote: &str) {
    let name = format!("{remote}/test/busy:1");
    api.docker(["network", "create", "lan"]);
    let serve = "echo by name >/page; exec busybox httpd -f -p 80 -h /";
    api.docker(["run", "-d", "--name", "web", "--network", "lan", &name, "sh", "-c", serve]);
    let ask = "for n in 1 2 3 4 5 6 7 8 9; do busybox wget -q -O - http://web/page && break; \
               busybox sleep 1; done";
    let answer = api.docker(["run", "--rm", "--network", "lan", &name, "sh", "-c", ask]);
    assert_eq!(answer, "by name\n");
    api.docker(["rm", "-f", "web"]);
    api.docker(["network", "rm", "lan"]);
}
