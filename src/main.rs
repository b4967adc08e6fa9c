//! rollbackd.
fn main() {}
