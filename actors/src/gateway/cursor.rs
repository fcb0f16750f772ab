//! Page tokens: a place in a list, sealed so that only what was handed out is taken back.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::hmac;

use crate::agent::{TaskCursor, TaskQuery};

/// Seals and opens the tokens of one gateway. They aren't valid after its end.
pub(super) struct Cursors {
    key: hmac::Key,
}

impl Cursors {
    /// With a key of its own.
    pub(super) fn new() -> Result<Self, ring::error::Unspecified> {
        let random = ring::rand::SystemRandom::new();
        Ok(Self { key: hmac::Key::generate(hmac::HMAC_SHA256, &random)? })
    }

    /// The token of a place, for the same agent, caller and filters only.
    pub(super) fn seal(&self, agent: &str, query: &TaskQuery, place: &TaskCursor) -> String {
        let mut bytes = place.changed_ms.to_le_bytes().to_vec();
        bytes.extend_from_slice(place.task.as_bytes());
        let tag = hmac::sign(&self.key, &sealed(agent, query, &bytes));
        bytes.extend_from_slice(tag.as_ref());
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The place of a token; none if it isn't one that was made here for these filters.
    pub(super) fn open(&self, agent: &str, query: &TaskQuery, token: &str) -> Option<TaskCursor> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
        let (place, tag) = bytes.split_at_checked(bytes.len().checked_sub(TAG_BYTES)?)?;
        hmac::verify(&self.key, &sealed(agent, query, place), tag).ok()?;
        let (changed_ms, task) = place.split_first_chunk()?;
        let task = std::str::from_utf8(task).ok()?.to_owned();
        Some(TaskCursor { changed_ms: u64::from_le_bytes(*changed_ms), task })
    }
}

impl std::fmt::Debug for Cursors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cursors").finish_non_exhaustive()
    }
}

/// What the seal is made over: each part with its length, so that none can be taken for another.
fn sealed(agent: &str, query: &TaskQuery, place: &[u8]) -> Vec<u8> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default().into_bytes();
    let given = [query.caller.is_some(), query.context.is_some()].map(u8::from).to_vec();
    let state = query.state.map_or("", crate::agent::TaskState::as_str).as_bytes().to_vec();
    let since = query.since_ms.map_or(Vec::new(), |since| since.to_le_bytes().to_vec());
    let parts = [
        agent.as_bytes().to_vec(),
        given,
        text(&query.caller),
        text(&query.context),
        state,
        since,
        place.to_vec(),
    ];
    let mut sealed = Vec::new();
    for part in parts {
        sealed.extend_from_slice(&part.len().to_le_bytes());
        sealed.extend_from_slice(&part);
    }
    sealed
}

const TAG_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_taken_back_as_it_was_and_for_its_own_filters_only() {
        let cursors = Cursors::new().unwrap();
        let mut query = TaskQuery::first(5);
        query.context = Some("c".into());
        let place = TaskCursor { changed_ms: 1_700_000_000_123, task: "t-1".into() };
        let token = cursors.seal("echo", &query, &place);
        assert_eq!(cursors.open("echo", &query, &token), Some(place));
        assert_eq!(cursors.open("shell", &query, &token), None);
        query.caller = Some(String::new());
        assert_eq!(cursors.open("echo", &query, &token), None);
        assert_eq!(Cursors::new().unwrap().open("echo", &query, &token), None);
    }

    #[test]
    fn a_changed_token_is_refused_whatever_has_changed() {
        let cursors = Cursors::new().unwrap();
        let query = TaskQuery::first(5);
        let token = cursors.seal("echo", &query, &TaskCursor { changed_ms: 9, task: "t".into() });
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(&token).unwrap();
        for at in 0..bytes.len() {
            let mut forged = bytes.clone();
            forged[at] ^= 1;
            let forged = BASE64_URL_SAFE_NO_PAD.encode(forged);
            assert_eq!(cursors.open("echo", &query, &forged), None, "byte {at}");
            let cut = BASE64_URL_SAFE_NO_PAD.encode(&bytes[..at]);
            assert_eq!(cursors.open("echo", &query, &cut), None, "cut at {at}");
        }
        for text in ["", "!", "AAAA", "\u{e4}"] {
            assert_eq!(cursors.open("echo", &query, text), None, "{text:?}");
        }
    }
}
