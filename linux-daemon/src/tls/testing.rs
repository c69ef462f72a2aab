//! Servers of tests, and who vouches for them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::Roots;

/// Signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// From which year to which a certificate is valid.
pub(crate) type Years = [i32; 2];
pub(crate) const VALID: Years = [2000, 3000];

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let name = "an authority of a test";
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// Its own certificate.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// It is believed, and nobody else.
    pub(crate) fn roots(&self) -> Roots {
        Roots::Own([self.0.der().to_vec()].into())
    }

    /// A server that is called `name` and has a certificate for that.
    pub(crate) fn server(&self, name: &str, years: Years) -> Arc<ServerConfig> {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        let [from, to] = years.map(|year| rcgen::date_time_ymd(year, 1, 1));
        (params.not_before, params.not_after) = (from, to);
        let key = KeyPair::generate().unwrap();
        let signed = params.signed_by(&key, &self.0).unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![signed.der().clone()], key.into())
            .unwrap();
        Arc::new(config)
    }
}

/// Takes connections for as long as the test lives, and gives each to `serve`.
pub(crate) fn listen(serve: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            serve(stream.unwrap());
        }
    });
    at
}

/// The other end of a connection to `server`; a handshake that fails shows when it is used.
pub(crate) fn accept(server: &Arc<ServerConfig>, stream: TcpStream) -> impl Read + Write + use<> {
    let connection = ServerConnection::new(Arc::clone(server)).unwrap();
    StreamOwned::new(connection, stream)
}
