//! Any text as a system call profile: refused with a message, or read the same way twice.

#![no_main]

use libfuzzer_sys::fuzz_target;
use neuroflow_sandbox::SeccompProfile;

fuzz_target!(|text: &str| {
    match SeccompProfile::parse(text) {
        Ok(profile) => {
            assert_eq!(profile.text(), text);
            assert_eq!(SeccompProfile::parse(profile.text()), Ok(profile));
        }
        Err(refused) => assert!(!refused.to_string().is_empty()),
    }
});
