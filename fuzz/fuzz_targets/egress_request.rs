//! Hosts, targets, paths, raw heads and TLS hellos, as a cell may send them to the proxy.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| neuroflow_sandbox::fuzz_egress(bytes));
