//! Requests, records, plans and orders, as they travel between host, zygote and cell.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| neuroflow_sandbox::fuzz_protocol(bytes));
