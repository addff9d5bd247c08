//! Who may ask for what: payloads and changes need the token or the loopback address, and no foreign page may ask
//! through a browser.
//!
//! Owns the rules of `http.token`, `http.writes` and `http.hosts`. Promises: a token is compared in a time that does
//! not depend on how much of it is right; a name in `Host` that is not ours is refused (a page of the world can point
//! a name at this machine, an address it cannot forge).

use super::Watched;
use super::problem::Problem;
use crate::config::plan::{HttpPlan, HttpWrites};
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use std::net::{IpAddr, SocketAddr};

/// Whoever is no foreign page: scrapers and probes use addresses and names of their own.
pub struct MayProbe(pub Watched);

/// A caller who may look at what is no payload.
pub struct MayLook(pub Watched);

/// A caller who may read payloads.
pub struct MayRead(pub Watched);

/// A caller who may change something.
pub struct MayWrite(pub Watched);

impl FromRequestParts<Watched> for MayProbe {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, watched: &Watched) -> Result<MayProbe, Problem> {
        is_no_foreign_page(&parts.headers)?;
        Ok(MayProbe(watched.clone()))
    }
}

impl FromRequestParts<Watched> for MayLook {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, watched: &Watched) -> Result<MayLook, Problem> {
        is_ours(&watched.http, &parts.headers)?;
        Ok(MayLook(watched.clone()))
    }
}

impl FromRequestParts<Watched> for MayRead {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, watched: &Watched) -> Result<MayRead, Problem> {
        is_ours(&watched.http, &parts.headers)?;
        may_read_payloads(&watched.http, peer(parts), &parts.headers)?;
        Ok(MayRead(watched.clone()))
    }
}

impl FromRequestParts<Watched> for MayWrite {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, watched: &Watched) -> Result<MayWrite, Problem> {
        is_ours(&watched.http, &parts.headers)?;
        may_write(&watched.http, peer(parts), &parts.headers)?;
        Ok(MayWrite(watched.clone()))
    }
}

fn peer(parts: &Parts) -> SocketAddr {
    parts.extensions.get::<ConnectInfo<SocketAddr>>().expect("the listener says who calls").0
}

/// Whether payloads may be read.
fn may_read_payloads(http: &HttpPlan, peer: SocketAddr, headers: &HeaderMap) -> Result<(), Problem> {
    if peer.ip().is_loopback() || has_token(http, headers) {
        return Ok(());
    }
    let how = match &http.token {
        Some(_) => "send the token (`Authorization: Bearer …`)",
        None => "ask from the machine itself, or set `http.token`",
    };
    Err(Problem::new(401, format!("payloads are not for everybody: {how}")))
}

/// Whether something may be changed.
fn may_write(http: &HttpPlan, peer: SocketAddr, headers: &HeaderMap) -> Result<(), Problem> {
    let allowed = match (http.writes, &http.token) {
        (HttpWrites::Anyone, _) => true,
        (HttpWrites::Nobody, _) => return Err(Problem::new(403, "`http.writes: nobody`: nothing is changed here")),
        (HttpWrites::Token, _) | (HttpWrites::Loopback, Some(_)) => has_token(http, headers),
        (HttpWrites::Loopback, None) => peer.ip().is_loopback(),
    };
    match allowed {
        true => Ok(()),
        false if http.token.is_some() => Err(Problem::new(401, "send the token (`Authorization: Bearer …`)")),
        false => Err(Problem::new(403, "changes are taken from the machine itself only: set `http.token` for others")),
    }
}

/// Refuses names that are not ours, and pages of other sites.
fn is_ours(http: &HttpPlan, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(host) = text(headers, "host") else {
        return Err(Problem::new(403, "the request names no host"));
    };
    if !knows(http, name_of(host)) {
        return Err(Problem::new(403, format!("`{host}` is not a name of this weir: add it to `http.hosts`")));
    }
    is_no_foreign_page(headers)
}

/// A browser says whose page asks.
fn is_no_foreign_page(headers: &HeaderMap) -> Result<(), Problem> {
    let host = text(headers, "host").unwrap_or_default();
    match text(headers, "origin") {
        Some(origin) if origin.split_once("://").is_none_or(|(_, origin)| origin != host) => {
            Err(Problem::new(403, format!("a page of `{origin}` may not ask here")))
        }
        _ => Ok(()),
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

fn knows(http: &HttpPlan, name: &str) -> bool {
    let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    is_address
        || name.eq_ignore_ascii_case("localhost")
        || name.eq_ignore_ascii_case(name_of(&http.listen))
        || http.hosts.iter().any(|host| host.eq_ignore_ascii_case(name))
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn has_token(http: &HttpPlan, headers: &HeaderMap) -> bool {
    let Some(token) = &http.token else { return false };
    let sent = headers.get("authorization").and_then(|value| value.to_str().ok());
    let sent = sent.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    is_equal(sent.as_bytes(), token.0.as_bytes())
}

fn is_equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::plan::Secret;

    fn plan(token: Option<&str>, writes: HttpWrites) -> HttpPlan {
        let token = token.map(|token| Secret(token.to_owned()));
        HttpPlan { listen: "weir:8080".into(), token, hosts: vec!["weir.example".into()], writes }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn status(answer: Result<(), Problem>) -> u16 {
        answer.err().map_or(200, |problem| problem.status)
    }

    const HERE: &str = "127.0.0.1:5";
    const THERE: &str = "10.0.0.9:5";

    #[test]
    fn payloads_are_read_here_or_with_the_token() {
        let read = |token, peer: &str, sent: &[(&'static str, &str)]| {
            status(may_read_payloads(&plan(token, HttpWrites::Loopback), peer.parse().unwrap(), &headers(sent)))
        };
        assert_eq!(read(None, HERE, &[]), 200);
        assert_eq!(read(None, THERE, &[]), 401);
        assert_eq!(read(Some("abc"), THERE, &[("authorization", "Bearer abc")]), 200);
        assert_eq!(read(Some("abc"), THERE, &[("authorization", "Bearer abd")]), 401);
        assert_eq!(read(None, THERE, &[("authorization", "Bearer ")]), 401);
    }

    #[test]
    fn changes_need_the_token_where_there_is_one_else_the_loopback() {
        let write = |token, writes, peer: &str, sent: &[(&'static str, &str)]| {
            status(may_write(&plan(token, writes), peer.parse().unwrap(), &headers(sent)))
        };
        assert_eq!(write(None, HttpWrites::Loopback, HERE, &[]), 200);
        assert_eq!(write(None, HttpWrites::Loopback, THERE, &[]), 403);
        assert_eq!(write(Some("t"), HttpWrites::Loopback, HERE, &[]), 401);
        assert_eq!(write(Some("t"), HttpWrites::Token, THERE, &[("authorization", "Bearer t")]), 200);
        assert_eq!(write(None, HttpWrites::Anyone, THERE, &[]), 200);
        assert_eq!(write(Some("t"), HttpWrites::Nobody, HERE, &[("authorization", "Bearer t")]), 403);
    }

    #[test]
    fn foreign_names_and_pages_are_refused() {
        let asked = |sent: &[(&'static str, &str)]| status(is_ours(&plan(None, HttpWrites::Loopback), &headers(sent)));
        assert_eq!(asked(&[("host", "127.0.0.1:8080")]), 200);
        assert_eq!(asked(&[("host", "[::1]:8080")]), 200);
        assert_eq!(asked(&[("host", "localhost")]), 200);
        assert_eq!(asked(&[("host", "Weir:8080")]), 200, "it is where we listen");
        assert_eq!(asked(&[("host", "Weir.example:8080"), ("origin", "https://Weir.example:8080")]), 200);
        assert_eq!(asked(&[("host", "evil.example")]), 403);
        assert_eq!(asked(&[("host", "127.0.0.1:8080"), ("origin", "https://evil.example")]), 403);
        assert_eq!(asked(&[("host", "127.0.0.1:8080"), ("origin", "null")]), 403);
        assert_eq!(asked(&[]), 403);
    }
}
