//! Tokens of an issuer that were checked a moment ago: a signature costs more than a look-up.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::jwt::Verified;
use crate::limits::VERIFIED_TOKENS;

/// By the SHA-256 of the token, so that no token lies in memory for longer than its request.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<HashMap<[u8; 32], Known>>);

#[derive(Debug)]
struct Known {
    verified: Verified,
    /// Keys and rules under which it was checked; after a change it's checked anew.
    generation: u64,
}

impl Memory {
    pub(super) fn find(
        &self,
        digest: &[u8; 32],
        now: Duration,
        generation: u64,
    ) -> Option<Verified> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get(digest)?;
        let holds = known.generation == generation && now < known.verified.until;
        holds.then(|| known.verified.clone())
    }

    pub(super) fn keep(
        &self,
        digest: [u8; 32],
        verified: Verified,
        generation: u64,
        now: Duration,
    ) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= VERIFIED_TOKENS {
            known.retain(|_, it| it.generation == generation && now < it.verified.until);
        }
        // Where all of them still hold, the next ones are checked each time.
        if known.len() < VERIFIED_TOKENS {
            known.insert(digest, Known { verified, generation });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::access::Principal;
    use crate::access::jwks::Signer;

    #[test]
    fn a_token_is_known_until_it_ends_or_the_keys_change() {
        let memory = Memory::default();
        let none: [&str; 0] = [];
        let principal = Principal::user("a", "https://i", none);
        let signer = Signer {
            id: "k".to_owned(),
            algorithm: jsonwebtoken::Algorithm::ES256,
            thumbprint: String::new(),
        };
        let (until, signer) = (Duration::from_secs(10), Arc::new(signer));
        let verified = Verified { principal, until, signer };
        memory.keep([1; 32], verified, 3, Duration::ZERO);
        let find = |seconds, generation| {
            memory.find(&[1; 32], Duration::from_secs(seconds), generation).is_some()
        };
        assert!(find(9, 3));
        assert!(!find(10, 3));
        assert!(!find(9, 4));
        assert!(memory.find(&[2; 32], Duration::ZERO, 3).is_none());
    }
}
