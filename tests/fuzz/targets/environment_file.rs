//! libFuzzer's way to [`rouse_tests::fuzz::environment`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rouse_tests::fuzz::environment(bytes));
