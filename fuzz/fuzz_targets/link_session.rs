//! What a peer and callers do to one lane's session: credit, replies in any order, sweeps.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| neuroflow_transport::fuzz_session(bytes));
