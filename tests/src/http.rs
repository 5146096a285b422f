//! Bare HTTP/1.1 over a TCP connection: for requests that no proper client sends, and for many small ones.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// A request, to be sent as it is.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    path: String,
    host: Option<String>,
    headers: Vec<(String, String)>,
    body: String,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// The lines of its head.
    pub head: String,
    /// Its body.
    pub body: String,
}

impl Request {
    /// A request without a body.
    pub fn get(path: &str) -> Request {
        Request::new("GET", path, "")
    }

    /// A request with a JSON body.
    pub fn post(path: &str, body: &str) -> Request {
        Request::new("POST", path, body).header("Content-Type", "application/json")
    }

    /// Any request.
    pub fn new(method: &str, path: &str, body: &str) -> Request {
        Request {
            method: method.to_owned(),
            path: path.to_owned(),
            host: None,
            headers: Vec::new(),
            body: body.to_owned(),
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Request {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Shows a token.
    #[must_use]
    pub fn token(self, token: &str) -> Request {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// Names another host than the one it is sent to.
    #[must_use]
    pub fn host(mut self, host: &str) -> Request {
        self.host = Some(host.to_owned());
        self
    }

    /// Sends it on a connection of its own.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn send(&self, to: SocketAddr) -> Result<Response, String> {
        let failed = |error: std::io::Error| format!("{} {} to {to}: {error}", self.method, self.path);
        let mut stream = TcpStream::connect_timeout(&to, ANSWER_MAX).map_err(failed)?;
        stream.set_read_timeout(Some(ANSWER_MAX)).map_err(failed)?;
        let host = self.host.clone().unwrap_or_else(|| to.to_string());
        let mut text =
            format!("{} {} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        let _ = write!(text, "Content-Length: {}\r\n\r\n{}", self.body.len(), self.body);
        stream.write_all(text.as_bytes()).map_err(failed)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map_err(failed)?;
        let answer = String::from_utf8_lossy(&answer);
        Response::parse(&answer).ok_or_else(|| format!("{to} does not speak HTTP: {answer:?}"))
    }
}

impl Response {
    fn parse(text: &str) -> Option<Response> {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        Some(Response { status, head: head.to_owned(), body: body.to_owned() })
    }

    /// Its body as JSON.
    ///
    /// # Errors
    /// If its status is not 200 or its body no JSON.
    pub fn json(&self) -> Result<Value, String> {
        if self.status != 200 {
            return Err(format!("{self:?}"));
        }
        serde_json::from_str(&self.body).map_err(|error| format!("{error}: {self:?}"))
    }
}
