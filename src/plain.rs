//! Names and texts that a program or an agent chose, as a terminal may get them: nothing in them moves
//! its cursor, or makes another line than they are in.

use std::ffi::OsStr;
use std::fmt::Write as _;

/// A name in one line, which no other name has: what can't be seen is escaped, a backslash too.
pub(crate) fn name(name: impl AsRef<OsStr>) -> String {
    let mut line = String::new();
    for chunk in name.as_ref().as_encoded_bytes().utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => line.push_str("\\\\"),
                character => push(&mut line, character),
            }
        }
        for byte in chunk.invalid() {
            // Writing into a text doesn't fail.
            let _written = write!(line, "\\x{byte:02x}");
        }
    }
    line
}

/// A text whose lines are its own, or JSON, which has its backslashes escaped already.
pub(crate) fn text(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => plain.push(character),
            character => push(&mut plain, character),
        }
    }
    plain
}

fn push(plain: &mut String, character: char) {
    if character.is_control() || is_direction(character) || is_line_end(character) {
        plain.extend(character.escape_default());
    } else {
        plain.push(character);
    }
}

/// Whether what comes after it is shown from the other side: `exe.txt` may be shown as `txt.exe`.
fn is_direction(character: char) -> bool {
    matches!(
        character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

/// Beside those that are control characters.
fn is_line_end(character: char) -> bool {
    matches!(character, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn a_name_is_one_line_that_no_other_name_has() {
        for (given, shown) in [
            (&b"src/main.rs"[..], "src/main.rs"),
            ("Übung – 例 🦀".as_bytes(), "Übung – 例 🦀"),
            (b"a\nadded     b", "a\\nadded     b"),
            (b"a\\nb", "a\\\\nb"),
            (b"\x1b[1A\x1b[2K\r\x08\x7f\t", "\\u{1b}[1A\\u{1b}[2K\\r\\u{8}\\u{7f}\\t"),
            ("\u{9b}2J\u{85}".as_bytes(), "\\u{9b}2J\\u{85}"),
            (
                "a\u{202e}txt.exe\u{2066}\u{200f}\u{61c}".as_bytes(),
                "a\\u{202e}txt.exe\\u{2066}\\u{200f}\\u{61c}",
            ),
            ("a\u{2028}b".as_bytes(), "a\\u{2028}b"),
            (b"a\xff\x9b\xc3", "a\\xff\\x9b\\xc3"),
        ] {
            assert_eq!(name(OsStr::from_bytes(given)), shown);
        }
    }

    #[test]
    fn a_text_keeps_its_lines_and_commands_no_terminal() {
        assert_eq!(text("boom\\\n\tat \x1b[2J\u{9b}K\r"), "boom\\\n\tat \\u{1b}[2J\\u{9b}K\\r");
        let json = serde_json::json!("\n\x1b\u{7f}\u{202e}").to_string();
        assert_eq!(text(&json), r#""\n\u001b\u{7f}\u{202e}""#);
    }
}
