//! What Podman's own tests do with socket activation, done here: see SCENARIOS.md beside this.

use crate::{ANNS, Api, Pods, image};

/// `kill rootless pause`: the process that keeps a user's namespaces is gone, and the API answers.
pub(crate) fn the_users_pause_process_is_killed(Pods { vm, .. }: &Pods) {
    let api = Api::new(vm.rouse.runtime().join("pods").join(format!("{ANNS}.sock")));
    let run = ["run", "-d", "--name", "anns", "--network", "none", "busy:1", "sleep", "1000"];
    api.docker_with(["load"], &image::docker_archive("busy:1"));
    api.docker(run);
    let file = "/run/user/1000/libpod/tmp/pause.pid";
    let pid = vm.shell(&format!("cat {file}"));
    let pid: u32 = pid.trim().parse().unwrap_or_else(|_| panic!("{file}: {pid}"));
    assert_eq!(vm.shell(&format!("kill -9 {pid} && echo gone")), "gone\n");
    let answer = api.request("/libpod/_ping");
    assert_eq!((answer.status, answer.body.as_str()), (200, "OK"));
    assert_eq!(api.docker(["ps", "--format", "{{.Names}}"]), "anns\n");
    api.docker(["rm", "-f", "anns"]);
}

/// `stop podman.service`: the container runs on, and the service ends with 0.
pub(crate) fn a_stopped_service_leaves_its_container(Pods { vm, .. }: &Pods) {
    let script = "cd /tmp; export TMPDIR=/tmp HOME=/root\n\
        activator activate --listen=127.0.0.1:8090 podman --root /var/lib/containers/other \
        --runroot /run/other system service --time=0 >activate.log 2>&1 &\n\
        service=$!\n\
        podman save -q -o busy.tar busy:1\n\
        remote='podman --remote --url tcp://127.0.0.1:8090'\n\
        for n in $(seq 200); do grep -q ' 0100007F:1F9A ' /proc/net/tcp && break; sleep 0.1; done\n\
        $remote load -q -i busy.tar\n\
        $remote create -q --tty --network none --name topped --entrypoint sleep busy:1 1000 >/dev/null\n\
        $remote start topped\n\
        echo running $($remote inspect --format '{{.State.Running}}' topped)\n\
        kill -TERM $service; wait $service; echo ended $?\n\
        local='podman --root /var/lib/containers/other --runroot /run/other'\n\
        echo running $($local inspect --format '{{.State.Running}}' topped)\n\
        $local rm -f -t 0 topped >/dev/null; cat activate.log\n";
    let answer = vm.shell(script);
    let said = |line: &str| answer.lines().filter(|one| *one == line).count();
    assert_eq!((said("running true"), said("ended 0")), (2, 1), "{answer}");
}

/// `invalid systemd file descriptor`: a datagram socket is no place for the API.
pub(crate) fn a_datagram_socket_is_refused(Pods { vm, .. }: &Pods) {
    let script = "cd /tmp; export HOME=/root\n\
        activator activate --datagram --listen 127.0.0.1:8091 podman system service --time=0 \
        >datagram.log 2>&1 &\n\
        service=$!\n\
        for n in $(seq 200); do grep -q ' 0100007F:1F9B ' /proc/net/udp && break; sleep 0.1; done\n\
        echo test | socat -u - udp4:127.0.0.1:8091\n\
        wait $service; echo ended $?; cat datagram.log\n";
    let answer = vm.shell(script);
    assert!(answer.contains("ended 125\n"), "{answer}");
    let refusal = "unexpected fd received from systemd: cannot listen on it";
    assert!(answer.contains(refusal), "{answer}");
}
