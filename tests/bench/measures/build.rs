//! `rouse build` of the echo appliance, by what has changed since the last time.

use crate::measure::{Bound, Measure};
use crate::props::{Props, Size};
use rouse_tests::{Appliance, Rouse};
use std::time::Instant;

/// Milliseconds of each kind of build.
pub(crate) fn run(props: &Props) -> Vec<Measure> {
    let how = "The echo appliance, packages in the cache. Warm: nothing of it was built before. One \
               unit changed: a line of echo.socket. The peers make Debian with systemd and a plain echo \
               server, from a repository on disk, on a tmpfs; incremental is with their cache of \
               installed packages. Cold: with an empty cache, from the mirror.";
    let mut build = Measure::new("build", "rouse build", "ms", how)
        .limit("nothing changed", Bound::AtMost(200.0))
        .limit("one unit changed", Bound::AtMost(500.0));
    if props.size == Size::Smoke {
        build.leave_out("all", "an image is not part of so short a run");
        return vec![build];
    }
    let rouse = Rouse::new();
    for round in 0..props.rounds {
        eprintln!("build: round {} of {}", round + 1, props.rounds);
        // Of a name that was never built before.
        let name = format!("name = \"echo-{}-{round}\"", std::process::id());
        let appliance =
            Appliance::of_config("echo").replace("appliance.toml", "name = \"echo\"", &name);
        let time = || {
            let begun = Instant::now();
            rouse.run(["build".as_ref(), appliance.path().as_os_str()]).success();
            begun.elapsed().as_secs_f64() * 1e3
        };
        if round == 0 {
            let empty = tempfile::tempdir().unwrap();
            let mut command = rouse.command(["build".as_ref(), appliance.path().as_os_str()]);
            let begun = Instant::now();
            let done = command.env("ROUSE_CACHE_DIR", empty.path()).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            build.add("cold", begun.elapsed().as_secs_f64() * 1e3);
        }
        build.add("warm", time());
        build.add("nothing changed", time());
        let socket = appliance.path().join("echo.socket");
        let text = std::fs::read_to_string(&socket).unwrap();
        let changed = text.replace("[Socket]", &format!("[Socket]\nBacklog={}", 100 + round));
        assert_ne!(text, changed);
        std::fs::write(&socket, changed).unwrap();
        build.add("one unit changed", time());
    }
    super::image::time(props, props.rounds.div_ceil(3), &mut build);
    vec![build]
}
