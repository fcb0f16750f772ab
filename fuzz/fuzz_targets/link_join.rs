//! What a node says that wants to join: its token, or a request at the door.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| neuroflow_transport::fuzz_join(bytes));
