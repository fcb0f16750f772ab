//! Bytes as hexadecimal digits: written in lower case, read in either. All that is read comes from outside.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fmt;

/// Writes two digits per byte.
pub(crate) fn write(to: &mut impl fmt::Write, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(to, "{byte:02x}"))
}

/// As a text.
pub(crate) fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().saturating_mul(2));
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
    // `from_str_radix` would take a sign for a digit.
    let digit = |byte: u8| u8::try_from(char::from(byte).to_digit(16)?).ok();
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
    fn digits_of_either_case_are_read_and_nothing_else() {
        assert_eq!(text(&[0, 0xab, 0xff]), "00abff");
        assert_eq!(read("00aBFf"), Some([0, 0xab, 0xff]));
        for bad in ["", "00ab", "00abff00", "00abf", "+0abff", "0xabff", "00ab f", "é0abf"] {
            assert_eq!(read::<3>(bad), None, "{bad}");
        }
        for bad in ["0", "+f", "-0", " 0"] {
            assert_eq!(read_all(bad), None, "{bad}");
        }
    }
}
