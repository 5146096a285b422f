//! A node in memory, and a client that says exactly what a test wants it to say.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use omnimesh_protocol::Mesh;
use omnimesh_protocol::config::{ApiConfig, Part};
use omnimesh_protocol::envelope::Channel;
use omnimesh_protocol::id::{MeshId, MessageId, NodeId, Phase, Seq, Step};
use omnimesh_protocol::mesh::Invite;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::blob::Blobs;
use super::durable::Kept;
use super::job::Jobs;
use crate::api::backend::{Answer, Backend, BackendError, NotReady, PublishError};
use crate::api::token::ApiToken;
use crate::api::types::*;
use crate::api::{ApiMetrics, ApiServer, Timeouts, serve};
use crate::feed::{Feed, FeedLimits, FeedSender, feed};

/// The longest payload the node in memory takes.
pub(super) const PAYLOAD_BYTES_MAX: usize = 1000;
/// What its feeds hold.
pub(super) const FEED_ITEMS_MAX: usize = 8;
/// What a test waits at most for anything: to fail instead of to hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// A node without a network: what is published is delivered to the subscribers here.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) is_ready: AtomicBool,
    pub(super) is_stuck: AtomicBool,
    /// Messages that subscribers were too slow for.
    pub(super) dropped: AtomicU64,
    seq: AtomicU64,
    channels: Mutex<BTreeMap<String, Vec<FeedSender<Message>>>>,
    events: Mutex<Vec<FeedSender<Event>>>,
    registry: Mutex<Registry>,
    pub(super) kept: Kept,
    pub(super) blobs: Blobs,
    pub(super) jobs: Jobs,
}

impl Memory {
    pub(super) fn answer<T: Send + 'static, E: Send + 'static>(
        &self,
        answer: Result<T, E>,
    ) -> Answer<'_, T, E> {
        if self.is_stuck.load(Ordering::SeqCst) {
            futures::future::pending().boxed()
        } else {
            futures::future::ready(answer).boxed()
        }
    }

    /// How many open subscriptions a channel has.
    pub(super) fn subscribers(&self, channel: &str) -> usize {
        let channels = self.channels.lock().unwrap();
        channels.get(channel).map_or(0, |feeds| feeds.iter().filter(|feed| !feed.is_closed()).count())
    }

    fn deliver(&self, channel: &str, payload: &Bytes) -> Published {
        let seq = Seq(self.seq.fetch_add(1, Ordering::SeqCst) + 1);
        let message = sample_message(channel, seq, payload.clone().into());
        let mut channels = self.channels.lock().unwrap();
        let feeds = channels.entry(channel.to_owned()).or_default();
        feeds.retain(|feed| {
            let offered = feed.offer(message.clone(), payload.len());
            self.dropped.fetch_add(offered.unwrap_or(0), Ordering::SeqCst);
            offered.is_ok()
        });
        let published = Published { id: message.id, seq, step: message.step, recipients: feeds.len() };
        let event = Event { message: Some(message.id), ..sample_event() };
        self.events.lock().unwrap().retain(|feed| feed.offer(event.clone(), 100).is_ok());
        published
    }
}

impl Backend for Memory {
    fn readiness(&self) -> Result<(), NotReady> {
        if self.is_ready.load(Ordering::SeqCst) {
            Ok(())
        } else {
            Err(NotReady { reason: "no bootstrap peer answers".to_owned() })
        }
    }

    fn status(&self) -> Answer<'_, Status> {
        self.answer(Ok(sample_status()))
    }

    fn members(&self) -> Answer<'_, Vec<Member>> {
        self.answer(Ok(vec![sample_member()]))
    }

    fn peers(&self) -> Answer<'_, Vec<Peer>> {
        self.answer(Ok(vec![sample_peer()]))
    }

    fn step(&self) -> Answer<'_, StepView> {
        self.answer(Ok(sample_step()))
    }

    fn anomalies(&self) -> Answer<'_, Vec<Anomaly>> {
        self.answer(Ok(vec![sample_anomaly()]))
    }

    fn quarantines(&self) -> Answer<'_, Vec<Quarantine>> {
        self.answer(Ok(vec![sample_quarantine()]))
    }

    fn lift(&self, peer: NodeId) -> Answer<'_, Option<Quarantine>> {
        let quarantine = sample_quarantine();
        self.answer(Ok((quarantine.peer_id == peer).then_some(quarantine)))
    }

    fn why_peer(&self, peer: String) -> Answer<'_, Option<WhyPeer>> {
        self.answer(Ok((!peer.is_empty()).then(sample_why_peer)))
    }

    fn why_step(&self, step: Option<Step>) -> Answer<'_, WhyStep> {
        self.answer(Ok(WhyStep { step, ..super::observer::sample_why_step() }))
    }

    fn alerts(&self) -> Answer<'_, Vec<AlertView>> {
        self.answer(Ok(vec![super::observer::sample_alert()]))
    }

    fn acknowledge(&self, incident: u64, by: String) -> Answer<'_, Option<AlertView>> {
        let alert = AlertView { acknowledged_by: Some(by), ..super::observer::sample_alert() };
        self.answer(Ok((alert.id == incident).then_some(alert)))
    }

    fn monitor(&self) -> Answer<'_, Monitor> {
        self.answer(Ok(super::observer::sample_monitor()))
    }

    fn publish(&self, channel: Channel, payload: Bytes) -> Answer<'_, Published, PublishError> {
        self.answer(match channel.as_str() {
            _ if payload.len() > PAYLOAD_BYTES_MAX => Err(PublishError::TooLarge {
                bytes: payload.len(),
                bytes_max: PAYLOAD_BYTES_MAX,
                setting: "gossip.message_bytes_max".to_owned(),
            }),
            "full" => {
                Err(BackendError::Overloaded { what: "the queue `swarm.commands_max`".to_owned() }.into())
            }
            "broken" => Err(BackendError::Internal("the gossip actor is gone".to_owned()).into()),
            "stopping" => Err(BackendError::Stopping.into()),
            "forbidden" => Err(PublishError::Refused("this node may not publish there".to_owned())),
            "early" => Err(PublishError::NotReady(NotReady { reason: "no step yet".to_owned() })),
            channel => Ok(self.deliver(channel, &payload)),
        })
    }

    fn subscribe(&self, channel: Channel) -> Answer<'_, Feed<Message>> {
        let (sender, feed) = feed(FeedLimits { items_max: FEED_ITEMS_MAX, bytes_max: 1 << 20 });
        self.channels.lock().unwrap().entry(channel.to_string()).or_default().push(sender);
        self.answer(Ok(feed))
    }

    fn events(&self) -> Answer<'_, Feed<Event>> {
        let (sender, feed) = feed(FeedLimits::default());
        self.events.lock().unwrap().push(sender);
        self.answer(Ok(feed))
    }

    fn why_message(&self, id: MessageId) -> Answer<'_, Option<WhyMessage>> {
        let why = sample_why();
        self.answer(Ok((why.id == id).then_some(why)))
    }

    fn metrics_text(&self) -> Answer<'_, String> {
        let mut text = String::new();
        let encoded = prometheus_client::encoding::text::encode(&mut text, &self.registry.lock().unwrap());
        self.answer(encoded.map(|()| text).map_err(|error| BackendError::Internal(error.to_string())))
    }

    fn invite(&self) -> Answer<'_, Invite> {
        self.answer(Ok(sample_invite()))
    }
}

pub(super) fn sample_invite() -> Invite {
    Invite::new(Mesh::open("api").unwrap(), ["/ip4/127.0.0.1/tcp/1".to_owned()])
}

pub(super) fn sample_status() -> Status {
    Status {
        peer_id: NodeId::from_bytes([1; 32]),
        mesh_id: MeshId::from_bytes([2; 16]),
        mesh_name: "demo".to_owned(),
        step: Step(10),
        phase: Phase(1),
        step_interval_ms: 1000,
        peers: 1,
        members: 2,
        uptime_s: 3,
        version: "0.1.0".to_owned(),
        listen: vec!["/ip4/127.0.0.1/tcp/7411".to_owned()],
        api: String::new(),
        ready: false,
        not_ready_reason: Some("no bootstrap peer answers".to_owned()),
        log_trouble: Some("the disk of the data directory is full".to_owned()),
        verified_delivery: "99.98 %, 0 wrong".to_owned(),
        probes: super::observer::sample_probes(),
        memory: vec![sample_memory_part()],
    }
}

pub(super) fn sample_memory_part() -> MemoryPart {
    MemoryPart { part: Part::Outbound, budget_bytes: 1000, used_bytes: Some(10), shed: 1 }
}

pub(super) fn sample_member() -> Member {
    Member {
        peer_id: NodeId::from_bytes([1; 32]),
        state: MemberState::Alive,
        step: Some(Step(10)),
        addresses: Vec::new(),
        last_seen_ms: 0,
        rtt_ms: None,
        this_node: true,
    }
}

pub(super) fn sample_peer() -> Peer {
    Peer {
        peer_id: "QmPeer".to_owned(),
        addresses: vec!["/ip4/127.0.0.1/tcp/1".to_owned()],
        direction: Direction::Inbound,
        protocol: Some("/meshsub/1.2.0".to_owned()),
        agent: None,
        member: false,
        score: -0.5,
        rtt_ms: Some(0.25),
        connected_s: 4,
    }
}

pub(super) fn sample_step() -> StepView {
    StepView {
        step: Step(10),
        phase: Phase(1),
        mesh_time_ms: 10_000,
        offset_ms: -1.5,
        skew_ms: 0.5,
        samples: 3,
    }
}

pub(super) fn sample_quarantine() -> Quarantine {
    Quarantine {
        peer_id: NodeId::from_bytes([1; 32]),
        kind: Some(AnomalyKind::Equivocation),
        evidence: Some("00".to_owned()),
        since: Step(5),
        until: None,
    }
}

pub(super) fn sample_why_peer() -> WhyPeer {
    WhyPeer {
        peer_id: "QmPeer".to_owned(),
        standing: "like a stranger".to_owned(),
        trust: 0.5,
        score: 0.0,
        good: 0.0,
        suspicion: 0.0,
        fault: 0.0,
        doubt: 0.0,
        findings: vec![sample_anomaly()],
        history: vec![TrustChange { ago_ms: 5, trust: 0.5, cause: None }],
        quarantine: Some(sample_quarantine()),
        way_back: vec!["time".to_owned()],
    }
}

pub(super) fn sample_anomaly() -> Anomaly {
    Anomaly {
        id: "1".to_owned(),
        kind: AnomalyKind::BadPattern,
        accused: "QmPeer".to_owned(),
        reporter: NodeId::from_bytes([1; 32]),
        step: Step(10),
        first_step: Step(9),
        count: 2,
        severity: Severity::Warning,
        evidence: None,
        detail: "the tag does not fit".to_owned(),
    }
}

pub(super) fn sample_message(channel: &str, seq: Seq, payload: Payload) -> Message {
    Message {
        id: MessageId::of(&seq.0.to_be_bytes()),
        channel: channel.to_owned(),
        author: NodeId::from_bytes([1; 32]),
        seq,
        step: Step(10),
        payload,
        latency_ms: Some(0.5),
        from: Some("QmPeer".to_owned()),
    }
}

pub(super) fn sample_event() -> Event {
    Event {
        event_type: EventType::Security,
        kind: "refused".to_owned(),
        detail: "a message was refused".to_owned(),
        peer: Some("QmPeer".to_owned()),
        message: Some(MessageId::of(b"x")),
        channel: Some("news".to_owned()),
        metric: Some("disk".to_owned()),
        level: Some("warning".to_owned()),
        incident: Some(3),
        step: Step(10),
        at_ms: 1,
    }
}

pub(super) fn sample_why() -> WhyMessage {
    WhyMessage {
        id: MessageId::of(b"known"),
        outcome: Outcome::Refused,
        explanation: "the tag does not fit the step".to_owned(),
        author: None,
        channel: Some("news".to_owned()),
        step: Some(Step(9)),
        first_seen_step: Some(Step(10)),
        copies: 1,
        records: vec![WhyRecord {
            outcome: Outcome::Refused,
            reason: Some("bad_pattern".to_owned()),
            explanation: "the tag does not fit the step".to_owned(),
            from: Some("QmPeer".to_owned()),
            step: Step(10),
            at_ms: 1,
        }],
        standings: vec![Standing {
            peer_id: "QmPeer".to_owned(),
            role: "bringer".to_owned(),
            trust: 0.1,
            standing: "not trusted".to_owned(),
            findings: vec![sample_anomaly()],
        }],
    }
}

/// A running API before a node in memory.
pub(super) struct Rig {
    pub(super) server: ApiServer,
    pub(super) backend: Arc<Memory>,
    token: ApiToken,
}

impl Rig {
    pub(super) fn start() -> Self {
        Self::start_with(|_, _| {})
    }

    pub(super) fn start_with(change: impl FnOnce(&mut ApiConfig, &mut Timeouts)) -> Self {
        let mut config = ApiConfig { listen: "127.0.0.1:0".parse().unwrap(), ..ApiConfig::default() };
        let mut timeouts = Timeouts::default();
        change(&mut config, &mut timeouts);
        let backend = Arc::new(Memory::default());
        let token = ApiToken::generate().unwrap();
        let metrics = ApiMetrics::default();
        *backend.registry.lock().unwrap() = Registry::with_prefix("omnimesh");
        metrics.register(&mut backend.registry.lock().unwrap());
        let server = serve(config, timeouts, backend.clone(), token.clone(), metrics).unwrap();
        Rig { server, backend, token }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// A request with the right `Host` and the token; `more` is further header lines.
    pub(super) fn request(&self, method: &str, path: &str, more: &[&str], body: &str) -> String {
        let bearer = self.token.bearer();
        let authorization = format!("Authorization: {}", bearer.as_str());
        let mut lines = vec![authorization.as_str()];
        lines.extend_from_slice(more);
        self.bare_request(method, path, &lines, body)
    }

    /// A request with the right `Host` alone.
    pub(super) fn bare_request(&self, method: &str, path: &str, more: &[&str], body: &str) -> String {
        let host = format!("Host: {}", self.address());
        let length = format!("Content-Length: {}", body.len());
        let mut lines = vec![host.as_str()];
        if !body.is_empty() {
            lines.extend([length.as_str(), "Content-Type: application/json"]);
        }
        lines.extend_from_slice(more);
        format!("{method} {path} HTTP/1.1\r\n{}\r\n\r\n{body}", lines.join("\r\n"))
    }

    /// Sends bytes on a new connection and reads the first answer.
    pub(super) async fn send(&self, request: &str) -> Reply {
        let mut connection = Connection::open(self.address()).await;
        connection.write(request).await;
        connection.reply(request.starts_with("HEAD ")).await
    }

    pub(super) async fn get(&self, path: &str) -> Reply {
        self.send(&self.request("GET", path, &[], "")).await
    }

    pub(super) async fn publish(&self, channel: &str, body: &str) -> Reply {
        self.send(&self.request("POST", &format!("/api/v1/channels/{channel}/messages"), &[], body)).await
    }

    /// Opens a stream of events and reads its head and its greeting.
    pub(super) async fn stream(&self, path: &str) -> Connection {
        let mut connection = Connection::open(self.address()).await;
        connection.write(&self.request("GET", path, &[], "")).await;
        let reply = connection.head().await;
        assert_eq!((reply.status, reply.header("content-type")), (200, "text/event-stream"), "{reply:?}");
        assert_eq!(connection.chunk().await.as_deref(), Some(": subscribed\n\n"));
        connection
    }
}

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks that it is an error of this status and code, with the headers that every answer has.
    #[track_caller]
    pub(super) fn assert_error(&self, status: u16, code: ErrorCode) -> ErrorDetail {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/json", "{self:?}");
        self.assert_secure();
        let body: ErrorBody = serde_json::from_str(&self.body).unwrap();
        assert_eq!(body.error.code, code, "{self:?}");
        assert!(!body.error.message.is_empty() && !body.error.hint.is_empty(), "{self:?}");
        body.error
    }

    #[track_caller]
    pub(super) fn assert_secure(&self) {
        assert_eq!(self.header("x-content-type-options"), "nosniff", "{self:?}");
        assert_eq!(self.header("cache-control"), "no-store", "{self:?}");
        assert!(self.header("content-security-policy").starts_with("default-src 'none'"), "{self:?}");
    }
}

/// A connection on which a test says what it wants.
pub(super) struct Connection {
    socket: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr) -> Self {
        Connection { socket: TcpStream::connect(address).await.unwrap(), read: Vec::new() }
    }

    pub(super) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Reads more; false at the end.
    async fn more(&mut self) -> bool {
        let read = self.socket.read_buf(&mut self.read);
        match tokio::time::timeout(PATIENCE, read).await.expect("the server says nothing") {
            Ok(count) => count > 0,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// Takes what stands before the mark, and the mark.
    async fn until(&mut self, mark: &str) -> Option<String> {
        loop {
            if let Some(at) = self.read.windows(mark.len()).position(|window| window == mark.as_bytes()) {
                let taken = self.read.drain(..at + mark.len()).take(at).collect();
                return Some(String::from_utf8(taken).unwrap());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn exactly(&mut self, count: usize) -> String {
        while self.read.len() < count {
            assert!(self.more().await, "the server closed within an answer");
        }
        String::from_utf8(self.read.drain(..count).collect()).unwrap()
    }

    pub(super) async fn head(&mut self) -> Reply {
        let head = self.until("\r\n\r\n").await.expect("the server closed before an answer");
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        Reply { status, headers, body: String::new() }
    }

    pub(super) async fn reply(&mut self, is_head: bool) -> Reply {
        let mut reply = self.head().await;
        if !is_head {
            let length = reply.header("content-length").parse().unwrap_or(0);
            reply.body = self.exactly(length).await;
        }
        reply
    }

    /// The next chunk of a chunked body; `None` at its proper end.
    pub(super) async fn chunk(&mut self) -> Option<String> {
        let length = self.until("\r\n").await.expect("the server closed within a body");
        let length = usize::from_str_radix(&length, 16).unwrap();
        let chunk = self.exactly(length).await;
        assert_eq!(self.exactly(2).await, "\r\n");
        (length > 0).then_some(chunk)
    }

    /// The next event of a stream: its name and its data.
    pub(super) async fn event(&mut self, left: &mut String) -> Option<(String, serde_json::Value)> {
        loop {
            if let Some((event, rest)) = left.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                *left = rest;
                if event.starts_with(':') {
                    continue;
                }
                let (name, data) = event.split_once("\ndata: ").unwrap();
                let name = name.strip_prefix("event: ").unwrap();
                return Some((name.to_owned(), serde_json::from_str(data).unwrap()));
            }
            left.push_str(&self.chunk().await?);
        }
    }

    /// Reads to the end; what came.
    pub(super) async fn rest(mut self) -> Vec<u8> {
        while self.more().await {}
        self.read
    }
}

/// Waits until something holds that another thread brings about.
pub(super) async fn eventually(mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it did not come about");
}
