//! The registry of running VMs, seen by several processes.

use rouse_qemu::machine::Arch;
use rouse_qemu::registry::{
    CID_LAST, Claim, Registry, RegistryError, Stage, VsockKind, Wanted, check_name,
};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Set for the other process: the registry's folder.
const OTHER: &str = "ROUSE_TEST_REGISTRY";

fn claim(registry: &Registry, name: &str, cid: Option<u32>) -> Result<Claim, RegistryError> {
    registry.claim(&Wanted {
        name,
        cid,
        arch: Arch::X86_64,
        appliance: Path::new("/appliance"),
        vsock: VsockKind::Device,
        publish: &[],
        listeners: &serde_json::json!(["vsock:3000"]),
        image: &serde_json::Value::Null,
    })
}

fn registry() -> (tempfile::TempDir, Registry) {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::at(folder.path().join("rouse")).unwrap();
    (folder, registry)
}

fn names(registry: &Registry) -> Vec<String> {
    registry.list().unwrap().into_iter().map(|entry| entry.record.name).collect()
}

/// Claims `dead` in another process, which holds it until it is killed.
fn other_process(registry: &Registry) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "what_a_killed_process_leaves_is_removed", "--nocapture"])
        .env(OTHER, registry.root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let claimed = lines.map_while(Result::ok).any(|line| line.contains("claimed CID 3"));
    assert!(claimed, "the other process said nothing");
    child
}

#[test]
fn what_a_killed_process_leaves_is_removed() {
    if let Some(root) = std::env::var_os(OTHER) {
        let claim = claim(&Registry::at(root.into()).unwrap(), "dead", None).unwrap();
        println!("\nclaimed CID {}", claim.record().cid);
        std::io::stdin().read_line(&mut String::new()).unwrap();
        return;
    }
    let (_folder, registry) = registry();
    let mut child = other_process(&registry);
    let entry = registry.find("dead").unwrap();
    assert_eq!(entry.record.pid, child.id());
    assert!(entry.is_alive());
    assert!(matches!(claim(&registry, "dead", None), Err(RegistryError::NameTaken(_))));
    let Err(RegistryError::CidBusy { cid: 3, holder }) = claim(&registry, "two", Some(3)) else {
        panic!("the other process has CID 3");
    };
    assert_eq!(holder, "dead");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(entry.folder().path().exists() && !entry.is_alive());
    assert!(matches!(entry.terminate(), Err(RegistryError::NotFound(_))));
    assert!(names(&registry).is_empty());
    assert!(!entry.folder().path().exists());
    assert_eq!(claim(&registry, "dead", None).unwrap().record().cid, 3);
}

#[test]
fn cids_are_given_from_three_up_and_given_back() {
    let (_folder, registry) = registry();
    let three = claim(&registry, "a", None).unwrap();
    let five = claim(&registry, "b", Some(5)).unwrap();
    let four = claim(&registry, "c", None).unwrap();
    let six = claim(&registry, "d", None).unwrap();
    let cids = [&three, &five, &four, &six].map(|claim| claim.record().cid);
    assert_eq!(cids, [3, 5, 4, 6]);
    assert_eq!(names(&registry), ["a", "b", "c", "d"]);
    drop(three);
    assert_eq!(names(&registry), ["b", "c", "d"]);
    assert_eq!(registry.preview("e", None, VsockKind::Device).unwrap().1, 3);
    for reserved in [0, 2, u32::MAX] {
        let error = claim(&registry, "e", Some(reserved)).unwrap_err();
        assert!(matches!(error, RegistryError::CidReserved(cid) if cid == reserved));
    }
    assert_eq!(claim(&registry, "e", Some(CID_LAST)).unwrap().record().cid, CID_LAST);
}

#[test]
fn changes_are_seen_by_others() {
    let (_folder, registry) = registry();
    let mut claim = claim(&registry, "echo", None).unwrap();
    claim.update(|record| record.stage = Stage::Ready).unwrap();
    std::fs::write(claim.folder().token(), "ab12\n").unwrap();
    let entry = registry.find("echo").unwrap();
    assert_eq!(entry, claim.entry());
    assert_eq!(entry.record.stage, Stage::Ready);
    assert_eq!(entry.record.listeners, serde_json::json!(["vsock:3000"]));
    assert_eq!(entry.token().unwrap(), "ab12");
    assert!(matches!(registry.find("ech"), Err(RegistryError::NotFound(_))));
}

#[test]
fn the_folder_is_private() {
    let (folder, registry) = registry();
    let _claim = claim(&registry, "echo", None).unwrap();
    for path in [registry.root().to_owned(), registry.siblings(), registry.root().join("echo")] {
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
    let open = folder.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).unwrap();
    Registry::at(open.clone()).unwrap();
    assert_eq!(std::fs::metadata(&open).unwrap().permissions().mode() & 0o777, 0o700);
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&open, &link).unwrap();
    assert!(matches!(Registry::at(link), Err(RegistryError::NotOurs(_))));
}

#[test]
fn names_are_words() {
    for good in ["echo", "3000", "a.b-c_d", "abcdefghijklmnopqrstuvwxyz012345"] {
        assert!(check_name(good).is_ok(), "{good}");
    }
    let long = "abcdefghijklmnopqrstuvwxyz0123456";
    for bad in ["", ".", "..", "-a", "a/b", "Echo", "é", "siblings", "lock", long] {
        assert!(matches!(check_name(bad), Err(RegistryError::Name(name)) if name == bad), "{bad}");
    }
}

#[test]
fn a_path_that_is_too_long_for_sockets_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::at(folder.path().join("a".repeat(100))).unwrap();
    let error = claim(&registry, "echo", None).unwrap_err();
    assert!(matches!(&error, RegistryError::PathTooLong(path) if path == registry.root()));
    assert!(error.to_string().contains("ROUSE_RUNTIME_DIR"));
    assert!(names(&registry).is_empty());
}
