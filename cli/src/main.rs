//! shell: x.
fn main() {}
