//! The guest's one binary.
fn main() {}
