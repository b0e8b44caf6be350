//! What a machine may have beside a processor and a vsock: a root on a disk, a disk that keeps
//! what is written, a network. Two boots of one appliance serve all these checks.

use rouse::cache::Cache;
use rouse::debian::{Debian, tools};
use rouse::tree::{Node, Tree};
use rouse_tests::{Appliance, Rouse, Vm, cache};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const TABLES: &str = "
[root]
format = \"disk\"

[disk]
size = \"64M\"
path = \"/var/lib/data\"

[files]
\"/var/lib/data/given/text\" = \"given\"

[network]
";

/// A server on the host's loopback that answers every request with one line.
fn server() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let answer = "HTTP/1.0 200 OK\r\nContent-Length: 13\r\n\r\nfrom the host";
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    port
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn appliance(network: &str) -> Appliance {
    let toml = Appliance::repository().join("tests/appliances/guest/appliance.toml");
    let toml = std::fs::read_to_string(toml).unwrap();
    Appliance::guest()
        .with("appliance.toml", &format!("{toml}{TABLES}{network}"))
        // It wants the network, as units of packages write it.
        .with(
            "asks.service",
            "[Unit]\nWants=network-online.target\nAfter=network-online.target\n\n\
             [Service]\nType=oneshot\nRemainAfterExit=yes\n\
             ExecStart=/usr/bin/busybox cp /etc/resolv.conf /run/asked\n\n\
             [Install]\nWantedBy=multi-user.target\n",
        )
        .with(
            "limited.service",
            "[Service]\nMemoryMax=64M\nTasksMax=20\nCPUWeight=50\n\
             ExecStart=/usr/bin/busybox sh -c 'trap \"echo again >/run/again\" HUP; \
             while :; do busybox sleep 1; done'\n\
             ExecReload=/bin/kill -HUP $MAINPID\n\n\
             [Install]\nWantedBy=multi-user.target\n",
        )
        .with(
            "repeat.socket",
            "[Socket]\nListenStream=7\nAccept=yes\n\n[Install]\nWantedBy=sockets.target\n",
        )
        .with(
            "repeat@.service",
            // It may be called, and calls nobody.
            "[Service]\nStandardInput=socket\nExecStart=/usr/bin/busybox cat\nIPAddressDeny=any\n",
        )
        .with("filtered.service", FILTERED)
        .with("given", "given\n")
        .with(
            "says.service",
            "[Service]\nType=oneshot\nPrivateDevices=yes\nStandardOutput=kmsg\n\
             ExecStart=/usr/bin/busybox echo said\n",
        )
}

/// Says in a file what it may use, of devices and of addresses.
const FILTERED: &str = "[Service]
Type=oneshot
IPAddressDeny=any
DeviceAllow=/dev/zero r
DeviceAllow=/dev/kmsg w
ExecStart=/usr/bin/busybox sh -c 'exec >/run/filtered; b=busybox; \\
    $b head -c 1 /dev/zero | $b wc -c; \\
    echo null >/dev/null && echo null; \\
    echo filtered >/dev/kmsg && echo written; \\
    $b head -c 1 /dev/kmsg | $b grep -q . && echo read; \\
    true </dev/vsock && echo vsock; \\
    $b timeout 20 $b wget -q -O - http://10.0.2.2:@PORT@/'
";

#[test]
fn a_root_on_a_disk_a_disk_of_data_and_a_network() {
    let rouse = Arc::new(Rouse::new());
    let (server, forwarded) = (server(), free_port());
    let dynamic = appliance(&format!("forward = [\"127.0.0.1:{forwarded}=7\"]\n"));
    the_command_is_shown_before_there_is_a_disk(&rouse, &dynamic);
    let vm = Vm::start_in(rouse.clone(), &dynamic, "first", &[]);
    println!("{}", vm.announced);
    the_root_is_a_read_only_disk(&vm, &rouse);
    containers_run_on_it(&vm);
    limits_are_the_kernels(&vm);
    kill_is_there(&vm);
    devices_and_addresses_are_filtered(&vm, &dynamic, server);
    dhcp_gives_an_address_and_units_wait_for_it(&vm);
    assert_eq!(fetch(&vm, server), "from the host");
    a_forward_leads_in(forwarded);
    units_are_taken_anew(&vm, &dynamic);
    let log = rouse.run(["logs", &vm.name]).success().text();
    assert!(log.contains("repeat@") && !log.contains("no cgroups here"), "{log}");
    let size = data_is_written(&vm);
    nobody_else_gets_the_disk(&rouse, &dynamic);
    assert_eq!(vm.poweroff(), 0);
    the_disk_was_left_in_order(&rouse);

    let fixed = appliance(
        "address = \"10.0.2.20/24\"\ngateway = \"10.0.2.2\"\ndns = [\"10.0.2.3\"]\n\
         outgoing = false\n",
    )
    .replace("appliance.toml", "\"64M\"", "\"128M\"");
    let vm = Vm::start_in(rouse, &fixed, "first", &[]);
    data_is_still_there_and_has_more_room(&vm, size);
    a_fixed_address_is_set_before_anything_starts(&vm);
    let answer = fetch(&vm, server);
    assert!(!answer.contains("from the host"), "{answer}");
    assert_eq!(vm.poweroff(), 0);
}

fn the_command_is_shown_before_there_is_a_disk(rouse: &Rouse, appliance: &Appliance) {
    let mut command = rouse.command(["run", "--print-command", "--name", "first"]);
    let line = rouse_tests::feed(command.arg(appliance.path()), b"").success().text();
    let disk = rouse.data().join("first.ext4");
    assert!(line.contains(disk.to_str().unwrap()), "{line}");
    assert!(!disk.exists(), "nothing is made for it");
}

/// Nothing is left for the journal: ext4's superblock would say so in its incompatible features.
fn the_disk_was_left_in_order(rouse: &Rouse) {
    const NEEDS_RECOVERY: u32 = 4;
    let mut head = [0; 2048];
    let mut file = std::fs::File::open(rouse.data().join("first.ext4")).unwrap();
    file.read_exact(&mut head).unwrap();
    assert_eq!(head[1024 + 0x38..][..2], [0x53, 0xef], "ext4's magic");
    let features = u32::from_le_bytes(head[1024 + 0x60..][..4].try_into().unwrap());
    assert_eq!(features & NEEDS_RECOVERY, 0, "{features:#x}");
}

fn the_root_is_a_read_only_disk(vm: &Vm, rouse: &Rouse) {
    let mounts = vm.shell("grep ' / ' /proc/mounts");
    assert!(mounts.starts_with("/dev/vdb / erofs ro"), "{mounts}");
    let refused = vm.shell("touch /usr/x || echo refused");
    assert!(refused.contains("refused"), "{refused}");
    // The archive says who owns what, whoever built it.
    let owners = vm.shell("stat -c '%u %a' /home/ann /usr/lib/rouse/activator /bin/busybox");
    assert_eq!(owners, "1000 700\n0 755\n0 755\n");
    let left = vm.shell("ls /usr/share/doc /usr/share/man; ls /proc/1/root/init");
    assert!(left.contains("No such file") && left.contains("/init"), "{left}");
    let command = rouse.run(["list"]).success().text();
    assert!(command.contains("first"), "{command}");
}

fn containers_run_on_it(vm: &Vm) {
    // crun's pivot_root(2) wants a root that is a mount.
    assert_eq!(vm.send(3000, b"hello").success().text(), "hello");
}

const LIMITS: &str =
    "cd $(find /sys/fs/cgroup -name limited.service) && cat memory.max pids.max cpu.weight";

/// A machine's own cgroups may lack controllers, those of a guest do not.
fn limits_are_the_kernels(vm: &Vm) {
    assert_eq!(vm.shell(LIMITS), "67108864\n20\n50\n");
}

/// By programs at the cgroup, which a new manifest replaces.
fn devices_and_addresses_are_filtered(vm: &Vm, appliance: &Appliance, server: u16) {
    // Its streams are opened within the filter the second time.
    for _ in 0..2 {
        vm.rouse.run(["start", &vm.name, "says.service"]).success();
    }
    assert_eq!(vm.shell("busybox dmesg | busybox grep -c ' said$'"), "2\n");
    let seen_by = |unit: &str| {
        let unit = unit.replace("@PORT@", &server.to_string());
        std::fs::write(appliance.path().join("filtered.service"), unit).unwrap();
        let folder = appliance.path().to_str().unwrap();
        vm.rouse.run(["reload", &vm.name, folder]).success();
        // wget that reaches nobody makes it fail.
        vm.rouse.run(["start", &vm.name, "filtered.service"]);
        vm.shell("cat /run/filtered")
    };
    assert_eq!(seen_by(FILTERED), "1\nnull\nwritten\n");
    assert_eq!(seen_by(FILTERED), "1\nnull\nwritten\n", "the same again");
    let more =
        FILTERED.replace("kmsg w", "kmsg rw").replace("any\n", "any\nIPAddressAllow=10.0.2.2\n");
    assert_eq!(seen_by(&more), "1\nnull\nwritten\nread\nfrom the host");
    let strict =
        FILTERED.replace("any\n", "10.0.2.2/31\nDevicePolicy=strict\nDeviceAllow=char-misc\n");
    assert_eq!(seen_by(&strict), "1\nwritten\nvsock\n");
    // Each kind goes alone.
    let devices = FILTERED.replace("IPAddressDeny=any\n", "");
    assert_eq!(seen_by(&devices), "1\nnull\nwritten\nfrom the host");
    let addresses = FILTERED.replace("DeviceAllow=/dev/zero r\nDeviceAllow=/dev/kmsg w\n", "");
    assert_eq!(seen_by(&addresses), "1\nnull\nwritten\nread\nvsock\n");
    // As many as there may be: the kernel's verifier must not give up.
    let many = |key: &str, first: u16| -> String {
        let line = |n| format!("IPAddress{key}={first:x}:1:2:3:4:{n:x}:6:0/127\n");
        (0..1000).map(line).collect()
    };
    let lists = many("Allow", 0xff00) + &many("Deny", 0xfe00);
    let drivers: String = (200..454).map(|major| format!("DeviceAllow=char-{major} r\n")).collect();
    let most = FILTERED.replace("IPAddressDeny=any\n", &(lists + &drivers));
    assert_eq!(seen_by(&most), "1\nnull\nwritten\nfrom the host");
    // Without the keys nothing stays of them, nor of limits.
    let (head, command) = FILTERED.split_at(FILTERED.find("IPAddressDeny").unwrap());
    let command = &command[command.find("ExecStart").unwrap()..];
    let limited = appliance.path().join("limited.service");
    let text = std::fs::read_to_string(&limited).unwrap();
    let free = text.replace("MemoryMax=64M\nTasksMax=20\n", "");
    assert_ne!(free, text);
    std::fs::write(&limited, free).unwrap();
    let all = "1\nnull\nwritten\nread\nvsock\nfrom the host";
    assert_eq!(seen_by(&format!("{head}{command}")), all);
    assert_eq!(vm.shell(LIMITS), "max\nmax\n50\n");
    std::fs::write(&limited, text).unwrap();
    assert_eq!(seen_by(FILTERED), "1\nnull\nwritten\n");
    assert_eq!(vm.shell(LIMITS), "67108864\n20\n50\n");
}

/// No package here has one.
fn kill_is_there(vm: &Vm) {
    vm.rouse.run(["reload-unit", &vm.name, "limited.service"]).success();
    vm.wait_until("the signal", |vm| vm.shell("cat /run/again") == "again\n");
}

fn dhcp_gives_an_address_and_units_wait_for_it(vm: &Vm) {
    vm.wait_until("the unit that asks for a network", |vm| {
        vm.service("asks.service").state == "exited"
            || vm.shell("ls /run/asked").contains("/run/asked\n")
    });
    assert_eq!(vm.shell("cat /run/asked"), "nameserver 10.0.2.3\n");
    let address = vm.shell("ip -4 -o addr show dev eth0; ip route");
    assert!(address.contains("10.0.2.15/24"), "{address}");
    assert!(address.contains("default via 10.0.2.2"), "{address}");
}

fn fetch(vm: &Vm, port: u16) -> String {
    vm.shell(&format!("timeout 20 wget -q -O - http://10.0.2.2:{port}/ || echo nothing"))
}

/// A client of the host's, through QEMU's network, wakes a service.
fn a_forward_leads_in(port: u16) {
    let mut answer = String::new();
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    stream.write_all(b"through the forward").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "through the forward");
}

/// What a reload may need is looked for on the disk.
fn units_are_taken_anew(vm: &Vm, appliance: &Appliance) {
    let reload = |text: &str| {
        std::fs::write(appliance.path().join("asks.service"), text).unwrap();
        let folder = appliance.path().to_str().unwrap();
        vm.rouse.run(["reload", &vm.name, folder])
    };
    let unit = |program: &str| format!("[Service]\nType=oneshot\nExecStart={program}\n");
    assert_eq!(reload(&unit("/usr/bin/busybox true")).code, 0);
    std::fs::write(appliance.path().join("added"), "#!/bin/sh\n").unwrap();
    let toml = appliance.path().join("appliance.toml");
    let text = std::fs::read_to_string(&toml).unwrap();
    let more = text.replace("[files]\n", "[files]\n\"/usr/bin/added\" = \"added\"\n");
    std::fs::write(&toml, more).unwrap();
    let refused = reload(&unit("/usr/bin/added"));
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("/usr/bin/added"), "{}", refused.stderr);
    std::fs::write(&toml, text).unwrap();
    std::fs::write(appliance.path().join("asks.service"), unit("/usr/bin/busybox true")).unwrap();
}

/// The disk's size in blocks of 1024 bytes.
fn blocks(vm: &Vm) -> u64 {
    let text = vm.shell("df -k /var/lib/data | tail -n 1 | awk '{print $2}'");
    text.trim().parse().unwrap_or_else(|_| panic!("{text}"))
}

fn data_is_written(vm: &Vm) -> u64 {
    let mounts = vm.shell("grep /var/lib/data /proc/mounts");
    assert!(mounts.starts_with("/dev/vda /var/lib/data ext4 rw"), "{mounts}");
    // No sync: switching off is enough.
    vm.shell("echo kept >/var/lib/data/file; echo lost >/var/lib/file");
    // What the image has there comes onto a new disk, and is the disk's from then on.
    let given = vm.shell("cat /var/lib/data/given/text && echo ours >/var/lib/data/given/text");
    assert_eq!(given, "given\n");
    let blocks = blocks(vm);
    assert!((40 << 10..64 << 10).contains(&blocks), "{blocks}");
    blocks
}

fn nobody_else_gets_the_disk(rouse: &Rouse, appliance: &Appliance) {
    let other = Rouse::new();
    let mut command = other.command(["run", "--name", "first", "-d"]);
    command.arg(appliance.path()).env("ROUSE_DATA_DIR", rouse.data());
    let output = rouse_tests::feed(&mut command, b"");
    assert_eq!(output.code, 75, "{}", output.stderr);
    assert!(output.stderr.contains("a running VM has it"), "{}", output.stderr);
}

fn data_is_still_there_and_has_more_room(vm: &Vm, before: u64) {
    assert_eq!(vm.shell("cat /var/lib/data/file /var/lib/data/given/text"), "kept\nours\n");
    let lost = vm.shell("cat /var/lib/file");
    assert!(lost.contains("No such file"), "{lost}");
    let now = blocks(vm);
    assert!(now > before + (before / 2), "{before} {now}");
    assert!(Path::new(&vm.rouse.data().join("first.ext4")).exists());
}

fn a_fixed_address_is_set_before_anything_starts(vm: &Vm) {
    let address = vm.shell("ip -4 -o addr show dev eth0; ip route; cat /etc/resolv.conf");
    for text in ["10.0.2.20/24", "default via 10.0.2.2", "nameserver 10.0.2.3"] {
        assert!(address.contains(text), "{text} in {address}");
    }
}

#[test]
fn a_disk_is_the_same_bytes_twice() {
    let rouse = Rouse::new();
    let appliance = Appliance::tiny();
    let image = tempfile::tempdir().unwrap();
    let folder = image.path().join("tiny");
    let mut command = rouse.command(["build", "-q", "--format", "disk", "--check-reproducible"]);
    command.arg("--output").arg(&folder).arg(appliance.path());
    rouse_tests::feed(&mut command, b"").success();
    // erofs' superblock lies 1024 bytes into the disk.
    let root = std::fs::read(folder.join("root.erofs")).unwrap();
    assert_eq!(root[1024..1028], 0xe0f5_e1e2_u32.to_le_bytes());
    let inspected = rouse.run(["inspect", folder.to_str().unwrap()]).success().text();
    assert!(inspected.contains("a read-only disk"), "{inspected}");
    // What is in the initramfs only shows the way there.
    let initramfs = folder.join("initramfs.zst").metadata().unwrap().len();
    let manifest = rouse.run(["inspect", "--json", folder.to_str().unwrap()]).success().text();
    assert!(initramfs < 8 << 20 && manifest.contains("\"/usr/bin/hello\""), "{initramfs}");
}

/// What mkfs.erofs wrote is what it was given, by erofs-utils' own reader: files of all sizes, small
/// ones above all, equal ones, hard links.
#[test]
fn a_disk_holds_what_it_was_given() {
    let mut tree = Tree::plain();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut files = BTreeMap::new();
    for number in 0..1500 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let random = (seed >> 33) as usize;
        // Most are smaller than a block; a few are of several compressed clusters.
        let size = match number % 50 {
            0 => random % 1_000_000,
            1..10 => random % 20_000,
            _ => random % 700,
        };
        // Text of a few words: some files begin alike, and each compresses.
        let words = ["file ", "of ", "some ", "words\n"];
        let text: String = (0..size / 4).map(|word| words[(random >> (word % 31)) % 4]).collect();
        let content: Arc<[u8]> = match number % 7 {
            0 => Arc::from(&b"the same in many\n"[..]),
            _ => format!("{number}: {text}").into_bytes().into(),
        };
        let path = format!("/usr/share/{}/{number}", number % 40);
        tree.insert(&path, Node::file(content.clone(), 0o644, "test")).unwrap();
        if number % 100 == 0 {
            let link = format!("{path}.link");
            tree.insert(&link, Node::file(content.clone(), 0o644, "test")).unwrap();
            files.insert(link, content.clone());
        }
        files.insert(path, content);
    }
    let debian = Debian::new(Cache::open_at(&cache()).unwrap(), None);
    let tool = |name: &str| tools::program(&debian, "erofs-utils", name).unwrap().command();
    let folder = tempfile::tempdir().unwrap();
    let (disk, out) = (folder.path().join("root.erofs"), folder.path().join("out"));
    rouse::output::erofs::write(&tree, &disk, tool("mkfs.erofs"), |_| ()).unwrap();
    let mut fsck = tool("fsck.erofs");
    fsck.arg(format!("--extract={}", out.display())).arg("--no-preserve").arg(&disk);
    rouse_tests::feed(&mut fsck, b"").success();
    for (path, content) in files {
        let found = std::fs::read(out.join(&path[1..])).unwrap();
        assert!(found == content[..], "{path}: {} bytes, {} written", found.len(), content.len());
    }
}
