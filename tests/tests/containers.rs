//! The keys of `[Container]` in a guest: one VM, a container of busybox for each handful of keys.

use rouse::cache::Cache;
use rouse::debian::{Architecture, Debian, tools};
use rouse_tests::{Appliance, Vm, cache};

/// Debian's busybox, which needs no library.
fn busybox() -> std::path::PathBuf {
    let debian = Debian::new(Cache::open_at(&cache()).unwrap(), None);
    let host = Architecture::host().unwrap();
    let name = "busybox-static";
    let tree = tools::tree(&debian, name, &[name], host, tools::Freshness::Kept).unwrap();
    ["usr/bin/busybox", "bin/busybox"]
        .map(|path| tree.join(path))
        .into_iter()
        .find(|it| it.is_file())
        .unwrap()
}

/// The guest of the other tests with a container that tells of itself and then sleeps.
fn appliance() -> Appliance {
    let image = r#"
[image.box]
files = { "/bin/busybox" = "busybox", "/bin/sh" = "busybox", "/data/seed" = "seed" }
entrypoint = ["/bin/sh", "-c"]
environment = ["FROM=image", "A=image"]

[secret.key]
file = "key"

[files]
"/etc/app.env" = "app.env"
"/etc/app.conf" = "app.conf"
"#;
    let sleep = "exec /bin/busybox sleep 10000";
    let container = |lines: &str| format!("[Container]\nImage=box\nNetwork=none\n{lines}\n");
    let many = container(&format!(
        "Exec=\"{sleep}\"\nEnvironmentFile=/etc/app.env\nEnvironment=A=unit\n\
         AddHost=db:10.0.0.1\nHostName=many\nAddDevice=/dev/kmsg:/dev/log:r\n\
         AddDevice=-/dev/not-there\nSecret=key\nSecret=key,type=env,target=KEY\n\
         Volume=things:/data\nVolume=/etc/app.conf:/etc/app.conf:ro\nVolume=/etc:/over:O\n\
         Mount=type=tmpfs,destination=/cache,tmpfs-size=1m\nUser=0\nGroupAdd=77\n\
         Ulimit=nofile=100:200\nPidsLimit=20\nMemory=64m\nShmSize=1m\nSysctl=kernel.msgmax=1234\n\
         ReloadCmd=/bin/busybox touch /data/reloaded\nPodmanArgs=--oom-score-adj=321"
    ));
    let healthy = container(&format!(
        "Exec=\"{sleep}\"\nHealthCmd=/bin/busybox test ! -e /data/sick\nHealthInterval=1s\n\
         HealthRetries=2\nHealthOnFailure=restart\nNotify=healthy\nVolume=health:/data\n\
         ReadOnly=true"
    ));
    let joined = "[Unit]\nAfter=many.service\nRequires=many.service\n[Container]\nImage=box\n\
                  Network=container:systemd-many\nExec=\"exec /bin/busybox sleep 10000\"\n";
    let said = container(
        "Exec=\"/bin/busybox echo said: $$A; exec /bin/busybox sleep 10000\"\nLogDriver=none",
    );
    let echo = Appliance::guest()
        .with("many.container", &many)
        .with("healthy.container", &healthy)
        .with("joined.container", joined)
        .with("said@.container", &said)
        .with("said@one.service.d/x.conf", "[Unit]\nDescription=one\n")
        .with(
            "wants.service",
            "[Unit]\nWants=said@one.service\n[Service]\nType=oneshot\nExecStart=/usr/bin/true\n",
        )
        .with("container.d/all.conf", "[Container]\nEnvironment=EVERYWHERE=yes\n")
        .with("app.env", "FROM=file\nA=file\n")
        .with("app.conf", "conf\n")
        .with("key", "hush\n")
        .with("seed", "seed\n");
    let config = std::fs::read_to_string(echo.path().join("appliance.toml")).unwrap();
    std::fs::copy(busybox(), echo.path().join("busybox")).unwrap();
    let config = match config.contains("[files]") {
        true => config.replace("[files]", &format!("{}\n", image.trim_end())),
        false => format!("{config}\n{image}"),
    };
    echo.with("appliance.toml", &config)
}

/// What a shell in a running container says.
fn inside(vm: &Vm, container: &str, script: &str) -> String {
    vm.shell(&format!("crun --root /run/crun exec systemd-{container} /bin/sh -c '{script}' 2>&1"))
}

#[test]
fn keys_of_a_container_work_in_the_guest() {
    let vm = Vm::start(&appliance(), "keys", &[]);
    vm.tell("start", "many.service");
    let tell = |script: &str| inside(&vm, "many", script).trim().to_owned();
    vm.wait_until("the container runs", |_| tell("/bin/busybox echo up") == "up");
    for (script, expected) in [
        ("/bin/busybox echo $FROM $A $EVERYWHERE $KEY", "file unit yes hush"),
        ("/bin/busybox grep db /etc/hosts", "10.0.0.1\tdb"),
        ("/bin/busybox hostname", "many"),
        ("/bin/busybox stat -c %t:%T /dev/log", "1:b"),
        ("/bin/busybox cat /run/secrets/key", "hush"),
        ("/bin/busybox stat -c %a /run/secrets/key", "444"),
        ("/bin/busybox cat /data/seed /etc/app.conf", "seed\nconf"),
        ("/bin/busybox touch /over/new && /bin/busybox echo written", "written"),
        ("/bin/busybox touch /etc/app.conf 2>/dev/null || /bin/busybox echo no", "no"),
        ("/bin/busybox touch /new && /bin/busybox echo written", "written"),
        ("/bin/busybox cat /proc/sys/kernel/msgmax", "1234"),
        ("ulimit -n", "100"),
        ("/bin/busybox cat /proc/1/oom_score_adj", "321"),
        ("/bin/busybox cat /sys/fs/cgroup/pids.max", "20"),
        ("/bin/busybox cat /sys/fs/cgroup/memory.max", "67108864"),
        ("/bin/busybox id -G", "0 77"),
        ("/bin/busybox grep -c tmpfs.*/cache /proc/mounts", "1"),
    ] {
        assert_eq!(tell(script), expected, "{script}");
    }
    assert_eq!(vm.shell("test -e /etc/new || echo untouched").trim(), "untouched");

    // What was in the volume stays, what was written to the root does not.
    inside(&vm, "many", "/bin/busybox echo grown > /data/seed");
    vm.tell("reload-unit", "many.service");
    vm.wait_until("the reload", |_| tell("/bin/busybox ls /data/reloaded") == "/data/reloaded");
    vm.tell("restart", "many.service");
    vm.wait_until("the container runs again", |_| tell("/bin/busybox echo up") == "up");
    assert_eq!(tell("/bin/busybox cat /data/seed; /bin/busybox ls /new 2>/dev/null"), "grown");

    vm.tell("start", "joined.service");
    let net = |vm: &Vm, name: &str| inside(vm, name, "/bin/busybox readlink /proc/1/ns/net");
    vm.wait_until("the other has its network", |vm| net(vm, "joined") == net(vm, "many"));

    vm.tell("start", "wants.service");
    let one = |vm: &Vm| vm.shell("crun --root /run/crun list -q 2>&1");
    vm.wait_until("the template's instance runs", |vm| one(vm).contains("systemd-said_one"));

    vm.tell("start", "healthy.service");
    let health = |vm: &Vm| vm.service("healthy.service");
    assert_eq!(health(&vm).state, "running", "it is up with its first success");
    assert_eq!(health(&vm).health.as_deref(), Some("healthy"));
    let before = health(&vm).starts;
    inside(&vm, "healthy", "/bin/busybox touch /data/sick");
    vm.wait_until("it is restarted", |vm| health(vm).starts > before);
    vm.shell("rm /var/lib/containers/storage/volumes/health/_data/sick");
    vm.wait_until("it is healthy again", |vm| health(vm).health.as_deref() == Some("healthy"));
    assert_eq!(vm.poweroff(), 0);
}
