//! What must hold for any bytes, one function for each thing that reads bytes of others.
//!
//! The same functions are driven twice: by libFuzzer, from the package in `tests/fuzz`, and on
//! every run of the tests by a small generator, from the same corpus. A function panics if
//! something does not hold.

use activator::control::{self, Hello, Order, Reply, Report, Request, Status};
use activator::manifest::{Address, MAGIC, Manifest, Unit, VERSION};
use activator::notification::Notification;
use activator::stage2::environment_file;
use activator::wire::{self, Put, Take};
use rouse::config::Config;
use rouse::units::{Architecture, Compiled, Input, compile};
use std::sync::OnceLock;

/// A reader of bytes, and what must hold for it.
pub type Target = fn(&[u8]);

/// All of them, by the name of their corpus.
pub const TARGETS: [(&str, Target); 6] = [
    ("address", address),
    ("control", control),
    ("environment_file", environment),
    ("manifest", manifest),
    ("notification", notification),
    ("units", units),
];

/// The address grammar: what parses is written so that it parses to the same.
pub fn address(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match text.parse::<Address>() {
        Ok(address) => assert_eq!(address.to_string().parse(), Ok(address)),
        Err(error) => assert!(error.to_string().starts_with("expected ")),
    }
}

/// Frames of both directions, and the packets between PID 1 and the log process.
pub fn control(bytes: &[u8]) {
    fn frame<T: Put + Take + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
        let Ok(value) = control::read_frame::<T>(bytes) else { return };
        let mut wire = vec![];
        control::write_frame(&mut wire, &value).unwrap();
        assert_eq!(control::read_frame::<T>(&wire[..]).unwrap(), value);
    }
    // With a length that fits, so that the body is looked at, and as they stand.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    for wire in [[&length, bytes].concat(), bytes.to_vec()] {
        frame::<Hello>(&wire);
        frame::<Request>(&wire);
        frame::<Reply>(&wire);
        frame::<Status>(&wire);
    }
    fn packet<T: Put + Take + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
        let Ok(value) = wire::from_bytes::<T>(bytes) else { return };
        let mut space = [0; Report::MAX];
        let packet = wire::to_slice(&value, &mut space).unwrap();
        assert_eq!(wire::from_bytes(packet), Ok(value));
    }
    packet::<Order>(bytes);
    packet::<Report>(bytes);
}

/// An `EnvironmentFile=`: every assignment has a name, and no more of them than lines.
pub fn environment(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let found = environment_file::parse(&text);
    assert!(found.len() <= text.split(['\n', '\r']).count());
    let size: usize = found.iter().map(|(name, value)| name.len() + value.len()).sum();
    assert!(size <= text.len());
    for (name, _) in &found {
        assert!(!name.contains(['=', '\n', '\r']), "{name:?}");
    }
}

/// The body of a manifest, under a right head and a right checksum.
pub fn manifest(body: &[u8]) {
    let checksum = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(body);
    let bytes = [&MAGIC[..], &VERSION.to_le_bytes(), body, &checksum.to_le_bytes()].concat();
    if let Ok(manifest) = Manifest::decode(&bytes) {
        assert_eq!(Manifest::decode(&manifest.encode()).as_ref(), Ok(&manifest));
        // What prints it reads every field.
        assert!(!rouse::units::describe(&manifest).is_empty());
    }
    // And as if it were a whole one.
    let _ = Manifest::decode(body);
}

/// The body of an encoded manifest: what [`manifest`] takes.
pub fn body(manifest: &Manifest) -> Vec<u8> {
    let bytes = manifest.encode();
    let head = MAGIC.len() + size_of_val(&VERSION);
    bytes[head..bytes.len() - size_of::<u32>()].to_vec()
}

/// A message of sd_notify(3): the lines that nobody knows change nothing.
pub fn notification(bytes: &[u8]) {
    let said = Notification::parse(bytes);
    let known = |line: &&[u8]| Notification::parse(line) != Notification::default();
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').filter(known).collect();
    // One that is known, and says something that cannot be, takes an earlier one back; so only
    // messages without such lines are compared.
    if bytes.split(|byte| *byte == b'\n').all(|line| known(&line) || !line.contains(&b'=')) {
        assert_eq!(Notification::parse(&lines.join(&b'\n')), said);
    }
}

/// A socket unit, its service and a drop-in, with NUL bytes between them: findings point into the
/// text, and what was compiled is a manifest.
pub fn units(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let compiled = compile_units(&text);
    for finding in &compiled.findings {
        if let Some(span) = &finding.span {
            assert!(span.source.text.get(span.range.clone()).is_some(), "{finding:?}");
        }
        assert!(!finding.render(false).is_empty());
    }
    let manifest = as_manifest(compiled.units);
    assert_eq!(Manifest::decode(&manifest.encode()).as_ref(), Ok(&manifest));
}

/// What [`units`] compiles.
pub fn compile_units(text: &str) -> Compiled {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().unwrap());
    let mut parts = text.split('\0');
    let socket = parts.next().unwrap_or_default().to_owned();
    let service = parts.next().unwrap_or("[Service]\nExecStart=/bin/true\n").to_owned();
    let drop_in = parts.next().unwrap_or_default().to_owned();
    let at = |name: &str| format!("usr/lib/systemd/system/{name}");
    let packaged = [
        (at("a.service"), service.clone()),
        (at("a.service.d/50-more.conf"), drop_in),
        (at("a.socket"), socket),
        (at("a@.service"), service),
    ];
    let enable = vec!["a.service".to_owned(), "a.socket".to_owned()];
    let config = Config { enable, ..Config::default() };
    compile(&Input {
        folder: folder.path(),
        packaged: &packaged,
        links: &[],
        name: "fuzz",
        config: &config,
        config_source: None,
        passwd: "daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n",
        group: "daemon:x:1:\n",
        architecture: Architecture::X86_64,
        has_file: Some(&|path| !path.contains("missing")),
        generator: None,
    })
}

/// Units alone as a manifest.
pub fn as_manifest(units: Vec<Unit>) -> Manifest {
    Manifest { name: "fuzz".into(), units, ..Manifest::default() }
}
