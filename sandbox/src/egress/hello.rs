//! The server's name in the first record of a TLS client, as far as it is in clear.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

/// What a tunnel begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hello {
    /// The record isn't complete; more bytes are needed.
    Incomplete,
    /// No TLS, or not in a form that every server reads the same way.
    Foreign,
    /// A client that says whom it wants to speak to.
    Client {
        /// `None` if it names nobody, as clients do that speak to an address.
        server_name: Option<String>,
        /// Whether a second, encrypted hello comes with it, which may name somebody else.
        encrypted: bool,
    },
}

/// Reads the first record; never looks at what is behind it.
///
/// The hello has to be whole in that record. TLS would let it go on in the next one, but no client
/// in use does that, and a reader that doesn't follow would be blind.
pub(crate) fn read(bytes: &[u8]) -> Hello {
    let mut cursor = Cursor(bytes);
    let Some([kind, major, _minor]) = cursor.array::<3>() else {
        // Without waiting for more if the first byte already says that it isn't TLS.
        return if bytes.first().is_none_or(|kind| *kind == HANDSHAKE) {
            Hello::Incomplete
        } else {
            Hello::Foreign
        };
    };
    if kind != HANDSHAKE || major != 3 {
        return Hello::Foreign;
    }
    let Some(length) = cursor.u16() else { return Hello::Incomplete };
    if !(4..=LARGEST_RECORD).contains(&length) {
        return Hello::Foreign;
    }
    let Some(record) = cursor.take(length) else { return Hello::Incomplete };
    client(Cursor(record)).unwrap_or(Hello::Foreign)
}

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const LARGEST_RECORD: usize = 1 << 14;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
/// RFC 9849, and the numbers of its drafts that servers took.
const ENCRYPTED_HELLO: [u16; 4] = [0xfe0d, 0xfe0a, 0xfe09, 0xfe08];
/// Encrypted server names, the attempt before.
const ENCRYPTED_NAME: u16 = 0xffce;

/// RFC 8446, 4.1.2. `None` where the bytes don't add up.
fn client(mut record: Cursor<'_>) -> Option<Hello> {
    let [kind, high, middle, low] = record.array::<4>()?;
    let length = u32::from_be_bytes([0, high, middle, low]);
    if kind != CLIENT_HELLO || usize::try_from(length).ok()? != record.0.len() {
        return None;
    }
    // Version, random.
    record.take(2 + 32)?;
    let session = record.u8()?;
    record.take(session)?;
    let suites = record.u16()?;
    record.take(suites)?;
    let compressions = record.u8()?;
    record.take(compressions)?;

    let mut hello = (None, false);
    if !record.0.is_empty() {
        let length = record.u16()?;
        let mut extensions = Cursor(record.take(length)?);
        while !extensions.0.is_empty() {
            let [high, low] = extensions.array::<2>()?;
            let length = extensions.u16()?;
            let body = extensions.take(length)?;
            match u16::from_be_bytes([high, low]) {
                // Of two, one server takes the first and another the last.
                SERVER_NAME if hello.0.is_some() => return None,
                SERVER_NAME => hello.0 = Some(name(Cursor(body))?),
                kind if kind == ENCRYPTED_NAME || ENCRYPTED_HELLO.contains(&kind) => hello.1 = true,
                _ => {}
            }
        }
    }
    record.0.is_empty().then_some(Hello::Client { server_name: hello.0, encrypted: hello.1 })
}

/// RFC 6066, 3: a list, of which only one entry of one kind was ever defined.
fn name(mut body: Cursor<'_>) -> Option<String> {
    let length = body.u16()?;
    let mut list = Cursor(body.take(length)?);
    let [kind] = list.array::<1>()?;
    let length = list.u16()?;
    let name = list.take(length)?;
    let is_all = body.0.is_empty() && list.0.is_empty() && kind == HOST_NAME;
    let text = std::str::from_utf8(name).ok()?;
    (is_all && text.is_ascii()).then(|| text.to_owned())
}

/// Bytes that are taken from the front, checked.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u8(&mut self) -> Option<usize> {
        self.array::<1>().map(|[byte]| usize::from(byte))
    }

    fn u16(&mut self) -> Option<usize> {
        self.array::<2>().map(|bytes| usize::from(u16::from_be_bytes(bytes)))
    }
}

/// Builds hellos for tests, here and of the tunnel.
#[cfg(test)]
pub(crate) mod build {
    fn long(bytes: &[u8]) -> Vec<u8> {
        let mut all = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
        all.extend_from_slice(bytes);
        all
    }

    pub(crate) fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut all = kind.to_be_bytes().to_vec();
        all.extend(long(body));
        all
    }

    pub(crate) fn server_name(name: &str) -> Vec<u8> {
        let mut entry = vec![0];
        entry.extend(long(name.as_bytes()));
        extension(0, &long(&entry))
    }

    pub(crate) fn hello(extensions: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(0);
        body.extend(long(&[0x13, 0x01]));
        body.extend([1, 0]);
        body.extend(long(&extensions.concat()));
        let mut handshake = vec![1, 0];
        handshake.extend(long(&body));
        let mut record = vec![22, 3, 1];
        record.extend(long(&handshake));
        record
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        build::{extension, hello, server_name},
        *,
    };

    fn named(name: &str) -> Hello {
        Hello::Client { server_name: Some(name.to_owned()), encrypted: false }
    }

    #[test]
    fn the_name_is_found_among_other_extensions() {
        let plain = hello(&[extension(43, &[2, 3, 4]), server_name("api.example.com")]);
        assert_eq!(read(&plain), named("api.example.com"));
        let nobody = Hello::Client { server_name: None, encrypted: false };
        assert_eq!(read(&hello(&[extension(43, &[2, 3, 4])])), nobody);
        for kind in [0xfe0d, 0xffce] {
            let hidden = hello(&[server_name("a.example"), extension(kind, &[0; 9])]);
            let expected =
                Hello::Client { server_name: Some("a.example".to_owned()), encrypted: true };
            assert_eq!(read(&hidden), expected);
        }
    }

    #[test]
    fn every_beginning_of_a_hello_is_incomplete() {
        let whole = hello(&[server_name("api.example.com")]);
        for end in 0..whole.len() {
            assert_eq!(read(&whole[..end]), Hello::Incomplete, "{end}");
        }
        let mut more = whole.clone();
        more.extend([23, 3, 3, 0, 1, 0]);
        assert_eq!(read(&more), named("api.example.com"));
    }

    #[test]
    fn what_has_two_readings_is_foreign() {
        let two = hello(&[server_name("a.example"), server_name("b.example")]);
        assert_eq!(read(&two), Hello::Foreign);

        let mut entries = vec![0, 0, 1, b'a'];
        entries.extend([0, 0, 1, b'b']);
        let mut list = vec![0, 8];
        list.extend(entries);
        assert_eq!(read(&hello(&[extension(0, &list)])), Hello::Foreign);

        // A hello that goes on in a second record.
        let mut split = hello(&[server_name("a.example")]);
        split[8] += 1;
        assert_eq!(read(&split), Hello::Foreign);

        assert_eq!(read(b"GET / HTTP/1.1\r\n"), Hello::Foreign);
        assert_eq!(read(b"SSH-2.0-x"), Hello::Foreign);
        assert_eq!(read(b"S"), Hello::Foreign);
        assert_eq!(read(&[22, 3, 1, 0x40, 1]), Hello::Foreign);
        assert_eq!(read(&[22, 3, 1, 0, 0]), Hello::Foreign);
        assert_eq!(read(&[22, 2, 1, 0, 9]), Hello::Foreign);
        // The old framing of SSL 2.
        assert_eq!(read(&[0x80, 0x2e, 1, 3, 1]), Hello::Foreign);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _hello = read(&bytes);
        }

        #[test]
        fn a_hello_with_a_changed_byte_never_names_another_server(
            at in 0_usize..80, byte in any::<u8>(),
        ) {
            let mut bytes = hello(&[server_name("api.example.com")]);
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Hello::Client { server_name: Some(name), .. } = read(&bytes) {
                prop_assert!(name.len() == "api.example.com".len());
            }
        }
    }
}
