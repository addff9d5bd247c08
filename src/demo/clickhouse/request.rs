//! One HTTP request, read as the server reads it: the statement, its data, its settings, who asks.
//!
//! A parameter of the address that is no word of the interface itself is a setting, as on the server.

use super::answer::Exception;
use super::frames;
use axum::body::Bytes;
use axum::extract::Query;
use axum::http::{HeaderMap, Method, Uri, header};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use std::io::Read;

/// More than any block of ours, less than the machine.
const DECODED_BYTES_MAX: u64 = 2 << 30;

/// Words of the interface that change nothing here: an answer is always complete before it is sent, and there
/// are no sessions, roles or quotas.
const WITHOUT_EFFECT: [&str; 9] = [
    "wait_end_of_query",
    "buffer_size",
    "session_id",
    "session_timeout",
    "session_check",
    "role",
    "quota_key",
    "stacktrace",
    "client_protocol_version",
];

/// What a request asks for.
#[derive(Debug, Default)]
pub struct Request {
    /// The statement's text; for an INSERT with data inside, with it.
    pub text: Vec<u8>,
    /// What came as the body beside a `query=` in the address.
    pub data: Bytes,
    pub database: Option<String>,
    pub default_format: Option<String>,
    pub query_id: Option<String>,
    pub user: Option<String>,
    pub password: Option<String>,
    /// In the order of the address.
    pub settings: Vec<(String, String)>,
    /// Names without their `param_`.
    pub parameters: Vec<(String, String)>,
}

impl Request {
    pub fn read(method: &Method, uri: &Uri, headers: &HeaderMap, body: Bytes) -> Result<Request, Exception> {
        let mut request = Request::default();
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| Exception::new(36, "BAD_ARGUMENTS", format!("The address is not readable: {error}.")))?;
        let mut decompress = false;
        for (name, value) in pairs.0 {
            match name.as_str() {
                "decompress" => decompress = value == "1",
                "compress" if value == "1" => {
                    let sentence = "The embedded ClickHouse does not compress answers: leave `compress` out.";
                    return Err(Exception::new(48, "NOT_IMPLEMENTED", sentence));
                }
                _ => request.take(name, value),
            }
        }
        request.authenticate(headers);
        if method == Method::GET {
            request.settings.push(("readonly".to_owned(), "2".to_owned()));
        }
        let mut body = decode(headers, body)?;
        if decompress {
            let data = frames::decompress(&body);
            body = data.map_err(|error| Exception::new(271, "CANNOT_DECOMPRESS", format!("{error}.")))?.into();
        }
        match boundary(headers) {
            Some(boundary) => request.take_fields(&body, &boundary),
            None if request.text.is_empty() => request.text = body.into(),
            None => request.data = body,
        }
        Ok(request)
    }

    fn take(&mut self, name: String, value: String) {
        match name.as_str() {
            "query" => self.text = value.into_bytes(),
            "database" => self.database = Some(value).filter(|name| !name.is_empty()),
            "default_format" => self.default_format = Some(value),
            "query_id" => self.query_id = Some(value),
            "user" => self.user = Some(value),
            "password" => self.password = Some(value),
            "compress" => {}
            word if WITHOUT_EFFECT.contains(&word) => {}
            _ => match name.strip_prefix("param_") {
                Some(parameter) => self.parameters.push((parameter.to_owned(), value)),
                None => self.settings.push((name, value)),
            },
        }
    }

    /// Headers win over the address, as the server's own order has it.
    fn authenticate(&mut self, headers: &HeaderMap) {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        for (header, place) in [
            ("x-clickhouse-user", &mut self.user),
            ("x-clickhouse-key", &mut self.password),
            ("x-clickhouse-database", &mut self.database),
            ("x-clickhouse-format", &mut self.default_format),
        ] {
            if let Some(value) = text(header) {
                *place = Some(value);
            }
        }
        let basic = text("authorization")
            .and_then(|value| BASE64_STANDARD.decode(value.strip_prefix("Basic ")?.trim()).ok())
            .and_then(|pair| String::from_utf8(pair).ok());
        if let Some((user, password)) = basic.as_deref().and_then(|pair| pair.split_once(':')) {
            self.user = Some(user.to_owned());
            self.password = Some(password.to_owned());
        }
    }

    /// The fields of a form: `query` and `param_…`, which is how the `clickhouse` crate sends parameters.
    fn take_fields(&mut self, body: &[u8], boundary: &str) {
        let mut rest = body;
        let delimiter = format!("--{boundary}").into_bytes();
        while let Some(start) = find(rest, &delimiter) {
            rest = &rest[start + delimiter.len()..];
            let Some(head_end) = find(rest, b"\r\n\r\n") else { return };
            let (head, value) = (String::from_utf8_lossy(&rest[..head_end]), &rest[head_end + 4..]);
            let Some(end) = find(value, &[b"\r\n".as_slice(), &delimiter].concat()) else { return };
            if let Some((_, name)) =
                head.split_once("name=\"").and_then(|(_, name)| Some(("", name.split_once('"')?.0)))
            {
                self.take(name.to_owned(), String::from_utf8_lossy(&value[..end]).into_owned());
            }
            rest = &value[end..];
        }
    }
}

/// The body without its `Content-Encoding`.
fn decode(headers: &HeaderMap, body: Bytes) -> Result<Bytes, Exception> {
    let encoding = headers.get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?"));
    let mut reader: Box<dyn Read + '_> = match encoding {
        None | Some("" | "identity") => return Ok(body),
        Some("lz4") => Box::new(lz4_flex::frame::FrameDecoder::new(body.as_ref())),
        Some("zstd") => Box::new(zstd::Decoder::new(body.as_ref()).map_err(|error| broken(&error))?),
        Some(other) => {
            let sentence = format!("The embedded ClickHouse reads Content-Encoding lz4 and zstd, not {other}.");
            return Err(Exception::new(48, "NOT_IMPLEMENTED", sentence));
        }
    };
    let mut data = Vec::new();
    reader.by_ref().take(DECODED_BYTES_MAX).read_to_end(&mut data).map_err(|error| broken(&error))?;
    drop(reader);
    Ok(data.into())
}

fn broken(error: &std::io::Error) -> Exception {
    Exception::new(271, "CANNOT_DECOMPRESS", format!("The body cannot be decompressed: {error}."))
}

fn boundary(headers: &HeaderMap) -> Option<String> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let boundary = kind.strip_prefix("multipart/form-data")?.split_once("boundary=")?.1;
    Some(boundary.trim_matches('"').to_owned())
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(uri: &str, headers: &[(&'static str, &str)], body: &'static [u8]) -> Request {
        let mut map = HeaderMap::new();
        headers.iter().for_each(|(name, value)| drop(map.insert(*name, value.parse().unwrap())));
        Request::read(&Method::POST, &uri.parse().unwrap(), &map, Bytes::from_static(body)).unwrap()
    }

    #[test]
    fn what_is_no_word_of_the_interface_is_a_setting() {
        let request = read("/?query=SELECT%201&database=d&max_threads=2&param_x=y%26z&wait_end_of_query=1", &[], b"");
        assert_eq!(request.text, b"SELECT 1");
        assert_eq!(request.database.as_deref(), Some("d"));
        assert_eq!(request.settings, [("max_threads".to_owned(), "2".to_owned())]);
        assert_eq!(request.parameters, [("x".to_owned(), "y&z".to_owned())]);
    }

    #[test]
    fn the_body_is_the_statement_or_its_data() {
        assert_eq!(read("/", &[], b"SELECT 1").text, b"SELECT 1");
        let request = read("/?query=INSERT+INTO+t+FORMAT+CSV", &[], b"1\n");
        assert_eq!((request.text.as_slice(), request.data.as_ref()), (&b"INSERT INTO t FORMAT CSV"[..], &b"1\n"[..]));
    }

    #[test]
    fn a_form_carries_statement_and_parameters() {
        let body = b"--b\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\nSELECT {x:String}\r\n--b\r\nContent-Disposition: form-data; name=\"param_x\"\r\n\r\na\r\nb\r\n--b--\r\n";
        let request = read("/", &[("content-type", "multipart/form-data; boundary=b")], body);
        assert_eq!(request.text, b"SELECT {x:String}");
        assert_eq!(request.parameters, [("x".to_owned(), "a\r\nb".to_owned())]);
    }

    #[test]
    fn user_and_password_come_by_header_or_basic() {
        let by_header = read("/?user=x", &[("X-ClickHouse-User", "me"), ("X-ClickHouse-Key", "p")], b"");
        assert_eq!((by_header.user.as_deref(), by_header.password.as_deref()), (Some("me"), Some("p")));
        let basic = read("/", &[("Authorization", "Basic bWU6cDpx")], b"");
        assert_eq!((basic.user.as_deref(), basic.password.as_deref()), (Some("me"), Some("p:q")));
    }
}
