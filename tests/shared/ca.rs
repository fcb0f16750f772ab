//! A CA of a test's own, for TLS.
//!
//! Included by several test programs.

use std::time::Duration;

use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair, SanType};

/// A CA, and certificates of it.
pub(crate) struct Ca {
    pub(crate) certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub(crate) fn fresh() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn issue(&self, name: SanType) -> (Certificate, KeyPair) {
        self.issue_until(name, None)
    }

    /// One that ends so long after the epoch.
    pub(crate) fn issue_until(
        &self,
        name: SanType,
        ends: Option<Duration>,
    ) -> (Certificate, KeyPair) {
        let mut params = CertificateParams::default();
        if let Some(ends) = ends {
            params.not_after = rcgen::date_time_ymd(1970, 1, 1) + ends;
        }
        params.subject_alt_names = vec![name];
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.issuer).expect("a certificate"), key)
    }

    /// A server's, of 127.0.0.1.
    pub(crate) fn server(&self) -> (Certificate, KeyPair) {
        self.issue(SanType::IpAddress([127, 0, 0, 1].into()))
    }
}
