//! TLS with an authority of one's own, certificates of the client, both ways to log in, and several servers.

use crate::fixture::{Database, connection};
use crate::support::clickhouse::{ClickHouse, USER};
use crate::support::kafka::Certificates;
use crate::support::proxy::Proxy;
use std::sync::Arc;
use weir::config::plan::{ClickHousePlan, HttpAuth, Secret, TlsPlan};
use weir::error::Kind;
use weir::sink::clickhouse::client::Client;
use weir::sink::clickhouse::schema::read_server;
use weir::sink::{Sink, Token};

/// Certificates in a folder of their own.
struct Authority {
    _folder: tempfile::TempDir,
    certificates: Certificates,
}

impl Authority {
    fn new() -> Authority {
        let folder = tempfile::tempdir().unwrap();
        let certificates = Certificates::make(&folder.path().join("tls"));
        Authority { _folder: folder, certificates }
    }

    /// Trusts this authority and shows no certificate.
    fn trusted(&self) -> TlsPlan {
        TlsPlan { ca: Some(self.certificates.ca()), ..TlsPlan::default() }
    }

    /// Shows a certificate, too.
    fn known(&self) -> TlsPlan {
        let (cert, key) = (self.certificates.client_certificate(), self.certificates.client_key());
        TlsPlan { cert: Some(cert), key: Some(key), ..self.trusted() }
    }
}

fn plan(url: String, tls: TlsPlan) -> ClickHousePlan {
    ClickHousePlan { tls, ..connection(&[url], "default") }
}

/// What the server says to a question, or what became of it.
async fn asked(plan: &ClickHousePlan) -> Result<(), String> {
    let client = Client::new(plan).map_err(|error| error.message)?;
    match read_server(&client).await {
        Ok(server) => {
            assert!(!server.settings.is_empty());
            Ok(())
        }
        Err(failure) => Err(failure.into_error("asking").message),
    }
}

#[tokio::test]
async fn blocks_go_through_tls_with_an_authority_of_ones_own() {
    let authority = Authority::new();
    let mut database = Database::new("test_tls");
    let proxy = Proxy::start_tls(&database.engine.url(), &authority.certificates, false);
    database.client = Arc::new(Client::new(&plan(proxy.url(), authority.trusted())).unwrap());
    let table = database.table("id UInt32, s String").await;
    let records: Vec<String> = (0..20_000).map(|at| format!("{{\"id\":{at},\"s\":\"number {at}\"}}")).collect();
    table.insert("tls", &records).await;
    assert_eq!(database.run("SELECT count(), sum(id) FROM $.t"), format!("20000\t{}", 19_999 * 10_000));
    assert_eq!(proxy.inserts(), 1);
}

#[tokio::test]
async fn an_authority_that_is_not_known_is_told_and_skip_verification_believes_anybody() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let proxy = Proxy::start_tls(&ClickHouse::shared().url(), &authority.certificates, false);
    for unknown in [TlsPlan::default(), stranger.trusted()] {
        let said = asked(&plan(proxy.url(), unknown)).await.unwrap_err();
        assert!(said.contains("ClickHouse cannot be reached") && said.contains("certificate"), "{said}");
    }
    let anybody = TlsPlan { skip_verification: true, ..TlsPlan::default() };
    assert_eq!(asked(&plan(proxy.url(), anybody)).await, Ok(()));
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_gets_ours_and_refuses_who_has_none() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let proxy = Proxy::start_tls(&ClickHouse::shared().url(), &authority.certificates, true);
    assert_eq!(asked(&plan(proxy.url(), authority.known())).await, Ok(()));
    let of_another = TlsPlan { ca: authority.trusted().ca, ..stranger.known() };
    for refused in [authority.trusted(), of_another] {
        let said = asked(&plan(proxy.url(), refused)).await.unwrap_err();
        assert!(said.contains("ClickHouse cannot be reached"), "{said}");
    }
}

#[tokio::test]
async fn files_that_are_no_certificates_are_named() {
    let authority = Authority::new();
    let absent = authority.certificates.ca().with_file_name("absent.pem");
    let key = authority.certificates.client_key();
    for tls in [
        TlsPlan { ca: Some(absent.clone()), ..TlsPlan::default() },
        TlsPlan { ca: Some(key.clone()), ..TlsPlan::default() },
        TlsPlan { cert: Some(absent.clone()), ..authority.known() },
        TlsPlan { key: Some(absent.clone()), ..authority.known() },
        // Of another certificate.
        TlsPlan { key: Some(authority.certificates.server_key()), ..authority.known() },
    ] {
        let error = Client::new(&plan("https://127.0.0.1:1".to_owned(), tls)).err().expect("it is refused");
        assert_eq!((error.kind, error.code.as_str()), (Kind::Stop, "tls"));
        let named = [".pem", ".key"].iter().any(|suffix| error.message.contains(suffix));
        assert!(named, "{error}");
    }
}

#[tokio::test]
async fn user_and_password_go_by_either_way() {
    let server = ClickHouse::start_with_password("open sesame");
    let proxy = Proxy::start(&server.url());
    for (auth, header) in [(HttpAuth::Basic, "authorization: basic "), (HttpAuth::Headers, "x-clickhouse-key: open")] {
        let with = |password: &str| ClickHousePlan {
            auth,
            user: USER.to_owned(),
            password: Secret(password.to_owned()),
            ..plan(proxy.url(), TlsPlan::default())
        };
        assert_eq!(asked(&with("open sesame")).await, Ok(()));
        assert!(proxy.last_request().to_ascii_lowercase().contains(header), "{}", proxy.last_request());
        let said = asked(&with("wrong")).await.unwrap_err();
        assert!(said.contains("ClickHouse refused") && said.contains("516"), "{said}");
    }
}

#[tokio::test]
async fn an_insert_moves_on_to_the_next_server_and_stays_there() {
    let mut database = Database::new("test_failover");
    let proxies = [Proxy::start(&database.engine.url()), Proxy::start(&database.engine.url())];
    let urls = proxies.each_ref().map(Proxy::url);
    database.client = Arc::new(Client::new(&connection(&urls, &database.name)).unwrap());
    let table = database.table("id UInt32").await;
    let (block, _) = table.encode(&[r#"{"id":1}"#]);
    let (sink, block) = (table.sink(), block.unwrap());
    let token = |text: &str| Token(text.to_owned());
    sink.insert(&token("a"), &block).await.unwrap();
    proxies[0].outage(true);
    let away = sink.insert(&token("b"), &block).await.unwrap_err();
    assert_eq!((away.kind, away.code.as_str()), (Kind::Retry, "network"), "{away}");
    for text in ["b", "c"] {
        sink.insert(&token(text), &block).await.unwrap();
    }
    assert_eq!((proxies[0].inserts(), proxies[1].inserts()), (1, 2));
    assert_eq!(database.run("SELECT count() FROM $.t"), "3");
}
