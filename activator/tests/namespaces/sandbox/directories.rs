//! Directories, credentials, and what a run leaves behind.

use super::*;

pub(super) fn directories(bench: &mut Bench) {
    if !has_users() {
        return eprintln!("SKIPPED: needs a second user");
    }
    let mut room = Room::new(bench);
    std::fs::create_dir("/var/lib/deep").unwrap();
    std::fs::write("/var/lib/deep/file", "").unwrap();
    use DirectoryKind::{Cache, Logs, Runtime, State};
    let mut linked = directory(Cache, "c", 0o755);
    linked.links.push("other".into());
    let stage2 = Stage2 {
        directories: vec![
            directory(Runtime, "r", 0o750),
            directory(Runtime, "s/t", 0o755),
            directory(State, "deep", 0o700),
            linked,
            directory(Logs, "l", 0o755),
        ],
        sandbox: Sandbox { protect_system: ProtectSystem::Strict, ..Sandbox::default() },
        ..Stage2::default()
    };
    let expected = [
        ("env:RUNTIME_DIRECTORY", "/run/r:/run/s/t"),
        ("env:STATE_DIRECTORY", "/var/lib/deep"),
        ("env:CACHE_DIRECTORY", "/var/cache/c"),
        ("env:LOGS_DIRECTORY", "/var/log/l"),
        ("stat:/run/r", "750 65534 65534"),
        ("stat:/run/s", "755 0 0"),
        ("stat:/run/s/t", "755 65534 65534"),
        ("stat:/var/lib/deep/file", "644 65534 65534"),
        ("write:/var/lib/deep/new", "ok"),
        ("write:/var/cache/other/new", "ok"),
        ("write:/var/cache/new", "EROFS"),
    ];
    let asks: Vec<&str> = expected.iter().map(|(ask, _)| *ask).collect();
    let mut it = room.service(&asks, stage2);
    it.execution.user = user();
    room.check(it, &expected);
}

pub(super) fn dynamic_user(bench: &mut Bench) {
    if !has_users() {
        return eprintln!("SKIPPED: needs a second user");
    }
    let mut room = Room::new(bench);
    let stage2 = Stage2 {
        dynamic_user: Some(DynamicUser { name: "dyn".into(), uid: 61234 }),
        directories: vec![directory(DirectoryKind::State, "d", 0o755)],
        sandbox: Sandbox {
            protect_system: ProtectSystem::Strict,
            private_tmp: true,
            ..Sandbox::default()
        },
        ..Stage2::default()
    };
    room.check_stage2(
        stage2,
        &[
            ("status:Uid", "61234 61234 61234 61234"),
            ("status:Gid", "61234 61234 61234 61234"),
            ("env:USER", "dyn"),
            ("env:HOME", "/"),
            ("env:STATE_DIRECTORY", "/var/lib/d"),
            ("write:/var/lib/d/file", "ok"),
            ("list:/var/lib/private", "d"),
            ("write:/var/lib/file", "EROFS"),
            ("write:/tmp/file", "ok"),
        ],
    );
    let private = std::fs::metadata("/var/lib/private").unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&private) & 0o7777, 0o700);
    assert_eq!(std::fs::read_link("/var/lib/d").unwrap(), Path::new("/var/lib/private/d"));
    assert!(Path::new("/var/lib/private/d/file").exists());
}

pub(super) fn credentials(bench: &mut Bench) {
    if !has_users() {
        return eprintln!("SKIPPED: needs a second user");
    }
    let mut room = Room::new(bench);
    std::fs::write("/run/secret", "of a file").unwrap();
    let stage2 = Stage2 {
        credentials: vec![
            Credential { name: "a".into(), source: CredentialSource::Path("/run/secret".into()) },
            Credential { name: "b".into(), source: CredentialSource::Text(b"of text".into()) },
        ],
        ..Stage2::default()
    };
    let directory = "/run/credentials/a.service";
    let expected = [
        ("env:CREDENTIALS_DIRECTORY", directory),
        ("stat:/run/credentials/a.service", "500 65534 65534"),
        ("read:/run/credentials/a.service/a", "of a file"),
        ("read:/run/credentials/a.service/b", "of text"),
        ("write:/run/credentials/a.service/b", "EACCES"),
    ];
    let asks: Vec<&str> = expected.iter().map(|(ask, _)| *ask).collect();
    let mut it = room.service(&asks, stage2);
    it.execution.user = user();
    room.check(it, &expected);
}

/// What stands there while it runs is gone when it has stopped, but for what is to stay.
pub(super) fn clean(bench: &mut Bench) {
    let mut room = Room::new(bench);
    let stage2 = Stage2 {
        directories: vec![
            directory(DirectoryKind::Runtime, "r", 0o755),
            directory(DirectoryKind::State, "s", 0o755),
        ],
        credentials: vec![Credential {
            name: "c".into(),
            source: CredentialSource::Text(b"text".into()),
        }],
        sandbox: Sandbox { private_tmp: true, ..Sandbox::default() },
        ..Stage2::default()
    };
    let expected = [
        ("write:/run/r/file", "ok"),
        ("write:/var/lib/s/file", "ok"),
        ("write:/tmp/file", "ok"),
        ("read:/run/credentials/a.service/c", "text"),
    ];
    room.check_stage2(stage2, &expected);
    for (path, stays) in [
        ("/run/r", false),
        ("/run/rouse/shared/a.service", false),
        ("/run/credentials/a.service", false),
        ("/var/lib/s/file", true),
    ] {
        assert_eq!(Path::new(path).exists(), stays, "{path}");
    }
}

/// With `RuntimeDirectoryPreserve=restart` a restart finds its files, and a stop removes them.
pub(super) fn preserve(bench: &mut Bench) {
    let mut room = Room::new(bench);
    let stage2 = Stage2 {
        directories: vec![directory(DirectoryKind::Runtime, "r", 0o755)],
        runtime_preserve: Some(false),
        ..Stage2::default()
    };
    let mut it = room.service(&[], stage2);
    let script = "test -e /run/r/file && exit 0; touch /run/r/file; exit 1";
    it.start[0].program = "/bin/sh".into();
    it.start[0].arguments = ["sh", "-c", script].map(str::to_owned).to_vec();
    it.restart = Restart::OnFailure;
    room.start(it);
    room.bench.wait("it has found its file", |status| {
        let it = bench::service(status, "a.service");
        it.starts == 2 && it.state == "dead"
    });
    assert!(!Path::new("/run/r").exists());
    room.bench.stop();
}
