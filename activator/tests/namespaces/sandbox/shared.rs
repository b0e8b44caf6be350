//! Private folders and namespaces, and who shares them: the commands of one unit, and units that join.

use super::*;

pub(super) fn shared_tmp(bench: &mut Bench) {
    let mut room = Room::new(bench);
    let sandbox = Sandbox { private_tmp: true, ..Sandbox::default() };
    let mut it = room.service(&["list:/tmp"], sandboxed(sandbox));
    it.start_pre = vec![room.ask(&["write:/tmp/of-pre"])];
    let lines = room.run(it);
    let expected = ["write:/tmp/of-pre -> ok", "done", "list:/tmp -> of-pre", "done"];
    assert_eq!(lines, expected, "{}", room.bench.log());
}

const SHARED: &str = "/run/rouse/shared";

/// Namespaces, and a /tmp of its own, shared with a group.
fn joining(group: Option<&str>) -> Stage2 {
    sandboxed(Sandbox {
        private_tmp: true,
        namespaces: Namespaces { network: true, ipc: true, ..Namespaces::default() },
        joins: group.map(str::to_owned),
        ..Sandbox::default()
    })
}

/// The folders of what is shared, and the users of each.
fn shared() -> Vec<(String, Vec<String>)> {
    let names = |path: &Path| {
        let entries = std::fs::read_dir(path).into_iter().flatten();
        let mut names: Vec<String> =
            entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let folders = names(Path::new(SHARED)).into_iter();
    folders.map(|it| (it.clone(), names(&Path::new(SHARED).join(it).join("users")))).collect()
}

pub(super) fn shared_namespaces(bench: &mut Bench) {
    let mut room = Room::new(bench);
    let mut it = room.service(&["namespace:net", "namespace:ipc", "loopback"], joining(None));
    let privileged = Command { privileged: true, ..room.ask(&["namespace:net", "namespace:ipc"]) };
    it.start_pre = vec![room.ask(&["namespace:net", "namespace:ipc"]), privileged];
    let lines = room.run(it);
    assert_eq!(lines[..2], lines[3..5], "as systemd: `+` is about other things");
    assert_eq!(lines[..2], lines[6..8], "{}", room.bench.log());
    assert_eq!(lines[8], "loopback -> ok");
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_ne!(lines[0], format!("namespace:net -> {}", own.display()));
    assert_eq!(shared(), [], "a namespace is left behind");
}

/// As in systemd, whose `RuntimeDirectoryPreserve=` is not about these.
pub(super) fn restart_alone(bench: &mut Bench) {
    let mut room = Room::new(bench);
    let mut it = room.service(&[], joining(None));
    let script = "readlink /proc/self/ns/net; ls /tmp; touch /tmp/of-$$; test $(wc -l <$OUT) -gt 1";
    it.start[0].program = "/bin/sh".into();
    it.start[0].arguments = ["sh", "-c", script].map(str::to_owned).to_vec();
    it.execution.environment.push(format!("OUT={OUT}"));
    it.restart = Restart::OnFailure;
    room.start(it);
    room.bench.wait("it was restarted", |status| {
        let it = bench::service(status, "a.service");
        it.starts == 2 && it.state == "dead"
    });
    room.bench.stop();
    let lines = said();
    assert_eq!(lines.len(), 2, "the second found a file of the first: {lines:?}");
    assert!(lines.iter().all(|line| line.starts_with("net:[")), "{lines:?}");
}

pub(super) fn joined(bench: &mut Bench) {
    let room = Room::new(bench);
    let asks = ["list:/tmp", "namespace:net", "namespace:ipc"];
    let tmp_only = sandboxed(Sandbox {
        private_tmp: true,
        joins: Some("a.service".into()),
        ..Sandbox::default()
    });
    let first = [&["write:/tmp/of-a"][..], &asks].concat();
    let units = Units::default()
        .service("a.service", lasting(&room, &first, joining(Some("a.service"))))
        .service("b.service", lasting(&room, &asks, joining(Some("a.service"))))
        .service("c.service", lasting(&room, &asks, joining(None)))
        .service("d.service", lasting(&room, &asks, tmp_only))
        .needs("b.service", "a.service")
        .needs("c.service", "b.service")
        .needs("d.service", "c.service")
        .at_boot("d.service");
    room.bench.start(&units.build());
    room.bench.wait("all are up", |it| bench::service(it, "d.service").state == "exited");
    let lines = said();
    assert_eq!(lines.len(), 17, "{lines:?}");
    let (a, b, c, d) = (&lines[1..4], &lines[5..8], &lines[9..12], &lines[13..16]);
    assert_eq!(a, b, "the same /tmp and namespaces");
    assert_eq!(a[0], "list:/tmp -> of-a");
    assert_eq!(c[0], "list:/tmp -> ");
    assert_ne!(a[1], c[1], "one that is not joined has its own network");
    assert_ne!(a[2], c[2]);
    assert_eq!(d[0], a[0]);
    assert!(![&a[1], &c[1]].contains(&&d[1]), "it has no network of its own: {lines:?}");
    room.bench.stop();
    assert_eq!(shared(), []);
}

/// Units come and go; what is there stays as long as one of them, whoever made it.
pub(super) fn joined_in_turn(bench: &mut Bench) {
    let room = Room::new(bench);
    let names = ["a.service", "b.service"];
    let asks = ["list:/tmp", "namespace:net"];
    let units = names.iter().fold(Units::default(), |units, name| {
        let touch = format!("write:/tmp/of-{}", &name[..1]);
        let asks = [&asks[..], &[touch.as_str()]].concat();
        units.service(name, lasting(&room, &asks, joining(Some("a.service"))))
    });
    room.bench.start(&units.build());
    let wait = |name: &str, state: &str| {
        room.bench.wait(state, |status| bench::service(status, name).state == state);
    };
    let start = |name: &str| {
        room.bench.order(Request::Start(name.into())).unwrap();
        wait(name, "exited");
    };
    let stop = |name: &str| {
        room.bench.order(Request::Stop(name.into())).unwrap();
        wait(name, "dead");
    };
    start("b.service");
    start("a.service");
    assert_eq!(shared(), [("b.service".into(), names.map(str::to_owned).to_vec())]);
    stop("b.service");
    start("b.service");
    stop("a.service");
    stop("b.service");
    assert_eq!(shared(), []);
    start("a.service");
    let lines = said();
    let tmp: Vec<&String> = lines.iter().step_by(4).collect();
    let expected = ["", "of-b", "of-a of-b", ""].map(|names| format!("list:/tmp -> {names}"));
    assert_eq!(tmp, expected.iter().collect::<Vec<_>>());
    let networks: Vec<&String> = lines[1..].iter().step_by(4).collect();
    assert!(networks[0] == networks[1] && networks[1] == networks[2], "{networks:?}");
}

pub(super) fn joined_reload(bench: &mut Bench) {
    let room = Room::new(bench);
    let units = |group: Option<&str>| {
        let one = |touch: &str| lasting(&room, &["list:/tmp", touch], joining(group));
        let services =
            [("a.service", one("write:/tmp/of-a")), ("b.service", one("write:/tmp/of-b"))];
        let units = Units::default();
        services.into_iter().fold(units, |units, (name, it)| units.service(name, it)).build()
    };
    let [apart, together] = [units(None), units(Some("a.service"))];
    room.bench.start(&apart);
    let state = |name: &str, state: &str| {
        room.bench.wait(state, |status| bench::service(status, name).state == state);
    };
    room.bench.order(Request::Start("a.service".into())).unwrap();
    state("a.service", "exited");
    let reload = |manifest: &Manifest| crate::reload::reload(room.bench, manifest);
    // The one that runs is joined by the one that starts.
    reload(&together);
    room.bench.order(Request::Start("b.service".into())).unwrap();
    state("b.service", "exited");
    assert_eq!(said()[3], "list:/tmp -> of-a");
    // No longer joined: what runs keeps what it has, and what starts has its own.
    reload(&apart);
    room.bench.order(Request::Stop("a.service".into())).unwrap();
    state("a.service", "dead");
    assert_eq!(shared(), [("a.service".into(), vec!["b.service".to_owned()])]);
    room.bench.order(Request::Start("a.service".into())).unwrap();
    state("a.service", "exited");
    assert_eq!(said()[6], "list:/tmp -> ");
    for unit in ["a.service", "b.service"] {
        room.bench.order(Request::Stop(unit.into())).unwrap();
        state(unit, "dead");
    }
    assert_eq!(shared(), []);
}
