//! libFuzzer's way to [`rouse_tests::fuzz::units`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rouse_tests::fuzz::units(bytes));
