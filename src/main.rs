//! The `neuroflow` binary.

fn main() {}
