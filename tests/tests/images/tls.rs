//! TLS before a registry, with certificates of an authority that nobody else knows, for clients
//! that show one of its own.

use rouse_tests::debian;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// For openssl-req(1): who may do what with a certificate.
const KINDS: &str = "[req]\ndistinguished_name = name\n[name]\n\
    [authority]\nbasicConstraints = critical, CA:TRUE\n\
    [server]\nbasicConstraints = CA:FALSE\nsubjectAltName = DNS:localhost\n\
    [client]\nbasicConstraints = CA:FALSE\nextendedKeyUsage = clientAuth\n";

/// It ends when it is dropped.
pub(crate) struct Front {
    /// `localhost:PORT`
    pub(crate) address: String,
    folder: tempfile::TempDir,
    child: Child,
}

impl Front {
    /// Before the server at an address.
    pub(crate) fn start(behind: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("kinds"), KINDS).unwrap();
        for kind in ["authority", "server", "client"] {
            certify(folder.path(), kind);
        }
        // Nobody else gets a port that was free a moment ago, unless by a rare accident.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let listen = format!(
            "OPENSSL-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,cert={},key={},cafile={}",
            path("server.crt").display(),
            path("server.key").display(),
            path("authority.crt").display()
        );
        let mut command = debian("socat", "socat");
        command.args([&listen, &format!("TCP:{behind}")]);
        let log = std::fs::File::create(path("log")).unwrap();
        let child = command.stdin(Stdio::null()).stderr(log).spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = || std::fs::read_to_string(path("log")).unwrap();
            assert!(Instant::now() < end, "nobody listens: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { address: format!("localhost:{port}"), folder, child }
    }

    /// `NAME.crt` or `NAME.key`, of `authority`, `server` and `client`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes `KIND.crt` and `KIND.key`; by the authority, if it is not that itself.
fn certify(folder: &Path, kind: &str) {
    let name = match kind {
        "server" => "/CN=localhost".into(),
        _ => format!("/CN={kind}"),
    };
    let mut command = debian("openssl", "openssl");
    command.current_dir(folder).args(["req", "-x509", "-config", "kinds", "-extensions", kind]);
    command.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    command.args(["-days", "30", "-subj", &name]);
    command.args(["-keyout", &format!("{kind}.key"), "-out", &format!("{kind}.crt")]);
    if kind != "authority" {
        command.args(["-CA", "authority.crt", "-CAkey", "authority.key"]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
