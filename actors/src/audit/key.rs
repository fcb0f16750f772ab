//! The key that signs an audit log, and the public half that others check it with.
//!
//! Ed25519. The private key is PKCS #8 in a file of its own, the public one PEM beside it, so that
//! `openssl pkey -pubin` reads it as well.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use data_encoding::HEXLOWER;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use crate::limits::AUDIT_KEY_BYTES;

/// What stands before the 32 bytes of an Ed25519 key in its DER form (RFC 8410).
const DER_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0];

const BEGIN: &str = "-----BEGIN PUBLIC KEY-----\n";
const END: &str = "\n-----END PUBLIC KEY-----\n";

/// The public half of an audit log's key.
///
/// ```
/// use neuroflow_actors::PublicKey;
/// let pem = "-----BEGIN PUBLIC KEY-----\n\
///     MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
///     -----END PUBLIC KEY-----\n";
/// let key = PublicKey::from_pem(pem)?;
/// assert_eq!(key.to_pem(), pem);
/// # Ok::<(), neuroflow_actors::KeyError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// From PEM, as the file beside a log's key has it.
    ///
    /// # Errors
    /// Says that it isn't one.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let body = pem.trim().strip_prefix(BEGIN.trim()).and_then(|it| it.strip_suffix(END.trim()));
        let body: String = body.unwrap_or_default().split_whitespace().collect();
        let der = BASE64.decode(body).map_err(|_not_base64| KeyError::NotPublic)?;
        let key = der.strip_prefix(&DER_PREFIX).and_then(|key| key.try_into().ok());
        key.map(Self).ok_or(KeyError::NotPublic)
    }

    /// Reads a PEM file.
    ///
    /// # Errors
    /// Says why it can't be read, or that it has no such key.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let bytes = read(path)?;
        Self::from_pem(std::str::from_utf8(&bytes).unwrap_or_default())
    }

    /// As PEM.
    pub fn to_pem(&self) -> String {
        let der = [&DER_PREFIX[..], &self.0].concat();
        format!("{BEGIN}{}{END}", BASE64.encode(der))
    }

    pub(super) fn from_hex(text: &str) -> Option<Self> {
        HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok().map(Self)
    }

    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }
}

/// As the log has it: hexadecimal.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HEXLOWER.encode_display(&self.0).fmt(f)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// Why there is no key.
///
/// ```
/// use neuroflow_actors::{KeyError, PublicKey};
/// assert!(matches!(PublicKey::from_pem("secret"), Err(KeyError::NotPublic)));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Its file can't be read or written.
    #[error("the key file {} can't be used", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Others may read it.
    #[error("others may read the key {}; say chmod 600, and make a new one if they have", file.display())]
    Open {
        /// The file.
        file: PathBuf,
    },
    /// It isn't a private key.
    #[error("{} isn't an Ed25519 key in PKCS #8; move it away to have one made", file.display())]
    NotPrivate {
        /// The file.
        file: PathBuf,
    },
    /// It isn't a public key.
    #[error("this isn't an Ed25519 public key in PEM")]
    NotPublic,
    /// The system has no randomness to give.
    #[error("the system gives no randomness to make a key of")]
    Randomness,
}

/// The private key.
pub(super) struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// Reads the key, or makes one, with the public half beside it.
    pub(super) fn open(path: &Path) -> Result<Self, KeyError> {
        let der = match read(path) {
            // What a full disk has left of one that was to be made: nothing was ever signed with it.
            Ok(der) if der.is_empty() => {
                fs::remove_file(path)
                    .map_err(|source| KeyError::File { file: path.to_owned(), source })?;
                make(path)?
            }
            Ok(der) => {
                only_the_owner_may_read(path)?;
                der
            }
            Err(KeyError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                make(path)?
            }
            Err(error) => return Err(error),
        };
        let pair = Ed25519KeyPair::from_pkcs8(&der)
            .map_err(|_rejected| KeyError::NotPrivate { file: path.to_owned() })?;
        let key = Self(pair);
        let public = path.with_extension("pub");
        let pem = key.public().to_pem();
        if fs::read(&public).ok().as_deref() != Some(pem.as_bytes()) {
            fs::write(&public, pem).map_err(|source| KeyError::File { file: public, source })?;
        }
        Ok(key)
    }

    /// A key that is written nowhere.
    #[cfg(test)]
    pub(super) fn fresh() -> Self {
        let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self(Ed25519KeyPair::from_pkcs8(der.as_ref()).unwrap())
    }

    pub(super) fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(self.0.public_key().as_ref()) {
            *to = *from;
        }
        PublicKey(bytes)
    }

    pub(super) fn sign(&self, message: &[u8]) -> String {
        HEXLOWER.encode(self.0.sign(message).as_ref())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(of {})", self.public())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    let refused = |source| KeyError::File { file: path.to_owned(), source };
    let file = fs::File::open(path).map_err(refused)?;
    let mut bytes = Vec::new();
    file.take(AUDIT_KEY_BYTES).read_to_end(&mut bytes).map_err(refused)?;
    Ok(bytes)
}

fn make(path: &Path) -> Result<Vec<u8>, KeyError> {
    let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
        .map_err(|_unspecified| KeyError::Randomness)?;
    // It has its name once it's whole.
    let next = path.with_extension("new");
    let write = || {
        match fs::remove_file(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&next)?;
        file.write_all(der.as_ref())?;
        file.sync_all()?;
        // Which fails if another node has made one by now.
        fs::hard_link(&next, path)
    };
    let written = write();
    let removed = fs::remove_file(&next);
    written.and(removed).map_err(|source| KeyError::File { file: path.to_owned(), source })?;
    Ok(der.as_ref().to_vec())
}

#[cfg(unix)]
fn only_the_owner_may_read(path: &Path) -> Result<(), KeyError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata =
        fs::metadata(path).map_err(|source| KeyError::File { file: path.to_owned(), source })?;
    let others = metadata.permissions().mode() & 0o077;
    if others == 0 { Ok(()) } else { Err(KeyError::Open { file: path.to_owned() }) }
}

#[cfg(not(unix))]
fn only_the_owner_may_read(_path: &Path) -> Result<(), KeyError> {
    Ok(())
}
