//! The way to ClickHouse: HTTP through the `clickhouse` crate, over our own connections.
//!
//! Owns urls, TLS and time-outs. Promises: every call ends within its time-out; a body goes out byte for byte; with
//! several urls, the one that worked is kept until it does not. Never repeats an INSERT by itself.

use super::errors::{Class, Failure};
use crate::config::plan::{ClickHousePlan, HttpAuth, TlsPlan};
use crate::error::{Error, Result};
use base64::Engine as _;
use bytes::Bytes;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use serde::de::DeserializeOwned;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The server closes idle connections after 3 s (before 23.11); we let go of them earlier.
pub const POOL_IDLE: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);
/// Questions about tables and settings.
const QUERY_TIMEOUT: Duration = Duration::from_secs(30);

/// One or several servers behind one user.
pub struct Client {
    servers: Vec<clickhouse::Client>,
    urls: Vec<String>,
    user: String,
    /// The server that is asked; moves on when it cannot be reached, or cannot do it now.
    current: AtomicUsize,
}

impl Client {
    /// Reads certificates; connects when first asked.
    pub fn new(plan: &ClickHousePlan) -> Result<Client> {
        let http = http_client(&plan.tls)?;
        let servers = plan.urls.iter().map(|url| {
            let client = clickhouse::Client::with_http_client(http.clone())
                .with_url(url)
                .with_database(&plan.database)
                .with_compression(clickhouse::Compression::None)
                .with_product_info("weir", env!("CARGO_PKG_VERSION"));
            authenticated(client, plan)
        });
        Ok(Client {
            servers: servers.collect(),
            urls: plan.urls.clone(),
            user: plan.user.clone(),
            current: AtomicUsize::new(0),
        })
    }

    /// How many servers there are.
    pub fn servers(&self) -> usize {
        self.servers.len()
    }

    /// The user, for messages.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The url that is asked now, for messages.
    pub fn url(&self) -> &str {
        &self.urls[self.current.load(Ordering::Relaxed)]
    }

    /// The rows of a query. `T` names the columns; select numbers as text (the server quotes 64 bits or not, by
    /// version).
    pub async fn rows<T: DeserializeOwned>(&self, sql: &str) -> Result<Vec<T>, Failure> {
        let answer = self.ask(sql).await?;
        // A DEFAULT or a name may have bytes that are no text; the server hands them on as they are.
        let answer = String::from_utf8_lossy(&answer);
        let lines = answer.split('\n').filter(|line| !line.is_empty());
        let rows: Result<Vec<T>, _> = lines.map(serde_json::from_str).collect();
        rows.map_err(|error| {
            let odd =
                format!("not ClickHouse, or another version of it: its answer is not what was asked for: {error}");
            Failure::of(&clickhouse::error::Error::BadResponse(odd))
        })
    }

    /// A statement without an answer (DDL).
    pub async fn execute(&self, sql: &str) -> Result<(), Failure> {
        self.ask(sql).await.map(|_| ())
    }

    /// The raw answer of a query, in JSONEachRow. Other servers are tried when one cannot do it now.
    async fn ask(&self, sql: &str) -> Result<Bytes, Failure> {
        let mut tries_left = self.servers.len();
        loop {
            let at = self.current.load(Ordering::Relaxed);
            let query = self.servers[at].query_raw(sql).fetch_bytes("JSONEachRow");
            let answer = match query {
                Ok(mut cursor) => tokio::time::timeout(QUERY_TIMEOUT, async move { cursor.collect().await }).await,
                Err(error) => Ok(Err(error)),
            };
            tries_left -= 1;
            let failure = match answer {
                Ok(Ok(bytes)) => return Ok(bytes),
                Ok(Err(error)) => Failure::of(&error),
                Err(_) => Failure::timeout(),
            };
            self.move_on(at, &failure);
            if tries_left == 0 || failure.class != Class::Retry {
                return Err(failure);
            }
        }
    }

    /// One attempt of an INSERT: the statement, its settings, its body as it is. Ends within `timeout`.
    pub async fn insert(
        &self,
        statement: &str,
        settings: &[(String, String)],
        body: Bytes,
        timeout: Duration,
    ) -> Result<(), Failure> {
        let at = self.current.load(Ordering::Relaxed);
        let mut insert = self.servers[at].insert_formatted_with(statement);
        for (name, value) in settings {
            insert = insert.with_setting(name, value);
        }
        let attempt = async move {
            insert.send(body).await?;
            insert.end().await
        };
        let failure = match tokio::time::timeout(timeout, attempt).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => Failure::of(&error),
            Err(_) => Failure::timeout(),
        };
        self.move_on(at, &failure);
        Err(failure)
    }

    /// Turns to the next server when this one cannot be reached, or says that it cannot do now what it may do later:
    /// read-only without its keeper, overloaded, shutting down. Another one may be better off.
    fn move_on(&self, at: usize, failure: &Failure) {
        if failure.class == Class::Retry {
            let next = (at + 1) % self.servers.len();
            // Whoever noticed first has moved on already.
            let _ = self.current.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

fn authenticated(client: clickhouse::Client, plan: &ClickHousePlan) -> clickhouse::Client {
    match plan.auth {
        HttpAuth::Headers => client.with_user(&plan.user).with_password(&plan.password.0),
        HttpAuth::Basic => {
            let pair = format!("{}:{}", plan.user, plan.password.0);
            let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
            client.with_header("Authorization", format!("Basic {encoded}"))
        }
    }
}

type HttpClient<B> = hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, B>;

fn http_client<B>(tls: &TlsPlan) -> Result<HttpClient<B>>
where
    B: hyper::body::Body + Send,
    B::Data: Send,
{
    let mut tcp = HttpConnector::new();
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_keepalive(Some(TCP_KEEPALIVE));
    tcp.set_nodelay(true);
    tcp.enforce_http(false);
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(tls_config(tls)?)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Ok(hyper_util::client::legacy::Client::builder(TokioExecutor::new()).pool_idle_timeout(POOL_IDLE).build(https))
}

fn tls_config(tls: &TlsPlan) -> Result<rustls::ClientConfig> {
    let broken = |what: String| Error::stop("tls", what);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| broken(format!("TLS cannot be set up: {error}")))?;
    let builder = match &tls.ca {
        _ if tls.skip_verification => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer { provider }))
        }
        Some(path) => builder.with_root_certificates(roots(path)?),
        None => match builder.clone().with_native_roots() {
            Ok(builder) => builder,
            // A bare container has no certificates of its own.
            Err(_) => builder.with_webpki_roots(),
        },
    };
    let (Some(cert), Some(key)) = (&tls.cert, &tls.key) else {
        return Ok(builder.with_no_client_auth());
    };
    let key_der = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| broken(format!("cannot read the client key {}: {error}", key.display())))?;
    builder.with_client_auth_cert(certificates(cert)?, key_der).map_err(|error| {
        broken(format!("certificate {} and key {} do not fit: {error}", cert.display(), key.display()))
    })
}

fn roots(path: &Path) -> Result<rustls::RootCertStore> {
    let mut store = rustls::RootCertStore::empty();
    for certificate in certificates(path)? {
        store
            .add(certificate)
            .map_err(|error| Error::stop("tls", format!("{} is no CA certificate: {error}", path.display())))?;
    }
    Ok(store)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let broken = |what: String| Error::stop("tls", format!("cannot read certificates from {}: {what}", path.display()));
    let read = CertificateDer::pem_file_iter(path).map_err(|error| broken(error.to_string()))?;
    let certificates: Vec<_> = read.collect::<Result<_, _>>().map_err(|error| broken(error.to_string()))?;
    if certificates.is_empty() {
        return Err(broken("there is none in it".to_owned()));
    }
    Ok(certificates)
}

/// `skip_verification`: whoever answers is believed.
#[derive(Debug)]
struct AnyServer {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
