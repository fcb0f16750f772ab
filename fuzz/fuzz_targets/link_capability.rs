//! A capability that a node presents, as an archive or as text.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| neuroflow_transport::fuzz_capability(bytes));
