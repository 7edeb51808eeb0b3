//! The `sidewire` binary.
fn main() {}
