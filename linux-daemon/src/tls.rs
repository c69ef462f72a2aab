//! Whose certificates are believed (RFC 5280), for all that speaks TLS: targets, receivers of metrics, and
//! endpoints of alerts.

#[cfg(test)]
pub(crate) mod testing;

use std::io;
use std::path::Path;
use std::sync::Arc;

use bufferbane_config::Section;
use bufferbane_core::failure::Failure;
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// A file of certificates that is longer holds something else, bytes.
const LONGEST_FILE: u64 = 1 << 20;

/// From whom a server's certificate has to come.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Roots {
    /// From those whom browsers believe, as this program was built with their list.
    #[default]
    Public,
    /// From one of these, and from nobody else: certificates, DER.
    Own(Arc<[Vec<u8>]>),
}

impl Roots {
    /// Reads `ca`, which stands beside an address or URL that is `secure` or is not; `None` where the
    /// address itself is wrong.
    pub(crate) fn of(s: &Section<'_>, base: &Path, secure: Option<bool>) -> Self {
        let read = s.parsed("ca", |file| Self::read(&base.join(file)));
        if s.has("ca") && secure == Some(false) {
            s.mistake("ca", "is for https:// only; remove it, or write https://");
        }
        read.unwrap_or_default()
    }

    /// # Errors
    /// What is wrong with the file.
    fn read(file: &Path) -> Result<Self, String> {
        let wrong = |why: &dyn std::fmt::Display| format!("{}: {why}", file.display());
        let size = std::fs::metadata(file).map_err(|e| wrong(&e))?.len();
        if size > LONGEST_FILE {
            return Err(wrong(&"is too long for certificates"));
        }
        let pem = std::fs::read(file).map_err(|e| wrong(&e))?;
        Self::parse(&pem).map_err(|why| wrong(&why))
    }

    fn parse(pem: &[u8]) -> Result<Self, String> {
        let mut all = Vec::new();
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|e| format!("is no PEM: {e}"))?;
            all.push(certificate.to_vec());
            let n = all.len();
            roots
                .add(certificate)
                .map_err(|e| format!("certificate {n} in it cannot be used: {e}"))?;
        }
        if all.is_empty() {
            return Err("holds no certificate; PEM is wanted, -----BEGIN CERTIFICATE-----".into());
        }
        Ok(Self::Own(all.into()))
    }

    /// For handshakes that are timed: each is a whole one, and none goes on from another.
    ///
    /// # Errors
    /// When no version of TLS can be spoken.
    pub(crate) fn client(&self) -> Result<Arc<ClientConfig>, rustls::Error> {
        let mut roots = RootCertStore::empty();
        match self {
            Self::Public => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Self::Own(all) => {
                for certificate in all.iter() {
                    roots.add(CertificateDer::from(certificate.as_slice()))?;
                }
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions()?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// For posts.
    pub(crate) fn agent(&self) -> TlsConfig {
        let roots = match self {
            Self::Public => RootCerts::WebPki,
            Self::Own(all) => {
                let all: Vec<_> = all
                    .iter()
                    .map(|c| Certificate::from_der(c).to_owned())
                    .collect();
                RootCerts::new_with_certs(&all)
            }
        };
        TlsConfig::builder().root_certs(roots).build()
    }
}

/// Why TLS failed, where it was TLS that did.
pub(crate) fn failure(e: &io::Error) -> Option<Failure> {
    use CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
        NotValidYetContext,
    };
    let e = e.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match e {
        rustls::Error::InvalidCertificate(why) => match why {
            Expired | ExpiredContext { .. } => Failure::EXPIRED,
            NotValidYet | NotValidYetContext { .. } => Failure::NOT_YET,
            NotValidForName | NotValidForNameContext { .. } => Failure::OTHER_NAME,
            _ => Failure::CERTIFICATE,
        },
        _ => Failure::TLS,
    })
}

#[cfg(test)]
mod tests {
    use super::testing::Authority;
    use super::*;

    #[test]
    fn roots_are_the_public_ones_or_those_of_a_file_and_a_wrong_file_is_told() {
        assert!(Roots::Public.client().is_ok());
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        let (one, other) = (Authority::new(), Authority::new());
        std::fs::write(&file, one.pem() + "\n" + &other.pem()).unwrap();
        let roots = Roots::read(&file).unwrap();
        assert!(matches!(&roots, Roots::Own(all) if all.len() == 2));
        assert!(roots.client().is_ok());
        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (text, why) in [
            ("", "holds no certificate"),
            ("-----BEGIN CERTIFICATE-----\n", "is no PEM"),
            (&(one.pem() + nonsense), "certificate 2 in it"),
            (&" ".repeat(1 + LONGEST_FILE as usize), "too long"),
        ] {
            std::fs::write(&file, text).unwrap();
            let said = Roots::read(&file).unwrap_err();
            assert!(said.contains(why) && said.contains("ca.pem: "), "{said}");
        }
        assert!(Roots::read(&dir.path().join("missing")).is_err());
    }
}
