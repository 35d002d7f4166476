//! The cluster's certificate authority and what it signs: the server's certificate and clients' identities.
//! Makes and reads PEM; where it is kept is the composition root's business.

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Ten years: a CA that ends takes the cluster with it.
const CA_DAYS: i64 = 3650;
/// A year, as kubeadm has it.
const LEAF_DAYS: i64 = 365;
/// Clocks of joining machines may be behind.
const BACKDATE_HOURS: i64 = 24;

/// A certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The generator refused.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// The text is no certificate or key.
    #[error("cannot read a certificate or key: {0}")]
    Read(String),
}

/// A certificate and its key, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

impl Identity {
    /// Both as TLS wants them.
    ///
    /// # Errors
    /// The texts are broken.
    pub fn der(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), PkiError> {
        let read = |e: rustls_pki_types::pem::Error| PkiError::Read(e.to_string());
        let chain =
            CertificateDer::pem_slice_iter(self.certificate.as_bytes()).collect::<Result<Vec<_>, _>>().map_err(read)?;
        if chain.is_empty() {
            return Err(PkiError::Read("no certificate in the text".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(read)?;
        Ok((chain, key))
    }
}

/// The certificate authority.
pub struct Authority {
    identity: Identity,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn generate(now: jiff::Timestamp) -> Result<Self, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        // The second makes each cluster's CA another, so that a kubeconfig of an old cluster is told apart.
        params.distinguished_name.push(DnType::CommonName, format!("coracle-ca@{}", now.as_second()));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        set_validity(&mut params, now, CA_DAYS);
        let certificate = params.self_signed(&key)?;
        let identity = Identity { certificate: certificate.pem(), key: key.serialize_pem() };
        Self::load(identity)
    }

    /// One that was kept.
    ///
    /// # Errors
    /// The texts are broken.
    pub fn load(identity: Identity) -> Result<Self, PkiError> {
        let key = KeyPair::from_pem(&identity.key)?;
        let issuer = Issuer::from_ca_cert_pem(&identity.certificate, key)?;
        Ok(Self { identity, issuer })
    }

    /// Its certificate and key.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// A certificate for a server reached under these names and addresses.
    ///
    /// # Errors
    /// A name is none.
    pub fn server(&self, names: &[String], addresses: &[IpAddr], now: jiff::Timestamp) -> Result<Identity, PkiError> {
        let mut params = CertificateParams::new(names.to_vec())?;
        params.subject_alt_names.extend(addresses.iter().map(|a| SanType::IpAddress(*a)));
        params.distinguished_name.push(DnType::CommonName, "coracle-apiserver");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params, now)
    }

    /// A certificate that proves a user's name and group.
    ///
    /// # Errors
    /// The generator refuses.
    pub fn client(&self, name: &str, group: &str, now: jiff::Timestamp) -> Result<Identity, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params, now)
    }

    fn sign(&self, mut params: CertificateParams, now: jiff::Timestamp) -> Result<Identity, PkiError> {
        let key = KeyPair::generate()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, LEAF_DAYS);
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

fn set_validity(params: &mut CertificateParams, now: jiff::Timestamp, days: i64) {
    let day = |shift_hours: i64| {
        let at = now.checked_add(jiff::SignedDuration::from_hours(shift_hours)).unwrap_or(now);
        let date = at.to_zoned(jiff::tz::TimeZone::UTC).date();
        rcgen::date_time_ymd(
            i32::from(date.year()),
            u8::try_from(date.month()).unwrap_or(1),
            u8::try_from(date.day()).unwrap_or(1),
        )
    };
    params.not_before = day(-BACKDATE_HOURS);
    params.not_after = day(days * 24);
}

/// When a certificate ends.
///
/// # Errors
/// The text is no certificate.
pub fn expiry(pem: &str) -> Result<jiff::Timestamp, PkiError> {
    use x509_parser::prelude::{FromDer as _, X509Certificate};
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| PkiError::Read(e.to_string()))?;
    let (_, certificate) = X509Certificate::from_der(&der).map_err(|e| PkiError::Read(e.to_string()))?;
    jiff::Timestamp::from_second(certificate.validity().not_after.timestamp())
        .map_err(|e| PkiError::Read(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::authenticate::certificate_user;

    #[test]
    fn a_client_certificate_proves_name_and_group() {
        let now = jiff::Timestamp::from_second(1_790_000_000).unwrap();
        let ca = Authority::generate(now).unwrap();
        let again = Authority::load(ca.identity().clone()).unwrap();
        let identity = again.client("system:node:a", "system:nodes", now).unwrap();
        let (chain, _) = identity.der().unwrap();
        let user = certificate_user(&chain[0]).unwrap();
        assert_eq!(user.name, "system:node:a");
        assert!(user.is_in("system:nodes") && user.is_in("system:authenticated"));
        let days = (expiry(&identity.certificate).unwrap().as_second() - now.as_second()) / 86_400;
        assert!((LEAF_DAYS - 1..=LEAF_DAYS).contains(&days), "{days}");
    }
}
