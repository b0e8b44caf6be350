//! `rouse`.
fn main() {}
