//! The JSON documents of the HTTP API, for the server and for those who call it.
//!
//! Byte strings are lower-case hex, but for payloads: text travels as `data`, other bytes as `data_base64`.
//! The unit of a number is what its name ends in. Who reads these documents ignores fields it does not
//! know, so that fields can be added; what a client sends ([`PublishRequest`]) is read strictly.
//!
//! Peer ids of peers that need not be members are plain text: a stock libp2p peer may have a key that is
//! not Ed25519. Ids of authors and members are [`NodeId`]s, in JSON the same text.

mod blob;
mod job;
mod log;
mod memory;
mod observer;
mod registry;
mod strict;
mod value;

use std::fmt;

use bytes::Bytes;
use data_encoding::BASE64;
use omnimesh_protocol::id::{MeshId, MessageId, NodeId, Phase, Seq, Step};
pub use omnimesh_protocol::membership::MemberState;
use omnimesh_protocol::mesh::Invite;
pub use omnimesh_protocol::observer::AnomalyKind;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use blob::{Blob, BlobPut};
pub use job::{
    CancelRequest, FamilyLog, FamilyTimes, JobAccepted, JobCancelled, JobDetail, JobEventView, JobFamily,
    JobFormat, JobHeld, JobInput, JobLimits, JobLog, JobOutput, JobProblem, JobRequest, JobSummary, JobTask,
    JobTasks, JobTimes, JobTroubles, PathTask, Suggestion, TaskCounts, TaskFailure, WhyJob, WhyJobReason,
    Worker, WorkerShare,
};
pub use log::{
    AppendBatch, AppendRequest, BatchResult, CatchUp, LogAppended, LogChange, LogCheckpoint, LogEntries,
    LogEntry, LogEvent, LogHead, LogProof, LogStatus, MissedEntries, Source,
};
pub use memory::MemoryPart;
pub use observer::{
    ACK_CHARS_MAX, AckRequest, AlertView, DoubtView, Level, MetricView, Monitor, Probes, StepEventView,
    WhyStep,
};
pub use registry::{
    AsOfView, EntryView, FieldError, HitView, LinkName, LinkOfEntry, LinkRequest, ReachedView,
    RegistryChange, RegistryEntry, RegistryEvent, RegistryFound, RegistryLinks, RegistryPage, RegistryWalk,
    RegistryWriteRequest, RegistryWritten, VersionView, WriteView,
};
pub(in crate::api) use strict::object;
pub use value::{ValueError, from_json, read_value, to_json};
pub(in crate::api) use value::{encode, unfit_integer};

/// What a node is and where it stands: `GET /api/v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The node's own id.
    pub peer_id: NodeId,
    /// The mesh's id, in every protocol and topic name.
    pub mesh_id: MeshId,
    /// The mesh's name.
    pub mesh_name: String,
    /// The current step.
    pub step: Step,
    /// The phase of that step.
    pub phase: Phase,
    /// How long a step takes.
    pub step_interval_ms: u64,
    /// Connected peers.
    pub peers: usize,
    /// Members that are alive or suspect, this node among them.
    pub members: usize,
    /// Seconds since the node started.
    pub uptime_s: u64,
    /// The version of the software.
    pub version: String,
    /// Addresses for peers, each with its `/p2p/…` part.
    pub listen: Vec<String>,
    /// The address of this API, `host:port`.
    pub api: String,
    /// Whether the node takes part in the mesh yet.
    pub ready: bool,
    /// What it waits for while it is not ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_ready_reason: Option<String>,
    /// What is wrong with the log, if something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_trouble: Option<String>,
    /// What came of the known-answer probes of others, as in `99.98 %, 0 wrong`, or `no probes yet`.
    pub verified_delivery: String,
    /// The same in numbers.
    pub probes: Probes,
    /// The memory of the node, by part.
    #[serde(default)]
    pub memory: Vec<MemoryPart>,
}

/// A member of the mesh as this node sees it: `GET /api/v1/members` answers a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Who.
    pub peer_id: NodeId,
    /// Alive or not.
    pub state: MemberState,
    /// Its last known step.
    pub step: Option<Step>,
    /// Where it can be reached.
    pub addresses: Vec<String>,
    /// How long ago it was last heard of, directly or through others; 0 for this node itself.
    pub last_seen_ms: u64,
    /// Round-trip time, when it is connected and measured.
    pub rtt_ms: Option<f64>,
    /// Whether it is the node that answers.
    #[serde(default)]
    pub this_node: bool,
}

/// A connected peer: `GET /api/v1/peers` answers a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Who; need not be a member.
    pub peer_id: String,
    /// The remote addresses of its connections.
    pub addresses: Vec<String>,
    /// Who dialled the oldest of them.
    pub direction: Direction,
    /// The gossip protocol that was negotiated, such as `/meshsub/1.2.0`.
    pub protocol: Option<String>,
    /// What it calls itself (identify's agent version).
    pub agent: Option<String>,
    /// Whether it proved that it holds the mesh secret.
    pub member: bool,
    /// Its gossip score; what falls below zero is on the way out.
    pub score: f64,
    /// Round-trip time, once measured.
    pub rtt_ms: Option<f64>,
    /// Seconds since it connected.
    pub connected_s: u64,
}

/// Who dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The peer dialled this node.
    Inbound,
    /// This node dialled the peer.
    Outbound,
}

/// The mesh's clock as this node has it: `GET /api/v1/step`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepView {
    /// The current step.
    pub step: Step,
    /// The phase of that step.
    pub phase: Phase,
    /// Mesh time.
    pub mesh_time_ms: u64,
    /// Mesh time less the node's own clock.
    pub offset_ms: f64,
    /// How far the peers' clocks of the last round lay apart.
    pub skew_ms: f64,
    /// How many peers answered in the last round.
    pub samples: usize,
}

/// A delivered message: the `data` of `event: message` in `GET /api/v1/channels/{name}/events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Its id, by content. Payloads that travelled in one envelope share it; `seq` tells them apart.
    pub id: MessageId,
    /// Where it was published.
    pub channel: String,
    /// Who signed it.
    pub author: NodeId,
    /// The author's count.
    pub seq: Seq,
    /// The step it was published in.
    pub step: Step,
    /// What it says: `data` or `data_base64`.
    #[serde(flatten)]
    pub payload: Payload,
    /// From publishing to delivery here, by mesh time; none if the author gave no time.
    pub latency_ms: Option<f64>,
    /// The neighbour that brought it; none for the node's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// Tells a subscriber what it missed because it read too slowly: the `data` of `event: lagged`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lagged {
    /// How many messages or events were dropped since the one before.
    pub lost: u64,
}

/// What to publish: the body of `POST /api/v1/channels/{name}/messages`; `data` or `data_base64`.
///
/// Read strictly: a field it does not know is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PublishRequest {
    /// The payload.
    #[serde(serialize_with = "Payload::write_short", deserialize_with = "payload_only")]
    pub payload: Payload,
}

/// What was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The message's id, for `why message`.
    pub id: MessageId,
    /// This node's count.
    pub seq: Seq,
    /// The step it was published in.
    pub step: Step,
    /// The neighbours it was sent to. Zero: nobody near subscribes to the channel, and nobody will get it.
    pub recipients: usize,
}

/// Something that ought not to be: `GET /api/v1/anomalies` answers a list, newest last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anomaly {
    /// Its id.
    pub id: String,
    /// What it is.
    pub kind: AnomalyKind,
    /// The peer or author it is about.
    pub accused: String,
    /// The node that noticed.
    pub reporter: NodeId,
    /// When last.
    pub step: Step,
    /// When first.
    pub first_step: Step,
    /// How often.
    pub count: u64,
    /// How bad.
    pub severity: Severity,
    /// What proves it to anybody, in hex; none if it is this node's own observation.
    pub evidence: Option<String>,
    /// The same for people.
    pub detail: String,
}

/// How bad an anomaly is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Happens in healthy meshes too.
    Info,
    /// Lowers trust.
    Warning,
    /// Quarantines.
    Critical,
}

/// A key that is shut out: `GET /api/v1/quarantine` answers a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// Whose key.
    pub peer_id: NodeId,
    /// For what; none if an operator said so.
    pub kind: Option<AnomalyKind>,
    /// The id of what proves it to anybody.
    pub evidence: Option<String>,
    /// Since when.
    pub since: Step,
    /// When it is over; none: not by itself.
    pub until: Option<Step>,
}

/// Why this node thinks of a peer what it does: `GET /api/v1/why/peers/{id}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WhyPeer {
    /// Who.
    pub peer_id: String,
    /// What follows from it, in a sentence.
    pub standing: String,
    /// 0 to 1; 0.5 for a stranger.
    pub trust: f64,
    /// What gossip is told.
    pub score: f64,
    /// What trust is made of.
    pub good: f64,
    /// See `good`.
    pub suspicion: f64,
    /// See `good`.
    pub fault: f64,
    /// How much this node doubts itself, 0 to 1.
    pub doubt: f64,
    /// What it did, newest last.
    pub findings: Vec<Anomaly>,
    /// How trust came to be what it is, oldest first.
    pub history: Vec<TrustChange>,
    /// If it is shut out.
    pub quarantine: Option<Quarantine>,
    /// How it comes back, a sentence each; none if it need not.
    pub way_back: Vec<String>,
}

/// A change of trust.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrustChange {
    /// How long ago, in milliseconds.
    pub ago_ms: u64,
    /// What it came to.
    pub trust: f64,
    /// By what; none: by good conduct.
    pub cause: Option<AnomalyKind>,
}

/// What happened to a message at this node: `GET /api/v1/why/messages/{id}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WhyMessage {
    /// Which message.
    pub id: MessageId,
    /// What came of it in the end.
    pub outcome: Outcome,
    /// The same in a sentence.
    pub explanation: String,
    /// Who claims to have written it, once that could be read.
    pub author: Option<NodeId>,
    /// Where it was published, once that could be read.
    pub channel: Option<String>,
    /// The step it names, once that could be read.
    pub step: Option<Step>,
    /// This node's step when it first saw the message.
    pub first_seen_step: Option<Step>,
    /// How many copies came.
    pub copies: u64,
    /// What happened, oldest first; a bounded number of them.
    pub records: Vec<WhyRecord>,
    /// How those who had to do with it stand here: the author, and who brought it.
    pub standings: Vec<Standing>,
}

/// How somebody stands at this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Who.
    pub peer_id: String,
    /// `author` or `bringer`.
    pub role: String,
    /// 0 to 1; 0.5 for a stranger.
    pub trust: f64,
    /// The same in a sentence.
    pub standing: String,
    /// What is held against it, newest last.
    pub findings: Vec<Anomaly>,
}

/// One thing that happened to a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WhyRecord {
    /// What.
    pub outcome: Outcome,
    /// The reason code of a refusal, as in the metrics.
    pub reason: Option<String>,
    /// The same in a sentence.
    pub explanation: String,
    /// The neighbour that brought it.
    pub from: Option<String>,
    /// The node's step then.
    pub step: Step,
    /// When, in Unix time by this node's clock.
    pub at_ms: u64,
}

/// What came of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// This node published it.
    Published,
    /// It was valid, and subscribers here got it.
    Delivered,
    /// It was valid and passed on; nobody here subscribes to its channel.
    Forwarded,
    /// It was dropped without blame, such as a copy.
    Ignored,
    /// It was wrong, and the neighbour that brought it was blamed.
    Refused,
}

/// The invite token, which holds the mesh secret: `GET /api/v1/invite`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteView {
    /// The token that `omnimesh start --invite` takes.
    pub invite: String,
    /// True if nobody can join with it but nodes on this machine, because the node has loopback addresses only.
    #[serde(default)]
    pub this_machine_only: bool,
}

impl From<&Invite> for InviteView {
    fn from(invite: &Invite) -> Self {
        InviteView { invite: invite.encode(), this_machine_only: invite.is_for_this_machine_only() }
    }
}

impl fmt::Debug for InviteView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteView(secret)")
    }
}

/// What `/livez` and `/readyz` answer when all is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `live` or `ready`.
    pub status: String,
}

/// Something that happened in the node: the `data` of `GET /api/v1/events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Which stream it belongs to; also the name of the server-sent event.
    #[serde(rename = "type")]
    pub event_type: EventType,
    /// What, as a code: `delivered`, `refused`, `peer_connected`, `member_dead`, `queue_full` …
    pub kind: String,
    /// The same for people.
    pub detail: String,
    /// The peer it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The message it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<MessageId>,
    /// The channel it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Of an alert: the code of its metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// Of an alert: `normal` (it is over), `warning` or `critical`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// Of an alert: the number of its incident.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<u64>,
    /// The node's step then.
    pub step: Step,
    /// When, in Unix time by this node's clock.
    pub at_ms: u64,
}

/// The streams of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventType {
    /// Messages published, delivered.
    Message,
    /// What went wrong at this node.
    Error,
    /// Timings and load.
    Performance,
    /// Refusals, anomalies, quarantine.
    Security,
}

impl EventType {
    /// Its name in JSON and in the event stream.
    pub const fn as_str(self) -> &'static str {
        match self {
            EventType::Message => "message",
            EventType::Error => "error",
            EventType::Performance => "performance",
            EventType::Security => "security",
        }
    }
}

/// Every answer that is not a success: `{"error":{"code","message","hint"}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// What went wrong and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// For programs.
    pub code: ErrorCode,
    /// For people: the cause.
    pub message: String,
    /// For people: the remedy; empty if there is none to name.
    #[serde(default)]
    pub hint: String,
    /// With `invalid_job`, and with `refused` for a job's quota: all that is wrong with the job.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<JobProblem>,
}

/// The codes of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// 400: the request is not one that can be answered.
    BadRequest,
    /// 400: the body is not the JSON that was expected.
    InvalidJson,
    /// 400: not a name for a channel.
    InvalidChannel,
    /// 400: a job that makes no sense.
    InvalidJob,
    /// 401: the token is missing or wrong.
    Unauthorized,
    /// 403: the `Host` header names something else than this node.
    ForbiddenHost,
    /// 403: a page of another site sent this.
    ForbiddenOrigin,
    /// 404: there is nothing by that name.
    NotFound,
    /// 405: the path knows other methods.
    MethodNotAllowed,
    /// 408: the request took too long to arrive.
    RequestTimeout,
    /// 413: the body or the payload is over the limit.
    TooLarge,
    /// 415: the body is not `application/json`, or it is compressed.
    UnsupportedMediaType,
    /// 422: the mesh's rules do not allow it.
    Refused,
    /// 429: too many requests; see `Retry-After`.
    RateLimited,
    /// 500: the fault is the node's.
    Internal,
    /// 503: the node is not ready yet.
    NotReady,
    /// 503: a queue or a limit is full; try again.
    Overloaded,
    /// 503: the node is stopping.
    Stopping,
    /// 504: the node's parts did not answer in time.
    Timeout,
    /// 507: there is no room on the node's disk.
    StorageFull,
    /// A code of a later version.
    #[serde(other)]
    Other,
}

/// Bytes that may be text: in JSON `data` if they are UTF-8, `data_base64` (standard alphabet, padded) if not.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Payload(Bytes);

impl Payload {
    /// Writes it as this text, or its bytes in base64.
    fn write<S: Serializer>(&self, text: Option<&str>, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        match text {
            Some(text) => map.serialize_entry("data", text)?,
            None => map.serialize_entry("data_base64", &BASE64.encode(&self.0))?,
        }
        map.end()
    }

    /// Writes it for a request: as text unless that is longer, as each control character takes six.
    pub(crate) fn write_short<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let is_control = |byte: &&u8| byte.is_ascii_control();
        let is_long = |text: &&str| text.bytes().filter(|byte| is_control(&byte)).count() * 15 > text.len();
        self.write(self.as_text().filter(|text| !is_long(text)), serializer)
    }

    /// The text, if it is text.
    pub fn as_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The bytes, owned.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Payload(bytes)
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Payload(bytes.into())
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Self {
        Payload(text.into())
    }
}

impl From<&str> for Payload {
    fn from(text: &str) -> Self {
        Payload(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.write(self.as_text(), serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        PayloadWire::deserialize(deserializer)?.decode().map_err(serde::de::Error::custom)
    }
}

/// A payload beside other fields.
#[derive(Deserialize)]
struct PayloadWire {
    data: Option<String>,
    data_base64: Option<String>,
}

impl PayloadWire {
    fn decode(self) -> Result<Payload, String> {
        match (self.data, self.data_base64) {
            (Some(text), None) => Ok(text.into()),
            (None, Some(base64)) => match BASE64.decode(base64.as_bytes()) {
                Ok(bytes) => Ok(bytes.into()),
                Err(error) => Err(format!("`data_base64` is not padded standard base64: {error}")),
            },
            (Some(_), Some(_)) => Err("both `data` and `data_base64` are given; give one".to_owned()),
            (None, None) => Err("neither `data` (text) nor `data_base64` is given".to_owned()),
        }
    }
}

/// Reads a payload that nothing else may stand beside.
fn payload_only<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Payload, D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Strict {
        data: Option<String>,
        data_base64: Option<String>,
    }
    let Strict { data, data_base64 } = object(deserializer)?;
    PayloadWire { data, data_base64 }.decode().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn message(payload: Payload) -> Message {
        Message {
            id: MessageId::of(b"x"),
            channel: "news".to_owned(),
            author: NodeId::from_bytes([7; 32]),
            seq: Seq(1),
            step: Step(2),
            payload,
            latency_ms: Some(1.5),
            from: None,
        }
    }

    #[test]
    fn text_travels_as_data_and_other_bytes_as_base64() {
        let text = serde_json::to_value(message("grüß".into())).unwrap();
        assert_eq!(text["data"], "grüß");
        assert!(text.get("data_base64").is_none());
        assert_eq!(text["seq"], 1);
        let bytes = serde_json::to_value(message(vec![0xff, 0x00].into())).unwrap();
        assert_eq!(bytes["data_base64"], "/wA=");
        assert!(bytes.get("data").is_none());
        for payload in [Payload::default(), "a\u{0}b".into(), vec![0xc3, 0x28].into()] {
            let message = message(payload);
            let back: Message = serde_json::from_str(&serde_json::to_string(&message).unwrap()).unwrap();
            assert_eq!(back, message);
        }
    }

    #[test]
    fn a_request_is_not_much_longer_than_what_it_says() {
        for (bytes, field) in
            [(&b"plain"[..], "data"), (&[0; 30_000], "data_base64"), (b"a\x1b[1mb and more text", "data")]
        {
            let request = PublishRequest { payload: bytes.to_vec().into() };
            let text = serde_json::to_string(&request).unwrap();
            assert!(
                text.contains(&format!("{{\"{field}\":")) && text.len() < bytes.len() * 3 / 2 + 24,
                "{field}"
            );
            assert_eq!(serde_json::from_str::<PublishRequest>(&text).unwrap(), request);
        }
    }

    #[test]
    fn a_reader_ignores_fields_it_does_not_know() {
        let mut value = serde_json::to_value(message("x".into())).unwrap();
        value["later"] = json!(1);
        assert_eq!(serde_json::from_value::<Message>(value).unwrap(), message("x".into()));
        let code: ErrorCode = serde_json::from_str("\"of_a_later_version\"").unwrap();
        assert_eq!(code, ErrorCode::Other);
    }

    #[test]
    fn what_is_published_is_read_strictly() {
        let read = |value: serde_json::Value| {
            serde_json::from_str::<PublishRequest>(&value.to_string())
                .map(|request| request.payload)
                .map_err(|error| error.to_string())
        };
        assert_eq!(read(json!({"data": "x"})), Ok("x".into()));
        assert_eq!(read(json!({"data_base64": "/w=="})), Ok(vec![0xff].into()));
        for (value, says) in [
            (json!({}), "neither"),
            (json!({"data": "x", "data_base64": ""}), "both"),
            (json!({"data_base64": "/w"}), "base64"),
            (json!({"dat": "x"}), "unknown field `dat`"),
            (json!({"data": "x", "more": 1}), "unknown field `more`"),
            (json!({"data": 1}), "expected a string"),
        ] {
            let error = read(value.clone()).unwrap_err();
            assert!(error.contains(says), "{value}: {error}");
        }
        let request = PublishRequest { payload: "x".into() };
        assert_eq!(serde_json::to_value(request).unwrap(), json!({"data": "x"}));
    }

    #[test]
    fn an_invite_is_not_printed_by_accident() {
        let view = InviteView { invite: "secret token".to_owned(), this_machine_only: false };
        assert!(!format!("{view:?}").contains("token"));
    }
}
