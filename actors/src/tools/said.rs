//! What a program has written so far, as somebody who waits for it wants to hear of it, and the way there, on
//! which only the last is kept.

use std::sync::Arc;

use neuroflow_sandbox::ArchivedStream;
use tokio::sync::watch;

use super::ToolProgress;
use crate::limits::PROGRESS_LINE_BYTES;

/// Bytes of a stream's end that are looked at for its last line: room for one with as many colours.
const TAIL_BYTES: usize = 4 * PROGRESS_LINE_BYTES;

/// Where a tool tells how far it has come.
#[derive(Clone, Debug)]
pub(super) struct Told(Arc<watch::Sender<ToolProgress>>);

impl Told {
    pub(super) fn tell(&self, progress: ToolProgress) {
        self.0.send_replace(progress);
    }
}

/// The way from a tool to who hears of its progress.
pub(super) fn way() -> (Told, watch::Receiver<ToolProgress>) {
    let (told, heard) = watch::channel(ToolProgress::default());
    (Told(Arc::new(told)), heard)
}

/// Follows the two streams of a program.
#[derive(Debug, Default)]
pub(super) struct Said {
    written_bytes: u64,
    stdout: Tail,
    stderr: Tail,
}

/// The end of a stream.
#[derive(Debug, Default)]
struct Tail {
    bytes: Vec<u8>,
    /// Something before it was left out, in the middle of a line and maybe of a letter.
    is_cut: bool,
}

impl Said {
    /// The program has written this; gives how far it has come.
    pub(super) fn more(&mut self, stream: &ArchivedStream, bytes: &[u8]) -> ToolProgress {
        self.written_bytes = self.written_bytes.saturating_add(bytes.len() as u64);
        let tail = match stream {
            ArchivedStream::Stdout => &mut self.stdout,
            ArchivedStream::Stderr => &mut self.stderr,
        };
        tail.add(bytes);
        ToolProgress { written_bytes: self.written_bytes, line: tail.last_line() }
    }
}

impl Tail {
    fn add(&mut self, bytes: &[u8]) {
        let bytes = if bytes.len() > TAIL_BYTES {
            self.bytes.clear();
            self.is_cut = true;
            bytes.split_at(bytes.len() - TAIL_BYTES).1
        } else {
            bytes
        };
        self.bytes.extend_from_slice(bytes);
        if let Some(over) = self.bytes.len().checked_sub(TAIL_BYTES).filter(|over| *over > 0) {
            self.bytes.drain(..over);
            self.is_cut = true;
        }
    }

    /// The last line that has something in it, also if it isn't over. A return begins a line too, as
    /// programs count upwards in one.
    fn last_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        let text = if self.is_cut { text.trim_start_matches('\u{fffd}') } else { &text };
        let lines = text.rsplit(['\n', '\r']).map(plain);
        lines.into_iter().find(|line| !line.is_empty()).unwrap_or_default()
    }
}

/// A line without what moves a terminal's cursor or turns the text around, and not too long.
fn plain(line: &str) -> String {
    let (mut plain, mut letters) = (String::new(), line.chars().peekable());
    while let Some(letter) = letters.next() {
        match letter {
            '\u{1b}' => skip_escape(&mut letters),
            '\t' => plain.push(' '),
            _ if letter.is_control() || turns(letter) => {}
            _ if plain.len() + letter.len_utf8() > PROGRESS_LINE_BYTES => break,
            _ => plain.push(letter),
        }
    }
    plain.trim().to_owned()
}

/// A sequence that begins with escape: up to its last letter, or, if it names a title, up to the bell.
fn skip_escape(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match letters.next() {
        Some('[') => {
            let _last = letters.find(|letter| ('\u{40}'..='\u{7e}').contains(letter));
        }
        Some(']' | 'P' | 'X' | '^' | '_') => {
            while let Some(letter) = letters.next() {
                if letter == '\u{7}' || (letter == '\u{1b}' && letters.next_if_eq(&'\\').is_some())
                {
                    return;
                }
            }
        }
        _ => {}
    }
}

/// Marks that make a text look as if it were another.
fn turns(letter: char) -> bool {
    matches!(
        letter,
        '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(pieces: &[&[u8]]) -> String {
        let mut said = Said::default();
        let mut last = ToolProgress::default();
        for piece in pieces {
            last = said.more(&ArchivedStream::Stdout, piece);
        }
        let written: usize = pieces.iter().map(|piece| piece.len()).sum();
        assert_eq!(last.written_bytes, written as u64);
        last.line
    }

    #[test]
    fn the_last_line_is_what_a_person_would_see_of_it() {
        for (pieces, expected) in [
            (&[&b"one\ntwo\n"[..]][..], "two"),
            (&[b"one\n\n \n"], "one"),
            (&[b"one\ntw", b"o"], "two"),
            (&[b"10 %\r20 %\r"], "20 %"),
            (&[b"\x1b[1;32mok\x1b[0m\tdone"], "ok done"),
            (&[b"\x1b]0;title\x07a\x1b]8;;http://x\x1b\\b\x1b(Bc\x07\x00"], "abBc"),
            (&["\u{202e}evil\u{200b}".as_bytes()], "evil"),
            (&[b"caf\xc3", b"\xa9"], "caf\u{e9}"),
            (&[b"\xff\xfe"], "\u{fffd}\u{fffd}"),
            (&[b""], ""),
        ] {
            assert_eq!(line(pieces), expected);
        }
        let long = "\u{e9}".repeat(TAIL_BYTES);
        let cut = line(&[long.as_bytes(), b"a"]);
        assert!(cut.len() <= PROGRESS_LINE_BYTES && cut.starts_with('\u{e9}'), "{cut}");
    }

    #[test]
    fn each_stream_has_a_line_of_its_own() {
        let mut said = Said::default();
        said.more(&ArchivedStream::Stdout, b"begun ");
        assert_eq!(said.more(&ArchivedStream::Stderr, b"warned\n").line, "warned");
        let last = said.more(&ArchivedStream::Stdout, b"and done");
        assert_eq!((last.written_bytes, last.line.as_str()), (21, "begun and done"));
    }
}
