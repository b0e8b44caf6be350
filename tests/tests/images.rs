//! Container images from where people keep them: a real registry (Debian's docker-registry, on
//! the loopback), with and without passwords, one that hands out tokens, layouts and archives. And one that boots.

#[path = "images/host.rs"]
mod host;
#[path = "images/tls.rs"]
mod tls;
#[path = "images/tokens.rs"]
mod tokens;

use rouse::cache::Cache;
use rouse::debian::Architecture;
use rouse::download::{self, Client};
use rouse::oci::ContainerImage;
use rouse::oci::source::{Digest, Import, Layers, Origin, Scheme, SourceError, Stored, Transport};
use rouse::static_build;
use rouse::tree::Kind;
use rouse_tests::container_registry::{Access, ContainerRegistry, USER};
use rouse_tests::images::{
    Compression, INDEX, Image, MANIFEST, digest, machine, tar, write_archive,
};
use rouse_tests::{Appliance, Mirror, Rouse, Vm, cache, feed, golden, mask_hashes};
use serde_json::json;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The files with passwords are found by the environment, which a process has once.
static ENVIRONMENT: Mutex<()> = Mutex::new(());

/// No passwords, or those in a file.
fn passwords(text: Option<&str>) -> (MutexGuard<'static, ()>, tempfile::TempDir) {
    let guard = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("auth.json");
    std::fs::write(&file, text.unwrap_or("{}")).unwrap();
    // SAFETY: who reads this variable, or writes it, holds the lock; nobody else's libc calls
    // look at the environment while a registry is talked to.
    #[allow(unsafe_code)]
    unsafe {
        std::env::set_var("REGISTRY_AUTH_FILE", &file);
    }
    (guard, folder)
}

fn password_file(address: &str) -> String {
    json!({ "auths": { address: { "auth": USER.1 } } }).to_string()
}

/// An empty cache.
struct Room {
    folder: tempfile::TempDir,
    cache: Cache,
}

impl Room {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open_at(&folder.path().join("cache")).unwrap();
        Self { folder, cache }
    }

    fn import<T>(&self, architecture: Architecture, work: impl FnOnce(&Import<'_>) -> T) -> T {
        work(&Import {
            cache: &self.cache,
            architecture,
            client: &Client::new(),
            scheme: &|_| Scheme::Http,
        })
    }

    fn resolve(&self, from: &str) -> Result<Digest, SourceError> {
        self.import(Architecture::host().unwrap(), |import| import.resolve(&origin(from)))
    }

    fn fetch(&self, from: &str, digest: Digest) -> Result<Stored, SourceError> {
        self.import(Architecture::host().unwrap(), |import| import.fetch(&origin(from), digest))
    }

    /// Today's image, unpacked.
    fn image(&self, from: &str) -> Result<(Digest, ContainerImage), SourceError> {
        let digest = self.resolve(from)?;
        let stored = self.fetch(from, digest)?;
        let image = Layers::default().unpack("test", &stored, Architecture::host().unwrap())?;
        Ok((digest, image))
    }
}

fn origin(from: &str) -> Origin {
    Origin::From(Transport::parse(from).unwrap())
}

fn docker(reference: &str) -> String {
    format!("docker://{reference}")
}

/// Two layers, and all that a Containerfile says.
fn sample() -> Image {
    let lower = tar(&[
        ("bin/app", 0o755, b"app"),
        ("etc/old", 0o644, b"old"),
        ("etc/both", 0o644, b"lower"),
    ]);
    let upper = tar(&[("etc/.wh.old", 0o644, b""), ("etc/both", 0o600, b"upper")]);
    let config = json!({
        "User": "33:34",
        "ExposedPorts": { "8080/tcp": {} },
        "Env": ["PATH=/bin", "A=b=c"],
        "Entrypoint": ["/bin/app"],
        "Cmd": ["--serve"],
        "Volumes": { "/data": {} },
        "WorkingDir": "/etc",
        "Labels": { "org.example": "yes" },
        "StopSignal": "SIGINT",
        "Healthcheck": {
            "Test": ["CMD", "/bin/app", "ping"],
            "Interval": 5_000_000_000_u64,
            "Retries": 3,
        },
    });
    Image::new(machine(), &config, &[(lower, Compression::Gzip), (upper, Compression::Zstd)])
}

#[track_caller]
fn is_sample(image: &ContainerImage) {
    assert_eq!(image.entrypoint, ["/bin/app"]);
    assert_eq!(image.command, ["--serve"]);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(image.environment, [pair("PATH", "/bin"), pair("A", "b=c")]);
    assert_eq!(image.user.as_deref(), Some("33:34"));
    assert_eq!(image.working_directory.as_deref(), Some("/etc"));
    assert_eq!(image.stop_signal.as_deref(), Some("SIGINT"));
    assert_eq!((image.volumes.len(), image.exposed_ports.len()), (1, 1));
    assert_eq!(image.labels["org.example"], "yes");
    let check = image.health_check.as_ref().unwrap();
    assert_eq!((check.test.len(), check.interval_ns, check.retries), (3, 5_000_000_000, 3));
    let paths: Vec<&str> = image.files.iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["/bin", "/bin/app", "/etc", "/etc/both"]);
    assert_eq!(image.files.content("/etc/both").unwrap().as_ref(), b"upper");
    assert_eq!(image.files.node("/etc/both").unwrap().mode, 0o600);
    assert_eq!(image.files.node("/bin/app").unwrap().mode, 0o755);
}

#[test]
fn an_open_registry() {
    let _environment = passwords(None);
    let registry = ContainerRegistry::start(Access::Anybody);
    let image = sample();
    registry.push("team/app", "1", &image);
    let from = docker(&registry.reference("team/app:1"));
    let room = Room::new();
    let (locked, unpacked) = room.image(&from).unwrap();
    assert_eq!(locked.to_string(), image.digest());
    is_sample(&unpacked);

    // An index: the machine chooses, and the lock has the manifest's own digest.
    let other = Image::new("s390x", &json!({}), &[]);
    registry.push("team/app", "other", &other);
    let attestation = json!({
        "mediaType": MANIFEST,
        "digest": other.digest(),
        "size": other.manifest.len(),
        "platform": { "os": "unknown", "architecture": "unknown" },
    });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [other.described("s390x"), attestation, image.described(machine())],
    });
    let index = index.to_string();
    registry.push_manifest("team/app", "multi", INDEX, index.as_bytes());
    let multi = docker(&registry.reference("team/app:multi"));
    assert_eq!(room.resolve(&multi).unwrap(), locked);
    let exact = format!("team/app@{}", digest(index.as_bytes()));
    assert_eq!(room.resolve(&docker(&registry.reference(&exact))).unwrap(), locked);
    let foreign = match Architecture::host().unwrap() {
        Architecture::Amd64 => Architecture::Arm64,
        Architecture::Arm64 => Architecture::Amd64,
    };
    let error = room.import(foreign, |import| import.resolve(&origin(&multi))).unwrap_err();
    assert!(matches!(&error, SourceError::NoArchitecture { has, .. } if has.len() == 2), "{error}");

    // What is not there.
    let missing = room.resolve(&docker(&registry.reference("team/app:2"))).unwrap_err();
    assert!(matches!(missing, SourceError::NotFound { .. }), "{missing}");

    // A tag that has moved on, and what it meant before is dropped: the cache still has it.
    registry.push("team/app", "1", &other);
    registry.delete("team/app", &image.digest());
    assert_eq!(room.fetch(&from, locked).unwrap().digest, locked);
    let fresh = Room::new();
    let error = fresh.fetch(&from, locked).unwrap_err();
    assert!(matches!(&error, SourceError::Gone { digest, .. } if *digest == locked), "{error}");
    assert!(error.hint().unwrap().contains("rouse lock"));
}

#[test]
fn a_registry_with_damaged_blobs() {
    let _environment = passwords(None);
    let registry = ContainerRegistry::start(Access::Anybody);
    let image = sample();
    registry.push("app", "1", &image);
    let from = docker(&registry.reference("app:1"));
    let locked = Room::new().resolve(&from).unwrap();
    let file = registry.file(&image.layers[0]);
    let good = std::fs::read(&file).unwrap();
    assert_eq!(good, image.layers[0]);

    let mut wrong = good.clone();
    wrong[20] ^= 1;
    std::fs::write(&file, &wrong).unwrap();
    let room = Room::new();
    let error = room.fetch(&from, locked).unwrap_err();
    let is_wrong = matches!(error, SourceError::Download(download::Error::WrongHash { .. }));
    assert!(is_wrong && !error.is_temporary(), "{error}");

    std::fs::write(&file, &good[..good.len() / 2]).unwrap();
    let error = room.fetch(&from, locked).unwrap_err();
    assert!(error.is_temporary(), "{error}");
    assert_eq!(std::fs::read_dir(room.cache.root().join("scratch")).unwrap().count(), 0);

    // A layer that is gone while its manifest is there.
    std::fs::remove_file(&file).unwrap();
    let error = room.fetch(&from, locked).unwrap_err();
    assert!(matches!(error, SourceError::Gone { .. }), "{error}");

    std::fs::write(&file, &good).unwrap();
    assert_eq!(room.fetch(&from, locked).unwrap().layers.len(), 2);
}

#[test]
fn a_registry_with_passwords() {
    let registry = ContainerRegistry::start(Access::Password);
    let image = sample();
    registry.push("app", "1", &image);
    let from = docker(&registry.reference("app:1"));

    let environment = passwords(None);
    let error = Room::new().resolve(&from).unwrap_err();
    assert!(matches!(error, SourceError::Denied { status: 401, known: false, .. }), "{error}");
    assert!(error.hint().unwrap().contains("podman login"));
    drop(environment);

    // tester:wrong
    let text = password_file(&registry.address).replace(USER.1, "dGVzdGVyOndyb25n");
    let environment = passwords(Some(&text));
    let error = Room::new().resolve(&from).unwrap_err();
    assert!(matches!(error, SourceError::Denied { status: 401, known: true, .. }), "{error}");
    drop(environment);

    let _environment = passwords(Some(&password_file(&registry.address)));
    let (locked, unpacked) = Room::new().image(&from).unwrap();
    is_sample(&unpacked);
    // By digest alone, with nothing asked before.
    assert_eq!(Room::new().fetch(&from, locked).unwrap().digest, locked);
}

#[test]
fn a_registry_with_tokens() {
    let image = sample();
    let server = tokens::Server::start(&image);
    let from = docker(&format!("{}/app:1", server.address));
    let _environment = passwords(Some(&password_file(&server.address)));
    let room = Room::new();
    is_sample(&room.image(&from).unwrap().1);
    let log = server.log.lock().unwrap().clone();
    let tokens: Vec<&String> = log.iter().filter(|line| line.starts_with("/token")).collect();
    // One for the manifest, one for the first part, and one more when that has ended.
    assert!(tokens.len() >= 3, "{log:?}");
    let query = "/token?scope=repository%3Aapp%3Apull&service=a%20b ";
    assert!(tokens.iter().all(|line| line.starts_with(query)), "{log:?}");
    // The password goes to the token server alone.
    let told = |line: &&String| line.contains(USER.1);
    assert_eq!(log.iter().filter(told).count(), tokens.len(), "{log:?}");
}

#[test]
fn a_registry_with_certificates_of_its_own() {
    let environment = passwords(None);
    let registry = ContainerRegistry::start(Access::Anybody);
    let image = sample();
    registry.push("app", "1", &image);
    let front = tls::Front::start(&registry.address);
    let container = format!("[Container]\nImage={}/app:1\nNetwork=none\n", front.address);
    let tls = format!("[registry.\"{}\"]\nplain-http = false\n", front.address);
    let appliance = Appliance::empty()
        .with("appliance.toml", &format!("name = \"pulled\"\n\n{tls}"))
        .with("app.container", &container);
    let (rouse, home) = (Rouse::new(), tempfile::tempdir().unwrap());
    let lock = || feed(rouse.command(["lock"]).arg(appliance.path()).env("HOME", home.path()), b"");
    let folder = home.path().join(".config/containers/certs.d").join(&front.address);
    std::fs::create_dir_all(&folder).unwrap();

    let stranger = lock();
    assert_eq!(stranger.code, 69, "{}", stranger.stderr);
    assert!(stranger.stderr.contains("certs.d"), "{}", stranger.stderr);

    std::fs::copy(front.file("authority.crt"), folder.join("ca.crt")).unwrap();
    let nobody = lock();
    assert_eq!(nobody.code, 69, "{}", nobody.stderr);

    std::fs::copy(front.file("client.crt"), folder.join("client.cert")).unwrap();
    let half = lock();
    assert_eq!(half.code, 65, "{}", half.stderr);
    assert!(half.stderr.contains("client.key is missing"), "{}", half.stderr);

    std::fs::copy(front.file("client.key"), folder.join("client.key")).unwrap();
    lock().success();
    let text = std::fs::read_to_string(appliance.path().join("appliance.lock")).unwrap();
    assert!(text.contains(&image.digest()), "{text}");
    drop(environment);
}

#[test]
fn layouts_and_archives() {
    let image = sample();
    let room = Room::new();
    let folder = room.folder.path();
    let layout = folder.join("layout");
    image.write_layout(&layout, "v1");
    let from = format!("oci:{}", layout.display());
    let (locked, unpacked) = room.image(&from).unwrap();
    assert_eq!(locked.to_string(), image.digest());
    is_sample(&unpacked);

    let archive = folder.join("layout.tar");
    write_archive(&layout, &archive);
    let from_archive = format!("oci-archive:{}:v1", archive.display());
    let fresh = Room::new();
    let (same, unpacked) = fresh.image(&from_archive).unwrap();
    assert_eq!(same, locked);
    is_sample(&unpacked);
    let error = fresh.resolve(&format!("oci-archive:{}:v2", archive.display())).unwrap_err();
    assert!(matches!(&error, SourceError::Which { has, .. } if has == &["v1"]), "{error}");

    // Two images: one has to be named.
    Image::new(machine(), &json!({}), &[]).write_layout(&layout, "v2");
    let error = room.resolve(&from).unwrap_err();
    assert!(matches!(&error, SourceError::Which { has, .. } if has.len() == 2), "{error}");
    assert_eq!(room.resolve(&format!("{from}:v1")).unwrap(), locked);
    // It is another one than the lock says, although the cache has what the lock says.
    let error = room.fetch(&format!("{from}:v2"), locked).unwrap_err();
    assert!(matches!(error, SourceError::Changed { .. }), "{error}");
    assert!(error.hint().unwrap().contains("rouse lock"));

    // A blob that is not what its name says.
    let blob = layout.join("blobs/sha256").join(digest(&image.layers[1]).replace("sha256:", ""));
    std::fs::write(&blob, "other").unwrap();
    let error = room.resolve(&format!("{from}:v1")).unwrap_err();
    assert!(matches!(error, SourceError::WrongDigest { .. }), "{error}");
    std::fs::remove_file(&blob).unwrap();
    let error = room.resolve(&format!("{from}:v1")).unwrap_err();
    assert!(matches!(error, SourceError::Missing { .. }), "{error}");
}

#[test]
fn docker_archives() {
    let image = sample();
    let room = Room::new();
    let file = room.folder.path().join("saved.tar");
    image.write_docker_archive(&file, "localhost/app:latest");
    let from = format!("docker-archive:{}", file.display());
    let (locked, unpacked) = room.image(&from).unwrap();
    is_sample(&unpacked);
    // Known by what is in it, whatever it is called, and however it is packed.
    assert_eq!(room.resolve(&format!("{from}:localhost/app")).unwrap(), locked);
    let packed = room.folder.path().join("saved.tar.zst");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&packed, zstd::encode_all(&whole[..], 1).unwrap()).unwrap();
    let from_packed = format!("docker-archive:{}", packed.display());
    assert_eq!(Room::new().resolve(&from_packed).unwrap(), locked);
    let error = room.resolve(&format!("{from}:localhost/other")).unwrap_err();
    assert!(matches!(&error, SourceError::Which { has, .. } if has.len() == 1), "{error}");

    // Cut anywhere before its last file, it is an error and not a panic.
    for end in (0..whole.len() - 2048).step_by(700) {
        std::fs::write(&file, &whole[..end]).unwrap();
        assert!(Room::new().image(&from).is_err(), "{end} of {}", whole.len());
    }
}

/// What `rouse lock` and `rouse build` make of an image table.
fn image_by(rouse: &Rouse, table: &str, path: &std::ffi::OsStr) -> String {
    let appliance = Appliance::empty()
        .with(
            "appliance.toml",
            &format!("name = \"local\"\n\n[image.\"example.org/app\"]\n{table}\n"),
        )
        .with("Containerfile", "FROM scratch\nCOPY app /bin/app\nENTRYPOINT [\"/bin/app\"]\n")
        .with("app", "an application")
        .with("app.container", "[Container]\nImage=example.org/app\nNetwork=none\n");
    let output = tempfile::tempdir().unwrap();
    let mut build = rouse.command(["build", "--output"]);
    build.arg(output.path().join("image")).arg(appliance.path()).env("PATH", path);
    feed(&mut build, b"").success();
    let mut inspect = rouse.command(["inspect", "--json"]);
    feed(inspect.arg(output.path().join("image")), b"").success().text()
}

#[test]
fn images_of_programs_of_this_machine() {
    let Some(programs) = host::Programs::unpack() else { return };
    let rouse = Rouse::new();
    for builder in ["podman", "buildah"] {
        let text =
            image_by(&rouse, "containerfile = \"Containerfile\"", &programs.path(&[builder]));
        assert!(text.contains("bin/app"), "{builder}: {text}");
    }
    let context = tempfile::tempdir().unwrap();
    std::fs::write(context.path().join("kept"), "kept").unwrap();
    std::fs::write(
        context.path().join("Containerfile"),
        "FROM scratch\nCOPY kept /bin/kept\nENTRYPOINT [\"/bin/kept\"]\n",
    )
    .unwrap();
    let mut build = programs.command("buildah");
    build.args(["build", "--tag", "localhost/kept:1"]).arg(context.path());
    feed(&mut build, b"").success();
    for reader in ["skopeo", "podman"] {
        let table = "from = \"containers-storage:localhost/kept:1\"";
        let text = image_by(&rouse, table, &programs.path(&[reader]));
        assert!(text.contains("bin/kept"), "{reader}: {text}");
    }
    // Without any of them it is said what is missing.
    let appliance = Appliance::empty()
        .with(
            "appliance.toml",
            "name = \"local\"\n\n[image.\"example.org/app\"]\ncontainerfile = \"Containerfile\"\n",
        )
        .with("Containerfile", "FROM scratch\n")
        .with("app.container", "[Container]\nImage=example.org/app\nNetwork=none\n");
    let mut lock = rouse.command(["lock"]);
    lock.arg(appliance.path()).env("PATH", programs.path(&[]));
    let refused = feed(&mut lock, b"");
    assert_eq!(refused.code, 69, "{}", refused.stderr);
    assert!(refused.stderr.contains("neither podman nor buildah"), "{}", refused.stderr);
}

/// Two stages, of which the first is asked for.
const STAGES: &str = "FROM scratch AS first\nARG NAME\nCOPY $NAME /bin/\nCOPY folder /folder\n\
                      ENTRYPOINT [\"/folder/kept\"]\nFROM first\nCOPY last /bin/last\n";

/// A `.build` with what its builder can be told.
const BUILD: &str = "[Build]\nImageTag=localhost/made\nFile=made/Containerfile\n\
                     SetWorkingDirectory=unit\nTarget=first\nBuildArg=NAME=one\nIgnoreFile=ignored\n\
                     Environment=A=b \"C=d e\"\nLabel=who=me\nNetwork=none\n\
                     PodmanArgs=--tag localhost/told:1\n";

#[test]
fn a_build_file_is_built_by_a_program_of_this_machine() {
    let Some(programs) = host::Programs::unpack() else { return };
    let rouse = Rouse::new();
    for builder in ["podman", "buildah"] {
        let appliance = Appliance::empty()
            .with("appliance.toml", "name = \"local\"\n")
            .with("made.build", BUILD)
            .with("made/Containerfile", STAGES)
            .with("one", "an application")
            .with("two", "another")
            .with("last", "of the last stage")
            .with("folder/kept", "kept")
            .with("folder/left", "left out")
            .with("ignored", "folder/left\n")
            .with("made.container", "[Container]\nImage=made.build\nNetwork=none\n");
        let output = tempfile::tempdir().unwrap();
        let built = || {
            let mut build = rouse.command(["build", "--output"]);
            build.arg(output.path().join("image")).arg(appliance.path());
            feed(build.env("PATH", programs.path(&[builder])), b"").success();
            let mut inspect = rouse.command(["inspect", "--json"]);
            feed(inspect.arg(output.path().join("image")), b"").success().text()
        };
        let has = |text: &str, names: [&str; 5]| names.map(|name| text.contains(name));
        let names = ["bin/one", "bin/two", "bin/last", "folder/kept", "folder/left"];
        let text = built();
        assert_eq!(has(&text, names), [true, false, false, true, false], "{builder}: {text}");
        let mut inspect = programs.command("buildah");
        let format = "{{.OCIv1.Config.Env}} {{.OCIv1.Config.Labels.who}}";
        inspect.args(["inspect", "--type", "image", "--format", format, "localhost/told:1"]);
        let told = feed(&mut inspect, b"").success().text();
        assert!(told.contains("A=b") && told.contains("C=d e"), "{builder}: {told}");
        assert!(told.trim().ends_with(" me"), "{builder}: {told}");

        // Another argument is another image, whatever the lock has.
        let changed = BUILD.replace("NAME=one", "NAME=two");
        std::fs::write(appliance.path().join("made.build"), changed).unwrap();
        let text = built();
        assert_eq!(has(&text, names), [false, true, false, true, false], "{builder}: {text}");
    }
}

#[test]
fn layers_are_what_the_configuration_says_and_are_shared() {
    let base = tar(&[("lib/big", 0o644, &[7; 4096])]);
    let image = |own: &str| {
        let own = tar(&[("own", 0o644, own.as_bytes())]);
        let layers = [(base.clone(), Compression::Gzip), (own, Compression::None)];
        Image::new(machine(), &json!({ "Cmd": ["/own"] }), &layers)
    };
    let room = Room::new();
    let layout = room.folder.path().join("layout");
    image("one").write_layout(&layout, "one");
    image("two").write_layout(&layout, "two");
    let mut layers = Layers::default();
    let mut unpack = |name: &str| {
        let from = format!("oci:{}:{name}", layout.display());
        let stored = room.fetch(&from, room.resolve(&from).unwrap()).unwrap();
        layers.unpack(name, &stored, Architecture::host().unwrap()).unwrap()
    };
    let (one, two) = (unpack("one"), unpack("two"));
    let content = |image: &ContainerImage| match &image.files.node("/lib/big").unwrap().kind {
        Kind::File(content) => content.clone(),
        other => panic!("{other:?}"),
    };
    assert!(std::sync::Arc::ptr_eq(&content(&one), &content(&two)), "one file for both");
    assert_ne!(one.files.content("/own"), two.files.content("/own"));

    // A configuration that knows another layer.
    let mut lying = image("one");
    let text = String::from_utf8(lying.config.clone()).unwrap();
    lying.config = text.replace(&digest(&base), &digest(b"other")).into_bytes();
    let file = room.folder.path().join("lying.tar");
    lying.write_docker_archive(&file, "x:1");
    let error = room.image(&format!("docker-archive:{}", file.display())).unwrap_err();
    assert!(matches!(error, SourceError::Layer { .. }), "{error}");
}

#[test]
fn the_lock_pins_an_image_of_a_registry() {
    let environment = passwords(None);
    let registry = ContainerRegistry::start(Access::Anybody);
    let old = sample();
    registry.push("app", "1", &old);
    let reference = registry.reference("app:1");
    let appliance = Appliance::empty()
        .with("appliance.toml", "name = \"pulled\"\n")
        .with("app.container", &format!("[Container]\nImage={reference}\nNetwork=none\n"));
    let rouse = Rouse::new();
    let output = tempfile::tempdir().unwrap();
    let build = |to: &str| {
        let mut command = rouse.command(["build", "-q", "--output"]);
        command.arg(output.path().join(to)).arg(appliance.path());
        command
    };
    feed(&mut build("one"), b"").success();
    let lock = std::fs::read_to_string(appliance.path().join("appliance.lock")).unwrap();
    let lines =
        [format!("source = \"docker://{reference}\""), format!("digest = \"{}\"", old.digest())];
    assert!(lines.iter().all(|line| lock.contains(line)), "{lock}");
    let mut inspect = rouse.command(["inspect"]);
    let text = feed(inspect.arg(output.path().join("one")), b"").success().text();
    assert!(text.contains(&format!("docker://{reference} {}", old.digest())), "{text}");

    // The tag moves on, and the same lock gives the same bytes.
    let new = Image::new(
        machine(),
        &json!({ "Cmd": ["/bin/app"] }),
        &[(tar(&[("bin/app", 0o755, b"new")]), Compression::Gzip)],
    );
    registry.push("app", "1", &new);
    feed(&mut build("two"), b"").success();
    let bytes = |to: &str| std::fs::read(output.path().join(to).join("initramfs.zst")).unwrap();
    assert!(bytes("one") == bytes("two"), "the same lock, the same bytes");

    // Without the old one in the cache there is no way back.
    registry.delete("app", &old.digest());
    let lock_path = appliance.path().join("appliance.lock");
    let mirror = Mirror::of(&lock_path);
    let fresh = tempfile::tempdir().unwrap();
    let mut command = build("three");
    command.env("ROUSE_CACHE_DIR", fresh.path()).env("ROUSE_DEBIAN_MIRROR", mirror.url());
    let refused = feed(&mut command, b"");
    let shown = refused.stderr.replace(&registry.address, "REGISTRY");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inputs/gone-image.txt");
    golden(&file, &format!("exit code {}\n{}", refused.code, mask_hashes(&shown)));
    assert!(!output.path().join("three").exists());

    // Until somebody asks for what is there today.
    let mut relock = rouse.command(["lock"]);
    let changes = feed(relock.arg(appliance.path()), b"").success().text();
    let change = format!("image {reference} {} -> {}\n", old.digest(), new.digest());
    assert!(changes.contains(&change), "{changes}");
    drop(environment);
}

#[test]
fn an_image_of_a_registry_boots() {
    let environment = passwords(None);
    let registry = ContainerRegistry::start(Access::Anybody);
    let server = static_build::build(&static_build::Package {
        folder: &Appliance::repository().join("configs/echo/server"),
        member: None,
        profile: "release",
        architecture: Architecture::host().unwrap().machine(),
        target_directory: &cache().join("cargo"),
    })
    .unwrap();
    let layers = [
        (tar(&[("server", 0o755, &server.content)]), Compression::Zstd),
        (tar(&[("etc/motd", 0o644, b"pulled\n")]), Compression::Gzip),
    ];
    let image = Image::new(machine(), &json!({ "Entrypoint": ["/server"] }), &layers);
    registry.push("echo", "1", &image);
    let container = format!("[Container]\nImage={}\nNetwork=none\n", registry.reference("echo:1"));
    let appliance = Appliance::of_config("echo")
        .with("appliance.toml", "name = \"pulled\"\n")
        .with("echo.container", &container);
    let vm = Vm::start(&appliance, "pulled", &[]);
    assert_eq!(vm.service("echo.service").starts, 0);
    assert_eq!(vm.send(3000, b"hello\n").success().text(), "hello\n");
    assert_eq!(vm.service("echo.service").starts, 1);
    assert_eq!(vm.poweroff(), 0);
    drop(environment);
}
