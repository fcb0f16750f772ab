//! A look at what a server writes, before anything reads it: how long its lines are, whether they
//! can be messages, how many come. Pure.

use neuroflow_kernel::Moment;

use crate::limits::{MCP_BURST, MCP_JUNK_LINES, MCP_MESSAGE_BYTES, MCP_MESSAGES_PER_SECOND};

/// What a server does that ends its session.
///
/// ```
/// use neuroflow_actors::Breach;
/// assert_eq!(Breach::Flood { per_second: 10 }.code(), "flood");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Breach {
    /// A message has no end.
    #[error("a message is longer than {limit} bytes")]
    TooLong {
        /// What is allowed.
        limit: usize,
    },
    /// It doesn't speak the protocol.
    #[error("{lines} lines weren't messages")]
    Junk {
        /// How many.
        lines: u32,
    },
    /// It sends more than anybody wants to read.
    #[error("it sends more than {per_second} messages a second")]
    Flood {
        /// What is allowed over time.
        per_second: u32,
    },
}

impl Breach {
    /// A stable word for logs and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::TooLong { .. } => "too_long",
            Self::Junk { .. } => "junk",
            Self::Flood { .. } => "flood",
        }
    }
}

/// What is known of the lines so far.
#[derive(Debug)]
pub(super) struct Lines {
    /// Bytes of the line that isn't complete.
    length: usize,
    /// Whether the line can't be a message.
    is_junk: bool,
    junk: u32,
    /// Messages that may come at once, now.
    room: u32,
    /// Up to when `room` is filled.
    filled: Moment,
}

impl Lines {
    pub(super) fn new(now: Moment) -> Self {
        Self { length: 0, is_junk: false, junk: 0, room: MCP_BURST, filled: now }
    }

    /// Looks at the next piece, and leaves of it what belongs to lines that can be messages.
    pub(super) fn take(&mut self, bytes: &[u8], now: Moment) -> Result<Vec<u8>, Breach> {
        self.fill(now);
        let mut kept = Vec::with_capacity(bytes.len());
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.length == 0 {
                // A message is an object; an array of them is of an older version.
                self.is_junk = piece.first().is_none_or(|first| !matches!(first, b'{' | b'['));
            }
            self.length = self.length.saturating_add(piece.len());
            if self.length > MCP_MESSAGE_BYTES {
                return Err(Breach::TooLong { limit: MCP_MESSAGE_BYTES });
            }
            if !self.is_junk {
                kept.extend_from_slice(piece);
            }
            if piece.last() == Some(&b'\n') {
                self.end_line()?;
            }
        }
        Ok(kept)
    }

    fn end_line(&mut self) -> Result<(), Breach> {
        let is_blank = self.length <= 1;
        self.length = 0;
        if self.is_junk && !is_blank {
            self.junk = self.junk.saturating_add(1);
            if self.junk > MCP_JUNK_LINES {
                return Err(Breach::Junk { lines: self.junk });
            }
        }
        match self.room.checked_sub(1) {
            Some(room) => self.room = room,
            None => return Err(Breach::Flood { per_second: MCP_MESSAGES_PER_SECOND }),
        }
        Ok(())
    }

    fn fill(&mut self, now: Moment) {
        let millis = u64::try_from(now.since(self.filled).as_millis()).unwrap_or(u64::MAX);
        let earned = millis.saturating_mul(MCP_MESSAGES_PER_SECOND.into()) / 1_000;
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        if earned > 0 {
            self.room = self.room.saturating_add(earned).min(MCP_BURST);
            self.filled = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn lines() -> Lines {
        Lines::new(Moment::ORIGIN)
    }

    #[test]
    fn messages_pass_however_they_are_cut_and_junk_is_left_out() {
        let mut lines = lines();
        let mut passed = Vec::new();
        for piece in ["{\"a\"", ":1}\nwel", "come\n\n{\"b\":2}\n"] {
            passed.extend(lines.take(piece.as_bytes(), Moment::ORIGIN).unwrap());
        }
        assert_eq!(String::from_utf8(passed).unwrap(), "{\"a\":1}\n{\"b\":2}\n");
    }

    #[test]
    fn a_line_without_end_is_a_breach_before_it_is_kept() {
        let mut lines = lines();
        let piece = vec![b'{'; 64 * 1024];
        let breach = (0..1_000).find_map(|_| lines.take(&piece, Moment::ORIGIN).err());
        assert_eq!(breach, Some(Breach::TooLong { limit: MCP_MESSAGE_BYTES }));
    }

    #[test]
    fn junk_is_borne_for_a_while() {
        let mut lines = lines();
        for _ in 0..MCP_JUNK_LINES {
            lines.take(b"hello\n", Moment::ORIGIN).unwrap();
        }
        let breach = lines.take(b"hello\n", Moment::ORIGIN).unwrap_err();
        assert_eq!(breach, Breach::Junk { lines: MCP_JUNK_LINES + 1 });
    }

    #[test]
    fn a_burst_passes_and_a_flood_does_not() {
        let mut lines = lines();
        let burst = b"{}\n".repeat(MCP_BURST as usize);
        lines.take(&burst, Moment::ORIGIN).unwrap();
        assert!(lines.take(b"{}\n", Moment::ORIGIN).is_err());
        let later = Moment::ORIGIN + Duration::from_secs(1);
        let second = b"{}\n".repeat(MCP_MESSAGES_PER_SECOND as usize);
        lines.take(&second, later).unwrap();
        assert!(matches!(lines.take(b"{}\n", later), Err(Breach::Flood { .. })));
    }
}
