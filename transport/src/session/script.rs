//! A session under a script of bytes: the most that a hostile peer and hasty callers can do to it.

use std::collections::HashMap;
use std::time::Duration;

use neuroflow_kernel::Moment;

use super::calls::{Call, Item};
use super::{Class, Session};
use crate::limits::REPLY_CREDIT_MESSAGES;

/// Runs a session through what the bytes say, four for each event; for the fuzzer.
///
/// ```sh
/// cargo +nightly fuzz run link_session
/// ```
///
/// # Panics
/// When a caller gets a reply out of turn, twice or after the end, when more is held than was granted,
/// or when a message leaves without credit.
pub fn fuzz(bytes: &[u8]) {
    const MESSAGES: u64 = 8;
    const BYTES: u64 = 100_000;
    let mut session: Session<usize, u32> = Session::new(MESSAGES, BYTES);
    let (mut ids, mut seen) = (Vec::<u64>::new(), HashMap::<usize, Seen>::new());
    let (mut sent, mut granted) = (0, MESSAGES);
    let (events, _) = bytes.as_chunks::<4>();
    for &[kind, which, number, more] in events {
        let id = ids.get(usize::from(which)).copied().unwrap_or(u64::from(which));
        let moment = Moment::ORIGIN + Duration::from_secs(u64::from(number));
        match kind % 6 {
            0 => {
                let size = usize::from(which) * 100;
                if let Ok(id) = session.call(size, Some(moment), ids.len()) {
                    assert!(!ids.contains(&id));
                    ids.push(id);
                    sent += 1;
                }
            }
            1 => {
                let reply = (more & 2 == 0).then_some(u32::from(number));
                let end = (more & 1 == 1 || reply.is_none()).then_some(more);
                let item = Item { reply, bytes: usize::from(more) * 1_000, end };
                let Some(call) = session.calls.get(id) else { continue };
                let Ok(item) = call.arrived(u32::from(number), item) else { continue };
                if deliver(call, item, more & 4 == 0, &mut seen) {
                    assert!(session.calls.remove(id).is_some());
                }
            }
            2 => {
                let limit = u64::from(number);
                session.granted(Class::Small, limit, BYTES.saturating_mul(u64::from(more)));
                granted = granted.max(limit);
            }
            // The caller has room again.
            3 => {
                let Some(call) = session.calls.get(id) else { continue };
                let item = call.next();
                if deliver(call, item, true, &mut seen) {
                    assert!(session.calls.remove(id).is_some());
                }
            }
            4 => drop(session.calls.sweep(moment, |caller| *caller == usize::from(which))),
            _ => drop(session.calls.remove(id)),
        }
        assert!(sent <= granted, "{sent} of {granted}");
        assert!(session.calls.len() <= ids.len());
    }
    let left = session.calls.len();
    assert_eq!(session.calls.drain().count(), left);
}

/// What a caller has had.
#[derive(Default)]
struct Seen {
    next: u32,
    ended: bool,
}

/// Hands over what is a caller's turn, as far as it has room; says whether that was the end.
fn deliver(
    call: &mut Call<usize, u32>,
    mut item: Option<Item<u32>>,
    room: bool,
    seen: &mut HashMap<usize, Seen>,
) -> bool {
    assert!(call.held() as u64 <= REPLY_CREDIT_MESSAGES + 1);
    let seen = seen.entry(call.caller).or_default();
    while let Some(Item { reply, bytes, end }) = item {
        if !room {
            call.put_back(Item { reply, bytes, end });
            return false;
        }
        assert!(!seen.ended && reply.is_none_or(|reply| reply == seen.next));
        seen.next += 1;
        seen.ended = end.is_some();
        if seen.ended {
            return true;
        }
        call.taken(bytes);
        item = call.next();
    }
    false
}
