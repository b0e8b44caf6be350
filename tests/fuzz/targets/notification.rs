//! libFuzzer's way to [`rouse_tests::fuzz::notification`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rouse_tests::fuzz::notification(bytes));
