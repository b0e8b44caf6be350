//! A lingering user's Podman, by his own packaged units: what root's does, and what his ports and
//! ids are.

use crate::{ANNS, Api, Pods, fetched};
use rouse_tests::Vm;

pub(crate) fn a_users_podman(Pods { vm, .. }: &Pods) {
    let api = Api::new(vm.rouse.runtime().join("pods").join(format!("{ANNS}.sock")));
    let owner = vm.shell("busybox stat -c '%u %a' /run/user/1000/podman/podman.sock");
    assert_eq!(owner, "1000 660\n");
    it_comes_with_a_request_and_leaves(vm, &api);
    crate::clients_say_who_they_are(&api);
    let rootless =
        api.podman(["info", "--format", "{{.Host.Security.Rootless}} {{.Store.GraphRoot}}"]);
    assert_eq!(rootless, "true /home/ann/.local/share/containers/storage\n");
    crate::images_come_and_are_listed(&api);
    crate::containers_run(&api);
    crate::streams_are_carried_to_their_ends(&api);
    crate::files_and_builds(&api);
    one_is_built_by_running(&api);
    let map =
        api.docker(["run", "--rm", "--network", "none", "busy:1", "cat", "/proc/self/uid_map"]);
    let first: Vec<&str> = map.lines().next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(first, ["0", "1000", "1"], "{map}");
    assert!(map.contains("200000"), "{map}");
    // By itself podman takes pasta; docker, as compose, a bridge in a network namespace of his, whose
    // ports Podman's rootlessport publishes.
    let serve = "echo published >/page; exec busybox httpd -f -p 80 -h /";
    api.podman(["run", "-d", "--name", "web", "-p", "8088:80", "busy:1", "sh", "-c", serve]);
    let mode = api.docker(["inspect", "-f", "{{.HostConfig.NetworkMode}}", "web"]);
    assert_eq!(mode, "pasta\n");
    assert_eq!(fetched(vm, 8088), "published");
    crate::a_compose_file_goes_up_and_down(vm, &api);
    api.docker(["rm", "-f", "web", "long"]);
}

/// As root's: asleep until somebody asks and when nobody does, at a socket that stays.
fn it_comes_with_a_request_and_leaves(vm: &Vm, api: &Api) {
    let anns = |vm: &Vm| {
        let services = vm.status().services;
        let own = |name: &str, user: Option<&str>| name == "podman.service" && user == Some("ann");
        services.into_iter().find(|it| own(&it.name, it.user.as_deref())).unwrap()
    };
    let inode = || vm.shell("busybox stat -c %i /run/user/1000/podman/podman.sock");
    let before = inode();
    assert_eq!(anns(vm).starts, 0);
    for starts in 1..=2 {
        assert_eq!(api.request("/_ping").body, "OK");
        assert_eq!(anns(vm).starts, starts);
        vm.wait_until("ann's API service is gone", |vm| anns(vm).state == "dead");
        assert_eq!(anns(vm).last_exit.as_deref(), Some("exited 0"));
        assert_eq!(inode(), before);
    }
}

/// `RUN`, by a user who has no network.
fn one_is_built_by_running(api: &Api) {
    let folder = tempfile::tempdir().unwrap();
    let text =
        "FROM busy:1\nRUN echo ran $(cat /proc/self/uid_map) >/note\nCMD [\"cat\", \"/note\"]\n";
    std::fs::write(folder.path().join("Dockerfile"), text).unwrap();
    let from = folder.path().to_str().unwrap();
    api.docker(["build", "-q", "-t", "ran:1", from]);
    api.podman(["build", "-q", "-t", "ran:2", from]);
    for tag in ["ran:1", "ran:2"] {
        let said = api.docker(["run", "--rm", "--network", "none", tag]);
        assert!(said.starts_with("ran 0 1000 1 "), "{tag}: {said}");
    }
}
