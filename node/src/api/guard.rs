//! What every request passes, whatever its method and path: probes, preflights, upgrades and unknown paths too.
//!
//! ```text
//!   request ─► Host ─► Origin ─► rate ─► (preflight | route ─► token ─► handler) ─► security headers
//!               403     403      429
//! ```
//!
//! A page of another site can make a browser send requests to a loopback address; that the page's own name resolves
//! to that address (DNS rebinding) makes the browser think them same-origin. The `Host` header tells: it is what
//! the browser thinks it talks to. So only the node's own addresses, the loopback names, and configured names are
//! taken, with the right port. The token is checked by each route, not here by path: the router decodes
//! paths, and what decides must look at what the router has found.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, Method, uri::Authority};
use actix_web::middleware::Next;
use actix_web::{Error, HttpResponse, ResponseError, web};

use super::Shared;
use super::error::ApiError;
use super::types::ErrorCode;

/// The headers of every answer.
const SECURITY_HEADERS: [(HeaderName, &str); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CACHE_CONTROL, "no-store"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// How long a browser may remember that a preflight was granted, in seconds.
const PREFLIGHT_AGE_S: &str = "600";

/// The middleware.
pub(super) async fn guard<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let Some(shared) = request.app_data::<web::Data<Shared>>().cloned() else {
        let error = ApiError::new(ErrorCode::Internal, "the API has no state", "a bug, please report");
        return Ok(request.into_response(error.error_response()));
    };
    // The server below times only the first head of a connection. So that nobody can hold a connection by sending
    // the next head slowly, only who has the token gets a next one.
    let may_stay = shared.carries_token(request.headers());
    let mut cors_origin = None;
    let admitted = admit(&shared, &request, &mut cors_origin);
    let mut response = match admitted {
        Err(error) => request.into_response(error.error_response()),
        Ok(()) if cors_origin.is_some() && is_preflight(&request) => request.into_response(preflight()),
        Ok(()) => next.call(request).await?.map_into_boxed_body(),
    };
    if !may_stay {
        response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
    }
    let headers = response.headers_mut();
    for (name, value) in SECURITY_HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Some(origin) = cors_origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    }
    shared.metrics.count_request(response.request().match_pattern(), response.status().as_u16());
    Ok(response)
}

/// Checks what the client says about where it comes from and where it goes to, and how often it comes.
fn admit(
    shared: &Shared,
    request: &ServiceRequest,
    cors_origin: &mut Option<HeaderValue>,
) -> Result<(), ApiError> {
    let hosts = &shared.hosts;
    // A request line with an absolute URI overrides `Host` (RFC 9112, 3.2.2): so both must be right.
    let target_is_own = request.uri().authority().is_none_or(|target| hosts.permits(target.as_str(), 80));
    let host_is_own = single(request.headers(), &header::HOST)
        .flatten()
        .and_then(|host| host.to_str().ok())
        .is_some_and(|host| hosts.permits(host, 80));
    if !(target_is_own && host_is_own) {
        return Err(ApiError::new(
            ErrorCode::ForbiddenHost,
            "the `Host` header does not name this node",
            format!("use http://{}, or add the name to `api.allowed_hosts`", shared.address),
        ));
    }
    match single(request.headers(), &header::ORIGIN) {
        Some(None) => {}
        Some(Some(origin)) if hosts.is_allowed_origin(origin) => *cors_origin = Some(origin.clone()),
        Some(Some(origin)) if hosts.is_own_origin(origin) => {}
        _ => {
            return Err(ApiError::new(
                ErrorCode::ForbiddenOrigin,
                "a page of another site sent this request",
                "if that page is yours, add its origin to `api.allowed_origins`",
            ));
        }
    }
    // A probe must not fail because somebody else on its host asks too much.
    if matches!(request.path(), "/livez" | "/readyz") {
        return Ok(());
    }
    let client = Client {
        network: network_of(request.peer_addr()),
        has_token: shared.carries_token(request.headers()),
    };
    shared.admit_rate(client).map_err(|wait| {
        ApiError::new(
            ErrorCode::RateLimited,
            "too many requests",
            "wait as `Retry-After` says, or raise `api.requests_per_s` and `api.requests_burst`",
        )
        .retry_after(wait)
    })
}

/// A header that may stand once: `None` if it stands more often, `Some(None)` if not at all.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Option<&'a HeaderValue>> {
    let mut values = headers.get_all(name);
    let first = values.next();
    values.next().is_none().then_some(first)
}

fn is_preflight(request: &ServiceRequest) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

fn preflight() -> HttpResponse {
    HttpResponse::NoContent()
        .insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST, PUT, PATCH, DELETE"))
        .insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type"))
        .insert_header((header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_AGE_S))
        .finish()
}

/// Who shares a rate. Those with the token do not pay for what others on their host do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Client {
    network: Option<IpAddr>,
    has_token: bool,
}

/// The client's address; of IPv6 the first half, for a host has as many of the other as it likes.
fn network_of(peer: Option<SocketAddr>) -> Option<IpAddr> {
    Some(match peer?.ip().to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    })
}

/// The names this node answers to, and the sites whose pages may ask it.
#[derive(Debug)]
pub(super) struct Hosts {
    own: Vec<(String, Vec<u16>)>,
    allowed_origins: Vec<String>,
}

impl Hosts {
    /// `hosts` are names with or without a port: without, the standard ports and the node's own are meant.
    ///
    /// # Errors
    /// Names the setting and the entry that is wrong.
    pub(super) fn new(
        bound: SocketAddr,
        hosts: &[String],
        origins: &[String],
    ) -> Result<Self, (&'static str, String)> {
        let port = bound.port();
        let mut own: Vec<_> =
            ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned(), bound.ip().to_string()]
                .into_iter()
                .map(|host| (host, vec![port]))
                .collect();
        for entry in hosts {
            let Some((host, named_port)) = split_authority(entry) else {
                return Err(("api.allowed_hosts", format!("{entry:?} is not a host name or `host:port`")));
            };
            own.push((host, named_port.map_or_else(|| vec![80, 443, port], |port| vec![port])));
        }
        let mut allowed_origins = Vec::new();
        for entry in origins {
            if origin_authority(entry).is_none() {
                return Err((
                    "api.allowed_origins",
                    format!("{entry:?} is not an origin such as `https://console.example.org`"),
                ));
            }
            allowed_origins.push(entry.to_ascii_lowercase());
        }
        Ok(Hosts { own, allowed_origins })
    }

    fn permits(&self, authority: &str, default_port: u16) -> bool {
        split_authority(authority).is_some_and(|(host, port)| {
            let port = port.unwrap_or(default_port);
            self.own.iter().any(|(own, ports)| *own == host && ports.contains(&port))
        })
    }

    /// Whether a page of this node itself sent it.
    fn is_own_origin(&self, origin: &HeaderValue) -> bool {
        origin
            .to_str()
            .ok()
            .and_then(origin_authority)
            .is_some_and(|(authority, default_port)| self.permits(authority, default_port))
    }

    fn is_allowed_origin(&self, origin: &HeaderValue) -> bool {
        origin
            .to_str()
            .is_ok_and(|origin| self.allowed_origins.iter().any(|own| own.eq_ignore_ascii_case(origin)))
    }
}

/// The authority and the default port of `http(s)://authority`.
fn origin_authority(origin: &str) -> Option<(&str, u16)> {
    let (scheme, authority) = origin.split_once("://")?;
    let default_port = match scheme.to_ascii_lowercase().as_str() {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    split_authority(authority).map(|_| (authority, default_port))
}

/// Host and port of an authority; names in lower case, IPv6 addresses in their shortest form, without brackets.
fn split_authority(text: &str) -> Option<(String, Option<u16>)> {
    let authority: Authority = text.parse().ok()?;
    if text.contains('@') {
        return None;
    }
    let host = authority.host();
    let port_text = text.get(host.len()..)?;
    let port = match port_text.strip_prefix(':') {
        Some(digits) => Some(digits.parse().ok()?),
        None if port_text.is_empty() => None,
        None => return None,
    };
    let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(literal) => literal.parse::<Ipv6Addr>().ok()?.to_string(),
        None => host.to_ascii_lowercase(),
    };
    (!host.is_empty()).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(bound: &str) -> Hosts {
        let names = ["node.example.org".to_owned(), "Proxy.example.org:8443".to_owned()];
        Hosts::new(bound.parse().unwrap(), &names, &["https://console.example.org".to_owned()]).unwrap()
    }

    #[test]
    fn own_names_are_taken_and_no_others() {
        let hosts = hosts("127.0.0.1:7412");
        for host in [
            "127.0.0.1:7412",
            "localhost:7412",
            "LocalHost:7412",
            "[::1]:7412",
            "[0:0::1]:7412",
            "node.example.org",
            "node.example.org:80",
            "node.example.org:443",
            "node.example.org:7412",
            "proxy.example.org:8443",
        ] {
            assert!(hosts.permits(host, 80), "{host}");
        }
        for host in [
            "",
            ":7412",
            "localhost",
            "127.0.0.1",
            "127.0.0.1:80",
            "localhost:7413",
            "localhost:",
            "localhost:07412x",
            "localhost.:7412",
            "evil.example:7412",
            "localhost.evil.example:7412",
            "evil@localhost:7412",
            "localhost:7412@evil.example",
            "localhost:7412/",
            "[::1]",
            "[::1]7412",
            "::1:7412",
            "127.1:7412",
            "2130706433:7412",
            "node.example.org:81",
            "proxy.example.org",
        ] {
            assert!(!hosts.permits(host, 80), "{host}");
        }
        assert!(self::hosts("192.0.2.7:7412").permits("192.0.2.7:7412", 80));
        assert!(self::hosts("[2001:db8::7]:7412").permits("[2001:DB8:0::7]:7412", 80));
    }

    #[test]
    fn own_and_allowed_origins_are_taken_and_no_others() {
        let hosts = hosts("127.0.0.1:7412");
        let is_taken = |origin: &str| {
            let origin = HeaderValue::from_str(origin).unwrap();
            (hosts.is_own_origin(&origin), hosts.is_allowed_origin(&origin))
        };
        for origin in ["http://127.0.0.1:7412", "http://localhost:7412", "https://node.example.org"] {
            assert_eq!(is_taken(origin), (true, false), "{origin}");
        }
        assert_eq!(is_taken("https://console.example.org"), (false, true));
        for origin in [
            "null",
            "",
            "*",
            "http://evil.example",
            "http://127.0.0.1:7413",
            "http://localhost",
            "file://localhost:7412",
            "http://console.example.org",
            "https://console.example.org.evil.example",
            "http://localhost:7412/",
            "http://localhost:7412 http://evil.example",
        ] {
            assert_eq!(is_taken(origin), (false, false), "{origin}");
        }
    }

    #[test]
    fn wrong_settings_are_named() {
        let bound = "127.0.0.1:7412".parse().unwrap();
        let (setting, reason) = Hosts::new(bound, &["a b".to_owned()], &[]).unwrap_err();
        assert_eq!(setting, "api.allowed_hosts");
        assert!(reason.contains("a b"), "{reason}");
        for origin in ["*", "console.example.org", "https://console.example.org/"] {
            let (setting, _) = Hosts::new(bound, &[], &[origin.to_owned()]).unwrap_err();
            assert_eq!(setting, "api.allowed_origins", "{origin}");
        }
    }

    #[test]
    fn an_ipv6_host_is_one_client() {
        let network = |text: &str| network_of(Some(text.parse().unwrap()));
        assert_eq!(network("[2001:db8::1]:1"), network("[2001:db8::ffff:1]:2"));
        assert_ne!(network("[2001:db8::1]:1"), network("[2001:db8:0:1::1]:1"));
        assert_eq!(network("[::ffff:192.0.2.7]:1"), network("192.0.2.7:2"));
        assert_ne!(network("192.0.2.8:1"), network("192.0.2.7:1"));
    }
}
