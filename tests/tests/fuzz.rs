//! The fuzz targets on a stable compiler: inputs from the committed corpus, changed at random by a
//! generator with fixed seeds, so that a failure names the one that found it.
//!
//! ROUSE_FUZZ_CASES is the number of inputs of each target (default 20,000; a tenth of it for
//! whole units). libFuzzer finds more: `tests/fuzz/Cargo.toml` says how to run it.

use rouse_tests::count;
use rouse_tests::fuzz::{self, TARGETS, Target};
use std::path::Path;

/// xorshift64*, Vigna 2016.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 16).unwrap() % bound.max(1)
    }

    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        let rest = length - start;
        start..start + self.below(rest.min(40) + 1)
    }
}

/// Small things that parsers look for.
const WORDS: [&str; 40] = [
    "\n",
    "\r\n",
    "\\\n",
    "\\",
    "\0",
    "=",
    ":",
    "%",
    "%i",
    "%%",
    "$",
    "${A}",
    "$A",
    "@",
    "/",
    "[",
    "]",
    "\"",
    "'",
    "#",
    ";",
    " ",
    "\t",
    "-",
    "+",
    "!",
    "!!",
    "|",
    "0",
    "1",
    "-1",
    "65535",
    "4294967295",
    "18446744073709551616",
    "infinity",
    "5min 20s",
    "yes",
    "é",
    "\u{feff}",
    "\\x00",
];

/// One to four changes to one of the seeds.
fn change(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        let range = random.range(bytes.len());
        match random.below(7) {
            0 if !bytes.is_empty() => {
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
            }
            1 if !bytes.is_empty() => {
                let at = random.below(bytes.len());
                bytes[at] = random.next().to_be_bytes()[0];
            }
            2 => drop(bytes.splice(range, [])),
            3 => {
                let copy = bytes[range].to_vec();
                let at = random.below(bytes.len() + 1);
                bytes.splice(at..at, copy);
            }
            4 => {
                let other = &seeds[random.below(seeds.len())];
                let part = other[random.range(other.len())].to_vec();
                bytes.splice(range, part);
            }
            5 => bytes.truncate(range.start),
            _ => {
                let word = WORDS[random.below(WORDS.len())];
                bytes.splice(range.start..range.start, word.bytes());
            }
        }
    }
    bytes
}

/// Tells which input it was when a target panics.
struct Telling<'a>(&'a str, u64, &'a [u8]);

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} seed {}: {:?}", self.0, self.1, String::from_utf8_lossy(self.2));
        }
    }
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn drive(name: &str, mut seeds: Vec<Vec<u8>>, cases: u64) {
    let target: Target = TARGETS.into_iter().find(|(it, _)| *it == name).unwrap().1;
    seeds.push(vec![]);
    for bytes in &seeds {
        let _telling = Telling(name, 0, bytes);
        target(bytes);
    }
    for seed in 1..=cases {
        let bytes = change(&seeds, &mut Random(seed));
        let _telling = Telling(name, seed, &bytes);
        target(&bytes);
    }
}

fn cases() -> u64 {
    count("ROUSE_FUZZ_CASES", 20_000)
}

#[test]
fn any_address() {
    drive("address", corpus("address"), cases());
}

#[test]
fn any_control_frame() {
    drive("control", corpus("control"), cases());
}

#[test]
fn any_environment_file() {
    drive("environment_file", corpus("environment_file"), cases());
}

#[test]
fn any_notification() {
    drive("notification", corpus("notification"), cases());
}

#[test]
fn any_units() {
    drive("units", corpus("units"), cases() / 10);
}

/// With what the units of the corpus become, so that no change of the types makes it blind.
#[test]
fn any_manifest() {
    let compiled = |text: &Vec<u8>| fuzz::compile_units(&String::from_utf8_lossy(text)).units;
    let manifests = corpus("units").iter().map(compiled).map(fuzz::as_manifest).collect::<Vec<_>>();
    let whole = manifests.iter().filter(|manifest| !manifest.units.is_empty()).count();
    assert!(whole >= 2, "the corpus has too few units that compile: {whole}");
    let seeds = manifests.iter().map(fuzz::body).chain(corpus("manifest")).collect();
    drive("manifest", seeds, cases());
}

#[test]
fn every_target_has_a_corpus_and_a_fuzzer() {
    for (name, _) in TARGETS {
        assert!(!corpus(name).is_empty(), "{name}");
        let fuzzer = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/targets/{name}.rs"));
        assert!(fuzzer.exists(), "{}", fuzzer.display());
    }
}
