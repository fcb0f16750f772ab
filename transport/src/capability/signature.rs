//! Signatures by nodes' own keys, over what TLS never signs.

use std::sync::Arc;

use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use rustls::SignatureScheme;
use rustls::sign::SigningKey;
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::CapabilityError;
use crate::identity::{CertificateError, Credential};

/// Keeps these signatures apart from those of TLS, which begin with 64 spaces.
const CONTEXT: &[u8] = b"neuroflow capability 1\0";

/// A node's key.
#[derive(Debug)]
pub(crate) struct Signer {
    key: Arc<dyn SigningKey>,
    /// The public key, as the certificate has it.
    public: Vec<u8>,
}

impl Signer {
    pub(crate) fn new(credential: &Credential) -> Result<Self, CertificateError> {
        let key = credential.signing_key()?;
        let public = key.public_key().map(|public| public.to_vec()).unwrap_or_default();
        Ok(Self { key, public })
    }

    pub(super) fn public(&self) -> &[u8] {
        &self.public
    }

    pub(super) fn sign(&self, before: &[u8], body: &[u8]) -> Result<Vec<u8>, CapabilityError> {
        let schemes = [SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256];
        let signer = self.key.choose_scheme(&schemes).ok_or(rustls::Error::NoCertificatesPresented);
        let signed = signer.and_then(|signer| signer.sign(&[CONTEXT, before, body].concat()));
        signed.map_err(CapabilityError::Key)
    }
}

/// Whether the node with this public key has signed.
pub(super) fn is_signed(public: &[u8], before: &[u8], body: &[u8], signature: &[u8]) -> bool {
    let Ok((rest, key)) = SubjectPublicKeyInfo::from_der(public) else { return false };
    let algorithm: &dyn VerificationAlgorithm =
        match key.algorithm.algorithm.to_id_string().as_str() {
            "1.3.101.112" => &ED25519,
            "1.2.840.10045.2.1" => &ECDSA_P256_SHA256_ASN1,
            _ => return false,
        };
    let key = UnparsedPublicKey::new(algorithm, &key.subject_public_key.data);
    rest.is_empty() && key.verify(&[CONTEXT, before, body].concat(), signature).is_ok()
}
