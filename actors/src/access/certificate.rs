//! A client's certificate as a principal. That it's valid and from a CA that is trusted, TLS has
//! checked before.

use std::time::Duration;

use data_encoding::HEXLOWER;
use neuroflow_kernel::Clock;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::file::sha256;
use super::principal::Principal;
use crate::limits::GROUPS;

/// The certificate of a connection's other end: whom it names.
///
/// ```
/// use neuroflow_actors::PeerCertificate;
/// assert!(PeerCertificate::read(b"no certificate").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    principal: Principal,
    /// Since the Unix epoch.
    ends: Duration,
}

/// Why a certificate names nobody.
///
/// ```
/// use neuroflow_actors::CertificateError;
/// assert!(CertificateError::Nameless.to_string().contains("name"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// It isn't X.509.
    #[error("the certificate can't be read")]
    Malformed,
    /// It has neither an alternative name nor a common name.
    #[error("the certificate has no name: give it a URI, DNS or mail name, or a common name")]
    Nameless,
}

impl PeerCertificate {
    /// Reads a certificate (DER). Its name is the first alternative name that is a URI, else a DNS
    /// name, else a mail address, else the subject's common name; its groups are the subject's
    /// organisational units.
    ///
    /// # Errors
    /// Says whether it's no certificate, or one without a name.
    pub fn read(der: &[u8]) -> Result<Self, CertificateError> {
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|_other| CertificateError::Malformed)?;
        if !rest.is_empty() {
            return Err(CertificateError::Malformed);
        }
        let name = name(&certificate)?.ok_or(CertificateError::Nameless)?;
        let units = certificate.subject().iter_organizational_unit();
        let groups: Vec<String> =
            units.filter_map(|unit| unit.as_str().ok()).take(GROUPS).map(str::to_owned).collect();
        let fingerprint = HEXLOWER.encode(&sha256(der));
        let ends = certificate.validity().not_after.timestamp();
        let ends = Duration::from_secs(u64::try_from(ends).unwrap_or_default());
        Ok(Self { principal: Principal::certificate(name, &fingerprint, groups), ends })
    }

    /// Until when it's valid, since the Unix epoch; the second itself still counts.
    pub fn ends(&self) -> Duration {
        self.ends
    }

    /// Whether its time is over.
    pub(crate) fn has_ended(&self, clock: &Clock) -> bool {
        clock.unix().as_secs() > self.ends.as_secs()
    }

    /// Whom it names.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }
}

fn name(certificate: &X509Certificate<'_>) -> Result<Option<String>, CertificateError> {
    let alternative =
        certificate.subject_alternative_name().map_err(|_twice| CertificateError::Malformed)?;
    let names = alternative.map(|extension| extension.value.general_names.as_slice());
    let names = names.unwrap_or_default();
    let uri = names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let dns = names.iter().find_map(|name| match name {
        GeneralName::DNSName(name) => Some(*name),
        _ => None,
    });
    let mail = names.iter().find_map(|name| match name {
        GeneralName::RFC822Name(name) => Some(*name),
        _ => None,
    });
    let common = certificate.subject().iter_common_name().find_map(|name| name.as_str().ok());
    let name = uri.or(dns).or(mail).or(common).filter(|name| !name.is_empty());
    Ok(name.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Credential;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn certificate(names: Vec<SanType>, common: Option<&str>, unit: Option<&str>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(common) = common {
            params.distinguished_name.push(DnType::CommonName, common);
        }
        if let Some(unit) = unit {
            params.distinguished_name.push(DnType::OrganizationalUnitName, unit);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_most_telling_name_is_taken() {
        let uri = SanType::URI("spiffe://example.org/ci".try_into().unwrap());
        let dns = SanType::DnsName("ci.example.org".try_into().unwrap());
        let read = |names, common, unit| PeerCertificate::read(&certificate(names, common, unit));
        let both = read(vec![dns.clone(), uri], Some("ci"), Some("builders")).unwrap();
        assert_eq!(both.principal().id(), "certificate:spiffe://example.org/ci");
        assert_eq!(both.principal().groups(), ["builders"]);
        assert_eq!(read(vec![dns], None, None).unwrap().principal().name(), "ci.example.org");
        assert_eq!(read(vec![], Some("ci"), None).unwrap().principal().name(), "ci");
        assert_eq!(read(vec![], None, None), Err(CertificateError::Nameless));
        let fingerprint = both.principal().facts().find(|(name, _)| *name == "fingerprint");
        assert_eq!(fingerprint.unwrap().1.len(), 64);
    }

    #[tokio::test]
    async fn one_whose_time_is_over_is_believed_no_more() {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "ci");
        // A manual clock begins with the day before.
        params.not_after = rcgen::date_time_ymd(2020, 1, 2);
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        let certificate = PeerCertificate::read(&der).unwrap();
        let time = neuroflow_kernel::ManualClock::new();
        let config = crate::access::AccessConfig { certificates: true, ..Default::default() };
        let (_spec, access) = crate::access::access_child(config, &time.clock()).unwrap();
        let ask = async || {
            let asked = access.authenticate(Credential::Certificate(&certificate)).await;
            asked.map(|principal| principal.id().to_owned()).map_err(|error| error.code())
        };
        time.advance(Duration::from_hours(24));
        assert_eq!(ask().await, Ok("certificate:ci".to_owned()), "the last second counts");
        time.advance(Duration::from_secs(1));
        assert_eq!(ask().await, Err("certificate_expired"));
    }

    #[test]
    fn what_follows_a_certificate_spoils_it() {
        let mut der = certificate(vec![], Some("ci"), None);
        der.push(0);
        assert_eq!(PeerCertificate::read(&der), Err(CertificateError::Malformed));
    }
}
