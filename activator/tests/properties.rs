//! What must hold for any input: no panic, no lie, no unbounded memory. Inputs come from a small
//! generator with fixed seeds, so that a failure names the one that found it.

mod random;

use activator::address::AddressError;
use activator::client::printable;
use activator::control::{self, Hello, Reply, Request, Status};
use activator::logd::split::{MAX_LINE, Splitter};
use activator::logd::store::{Item, Store};
use activator::manifest::{
    Address, Boot, DecodeError, MAGIC, Manifest, Module, Scope, Unit, UnitId, VERSION,
};
use activator::stage2::template::Fill;
use activator::stage2::{Listen, template};
use random::{Random, cases};
use std::io::ErrorKind;

impl Random {
    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.next().to_be_bytes()[0]).collect()
    }

    /// Pieces put together: nearer to what a parser takes than noise is.
    fn text(&mut self, pieces: &[&str], most: usize) -> String {
        (0..self.below(most + 1)).map(|_| pieces[self.below(pieces.len())]).collect()
    }
}

#[test]
fn an_address_that_parses_is_written_so_that_it_parses_to_the_same() {
    let pieces = [
        "/",
        "@",
        "vsock:",
        "vsock-stream:",
        "any",
        "host",
        "-1",
        ":",
        "[",
        "]",
        "%",
        "::1",
        "fe80",
        "127.0.0.1",
        "0",
        "0x",
        "07",
        "3000",
        "65535",
        "4294967295",
        "eth0",
        ".",
        " ",
        "a",
        "é",
        "\0",
    ];
    let mut parsed = 0;
    for (seed, mut random) in cases(30_000) {
        let text = random.text(&pieces, 6);
        if let Ok(address) = text.parse::<Address>() {
            parsed += 1;
            let written = address.to_string();
            assert_eq!(written.parse(), Ok(address), "seed {seed}: {text:?} -> {written:?}");
        }
    }
    assert!(parsed > 1000, "the generator makes too few addresses: {parsed}");
}

#[test]
fn every_address_is_written_so_that_it_parses() {
    for (seed, mut random) in cases(20_000) {
        let port = random.next() as u16 | 1;
        let address = match random.below(5) {
            0 => Address::AnyPort(port),
            1 => Address::Inet((random.next() as u32).to_be_bytes(), port),
            2 => {
                let scope = match random.below(3) {
                    0 => Scope::None,
                    1 => Scope::Index(random.next() as u32 | 1),
                    _ => Scope::Name(format!("e{}", random.text(&["n", "p", "0", "-", "."], 14))),
                };
                let high = u128::from(random.next()) << 64;
                Address::Inet6((high | u128::from(random.next())).to_be_bytes(), port, scope)
            }
            3 => Address::Vsock(random.next() as u32, random.next() as u32 & !1),
            _ => Address::Path(format!("/{}", random.text(&["a", "/", " ", "@", "é"], 50)) + "x"),
        };
        assert_eq!(address.to_string().parse(), Ok(address), "seed {seed}");
    }
}

#[test]
fn what_is_no_address_says_what_was_expected() {
    for (seed, mut random) in cases(20_000) {
        let text = String::from_utf8_lossy(&random.bytes(40)).into_owned();
        if let Err(error) = text.parse::<Address>() {
            let said = error.to_string();
            assert!(said.starts_with("expected "), "seed {seed}: {said}");
            assert_eq!(error == AddressError::Empty, text.is_empty(), "seed {seed}");
        }
    }
}

fn manifest() -> Manifest {
    let unit = |name: &str, after| Unit {
        name: name.into(),
        description: "a unit with a description".into(),
        start_at_boot: true,
        wants: vec![UnitId(1)],
        after,
        ..Unit::default()
    };
    Manifest {
        name: "fuzz".into(),
        boot: Boot {
            modules: vec![Module { path: "/m.ko".into(), parameters: "".into(), required: true }],
            writable: vec![],
            sysctls: vec![("kernel/panic".into(), "1".into())],
            ..Boot::default()
        },
        units: vec![unit("a.target", vec![]), unit("b.target", vec![UnitId(0)])],
        ..Manifest::default()
    }
}

#[test]
fn a_manifest_of_noise_is_refused() {
    for (seed, mut random) in cases(20_000) {
        let noise = random.bytes(200);
        let expected = Err(DecodeError::NotAManifest);
        assert_eq!(Manifest::decode(&noise), expected, "seed {seed}");
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(&noise);
        assert!(Manifest::decode(&bytes).is_err(), "seed {seed}");
    }
}

#[test]
fn a_manifest_with_a_right_checksum_over_wrong_bytes_is_checked_all_the_same() {
    let good = manifest().encode();
    let mut decoded = 0;
    for (seed, mut random) in cases(20_000) {
        let mut body = good[12..good.len() - 4].to_vec();
        for _ in 0..=random.below(3) {
            let at = random.below(body.len());
            body[at] = random.next().to_be_bytes()[0];
        }
        let checksum = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(&body);
        let bytes = [&good[..12], &body[..], &checksum.to_le_bytes()[..]].concat();
        let Ok(manifest) = Manifest::decode(&bytes) else { continue };
        decoded += 1;
        assert!(manifest.units.is_sorted_by(|a, b| a.name < b.name), "seed {seed}");
        for unit in &manifest.units {
            for id in unit.after.iter().chain(&unit.wants) {
                assert!(manifest.unit(*id).is_some(), "seed {seed}");
            }
        }
    }
    assert!(decoded > 1000, "too few are good enough to be checked: {decoded}");
}

#[test]
fn frames_of_noise_are_errors_and_ask_for_no_memory() {
    for (seed, mut random) in cases(20_000) {
        let mut wire = random.bytes(64);
        if random.below(2) == 0 && wire.len() > 4 {
            // A length that fits, so that the body is looked at.
            let length = u32::try_from(wire.len() - 4).unwrap();
            wire[..4].copy_from_slice(&length.to_le_bytes());
        }
        let kinds = [
            control::read_frame::<Request>(&wire[..]).map(drop),
            control::read_frame::<Reply>(&wire[..]).map(drop),
            control::read_frame::<Hello>(&wire[..]).map(drop),
            control::read_frame::<Status>(&wire[..]).map(drop),
        ];
        for error in kinds.into_iter().filter_map(Result::err) {
            let kind = error.kind();
            let known = matches!(kind, ErrorKind::UnexpectedEof | ErrorKind::InvalidData);
            assert!(known, "seed {seed}: {kind:?}");
        }
    }
}

#[test]
fn a_frame_cut_short_is_an_end_of_file() {
    let mut wire = Vec::new();
    let request = Request::Logs { unit: Some("echo.service".into()), follow: true };
    control::write_frame(&mut wire, &request).unwrap();
    for cut in 0..wire.len() {
        let error = control::read_frame::<Request>(&wire[..cut]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "cut at {cut}");
    }
    assert_eq!(control::read_frame::<Request>(&wire[..]).unwrap(), request);
}

#[test]
fn lines_are_the_same_however_the_bytes_are_cut() {
    let pieces = ["a", "\n", "\r", "é", "€", "\u{1f980}", "long line without end "];
    for (seed, mut random) in cases(400) {
        let text = random.text(&pieces, 200).repeat(1 + random.below(20));
        let mut whole = Vec::new();
        Splitter::default().feed(text.as_bytes(), |line| whole.push(line.to_owned()));
        let (mut splitter, mut cut) = (Splitter::default(), Vec::new());
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let (head, tail) = rest.split_at(1 + random.below(rest.len().min(5000)));
            splitter.feed(head, |line| cut.push(line.to_owned()));
            rest = tail;
        }
        assert_eq!(whole, cut, "seed {seed}");
        assert!(cut.iter().all(|line| line.len() <= MAX_LINE), "seed {seed}");
        assert!(!cut.iter().any(|line| line.contains('\u{fffd}')), "seed {seed}");
    }
}

#[test]
fn a_cursor_sees_every_line_once_or_counts_it_as_lost() {
    for (seed, mut random) in cases(200) {
        let mut store = Store::new(3);
        let mut cursor = store.cursor(None, true);
        let (mut pushed, mut seen, mut lost) = ([0_u64; 3], [0_u64; 3], [0_u64; 3]);
        let mut read = |store: &Store, most: usize| {
            for _ in 0..most {
                match store.next(&mut cursor) {
                    None => break,
                    Some(Item::Lost(ring, _, count)) => lost[ring] += count,
                    Some(Item::Line(ring, entry)) => {
                        let number: u64 = entry.text.split(' ').next().unwrap().parse().unwrap();
                        assert_eq!(number, seen[ring] + lost[ring], "seed {seed}");
                        seen[ring] += 1;
                    }
                }
            }
        };
        for _ in 0..500 {
            let ring = random.below(3);
            let filler = "x".repeat(random.below(2000));
            store.push(ring, 0, &format!("{} {filler}", pushed[ring]));
            pushed[ring] += 1;
            if random.below(50) == 0 {
                read(&store, random.below(100));
            }
        }
        read(&store, usize::MAX);
        let total: Vec<u64> = seen.iter().zip(&lost).map(|(seen, lost)| seen + lost).collect();
        assert_eq!(total, pushed, "seed {seed}");
    }
}

#[test]
fn a_filled_template_stays_json_and_noise_is_refused() {
    for (seed, mut random) in cases(20_000) {
        let values = ["A=b", "LISTEN_FDS=@LISTEN_FDS@", "LISTEN_PID=1", "Q=\"\\", "é\n", "]", "{"];
        let environment: Vec<&str> =
            (0..random.below(6)).map(|_| values[random.below(values.len())]).collect();
        let json = serde_json::json!({
            "a": [{"env": values}, random.text(&["\"", "\\", "process", "{", "["], 5)],
            "process": {"args": values, "env": environment, "terminal": false},
        });
        let text = json.to_string();
        let listen = Listen { count: 7, names: random.text(&values, 3) };
        let filled = template::fill(&text, Some(&listen), &Fill::default()).unwrap();
        let value: serde_json::Value = serde_json::from_str(&filled).unwrap();
        let found = value["process"]["env"].as_array().unwrap();
        assert_eq!(found.len(), environment.len(), "seed {seed}");
        assert_eq!(
            (&value["a"], &value["process"]["args"]),
            (&json["a"], &json["process"]["args"])
        );
        let cut = (0..=random.below(text.len())).rev().find(|at| text.is_char_boundary(*at));
        let cut = &text[..cut.unwrap_or(0)];
        // Without fds, elements only go.
        let shorter = template::fill(cut, None, &Fill::default())
            .is_ok_and(|filled| filled.len() <= cut.len());
        assert!(shorter || template::fill(cut, None, &Fill::default()).is_err(), "seed {seed}");
    }
}

#[test]
fn printable_text_commands_no_terminal() {
    for (seed, mut random) in cases(5_000) {
        let text = String::from_utf8_lossy(&random.bytes(100)).into_owned();
        let shown = printable(&text);
        assert!(!shown.chars().any(|c| c.is_control() && c != '\t'), "seed {seed}");
        assert_eq!(shown.chars().count(), text.chars().count(), "seed {seed}");
    }
}
