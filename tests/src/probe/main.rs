//! `rouse-probe CASE:TAG [WORD...]`: a service that tells what it sees of itself.
//!
//! It sends one JSON object to [`talk::COLLECTOR`] and waits until that is taken, so that reports
//! of commands that run one after the other arrive in that order. Then it does what the words
//! say, in their order ([`words`]). No word: it ends with 0.
//!
//! It has no `fn main`: Rust's start-up code would ignore SIGPIPE and open closed standard
//! streams before anything could be seen of them.
#![no_main]
#![allow(unsafe_code)]

mod descriptors;
mod look;
mod process;
mod socket;
mod talk;
mod words;

use serde_json::{Value, json};

/// What the C library calls. The arguments come from `std::env::args`, which glibc feeds.
#[unsafe(no_mangle)]
extern "C" fn main(_count: i32, _arguments: *const *const core::ffi::c_char) -> i32 {
    let arguments: Vec<String> =
        std::env::args_os().map(|it| it.to_string_lossy().into_owned()).collect();
    let Some(tag) = arguments.get(1) else { return 2 };
    let words: Vec<&str> = arguments.iter().skip(2).map(String::as_str).collect();
    let looks = words.iter().filter_map(|word| word.strip_prefix("look="));
    let looks = look::all(looks.flat_map(|paths| paths.split(':')));
    let mut report = process::report();
    report["arguments"] = json!(arguments);
    report["descriptors"] = descriptors::all();
    if looks != Value::Null {
        report["look"] = looks;
    }
    if !words.contains(&"silent") {
        talk::send(tag, &report);
    }
    words::follow(tag, &words)
}
