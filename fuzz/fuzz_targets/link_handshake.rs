//! The first frame of a link, as a node of the cluster may send it.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| neuroflow_transport::fuzz_handshake(bytes));
