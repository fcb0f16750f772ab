//! Bytes as hexadecimal digits in lower case, and back: one way to write them, and no other is read.

use std::fmt;

/// Writes two digits per byte.
pub(crate) fn write(to: &mut impl fmt::Write, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(to, "{byte:02x}"))
}

/// As a text.
pub(crate) fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    // Writing to a text doesn't fail.
    let _written = write(&mut text, bytes).is_ok();
    text
}

/// So many bytes, and nothing but digits.
pub(crate) fn read<const N: usize>(text: &str) -> Option<[u8; N]> {
    read_all(text)?.try_into().ok()
}

/// As many bytes as there are pairs of digits.
pub(crate) fn read_all(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_is_written_one_way() {
        assert_eq!(text(&[0, 0xab, 0xff]), "00abff");
        assert_eq!(read("00abff"), Some([0, 0xab, 0xff]));
        assert_eq!(read_all("00abff"), Some(vec![0, 0xab, 0xff]));
        for bad in ["0", "AB", "0x", "+f", "é1"] {
            assert_eq!(read_all(bad), None, "{bad}");
        }
        assert_eq!(read::<2>("00abff"), None);
    }
}
