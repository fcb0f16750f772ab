//! The list of nodes that a cluster's authority has shut out: signed by it, so that anybody may pass it on.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::BTreeSet;
use std::fmt::Write;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use rcgen::SigningKey;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};

use super::{Authority, AuthorityError, NodeId, NodeIdError, Trust};
use crate::limits::{MAX_REVOCATION_BYTES, MAX_REVOKED};

/// Nodes that are shut out, as of a serial number; the list with the larger one counts.
///
/// ```
/// use std::time::SystemTime;
/// use neuroflow_transport::{Authority, NodeId, Revocations, Trust};
/// let authority = Authority::create("example", SystemTime::now())?;
/// let lost = NodeId::of_public_key(b"a key that was stolen");
/// let list = Revocations::default().with(lost);
/// let text = list.sign(&authority)?;
/// let trust = Trust::from_pem(authority.certificate_pem())?;
/// assert_eq!(Revocations::verify(&text, &trust)?, list);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocations {
    serial: u64,
    nodes: BTreeSet<NodeId>,
}

/// How a list begins.
const HEAD: &str = "neuroflow revocations 1";

impl Revocations {
    /// The next list, with one more node.
    #[must_use]
    pub fn with(mut self, node: NodeId) -> Self {
        self.nodes.insert(node);
        self.serial = self.serial.saturating_add(1);
        self
    }

    /// Which list this is.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// The nodes on it.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.iter().copied()
    }

    /// The list as a text that the authority has signed.
    ///
    /// # Errors
    /// Says that the list is too long, or that the key doesn't sign.
    pub fn sign(&self, authority: &Authority) -> Result<String, AuthorityError> {
        let mut text = format!("{HEAD}\nserial {}\n", self.serial);
        for node in &self.nodes {
            // Writing to a text doesn't fail.
            let _written = writeln!(text, "node {node}").is_ok();
        }
        let signature = authority.signing_key().sign(text.as_bytes())?;
        Ok(text + "signature " + &HEXLOWER.encode(&signature) + "\n")
    }

    /// Reads a text that one of the cluster's authorities has signed.
    ///
    /// # Errors
    /// Says what is wrong with the text, or that no authority of the cluster has signed it.
    pub fn verify(text: &str, trust: &Trust) -> Result<Self, RevocationError> {
        if text.len() > MAX_REVOCATION_BYTES {
            return Err(RevocationError::TooLong { bytes: text.len() });
        }
        let (body, signature) = text.rsplit_once("signature ").ok_or(RevocationError::Unsigned)?;
        let signature = HEXLOWER_PERMISSIVE.decode(signature.trim_end().as_bytes());
        let signature = signature.map_err(|_other| RevocationError::Unsigned)?;
        if !trust.authority_keys().any(|key| signed_by(key, body.as_bytes(), &signature)) {
            return Err(RevocationError::Stranger);
        }
        let mut lines = body.lines();
        if lines.next() != Some(HEAD) {
            return Err(RevocationError::Head);
        }
        let serial = lines.next().and_then(|line| line.strip_prefix("serial "));
        let serial = serial.and_then(|serial| serial.parse().ok()).ok_or(RevocationError::Head)?;
        let mut nodes = BTreeSet::new();
        for line in lines {
            let node = line.strip_prefix("node ").ok_or(RevocationError::Head)?;
            nodes.insert(node.parse()?);
        }
        if nodes.len() > MAX_REVOKED {
            return Err(RevocationError::TooLong { bytes: text.len() });
        }
        Ok(Self { serial, nodes })
    }
}

pub(super) fn signed_by(spki: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let Ok((_, key)) =
        <x509_parser::x509::SubjectPublicKeyInfo<'_> as x509_parser::prelude::FromDer<
            '_,
            x509_parser::error::X509Error,
        >>::from_der(spki)
    else {
        return false;
    };
    let algorithm: &dyn VerificationAlgorithm =
        match key.algorithm.algorithm.to_id_string().as_str() {
            "1.3.101.112" => &ED25519,
            "1.2.840.10045.2.1" => &ECDSA_P256_SHA256_ASN1,
            _ => return false,
        };
    UnparsedPublicKey::new(algorithm, &key.subject_public_key.data)
        .verify(message, signature)
        .is_ok()
}

/// Why a list of revocations isn't taken.
///
/// ```
/// use neuroflow_transport::RevocationError;
/// assert!(RevocationError::Unsigned.to_string().contains("signature"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RevocationError {
    /// More than a list may have.
    #[error("the list has {bytes} bytes; {MAX_REVOKED} nodes are allowed")]
    TooLong {
        /// As it came.
        bytes: usize,
    },
    /// There is no signature at its end.
    #[error("the list doesn't end with a signature")]
    Unsigned,
    /// Nobody whom this node trusts has signed it, or it was changed since.
    #[error("no authority of this cluster has signed the list")]
    Stranger,
    /// Not laid out as a list.
    #[error("the list isn't laid out as one: {HEAD:?}, a serial, nodes, a signature")]
    Head,
    /// A line that names no node.
    #[error("a line of the list doesn't name a node")]
    Node(#[from] NodeIdError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "certificates have times of the machine's")]
    fn authority() -> Authority {
        Authority::create("test", std::time::SystemTime::now()).unwrap()
    }

    #[test]
    fn only_what_the_authority_has_signed_is_taken() {
        let (ours, theirs) = (authority(), authority());
        let trust = Trust::from_pem(ours.certificate_pem()).unwrap();
        let list = Revocations::default()
            .with(NodeId::of_public_key(b"one"))
            .with(NodeId::of_public_key(b"two"));
        let text = list.sign(&ours).unwrap();
        assert_eq!(Revocations::verify(&text, &trust), Ok(list.clone()));
        assert_eq!(list.serial(), 2);
        let strange = list.sign(&theirs).unwrap();
        assert_eq!(Revocations::verify(&strange, &trust), Err(RevocationError::Stranger));
        let changed = text.replace("serial 2", "serial 3");
        assert_eq!(Revocations::verify(&changed, &trust), Err(RevocationError::Stranger));
        assert_eq!(Revocations::verify("", &trust), Err(RevocationError::Unsigned));
        let (body, digits) = text.trim_end().rsplit_once("signature ").unwrap();
        let upper = format!("{body}signature {}\n", digits.to_ascii_uppercase());
        assert_eq!(Revocations::verify(&upper, &trust), Ok(list.clone()));
        let odd = format!("{body}signature {digits}0\n");
        assert_eq!(Revocations::verify(&odd, &trust), Err(RevocationError::Unsigned));
        let long = "x".repeat(MAX_REVOCATION_BYTES + 1);
        assert!(matches!(Revocations::verify(&long, &trust), Err(RevocationError::TooLong { .. })));
    }

    #[test]
    fn a_sign_in_a_signature_isnt_a_digit_though_the_number_is_the_same() {
        let ours = authority();
        let trust = Trust::from_pem(ours.certificate_pem()).unwrap();
        let mut list = Revocations::default();
        // Most signatures have a byte whose first digit is 0.
        let signs = loop {
            let another = NodeId::of_public_key(&list.serial().to_le_bytes());
            list = list.with(another);
            let text = list.sign(&ours).unwrap();
            let (body, digits) = text.rsplit_once("signature ").unwrap();
            let signs = |(at, digit)| if digit == '0' && at % 2 == 0 { '+' } else { digit };
            let signs: String = digits.char_indices().map(signs).collect();
            if signs != digits {
                break format!("{body}signature {signs}");
            }
        };
        assert_eq!(Revocations::verify(&signs, &trust), Err(RevocationError::Unsigned));
    }
}
