use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

/// An authority that makes certificates.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM.
struct Pair {
    cert: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, names: Vec<SanType>) -> Pair {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Pair { cert: cert.pem(), key: key.serialize_pem() }
    }
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn settings(server: &Pair) -> TlsSettings {
    TlsSettings {
        chain_pem: server.cert.clone().into(),
        key_pem: server.key.clone().into(),
        tls12: true,
        tls13: true,
        ..TlsSettings::default()
    }
}

fn client(
    trusted: &Authority,
    own: Option<&Pair>,
    version: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for root in certificates("a test", trusted.pem.as_bytes()).unwrap() {
        roots.add(root).unwrap();
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(version)
        .unwrap()
        .with_root_certificates(roots);
    match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let chain = certificates("a test", own.cert.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    }
}

/// What was agreed on, if both sides are content and a byte comes back.
async fn speak(settings: &TlsSettings, client: ClientConfig) -> Option<(ProtocolVersion, String)> {
    let acceptor = TlsAcceptor::from(settings.server_config().unwrap());
    let (near, far) = duplex(1 << 16);
    let server = tokio::spawn(async move {
        let mut stream = acceptor.accept(far).await.ok()?;
        stream.write_all(b"!").await.ok()?;
        stream.shutdown().await.ok()
    });
    let name = ServerName::try_from("localhost").unwrap();
    let connected = TlsConnector::from(Arc::new(client)).connect(name, near).await;
    let mut read = String::new();
    let agreed = match connected {
        Err(_) => None,
        Ok(mut stream) => {
            // Under TLS 1.3 a client learns only by reading that it was turned away.
            let heard = stream.read_to_string(&mut read).await.is_ok() && read == "!";
            let (_, session) = stream.get_ref();
            let suite = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
            let version = session.protocol_version();
            heard.then(|| (version.unwrap(), suite.unwrap().to_owned()))
        }
    };
    assert_eq!(server.await.unwrap().is_some(), agreed.is_some(), "the sides disagree");
    agreed
}

#[tokio::test]
async fn clients_are_let_in_by_the_certificates_that_are_asked_for() {
    let (ours, strangers) = (Authority::new(), Authority::new());
    let server = ours.issue(vec![dns("localhost")]);
    let address = SanType::IpAddress("10.0.0.7".parse().unwrap());
    let uri = SanType::URI("spiffe://a/b".try_into().unwrap());
    let names = vec![dns("grafana.example"), address, uri];
    let (known, stranger) = (ours.issue(names.clone()), strangers.issue(names));
    let issued = Some(ours.pem.clone().into_bytes());
    let asking = |required, ca_pem: &Option<Vec<u8>>, sans: &[&str]| {
        let allowed_sans = sans.iter().map(|san| (*san).to_owned()).collect();
        Some(ClientCerts { required, ca_pem: ca_pem.clone(), allowed_sans })
    };
    #[rustfmt::skip]
    let cases = [
        // what is asked for,                              who has none, one of ours, a stranger's
        ("nothing",      None,                                            [true,  true,  true]),
        ("Request",      asking(false, &None,   &[]),                     [true,  true,  true]),
        ("RequireAny",   asking(true,  &None,   &[]),                     [false, true,  true]),
        ("IfGiven",      asking(false, &issued, &[]),                     [true,  true,  false]),
        ("Verify",       asking(true,  &issued, &[]),                     [false, true,  false]),
        ("by DNS name",  asking(true,  &issued, &["x", "grafana.example"]), [false, true, false]),
        ("by address",   asking(true,  &issued, &["10.0.0.7"]),           [false, true,  false]),
        ("by URI",       asking(true,  &issued, &["spiffe://a/b"]),       [false, true,  false]),
        ("another name", asking(true,  &issued, &["example"]),            [false, false, false]),
        ("any's name",   asking(true,  &None,   &["grafana.example"]),    [false, true,  true]),
    ];
    for (name, clients, want) in cases {
        let settings = TlsSettings { clients, ..settings(&server) };
        for version in [&[&TLS12][..], &[&TLS13]] {
            for (own, want) in [None, Some(&known), Some(&stranger)].into_iter().zip(want) {
                let spoke = speak(&settings, client(&ours, own, version)).await;
                assert_eq!(spoke.is_some(), want, "{name}, {own}", own = own.is_some());
            }
        }
    }
}

#[tokio::test]
async fn only_what_is_configured_is_spoken() {
    let ours = Authority::new();
    let good = settings(&ours.issue(vec![dns("localhost")]));
    let both = || client(&ours, None, &[&TLS12, &TLS13]);
    let old = || client(&ours, None, &[&TLS12]);
    let suite = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256";

    let spoken = speak(&good, both()).await.unwrap();
    assert_eq!(spoken.0, ProtocolVersion::TLSv1_3);
    let no13 = TlsSettings { tls13: false, ..good.clone() };
    assert_eq!(speak(&no13, both()).await.unwrap().0, ProtocolVersion::TLSv1_2);
    let no12 = TlsSettings { tls12: false, ..good.clone() };
    assert_eq!(speak(&no12, old()).await, None);
    let one = TlsSettings { cipher_suites: vec![suite.to_owned()], ..good.clone() };
    assert_eq!(speak(&one, old()).await.unwrap().1, suite);
    assert_eq!(speak(&one, both()).await.unwrap().0, ProtocolVersion::TLSv1_3);
    let curve = TlsSettings { curves: vec!["CurveP384".to_owned()], ..good };
    assert!(speak(&curve, both()).await.is_some());
    assert!(speak(&curve, Authority::new().into_client()).await.is_none(), "not trusted");
}

impl Authority {
    fn into_client(self) -> ClientConfig {
        client(&self, None, &[&TLS13])
    }
}

#[test]
fn what_is_no_certificate_or_no_pair_is_named() {
    let ours = Authority::new();
    let (one, other) = (ours.issue(Vec::new()), ours.issue(Vec::new()));
    let good = settings(&one);
    let no_ca = ClientCerts { required: true, ca_pem: Some(b"x".to_vec()), ..Default::default() };
    #[rustfmt::skip]
    let cases = [
        ("no certificate", TlsSettings { chain_pem: b"x".to_vec(), ..good.clone() },             "cert"),
        ("no key",         TlsSettings { key_pem: one.cert.clone().into(), ..good.clone() },     "key"),
        ("not a pair",     TlsSettings { key_pem: other.key.into(), ..good.clone() },            "cert"),
        ("no authority",   TlsSettings { clients: Some(no_ca), ..good.clone() },                 "client_ca"),
        ("nothing spoken", TlsSettings { tls12: false, tls13: false, ..good },                   "cipher_suites"),
    ];
    for (name, settings, subject) in cases {
        let error = settings.server_config().unwrap_err();
        assert_eq!(error.subject, subject, "{name}: {error}");
        assert!(!error.to_string().contains("PRIVATE"), "{error}");
    }
}
