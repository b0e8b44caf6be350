//! libFuzzer's way to [`rouse_tests::fuzz::manifest`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rouse_tests::fuzz::manifest(bytes));
