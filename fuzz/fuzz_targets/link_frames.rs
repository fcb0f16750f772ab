//! Streams of frames, as a node of the cluster may send them to another.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| neuroflow_transport::fuzz_frames(bytes));
