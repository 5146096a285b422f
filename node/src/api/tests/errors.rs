//! Every refusal, by its status, code and remedy.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use omnimesh_protocol::config::ApiConfig;

use super::support::{Connection, Memory, PAYLOAD_BYTES_MAX, Rig};
use crate::api::routes::ROUTES;
use crate::api::token::ApiToken;
use crate::api::types::ErrorCode;
use crate::api::{ApiMetrics, ServeError, Timeouts, serve};

const MESSAGES: &str = "/api/v1/channels/news/messages";

#[tokio::test]
async fn probes_and_metrics_are_open_and_readiness_says_why_not() {
    let rig = Rig::start();
    let ask = async |path| rig.send(&rig.bare_request("GET", path, &[], "")).await;
    let live = ask("/livez").await;
    assert_eq!((live.status, live.json()["status"].as_str()), (200, Some("live")));
    live.assert_secure();
    let error = ask("/readyz").await.assert_error(503, ErrorCode::NotReady);
    assert!(error.message.contains("no bootstrap peer answers"), "{error:?}");
    rig.backend.is_ready.store(true, Ordering::SeqCst);
    assert_eq!(ask("/readyz").await.status, 200);
    let metrics = ask("/metrics").await;
    assert_eq!(metrics.status, 200);
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"));
    let line = "omnimesh_api_requests_total{route=\"/readyz\",status=\"503\"} 1\n";
    assert!(metrics.body.contains(line), "{}", metrics.body);
    assert!(metrics.body.ends_with("# EOF\n"));
}

#[tokio::test]
async fn all_else_needs_the_token() {
    let rig = Rig::start();
    let other = ApiToken::generate().unwrap();
    let wrong = format!("Authorization: {}", other.bearer().as_str());
    for headers in [&[][..], &[wrong.as_str()], &["Authorization: Bearer"], &["Authorization: Basic eDp5"]] {
        for path in ["/api/v1/status", "/api/v1/invite", "/api/v1/channels/news/events", "/%61pi/v1/invite"] {
            let reply = rig.send(&rig.bare_request("GET", path, headers, "")).await;
            reply.assert_error(401, ErrorCode::Unauthorized);
            assert!(reply.header("www-authenticate").starts_with("Bearer"), "{reply:?}");
        }
        let reply = rig.send(&rig.bare_request("POST", MESSAGES, headers, "{\"data\":\"x\"}")).await;
        let error = reply.assert_error(401, ErrorCode::Unauthorized);
        assert!(error.hint.contains("api-token"), "{error:?}");
    }
    assert_eq!(rig.get("/api/v1/status").await.status, 200);
}

#[tokio::test]
async fn a_foreign_host_is_refused_on_every_method_and_path() {
    let rig = Rig::start();
    let port = rig.address().port();
    for method in ["GET", "HEAD", "POST", "OPTIONS", "DELETE", "CONNECT", "TRACE", "BREW"] {
        for path in ["/livez", "/readyz", "/metrics", "/api/v1/status", MESSAGES, "/", "/nothing"] {
            for host in ["Host: evil.example", &format!("Host: evil.example:{port}"), "Host: 127.0.0.1:1"] {
                let request = format!("{method} {path} HTTP/1.1\r\n{host}\r\n\r\n");
                let reply = rig.send(&request).await;
                if method == "HEAD" {
                    assert_eq!(reply.status, 403, "{request}: {reply:?}");
                } else {
                    reply.assert_error(403, ErrorCode::ForbiddenHost);
                }
            }
        }
    }
    let own = format!("Host: {}", rig.address());
    for (request, what) in [
        ("GET /livez HTTP/1.1\r\n\r\n".to_owned(), "no host"),
        (format!("GET http://evil.example/livez HTTP/1.1\r\n{own}\r\n\r\n"), "absolute target"),
        (format!("GET /livez HTTP/1.1\r\n{own}\r\nHost: evil.example\r\n\r\n"), "two hosts"),
        ("GET /livez HTTP/1.0\r\n\r\n".to_owned(), "no host in old HTTP"),
        (
            format!("GET /livez HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: localhost:{port}\r\n\r\n"),
            "forwarded",
        ),
        (
            "GET /api/v1/events HTTP/1.1\r\nHost: evil.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
                .to_owned(),
            "upgrade",
        ),
    ] {
        let reply = rig.send(&request).await;
        assert!(matches!(reply.status, 400 | 403), "{what}: {reply:?}");
    }
    for host in [format!("localhost:{port}"), format!("LOCALHOST:{port}"), format!("[::1]:{port}")] {
        let reply = rig.send(&format!("GET /livez HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(reply.status, 200, "{host}");
    }
}

#[tokio::test]
async fn a_foreign_origin_is_refused_on_every_method_and_path() {
    let rig = Rig::start();
    for method in ["GET", "POST", "OPTIONS", "PUT"] {
        for path in ["/livez", "/metrics", "/api/v1/status", MESSAGES, "/nothing"] {
            for origin in ["Origin: http://evil.example", "Origin: null", "Origin: http://localhost:1"] {
                let more = [origin, "Access-Control-Request-Method: GET"];
                let reply = rig.send(&rig.request(method, path, &more, "")).await;
                let error = reply.assert_error(403, ErrorCode::ForbiddenOrigin);
                assert!(error.hint.contains("api.allowed_origins"), "{error:?}");
                assert_eq!(reply.header("access-control-allow-origin"), "", "{reply:?}");
            }
        }
    }
    let upgrade = ["Origin: http://evil.example", "Connection: Upgrade", "Upgrade: websocket"];
    let reply = rig.send(&rig.request("GET", "/api/v1/events", &upgrade, "")).await;
    reply.assert_error(403, ErrorCode::ForbiddenOrigin);
    let two = ["Origin: http://evil.example", &format!("Origin: http://{}", rig.address())];
    rig.send(&rig.request("GET", "/livez", &two, "")).await.assert_error(403, ErrorCode::ForbiddenOrigin);
    let own = format!("Origin: http://{}", rig.address());
    let reply = rig.send(&rig.request("GET", "/api/v1/status", &[&own], "")).await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, ""));
    // Without an allowed origin there is no CORS: `OPTIONS` is a method that no path knows.
    let reply = rig.send(&rig.request("OPTIONS", "/api/v1/status", &[&own], "")).await;
    reply.assert_error(405, ErrorCode::MethodNotAllowed);
}

#[tokio::test]
async fn configured_names_and_origins_are_taken() {
    let origin = "https://console.example.org";
    let rig = Rig::start_with(|config, _| {
        config.allowed_hosts = vec!["node.example.org".to_owned()];
        config.allowed_origins = vec![origin.to_owned()];
    });
    let reply = rig.send("GET /livez HTTP/1.1\r\nHost: node.example.org\r\n\r\n").await;
    assert_eq!(reply.status, 200);
    let line = format!("Origin: {origin}");
    let more = [&line, "Access-Control-Request-Method: POST"];
    let preflight = rig.send(&rig.bare_request("OPTIONS", MESSAGES, &more, "")).await;
    assert_eq!(preflight.status, 204, "{preflight:?}");
    assert_eq!(preflight.header("access-control-allow-origin"), origin);
    assert!(preflight.header("access-control-allow-headers").contains("authorization"));
    let methods = preflight.header("access-control-allow-methods");
    assert!(
        ["GET", "POST", "PUT", "PATCH", "DELETE"].iter().all(|method| methods.contains(method)),
        "{methods}"
    );
    // The token is asked for all the same, and the page may read why it was refused.
    let reply = rig.send(&rig.bare_request("GET", "/api/v1/status", &[&line], "")).await;
    reply.assert_error(401, ErrorCode::Unauthorized);
    assert_eq!(reply.header("access-control-allow-origin"), origin);
    assert_eq!(reply.header("vary"), "Origin");
    let reply = rig.send(&rig.request("GET", "/api/v1/status", &[&line], "")).await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, origin));
}

#[tokio::test]
async fn unknown_paths_and_methods() {
    let rig = Rig::start();
    for path in
        ["/", "/api", "/api/v1", "/api/v1/status/", "/api/v1//status", "/API/V1/STATUS", "/..%2f..%2fetc"]
    {
        rig.get(path).await.assert_error(404, ErrorCode::NotFound);
    }
    for path in ["/api/v1/channels//messages", "/%00%ff", "/api/v1/why/messages/", "/a?b=%zz&c[]=\u{7f}"] {
        let reply = rig.get(path).await;
        if reply.status != 400 {
            reply.assert_error(404, ErrorCode::NotFound);
        }
    }
    for (method, path, allow) in [
        ("POST", "/api/v1/status", "GET, HEAD"),
        ("DELETE", MESSAGES, "POST"),
        ("GET", MESSAGES, "POST"),
        ("PUT", "/livez", "GET, HEAD"),
        ("BREW", "/metrics", "GET, HEAD"),
    ] {
        let reply = rig.send(&rig.request(method, path, &[], "")).await;
        reply.assert_error(405, ErrorCode::MethodNotAllowed);
        assert_eq!(reply.header("allow"), allow, "{method} {path}");
    }
}

#[tokio::test]
async fn channel_names_and_message_ids_are_checked() {
    let rig = Rig::start();
    let long = "x".repeat(65);
    for name in ["a%2Fb", "a%20b", "%00", "..%2f", "%C3%BC", &long, "a%252e", "%"] {
        rig.publish(name, "{\"data\":\"x\"}").await.assert_error(400, ErrorCode::InvalidChannel);
        let reply = rig.get(&format!("/api/v1/channels/{name}/events")).await;
        reply.assert_error(400, ErrorCode::InvalidChannel);
    }
    assert_eq!(rig.publish("%6eews", "{\"data\":\"x\"}").await.status, 200);
    for id in ["x", "00", &"z".repeat(40), &"0".repeat(41), "%ff"] {
        rig.get(&format!("/api/v1/why/messages/{id}")).await.assert_error(400, ErrorCode::BadRequest);
    }
    let reply = rig.get(&format!("/api/v1/why/messages/{}", "0".repeat(40))).await;
    reply.assert_error(404, ErrorCode::NotFound);
}

#[tokio::test]
async fn bodies_are_checked() {
    let rig = Rig::start();
    let deep = "[".repeat(100_000);
    for (body, says) in [
        ("{", "EOF"),
        ("null", "invalid type"),
        ("[]", "expected a JSON object"),
        ("{}", "neither"),
        ("{\"data\":\"x\",\"data_base64\":\"\"}", "both"),
        ("{\"dat\":\"x\"}", "unknown field `dat`"),
        ("{\"data\":1}", "expected a string"),
        ("{\"data\":\"x\"} x", "trailing"),
        ("{\"data\":\"\\ud800\"}", ""),
        ("{\"data_base64\":\"!\"}", "base64"),
        (&deep, ""),
    ] {
        let error = rig.publish("news", body).await.assert_error(400, ErrorCode::InvalidJson);
        assert!(error.message.contains(says), "{error:?}");
    }
    for media_type in ["text/plain", "application/x-www-form-urlencoded", "application/octet-stream", ""] {
        let request = rig.request("POST", MESSAGES, &[], "{\"data\":\"x\"}");
        let request = request.replace("application/json", media_type);
        rig.send(&request).await.assert_error(415, ErrorCode::UnsupportedMediaType);
    }
    let request = rig.request("POST", MESSAGES, &["Content-Encoding: gzip"], "{\"data\":\"x\"}");
    rig.send(&request).await.assert_error(415, ErrorCode::UnsupportedMediaType);
    let request = rig.request("POST", MESSAGES, &[], "{\"data\":\"x\"}");
    let request = request.replace("application/json", "Application/JSON; charset=utf-8");
    assert_eq!(rig.send(&request).await.status, 200);
}

#[tokio::test]
async fn a_list_does_not_stand_for_an_object() {
    let rig = Rig::start();
    let cancel = format!("/api/v1/jobs/{}/cancel", super::job::known());
    let blob = format!(r#"{{"text": "", "files": {{"a": ["{}", 1]}}}}"#, super::blob::known().hash);
    for (method, path, body) in [
        ("PUT", "/api/v1/registry/model/news", "[]"),
        ("PUT", "/api/v1/registry/model/news", r#"[{"a": 1}]"#),
        ("PATCH", "/api/v1/registry/model/news", "[{}, 1]"),
        ("POST", "/api/v1/registry/links", r#"["model/news", "uses", "model/x"]"#),
        ("POST", MESSAGES, r#"["x", null]"#),
        ("POST", "/api/v1/log/entries", r#"["x", null, 0]"#),
        ("POST", "/api/v1/log/batches", r#"[[{"data": "x"}]]"#),
        ("POST", "/api/v1/log/batches", r#"{"entries": [["x", null]]}"#),
        ("POST", "/api/v1/alerts/1/ack", r#"["anna"]"#),
        ("POST", "/api/v1/jobs", r#"[null, null, "name = 1"]"#),
        ("POST", "/api/v1/jobs", &blob),
        ("POST", &cancel, r#"["enough"]"#),
    ] {
        let error = rig.send(&rig.request(method, path, &[], body)).await;
        let error = error.assert_error(400, ErrorCode::InvalidJson);
        assert!(error.message.contains("expected a JSON object"), "{body}: {error:?}");
    }
    assert_eq!(rig.get("/api/v1/log/heads").await.json()[0]["seq"], 1, "nothing was written");
}

#[tokio::test]
async fn numbers_of_a_body_are_asked_for_in_plain_words() {
    let rig = Rig::start();
    let put = "/api/v1/registry/model/x";
    for (method, path, body) in [
        ("PUT", put, r#"{"ttl": -1}"#),
        ("PUT", put, r#"{"ttl": 1.5}"#),
        ("PUT", put, r#"{"replicas": "two"}"#),
        ("PUT", put, r#"{"replicas": 18446744073709551616}"#),
        ("POST", "/api/v1/log/entries", r#"{"data": "x", "replicas": -1}"#),
        ("POST", "/api/v1/log/batches", r#"{"entries": [], "replicas": null}"#),
        ("POST", "/api/v1/jobs", r#"{"text": "", "nonce": "x"}"#),
    ] {
        let reply = rig.send(&rig.request(method, path, &[], body)).await;
        let error = reply.assert_error(400, ErrorCode::InvalidJson);
        assert!(error.message.contains("expected a whole number from 0 to"), "{body}: {error:?}");
    }
    let put = rig.request("PUT", "/api/v1/registry/model/x", &[], r#"{"ttl": null, "replicas": 0}"#);
    assert_eq!(rig.send(&put).await.status, 200);
    let long = format!(r#"{{"{}": 1}}"#, "x".repeat(100_000));
    let error = rig.publish("news", &long).await.assert_error(400, ErrorCode::InvalidJson);
    assert!(error.message.len() < 1000, "{error:?}");
}

#[tokio::test]
async fn a_parameter_that_a_route_does_not_have_is_refused() {
    let rig = Rig::start();
    for route in ROUTES.iter().filter(|route| !route.is_open) {
        let path = super::documents::concrete(route.path);
        let path = format!("{path}{}page=2", if path.contains('?') { '&' } else { '?' });
        let reply = rig.send(&rig.request(route.method.as_str(), &path, &[], "")).await;
        let error = reply.assert_error(400, ErrorCode::BadRequest);
        assert!(error.message.contains("unknown parameter \"page\""), "{path}: {error:?}");
    }
    assert_eq!(rig.get("/livez?page=2").await.status, 200);
}

#[tokio::test]
async fn what_is_no_text_once_it_is_decoded_is_refused() {
    let rig = Rig::start();
    for (method, path) in [
        ("PUT", "/api/v1/registry/model/%ff"),
        ("GET", "/api/v1/registry/model/%fe"),
        ("GET", "/api/v1/channels/%ff/events"),
        ("GET", "/api/v1/why/messages/%C3"),
        ("GET", "/api/v1/registry?prefix=%ff"),
        ("GET", "/api/v1/registry?prefix=a&%80=1"),
        ("GET", "/api/v1/registry/search?q=%ED%A0%80"),
    ] {
        let reply = rig.send(&rig.request(method, path, &[], "{}")).await;
        let error = reply.assert_error(400, ErrorCode::BadRequest);
        assert!(error.message.contains("not UTF-8"), "{path}: {error:?}");
    }
    assert_eq!(rig.get("/api/v1/registry?prefix=%C3%BC").await.status, 200);
}

#[tokio::test]
async fn a_parameter_that_cannot_be_meant_says_what_to_give() {
    let rig = Rig::start();
    let long = format!("registry?kind={}", "K".repeat(5000));
    for (path, says, hint) in [
        ("log/entries?from=x", "`from` is \"x\", not a whole number", "give a whole number"),
        ("log/entries?from=18446744073709551616", "not a whole number", "0 to 18446744073709551615"),
        ("log/entries?from=0", "`from` is 0", "give 1 to"),
        ("log/entries?limit=-1", "not a whole number", "give a whole number"),
        ("log/entries?limit=1001", "`limit` is 1001", "give 1 to 1000"),
        ("log/entries?from=1&from=2", "more than once", "once"),
        ("log/entries?author=x", "`author` is \"x\"", "/api/v1/members"),
        ("registry/model/news/walk?depth=33", "`depth` is 33", "give 0 to 32"),
        ("registry?kind=Bad", "`kind` is \"Bad\"", "begins with a letter"),
        ("registry?after=x", "`after` is \"x\"", "kind/name"),
        ("registry?where=", "`where` is \"\"", "1 to 64 bytes"),
        (
            "registry?where=a%3D18446744073709551616",
            "`where`: the integer 18446744073709551616",
            "integers are",
        ),
        ("registry/search", "`q` is missing", "q=…"),
        ("registry/Model/x", "`kind` is \"Model\"", "begins with a letter"),
        ("registry/model/news/links?relation=Uses", "`relation` is \"Uses\"", "such as `uses`"),
        ("why/steps/x", "`step` is \"x\"", "give a whole number"),
        (&long, "K…\"", "begins with a letter"),
    ] {
        let error = rig.get(&format!("/api/v1/{path}")).await.assert_error(400, ErrorCode::BadRequest);
        assert!(error.message.contains(says) && error.hint.contains(hint), "{path}: {error:?}");
        assert!(error.message.len() < 200, "{error:?}");
    }
    let unlink = "/api/v1/registry/links?from=model/a&to=model/b";
    let reply = rig.send(&rig.request("DELETE", unlink, &[], "")).await;
    let error = reply.assert_error(400, ErrorCode::BadRequest);
    assert!(error.message == "`relation` is missing" && error.hint.contains("`uses`"), "{error:?}");
}

#[tokio::test]
async fn a_body_over_the_limit_names_the_setting() {
    let rig = Rig::start_with(|config, _| config.body_bytes_max = 2000);
    let data = |bytes: usize| format!("{{\"data\":\"{}\"}}", "x".repeat(bytes));
    let whole = rig.publish("news", &data(2000)).await;
    // Said in advance, so it is refused before a byte of it is sent; and found out, when it comes in chunks.
    let said =
        rig.request("POST", MESSAGES, &["Content-Type: application/json", "Content-Length: 9999999999"], "");
    let said = rig.send(&said).await;
    let chunks = format!("{:x}\r\n{}\r\n", 3000, "x".repeat(3000));
    let chunked = ["Content-Type: application/json", "Transfer-Encoding: chunked"];
    let chunked = rig.send(&(rig.request("POST", MESSAGES, &chunked, "") + &chunks)).await;
    for reply in [whole, said, chunked] {
        let error = reply.assert_error(413, ErrorCode::TooLarge);
        assert!(error.hint.contains("api.body_bytes_max"), "{error:?}");
        assert_eq!(reply.header("connection"), "close");
    }
    // A body within its limit may hold a payload over the mesh's.
    let error =
        rig.publish("news", &data(PAYLOAD_BYTES_MAX + 1)).await.assert_error(413, ErrorCode::TooLarge);
    assert!(error.message.contains("1001") && error.hint.contains("gossip.message_bytes_max"), "{error:?}");
    assert_eq!(rig.publish("news", &data(PAYLOAD_BYTES_MAX)).await.status, 200);
}

#[tokio::test]
async fn what_the_node_refuses_has_its_status() {
    let rig = Rig::start();
    for (channel, status, code) in [
        ("full", 503, ErrorCode::Overloaded),
        ("broken", 500, ErrorCode::Internal),
        ("stopping", 503, ErrorCode::Stopping),
        ("forbidden", 422, ErrorCode::Refused),
        ("early", 503, ErrorCode::NotReady),
    ] {
        let reply = rig.publish(channel, "{\"data\":\"x\"}").await;
        reply.assert_error(status, code);
        let must_wait = matches!(code, ErrorCode::Overloaded | ErrorCode::NotReady);
        assert_eq!(reply.header("retry-after"), if must_wait { "1" } else { "" });
    }
}

#[tokio::test]
async fn too_many_requests_wait_but_probes_and_token_holders_do_not_pay() {
    let rig = Rig::start_with(|config, _| (config.requests_per_s, config.requests_burst) = (1, 3));
    let bare = rig.bare_request("GET", "/metrics", &[], "");
    let mut replies = Vec::new();
    for _ in 0..20 {
        replies.push(rig.send(&bare).await);
    }
    let refused: Vec<_> = replies.iter().filter(|reply| reply.status != 200).collect();
    assert!((1..=17).contains(&refused.len()), "{replies:?}");
    for reply in refused {
        let error = reply.assert_error(429, ErrorCode::RateLimited);
        assert!(error.hint.contains("api.requests_per_s"), "{error:?}");
        assert_eq!(reply.header("retry-after"), "1");
    }
    assert_eq!(rig.get("/api/v1/status").await.status, 200);
    for _ in 0..20 {
        assert_eq!(rig.send(&rig.bare_request("GET", "/livez", &[], "")).await.status, 200);
    }
}

#[tokio::test]
async fn nobody_waits_for_ever() {
    let rig = Rig::start_with(|_, timeouts| timeouts.request = Duration::from_millis(200));
    // A body that does not come.
    let more = ["Content-Type: application/json", "Content-Length: 10"];
    let reply = rig.send(&rig.request("POST", MESSAGES, &more, "")).await;
    reply.assert_error(408, ErrorCode::RequestTimeout);
    // A head that does not come.
    let mut slow = Connection::open(rig.address()).await;
    slow.write("GET /livez HTTP/1.1\r\nHo").await;
    let answer = String::from_utf8(slow.rest().await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    // A node that does not answer; liveness does not depend on it.
    rig.backend.is_stuck.store(true, Ordering::SeqCst);
    rig.get("/api/v1/status").await.assert_error(504, ErrorCode::Timeout);
    rig.get("/api/v1/events").await.assert_error(504, ErrorCode::Timeout);
    assert_eq!(rig.get("/livez").await.status, 200);
}

#[tokio::test]
async fn only_who_has_the_token_keeps_a_connection() {
    let rig = Rig::start();
    for path in ["/livez", "/metrics", "/api/v1/status", "/nothing"] {
        let mut connection = Connection::open(rig.address()).await;
        connection.write(rig.bare_request("GET", path, &[], "")).await;
        assert_eq!(connection.reply(false).await.header("connection"), "close", "{path}");
        assert_eq!(connection.rest().await, b"", "{path}");
    }
    let mut connection = Connection::open(rig.address()).await;
    for _ in 0..3 {
        connection.write(rig.request("GET", "/api/v1/status", &[], "")).await;
        assert_eq!(connection.reply(false).await.status, 200);
    }
}

#[tokio::test]
async fn slow_clients_do_not_hold_up_others() {
    let rig = Rig::start();
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut connection = Connection::open(rig.address()).await;
        let more = ["Content-Type: application/json", "Content-Length: 10"];
        connection.write(rig.request("POST", MESSAGES, &more, "")).await;
        slow.push(connection);
    }
    for _ in 0..20 {
        assert_eq!(rig.get("/api/v1/status").await.status, 200);
    }
    for mut connection in slow {
        connection.write("{\"data\":1}").await;
        connection.reply(false).await.assert_error(400, ErrorCode::InvalidJson);
    }
}

#[tokio::test]
async fn garbage_after_a_request_closes_the_connection_and_nothing_else() {
    let rig = Rig::start();
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01"[..],
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        let mut connection = Connection::open(rig.address()).await;
        connection.write(rig.request("GET", "/livez", &[], "")).await;
        connection.write(garbage).await;
        assert_eq!(connection.reply(false).await.status, 200);
        let answer = String::from_utf8_lossy(&connection.rest().await).into_owned();
        assert!(answer.starts_with("HTTP/1.1 4"), "{garbage:?}: {answer}");
    }
    let mut connection = Connection::open(rig.address()).await;
    connection.write(format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(200_000))).await;
    let answer = String::from_utf8(connection.rest().await).unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert_eq!(rig.get("/api/v1/status").await.status, 200);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let rig = Rig::start();
    let mut connection = Connection::open(rig.address()).await;
    let publish = rig.request("POST", MESSAGES, &[], "{\"data\":\"x\"}");
    connection.write(publish.repeat(3) + &rig.request("GET", "/nothing", &[], "")).await;
    for seq in 1..=3 {
        assert_eq!(connection.reply(false).await.json()["seq"], seq);
    }
    connection.reply(false).await.assert_error(404, ErrorCode::NotFound);
}

#[tokio::test]
async fn a_port_in_use_is_named_with_its_setting() {
    let rig = Rig::start();
    let start = |config| {
        let token = ApiToken::generate().unwrap();
        serve(config, Timeouts::default(), Arc::new(Memory::default()), token, ApiMetrics::default())
            .unwrap_err()
    };
    let error = start(ApiConfig { listen: rig.address(), ..ApiConfig::default() });
    assert!(matches!(error, ServeError::AddressInUse { address } if address == rig.address()));
    let text = error.to_string();
    assert!(text.contains(&rig.address().to_string()) && text.contains("api.listen"), "{text}");
    // An address of the documentation range is none of this host's.
    let error = start(ApiConfig { listen: "192.0.2.1:0".parse().unwrap(), ..ApiConfig::default() });
    assert!(error.to_string().contains("192.0.2.1:0"), "{error}");
    let listen = "127.0.0.1:0".parse().unwrap();
    let allowed_origins = vec!["*".to_owned()];
    let error = start(ApiConfig { listen, allowed_origins, ..ApiConfig::default() });
    assert!(error.to_string().starts_with("`api.allowed_origins`"), "{error}");
}

#[test]
fn it_listens_on_loopback_by_default() {
    let config = ApiConfig::default();
    assert_eq!(config.listen.to_string(), "127.0.0.1:7412");
}
