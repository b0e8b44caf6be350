//! What the API's sleep costs and saves: printed, not held against anything but the image's size,
//! since a machine without KVM, or a busy one, is another matter.

use crate::{Pods, podmans};
use rouse_tests::{Appliance, Rouse, Vm};
use std::path::Path;
use std::time::{Duration, Instant};

/// `rouse run` to the first answer, connect to the first answer, and what is used in the guest.
pub(crate) fn the_first_request(Pods { vm, api, begun, .. }: &Pods) {
    let asleep = used(vm);
    let (status, cold) = ping(api);
    let from_run = begun.elapsed();
    assert_eq!(status, 200);
    assert_eq!(vm.service("podman.service").starts, 1, "started by the first request");
    assert_eq!(podmans(vm), 1);
    let mut warm: Vec<_> = (0..21).map(|_| ping(api).1).collect();
    warm.sort_unstable();
    let awake = used(vm);
    println!(
        "measured: rouse run to the first /_ping {:.1} s; connect to answer {:.2} s cold, {:.1} ms \
         warm (middle of 21); used in the guest {asleep} KiB asleep, {awake} KiB awake",
        from_run.as_secs_f64(),
        cold.as_secs_f64(),
        warm[10].as_secs_f64() * 1e3,
    );
}

fn ping(api: &crate::Api) -> (u32, Duration) {
    let begun = Instant::now();
    (api.request("/_ping").status, begun.elapsed())
}

/// What is neither free nor a copy of what a disk has, in KiB.
fn used(vm: &Vm) -> u64 {
    let text = vm.shell("cat /proc/meminfo");
    let field = |name: &str| -> u64 {
        let name = format!("{name}:");
        let line = text.lines().find_map(|line| line.strip_prefix(&name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    let free = ["MemFree", "Buffers", "Cached", "SReclaimable"].map(field);
    field("MemTotal") + field("Shmem") - free.iter().sum::<u64>()
}

/// The image of configs/podman, without the kernel, has at most 30 MB.
#[test]
fn the_image_is_small() {
    if !crate::asked("size") {
        rouse_tests::skipped("the size of configs/podman's image; .ci/full sets ROUSE_TEST_PODMAN");
        return;
    }
    let appliance = Appliance::of_config("podman");
    let folder = Rouse::new().run(["build".as_ref(), appliance.path().as_os_str()]).success();
    let folder = folder.text();
    let size = |name: &str| Path::new(folder.trim()).join(name).metadata().unwrap().len();
    let (initramfs, root) = (size("initramfs.zst"), size("root.erofs"));
    println!("measured: configs/podman without its kernel: {initramfs} and {root} bytes");
    assert!(initramfs + root <= 30_000_000, "{initramfs} + {root}");
}
