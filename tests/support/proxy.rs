//! A proxy between weir and ClickHouse that loses things on command.
//!
//! Passes whole HTTP exchanges, one at a time per connection, and knows only what it needs of HTTP: where a
//! message ends. What goes wrong is decided per request, by a plan that the test sets.

use super::PATIENCE;
use super::kafka::Certificates;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What happens to one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Pass,
    /// The server never sees it; the connection breaks.
    LoseRequest,
    /// The server sees half of the body; the connection breaks.
    CutRequest,
    /// The server answers, the client never hears; the connection breaks.
    LoseAnswer,
    /// The answer comes later.
    Delay(Duration),
    /// The answer is this status, with this body; the server never sees the request.
    Answer(u16, &'static str),
}

pub struct Proxy {
    scheme: &'static str,
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    plan: Mutex<Plan>,
    inserts: AtomicU64,
    last_request: Mutex<String>,
}

struct Plan {
    /// For the next inserts, in order; then `after`.
    next: VecDeque<Fate>,
    after: Fate,
    /// New connections are closed at once, and those that are there break at their next request.
    outage: bool,
}

impl Proxy {
    /// In front of `url` (`http://127.0.0.1:PORT`).
    pub fn start(url: &str) -> Proxy {
        Proxy::listen(url, "http", |shared, client| shared.serve(client))
    }

    /// The same over TLS, with the certificate that the authority made for a server; `asks` for the client's.
    pub fn start_tls(url: &str, certificates: &Certificates, asks: bool) -> Proxy {
        let config = server_config(certificates, asks);
        Proxy::listen(url, "https", move |shared, client| {
            let session = ServerConnection::new(Arc::clone(&config)).expect("the configuration is whole");
            shared.serve(StreamOwned::new(session, client))
        })
    }

    fn listen(
        url: &str,
        scheme: &'static str,
        serve: impl Fn(&Shared, TcpStream) -> std::io::Result<()> + Clone + Send + 'static,
    ) -> Proxy {
        let upstream = url.strip_prefix("http://").expect("a plain HTTP address").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let plan = Mutex::new(Plan { next: VecDeque::new(), after: Fate::Pass, outage: false });
        let shared = Arc::new(Shared { upstream, plan, inserts: AtomicU64::new(0), last_request: Mutex::default() });
        let for_thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (shared, serve) = (Arc::clone(&for_thread), serve.clone());
                std::thread::spawn(move || {
                    client.set_read_timeout(Some(PATIENCE))?;
                    client.set_nodelay(true)?;
                    serve(&shared, client)
                });
            }
        });
        Proxy { scheme, port, shared }
    }

    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    /// Line and headers of the newest request.
    pub fn last_request(&self) -> String {
        self.shared.last_request.lock().unwrap().clone()
    }

    /// What happens to the next inserts, in order. Other requests pass.
    pub fn next_inserts(&self, fates: impl IntoIterator<Item = Fate>) {
        self.shared.plan.lock().unwrap().next.extend(fates);
    }

    /// What happens to every insert after those.
    pub fn every_insert(&self, fate: Fate) {
        self.shared.plan.lock().unwrap().after = fate;
    }

    /// Nothing goes through, inserts or not.
    pub fn outage(&self, begins: bool) {
        self.shared.plan.lock().unwrap().outage = begins;
    }

    /// How many inserts came so far, whatever became of them.
    pub fn inserts(&self) -> u64 {
        self.shared.inserts.load(Ordering::SeqCst)
    }
}

impl Shared {
    /// Breaks the connection by returning.
    fn serve(&self, client: impl Read + Write) -> std::io::Result<()> {
        let mut client = BufReader::new(client);
        let mut server: Option<TcpStream> = None;
        while let Some(request) = Message::read(&mut client)? {
            *self.last_request.lock().unwrap() = String::from_utf8_lossy(&request.head).into_owned();
            let fate = self.fate_of(&request);
            match fate {
                Fate::LoseRequest => return Ok(()),
                Fate::Answer(status, body) => {
                    let length = body.len();
                    let answer = format!("HTTP/1.1 {status} Planned\r\ncontent-length: {length}\r\n\r\n{body}");
                    client.get_mut().write_all(answer.as_bytes())?;
                    continue;
                }
                Fate::CutRequest => {
                    let mut server = TcpStream::connect(&self.upstream)?;
                    server.write_all(&request.head)?;
                    server.write_all(&request.body[..request.body.len() / 2])?;
                    return server.shutdown(Shutdown::Both);
                }
                Fate::Pass | Fate::LoseAnswer | Fate::Delay(_) => {}
            }
            let answer = self.exchange(&mut server, &request)?;
            match fate {
                Fate::LoseAnswer => return Ok(()),
                Fate::Delay(time) => std::thread::sleep(time),
                _ => {}
            }
            client.get_mut().write_all(&[answer.head, answer.body].concat())?;
            client.get_mut().flush()?;
        }
        Ok(())
    }

    fn fate_of(&self, request: &Message) -> Fate {
        let mut plan = self.plan.lock().unwrap();
        if plan.outage {
            return Fate::LoseRequest;
        }
        if !request.is_insert() {
            return Fate::Pass;
        }
        self.inserts.fetch_add(1, Ordering::SeqCst);
        plan.next.pop_front().unwrap_or(plan.after)
    }

    /// Over the connection that is open, or a new one when the server has closed it meanwhile.
    fn exchange(&self, server: &mut Option<TcpStream>, request: &Message) -> std::io::Result<Message> {
        let reused = server.is_some();
        match self.try_exchange(server, request) {
            Err(_) if reused => {
                *server = None;
                self.try_exchange(server, request)
            }
            result => result,
        }
    }

    fn try_exchange(&self, server: &mut Option<TcpStream>, request: &Message) -> std::io::Result<Message> {
        let stream = match server {
            Some(stream) => stream,
            None => server.insert(TcpStream::connect(&self.upstream)?),
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&request.head)?;
        stream.write_all(&request.body)?;
        let answer = Message::read(&mut BufReader::new(stream.try_clone()?))?;
        answer.ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
    }
}

fn server_config(certificates: &Certificates, asks: bool) -> Arc<ServerConfig> {
    let read = |path| CertificateDer::from_pem_file(path).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = match asks {
        false => builder.unwrap().with_no_client_auth(),
        true => {
            let mut roots = RootCertStore::empty();
            roots.add(read(certificates.ca())).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.unwrap().with_client_cert_verifier(verifier)
        }
    };
    let key = PrivateKeyDer::from_pem_file(certificates.server_key()).unwrap();
    Arc::new(builder.with_single_cert(vec![read(certificates.server_certificate())], key).unwrap())
}

/// One HTTP message, as it came.
struct Message {
    head: Vec<u8>,
    body: Vec<u8>,
}

impl Message {
    /// `None` when the connection was closed before it began. Without a length or chunks there is no body.
    fn read(reader: &mut impl BufRead) -> std::io::Result<Option<Message>> {
        let mut head = Vec::new();
        let (mut length, mut chunked) = (0, false);
        loop {
            let start = head.len();
            if reader.read_until(b'\n', &mut head)? == 0 {
                return if head.is_empty() { Ok(None) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) };
            }
            let line = String::from_utf8_lossy(&head[start..]).trim().to_ascii_lowercase();
            match line.split_once(':') {
                Some(("content-length", value)) => length = value.trim().parse().unwrap_or(0),
                Some(("transfer-encoding", value)) => chunked = value.contains("chunked"),
                None if line.is_empty() => break,
                _ => {}
            }
        }
        let mut body = Vec::new();
        if chunked {
            read_chunks(reader, &mut body)?;
        } else {
            body.resize(length, 0);
            reader.read_exact(&mut body)?;
        }
        Ok(Some(Message { head, body }))
    }

    /// The statement stands in the address or begins the body.
    fn is_insert(&self) -> bool {
        let line_end = self.head.iter().position(|byte| *byte == b'\r').unwrap_or(0);
        let line = String::from_utf8_lossy(&self.head[..line_end]).to_ascii_uppercase();
        let begins = |text: &[u8]| text.get(..6).is_some_and(|word| word.eq_ignore_ascii_case(b"INSERT"));
        line.contains("QUERY=INSERT") || begins(&self.body)
    }
}

/// Keeps the chunks as they came, sizes and all.
fn read_chunks(reader: &mut impl BufRead, body: &mut Vec<u8>) -> std::io::Result<()> {
    loop {
        let start = body.len();
        if reader.read_until(b'\n', body)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let size = String::from_utf8_lossy(&body[start..]);
        let size = size.trim().split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16).map_err(|_| std::io::ErrorKind::InvalidData)?;
        // The data and the line break behind it; the last chunk is empty.
        let begin = body.len();
        body.resize(begin + size + 2, 0);
        reader.read_exact(&mut body[begin..])?;
        if size == 0 {
            return Ok(());
        }
    }
}
