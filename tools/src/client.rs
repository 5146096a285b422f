//! A client of the node's HTTP API. Blocking: the command line asks one thing at a time.

use std::fmt::Display;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use omnimesh_node::api::types::{ErrorBody, ErrorCode};
use omnimesh_node::data_dir::{API_ADDRESS_FILE, API_TOKEN_FILE, DataDirError, read_secret};
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::{Response, StatusCode};
use ureq::typestate::WithBody;
use ureq::{Agent, Body, RequestBuilder};
use zeroize::Zeroizing;

use crate::cli::Globals;
use crate::error::{CliError, Code};
use crate::settings;

/// How long a request may take unless told otherwise.
pub(crate) const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// Longest answer that is read, but for streams, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Largest event of a stream, in bytes: the largest message in base64 and its fields.
const EVENT_BYTES_MAX: u64 = 32 << 20;

/// A connection to one node.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    agent: Agent,
    /// `http://host:port`, without a slash at its end.
    base: String,
    token: Option<Zeroizing<String>>,
    timeout: Option<Duration>,
}

impl Client {
    /// A client of the node that flags, environment or data directory name.
    pub(crate) fn new(globals: &Globals) -> Result<Self, CliError> {
        let (base, token_file) = match &globals.api_url {
            Some(url) => {
                let base = base_url(url)?;
                // The token of the node here is nobody else's business.
                let own = if is_loopback(&base) { own_file(globals, API_TOKEN_FILE).ok() } else { None };
                (base, own)
            }
            None => {
                let dir = settings::data_dir(globals)?;
                (format!("http://{}", read_address(&dir)?), Some(dir.join(API_TOKEN_FILE)))
            }
        };
        let token = match &globals.token_file {
            Some(file) => Some(read_token(file)?),
            None => match token_file {
                Some(file) => read_secret(&file)?,
                None => None,
            },
        };
        Ok(Client::with(base, token, globals.timeout))
    }

    /// The client of the node in this data directory, which runs or will run.
    pub(crate) fn of_data_dir(dir: &Path, timeout: Option<Duration>) -> Result<Self, CliError> {
        let base = format!("http://{}", read_address(dir)?);
        Ok(Client::with(base, read_secret(&dir.join(API_TOKEN_FILE))?, timeout))
    }

    fn with(base: String, token: Option<Zeroizing<String>>, timeout: Option<Duration>) -> Self {
        // Redirects are not followed and proxies not used: the token goes to the node and nowhere else.
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("omnimesh/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(timeout.unwrap_or(TIMEOUT_DEFAULT)))
            .build();
        let token =
            token.map(|token| Zeroizing::new(token.trim().to_owned())).filter(|token| !token.is_empty());
        Client { agent: config.into(), base, token, timeout }
    }

    /// Reads a JSON document.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        self.json(&self.text(path)?)
    }

    /// Reads text.
    pub(crate) fn text(&self, path: &str) -> Result<String, CliError> {
        let mut request = self.agent.get(self.url(path));
        if let Some(token) = self.bearer() {
            request = request.header("Authorization", token.as_str());
        }
        let request = request.config().timeout_global(Some(self.timeout_or_default())).build();
        self.body(request.call())
    }

    /// Sends a JSON document and reads one.
    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, CliError> {
        self.send(self.agent.post(self.url(path)), body)
    }

    /// The same, to put something there.
    pub(crate) fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, CliError> {
        self.send(self.agent.put(self.url(path)), body)
    }

    /// The same, to change a part of it.
    pub(crate) fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, CliError> {
        self.send(self.agent.patch(self.url(path)), body)
    }

    /// Deletes something and reads the JSON document that comes back.
    pub(crate) fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        let mut request = self.agent.delete(self.url(path));
        if let Some(token) = self.bearer() {
            request = request.header("Authorization", token.as_str());
        }
        let request = request.config().timeout_global(Some(self.timeout_or_default())).build();
        self.json(&self.body(request.call())?)
    }

    fn send<T: DeserializeOwned>(
        &self,
        request: RequestBuilder<WithBody>,
        body: &impl Serialize,
    ) -> Result<T, CliError> {
        let body = serde_json::to_vec(body)
            .map_err(|error| CliError::new(Code::Failed, format!("cannot encode the request: {error}")))?;
        let mut request = request.header("Content-Type", "application/json");
        if let Some(token) = self.bearer() {
            request = request.header("Authorization", token.as_str());
        }
        let request = request.config().timeout_global(Some(self.timeout_or_default())).build();
        let answer = request.send(&body);
        if let Err(ureq::Error::Io(error)) = &answer
            && matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
        {
            // The node answers and hangs up before it has read all of a body that is over its limit.
            return Err(CliError::new(
                Code::Refused,
                format!("the node at {} cut off a request of {} bytes", self.base, body.len()),
            )
            .hint("send less: see api.body_bytes_max and gossip.message_bytes_max of the node"));
        }
        let text = self.body(answer)?;
        self.json(&text)
    }

    /// Copies a file of the node, however long it is; without a timeout it takes as long as it takes.
    pub(crate) fn download(&self, path: &str, into: &mut impl io::Write) -> Result<u64, CliError> {
        let mut request = self.agent.get(self.url(path));
        if let Some(token) = self.bearer() {
            request = request.header("Authorization", token.as_str());
        }
        let request = request.config().timeout_global(self.timeout).build();
        let mut body = self.success(request.call())?.into_body().into_reader();
        let mut part = vec![0; 256 << 10];
        let mut copied = 0;
        loop {
            let read = body.read(&mut part).map_err(|error| match error.downcast::<ureq::Error>() {
                Ok(ureq::Error::Io(error)) => cut_short(path, copied, &error),
                Ok(error) => self.transport_error(&error),
                Err(error) => cut_short(path, copied, &error),
            })?;
            if read == 0 {
                return Ok(copied);
            }
            into.write_all(part.get(..read).unwrap_or_default()).map_err(|error| match error.kind() {
                // Who reads standard output has seen enough.
                io::ErrorKind::BrokenPipe => error.into(),
                _ => CliError::new(Code::Failed, format!("cannot write the copy: {error}"))
                    .hint("look at the disk that it is written to: its room, its health"),
            })?;
            copied += read as u64;
        }
    }

    /// Sends content as it is, and reads the JSON document that comes back. Without a timeout it may take its time.
    pub(crate) fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        content: impl io::Read,
    ) -> Result<T, CliError> {
        let mut request = self.agent.post(self.url(path)).header("Content-Type", "application/octet-stream");
        if let Some(token) = self.bearer() {
            request = request.header("Authorization", token.as_str());
        }
        let request = request.config().timeout_global(self.timeout).build();
        let mut content = content;
        let answer = self.body(request.send(ureq::SendBody::from_reader(&mut content)))?;
        self.json(&answer)
    }

    /// Opens a stream of events; without a timeout it lasts until either side ends it.
    pub(crate) fn events(&self, path: &str) -> Result<EventStream, CliError> {
        let mut request = self.agent.get(self.url(path)).header("Accept", "text/event-stream");
        if let Some(token) = self.bearer() {
            request = request.header("Authorization", token.as_str());
        }
        let request = request
            .config()
            .timeout_recv_response(Some(self.timeout_or_default()))
            .timeout_recv_body(self.timeout)
            .build();
        let response = self.success(request.call())?;
        let base = self.base.clone();
        Ok(EventStream { base, lines: BufReader::new(Box::new(response.into_body().into_reader())) })
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn bearer(&self) -> Option<Zeroizing<String>> {
        self.token.as_ref().map(|token| Zeroizing::new(format!("Bearer {}", token.as_str())))
    }

    fn timeout_or_default(&self) -> Duration {
        self.timeout.unwrap_or(TIMEOUT_DEFAULT)
    }

    fn json<T: DeserializeOwned>(&self, text: &str) -> Result<T, CliError> {
        serde_json::from_str(text).map_err(|error| {
            CliError::new(Code::Failed, format!("{} did not answer as an OmniMesh node: {error}", self.base))
                .hint("is that address a node's API, and of the same version as this command?")
        })
    }

    fn body(&self, answer: Result<Response<Body>, ureq::Error>) -> Result<String, CliError> {
        let mut response = self.success(answer)?;
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
        body.map_err(|error| self.transport_error(&error))
    }

    fn success(&self, answer: Result<Response<Body>, ureq::Error>) -> Result<Response<Body>, CliError> {
        let mut response = answer.map_err(|error| self.transport_error(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = response.body_mut().with_config().limit(64 << 10).read_to_string().unwrap_or_default();
        Err(self.status_error(status, &text))
    }

    fn status_error(&self, status: StatusCode, text: &str) -> CliError {
        let detail = serde_json::from_str::<ErrorBody>(text).ok().map(|body| body.error);
        let code = exit_of(status.as_u16(), detail.as_ref().map(|detail| detail.code));
        let Some(detail) = detail else {
            return CliError::new(code, format!("{} answered {status}", self.base));
        };
        let error = CliError::new(code, detail.message);
        match code {
            Code::Unauthorized if self.token.is_none() => {
                error.hint("no token was sent: name its file with --token-file or OMNIMESH_TOKEN_FILE")
            }
            _ if detail.hint.is_empty() => error,
            _ => error.hint(as_commands(&detail.hint)),
        }
    }

    fn transport_error(&self, error: &ureq::Error) -> CliError {
        transport_error(&self.base, error)
    }
}

fn exit_of(status: u16, code: Option<ErrorCode>) -> Code {
    match (status, code) {
        (503, Some(ErrorCode::Overloaded)) | (413 | 422 | 429, _) => Code::Refused,
        (400, Some(ErrorCode::InvalidJob)) => Code::ConfigInvalid,
        (400, _) => Code::Usage,
        (401 | 403, _) => Code::Unauthorized,
        (404, _) => Code::NotFound,
        (408 | 504, _) => Code::Timeout,
        (503, _) => Code::Unreachable,
        _ => Code::Failed,
    }
}

/// The exit code of an error that came within an answer.
pub(crate) fn exit_of_code(code: ErrorCode) -> Code {
    match code {
        ErrorCode::TooLarge | ErrorCode::Refused | ErrorCode::RateLimited | ErrorCode::Overloaded => {
            Code::Refused
        }
        ErrorCode::BadRequest | ErrorCode::InvalidJson | ErrorCode::InvalidChannel => Code::Usage,
        ErrorCode::InvalidJob => Code::ConfigInvalid,
        ErrorCode::NotFound => Code::NotFound,
        ErrorCode::Timeout | ErrorCode::RequestTimeout => Code::Timeout,
        ErrorCode::NotReady | ErrorCode::Stopping => Code::Unreachable,
        _ => Code::Failed,
    }
}

/// The node's hints are for whoever asks it over HTTP. What they say of paths and headers, said with commands and flags.
const COMMANDS: [(&str, &str); 10] = [
    ("`/readyz` answers 200 once it is ready", "`omnimesh status --wait` ends once it is ready"),
    ("`/readyz` answers 200 once the node is ready", "`omnimesh status --wait` ends once the node is ready"),
    ("`/api/v1/log/heads`", "`omnimesh log heads`"),
    ("`/api/v1/registry`", "`omnimesh registry list`"),
    ("`/api/v1/jobs`", "`omnimesh job list`"),
    ("`/api/v1/status`", "`omnimesh status`"),
    ("`/api/v1/members`", "`omnimesh members`"),
    ("`/api/v1/openapi.json`", "`omnimesh help`"),
    ("a PATCH with null", "`omnimesh registry update` with null"),
    (
        "send `Authorization: Bearer <token>` with the token in the file `api-token` of the node's data directory",
        "name the file with its token with --token-file or OMNIMESH_TOKEN_FILE: it is `api-token` in the node's data directory",
    ),
];

/// A hint of the node, for who uses the command line.
pub(crate) fn as_commands(hint: &str) -> String {
    COMMANDS.iter().fold(hint.to_owned(), |hint, (of_http, command)| hint.replace(of_http, command))
}

/// One server-sent event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its name; `message` if it has none.
    pub(crate) name: String,
    /// What it carries.
    pub(crate) data: String,
}

/// Events as they arrive.
pub(crate) struct EventStream {
    base: String,
    lines: BufReader<Box<dyn Read + Send>>,
}

impl EventStream {
    /// Waits for the next event; `None` when the node ended the stream.
    pub(crate) fn next(&mut self) -> Result<Option<Event>, CliError> {
        let base = &self.base;
        read_event(&mut self.lines).map_err(|error| match error.downcast::<ureq::Error>() {
            Ok(error) => transport_error(base, &error),
            Err(error) => transport_error(base, &ureq::Error::Io(error)),
        })
    }
}

/// The format of <https://html.spec.whatwg.org/multipage/server-sent-events.html>, less `id` and `retry`.
fn read_event(lines: &mut impl BufRead) -> io::Result<Option<Event>> {
    let (mut name, mut data, mut bytes) = (String::new(), Vec::<String>::new(), 0);
    loop {
        let mut line = String::new();
        if lines.take(EVENT_BYTES_MAX).read_line(&mut line)? == 0 {
            return Ok(None);
        }
        bytes += line.len() as u64;
        if bytes > EVENT_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "an event is larger than any that a node sends",
            ));
        }
        let line = line.trim_end_matches(['\n', '\r']);
        if line.is_empty() {
            if data.is_empty() {
                name.clear();
                bytes = 0;
                continue;
            }
            let name = if name.is_empty() { "message".to_owned() } else { name };
            return Ok(Some(Event { name, data: data.join("\n") }));
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut name),
            "data" => data.push(value.to_owned()),
            _ => {}
        }
    }
}

/// A part of a path, such as a channel's name, with all that is special in it encoded.
pub(crate) fn segment(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// The node answered, and then no more: it has found that it cannot give the rest, or has ended.
fn cut_short(path: &str, copied: u64, error: &io::Error) -> CliError {
    CliError::new(Code::Failed, format!("the answer of {path} ended after {copied} bytes: {error}"))
        .hint("ask again: what is good of it is kept; the node's log says what it lacks")
}

fn transport_error(base: &str, error: &ureq::Error) -> CliError {
    match error {
        ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
            CliError::new(Code::Unreachable, format!("no node answers at {base}"))
                .hint("is that the right address? see --api-url")
        }
        ureq::Error::Timeout(_) => CliError::new(Code::Timeout, format!("{base} did not answer in time"))
            .hint("give it longer with --timeout SECONDS"),
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            CliError::new(Code::Unreachable, format!("no node listens at {base}"))
                .hint("start one with `omnimesh start`, or name another with --api-url or --data-dir")
        }
        ureq::Error::HostNotFound => {
            CliError::new(Code::Unreachable, format!("no host has the name in {base}"))
                .hint("is that the right address? see --api-url")
        }
        ureq::Error::Protocol(_) | ureq::Error::Http(_) => strange(base, error),
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => strange(base, error),
        ureq::Error::BodyExceedsLimit(limit) => {
            CliError::new(Code::Failed, format!("{base} answered more than {limit} bytes"))
        }
        error => CliError::new(Code::Unreachable, format!("the connection to {base} failed: {error}"))
            .hint("does the node still run?"),
    }
}

fn strange(base: &str, error: &dyn Display) -> CliError {
    CliError::new(Code::Failed, format!("{base} did not answer as an OmniMesh node: {error}"))
}

fn base_url(url: &str) -> Result<String, CliError> {
    let usage = |message: &str, hint: &str| {
        CliError::new(Code::Usage, format!("--api-url {url:?}: {message}")).hint(hint)
    };
    let rest = match url.split_once("://") {
        None => url,
        Some(("http", rest)) => rest,
        Some(("https", _)) => {
            return Err(usage("https is not supported", "use a tunnel to the node's host, and http"));
        }
        Some(_) => return Err(usage("not an http address", "write it like http://127.0.0.1:7412")),
    };
    let host = rest.trim_end_matches('/');
    if host.is_empty() || host.contains(['/', '?', '#', '@', ' ']) {
        return Err(usage("not a host and port", "write it like http://127.0.0.1:7412"));
    }
    Ok(format!("http://{host}"))
}

fn is_loopback(base: &str) -> bool {
    let host = base.trim_start_matches("http://");
    match host.parse::<SocketAddr>() {
        Ok(address) => address.ip().is_loopback(),
        Err(_) => host == "localhost" || host.starts_with("localhost:"),
    }
}

fn own_file(globals: &Globals, name: &str) -> Result<PathBuf, CliError> {
    Ok(settings::data_dir(globals)?.join(name))
}

fn read_address(dir: &Path) -> Result<String, CliError> {
    let path = dir.join(API_ADDRESS_FILE);
    let text = fs::read_to_string(&path).map_err(|error| {
        let message = match error.kind() {
            io::ErrorKind::NotFound => format!("no node runs in the data directory {}", dir.display()),
            _ => format!("cannot read {}: {error}", path.display()),
        };
        CliError::new(Code::Unreachable, message)
            .hint("start one with `omnimesh start`, or name another with --data-dir or --api-url")
    })?;
    let mut address: SocketAddr = text.trim().parse().map_err(|_| {
        CliError::new(Code::Unreachable, format!("{} holds no address", path.display()))
            .hint("restart the node, which writes it")
    })?;
    // A node that listens on all interfaces is asked on the one that only this machine has.
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    Ok(address.to_string())
}

fn read_token(file: &Path) -> Result<Zeroizing<String>, CliError> {
    let remedy = "copy the file api-token from the node's data directory, or correct --token-file";
    let token = read_secret(file).map_err(|error| match error {
        // Not the hint for a file that is the node's own.
        DataDirError::Damaged { .. } => CliError::new(Code::Unauthorized, error.to_string()).hint(remedy),
        error => error.into(),
    })?;
    token.ok_or_else(|| {
        CliError::new(Code::Unauthorized, format!("there is no token file {}", file.display())).hint(remedy)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_as_the_standard_says() {
        let text = ": hello\n\nevent: message\ndata: a\ndata:b\nid: 1\n\ndata: c\r\n\r\nevent: lagged\n\nevent: x\ndata\n\ndata: cut";
        let mut lines = text.as_bytes();
        let mut events = Vec::new();
        while let Some(event) = read_event(&mut lines).unwrap() {
            events.push((event.name, event.data));
        }
        let expected = [("message", "a\nb"), ("message", "c"), ("x", "")];
        assert_eq!(events, expected.map(|(name, data)| (name.to_owned(), data.to_owned())));
    }

    #[test]
    fn an_event_without_end_is_an_error() {
        let lines = format!("data: {}\n", "x".repeat(1 << 20)).repeat(33);
        let error = read_event(&mut lines.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(transport_error("http://[::1]:1", &ureq::Error::Io(error)).code, Code::Failed);
    }

    #[test]
    fn paths_are_encoded() {
        assert_eq!(segment("a/b c?ü.~"), "a%2Fb%20c%3F%C3%BC.~");
    }

    #[test]
    fn urls_are_checked() {
        assert_eq!(base_url("127.0.0.1:1/").unwrap(), "http://127.0.0.1:1");
        assert_eq!(base_url("http://[::1]:1").unwrap(), "http://[::1]:1");
        for bad in ["https://a", "ftp://a", "http://", "http://a/b", "http://user@a"] {
            assert_eq!(base_url(bad).unwrap_err().code, Code::Usage, "{bad}");
        }
        assert!(is_loopback("http://[::1]:1") && is_loopback("http://localhost:1"));
        assert!(!is_loopback("http://10.0.0.1:1") && !is_loopback("http://localhost.example:1"));
    }

    #[test]
    fn the_own_token_goes_to_no_other_host() {
        let temp = tempfile::tempdir().unwrap();
        omnimesh_node::data_dir::write_secret(&temp.path().join(API_TOKEN_FILE), b"own\n").unwrap();
        let token = |url: &str| {
            let globals = Globals {
                data_dir: Some(temp.path().to_owned()),
                api_url: Some(url.to_owned()),
                ..Globals::default()
            };
            Client::new(&globals).unwrap().token.map(|token| token.to_string())
        };
        assert_eq!(token("http://127.0.0.1:1"), Some("own".to_owned()));
        assert_eq!(token("http://10.0.0.1:1"), None);
    }

    #[test]
    fn an_address_of_all_interfaces_is_asked_on_loopback() {
        let temp = tempfile::tempdir().unwrap();
        for (file, asked) in
            [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.1:1", "10.0.0.1:1")]
        {
            fs::write(temp.path().join(API_ADDRESS_FILE), file).unwrap();
            assert_eq!(read_address(temp.path()).unwrap(), asked);
        }
    }

    #[test]
    fn hints_name_commands_and_no_paths() {
        let hint = "it may have expired; `/api/v1/registry` lists the entries";
        assert_eq!(as_commands(hint), "it may have expired; `omnimesh registry list` lists the entries");
        for (of_http, command) in COMMANDS {
            let hint = as_commands(of_http);
            assert_eq!(hint, command);
            assert!(
                !hint.contains("/api/") && !hint.contains("/readyz") && !hint.contains("Bearer"),
                "{hint}"
            );
        }
        assert_eq!(as_commands("make room"), "make room");
    }

    #[test]
    fn statuses_become_exit_codes() {
        let client = Client::with("http://x".to_owned(), None, None);
        let code = |status: u16, code: &str| {
            let body = format!(r#"{{"error":{{"code":"{code}","message":"m","hint":""}}}}"#);
            client.status_error(StatusCode::from_u16(status).unwrap(), &body).code.exit()
        };
        assert_eq!(code(400, "invalid_channel"), 2);
        assert_eq!(code(401, "unauthorized"), 5);
        assert_eq!(code(403, "forbidden_host"), 5);
        assert_eq!(code(404, "not_found"), 6);
        assert_eq!(code(413, "too_large"), 9);
        assert_eq!(code(429, "rate_limited"), 9);
        assert_eq!(code(500, "internal"), 1);
        assert_eq!(code(503, "overloaded"), 9);
        assert_eq!(code(503, "not_ready"), 4);
        assert_eq!(code(504, "timeout"), 7);
        assert_eq!(client.status_error(StatusCode::BAD_GATEWAY, "<html>").code, Code::Failed);
    }
}
