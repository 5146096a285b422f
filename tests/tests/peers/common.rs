//! Nodes to attack, and what to wait for on them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use libp2p::PeerId;
use omnimesh_node::data_dir::{API_ADDRESS_FILE, API_TOKEN_FILE};
use omnimesh_node::feed::FeedItem;
use omnimesh_node::swarm::peer;
use omnimesh_node::{MeshNode, NodeOptions};
use omnimesh_protocol::config::Config;
use omnimesh_protocol::envelope::{Channel, Envelope, Header, Kind, Payloads};
use omnimesh_protocol::event::Event;
use omnimesh_protocol::pattern::PatternGenerator;
use omnimesh_protocol::{Identity, Mesh, MessageId, NodeId, Seq, Step};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::raw::varint;

/// Longer than anything here takes, so that a hang is a failure with a name.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// How long to wait before asking a node again.
pub(crate) const PAUSE: Duration = Duration::from_millis(25);
/// The channel that everything happens on.
pub(crate) const NEWS: &str = "news";
/// What stock gossipsub peers speak.
pub(crate) const MESHSUB: &str = "/meshsub/1.1.0";

/// The result, or a failure that says what did not happen.
pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

/// Asks again and again until there is an answer.
pub(crate) async fn poll<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(PAUSE).await;
        }
    })
    .await
}

pub(crate) fn identity(seed: u64) -> Identity {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[31] = 0x5a;
    Identity::from_seed(&bytes)
}

/// A node on loopback with free ports, that says nothing unasked: what is counted is what the test says.
pub(crate) fn config() -> Config {
    let mut config = Config::default();
    config.observer.probe_interval_ms = 0;
    config.network.listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
    config.api.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config
}

/// A node in this process, with its API, and all that it told.
pub(crate) struct TestNode {
    pub(crate) node: MeshNode,
    pub(crate) peer: PeerId,
    api: Api,
    log: watch::Receiver<Vec<Event<PeerId>>>,
    _dir: TempDir,
}

impl TestNode {
    pub(crate) async fn start(identity: Identity, mesh: &Mesh, config: Config) -> TestNode {
        let dir = tempfile::tempdir().unwrap();
        let options = NodeOptions {
            config,
            data_dir: Some(dir.path().to_owned()),
            identity,
            mesh: mesh.clone(),
            is_new: true,
        };
        let node = within("a node starts", MeshNode::start(options)).await.unwrap();
        let mut events = within("a node tells its events", node.events()).await.unwrap();
        let (sender, log) = watch::channel(Vec::new());
        tokio::spawn(async move {
            while let Some(item) = events.next().await {
                match item {
                    FeedItem::Next(observed) => sender.send_modify(|log| log.push(observed.event)),
                    FeedItem::Lagged(lost) => panic!("{lost} events were lost"),
                }
            }
        });
        let api = Api::of(dir.path()).expect("the node has written where its API is");
        TestNode { peer: peer::peer_id(&node.peer_id()), node, api, log, _dir: dir }
    }

    /// What `wanted` makes of the first event that it wants, of all there were and will be.
    pub(crate) async fn event<T>(&self, what: &str, wanted: impl Fn(&Event<PeerId>) -> Option<T>) -> T {
        let mut log = self.log.clone();
        let log = within(what, log.wait_for(|log| log.iter().any(|event| wanted(event).is_some())));
        log.await.unwrap().iter().find_map(wanted).unwrap()
    }

    /// Waits until a peer was refused for this reason, and gives the explanation.
    pub(crate) async fn peer_refused(&self, whom: PeerId, why: &str) -> String {
        self.event(&format!("{whom} is refused: {why}"), |event| match event {
            Event::PeerRefused { peer, reason, detail } if *peer == whom && *reason == why => {
                Some(detail.clone())
            }
            _ => None,
        })
        .await
    }

    /// How many events there were of which this is true.
    pub(crate) fn count(&self, is_one: impl Fn(&Event<PeerId>) -> bool) -> usize {
        self.log.borrow().iter().filter(|event| is_one(event)).count()
    }

    /// How often this peer connected.
    pub(crate) fn connected(&self, who: PeerId) -> usize {
        self.count(|event| matches!(event, Event::PeerUp { peer, what: "connected", .. } if *peer == who))
    }

    pub(crate) async fn metrics(&self) -> Metrics {
        self.api.metrics().await
    }

    /// What the node answers to `why message`.
    pub(crate) async fn why(&self, id: MessageId) -> Option<String> {
        self.api.get(&format!("/api/v1/why/messages/{id}")).await.ok()
    }

    pub(crate) fn address(&self) -> String {
        self.node.bootstrap_addresses()[0].clone()
    }

    pub(crate) fn step(&self) -> Step {
        self.node.step().expect("the node is synchronised")
    }
}

/// A node as a process of its own; killed when dropped.
pub(crate) struct Process {
    child: Child,
    api: Api,
}

impl Process {
    /// Starts a node of an open mesh and waits until it has the mesh's step.
    pub(crate) async fn start(dir: &Path, open: &str, settings: &[(&str, &str)]) -> Process {
        let _ = std::fs::remove_file(dir.join(API_ADDRESS_FILE));
        let child = Command::new(env!("CARGO_BIN_EXE_omnimesh-under-test"))
            .args(["start", "--listen", "/ip4/127.0.0.1/tcp/0", "--api", "127.0.0.1:0", "--open", open])
            .args(["--log-level", "error", "--data-dir"])
            .arg(dir)
            .envs(settings.iter().map(|(key, value)| (format!("OMNIMESH_{key}"), value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let child = Killed(Some(child));
        let api = poll("the process has an API", async || Api::of(dir)).await;
        poll("the process is ready", async || api.get("/readyz").await.ok()).await;
        Process { child: child.keep(), api }
    }

    pub(crate) async fn metrics(&self) -> Metrics {
        self.api.metrics().await
    }

    /// What it answers, if it does.
    pub(crate) async fn get(&self, path: &str) -> Result<String, String> {
        self.api.get(path).await
    }

    pub(crate) async fn json(&self, path: &str) -> serde_json::Value {
        serde_json::from_str(&self.api.get_in_time(path).await).unwrap()
    }

    /// Its address with its peer id, and the peer id.
    pub(crate) async fn address(&self) -> (String, PeerId) {
        let address = self.json("/api/v1/status").await["listen"][0].as_str().unwrap().to_owned();
        let peer = peer::peer_of_address(&address.parse().unwrap()).unwrap();
        (address, peer)
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The memory that it holds, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most memory that it has held, in bytes.
    pub(crate) fn resident_bytes_max(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A child that is killed unless it is kept.
struct Killed(Option<Child>);

impl Killed {
    fn keep(mut self) -> Child {
        self.0.take().unwrap()
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A node's HTTP API.
#[derive(Clone, Debug)]
struct Api {
    address: SocketAddr,
    token: String,
}

impl Api {
    fn of(dir: &Path) -> Option<Api> {
        let read = |name| std::fs::read_to_string(dir.join(name)).ok().map(|text| text.trim().to_owned());
        let address = read(API_ADDRESS_FILE)?.parse().ok()?;
        Some(Api { address, token: read(API_TOKEN_FILE)? })
    }

    /// The body of a good answer; a bad one is an error.
    async fn get(&self, path: &str) -> Result<String, String> {
        let (api, path) = (self.clone(), path.to_owned());
        let answer = tokio::task::spawn_blocking(move || api.get_blocking(&path));
        within("the API answers", answer).await.unwrap()
    }

    /// The body, also of a node that has so much to do that it gives up an answer or two.
    async fn get_in_time(&self, path: &str) -> String {
        poll(path, async || self.get(path).await.ok()).await
    }

    fn get_blocking(&self, path: &str) -> Result<String, String> {
        let Api { address, token } = self;
        let mut stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        );
        stream.set_read_timeout(Some(PATIENCE)).map_err(|error| error.to_string())?;
        let mut answer = String::new();
        stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
        stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
        if head.starts_with("HTTP/1.1 200") { Ok(body.to_owned()) } else { Err(answer) }
    }

    async fn metrics(&self) -> Metrics {
        let text = self.get_in_time("/metrics").await;
        let series = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Metrics(series.collect())
    }
}

/// `/metrics` at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// The value of a series, named with its labels and without the prefix.
    pub(crate) fn get(&self, series: &str) -> f64 {
        let name = format!("omnimesh_{series}");
        *self.0.get(&name).unwrap_or_else(|| panic!("no series {name} in {:?}", self.0.keys()))
    }

    /// The same; zero if there is no such series.
    pub(crate) fn get_or_zero(&self, series: &str) -> f64 {
        self.0.get(&format!("omnimesh_{series}")).copied().unwrap_or(0.0)
    }

    /// Messages refused for this reason.
    pub(crate) fn refused(&self, reason: &str) -> f64 {
        self.get(&format!("messages_refused_total{{reason=\"{reason}\"}}"))
    }

    /// All reasons for which messages were refused, with how many.
    pub(crate) fn all_refused(&self) -> BTreeMap<String, f64> {
        self.labelled("messages_refused_total", "reason")
    }

    /// The series of one family that are not zero, by a label.
    pub(crate) fn labelled(&self, family: &str, label: &str) -> BTreeMap<String, f64> {
        let prefix = format!("omnimesh_{family}{{{label}=\"");
        let value = |(name, value): (&String, &f64)| {
            Some((name.strip_prefix(&prefix)?.strip_suffix("\"}")?.to_owned(), *value))
        };
        self.0.iter().filter_map(value).filter(|(_, value)| *value != 0.0).collect()
    }
}

/// Somebody who knows a mesh's secret and writes what the test wants.
pub(crate) struct Author {
    pub(crate) identity: Identity,
    pub(crate) mesh: Mesh,
    patterns: PatternGenerator,
    next_seq: u64,
}

impl Author {
    pub(crate) fn new(seed: u64, mesh: &Mesh) -> Author {
        let phase_interval = omnimesh_protocol::config::NodeConfig::default().phase_interval;
        let patterns = PatternGenerator::new(
            mesh.secret().clone(),
            phase_interval.try_into().unwrap(),
            64.try_into().unwrap(),
        );
        Author { identity: identity(seed), mesh: mesh.clone(), patterns, next_seq: 1 }
    }

    pub(crate) fn header(&mut self, step: Step) -> Header {
        let seq = Seq(self.next_seq);
        self.next_seq += 1;
        Header {
            mesh: self.mesh.id(),
            author: self.identity.id(),
            seq,
            step,
            kind: Kind::Ephemeral,
            channel: Channel::new(NEWS).unwrap(),
            prev: None,
            timestamp_us: None,
        }
    }

    pub(crate) fn seal(&mut self, header: Header, payload: &[u8]) -> Vec<u8> {
        let payloads: Payloads = [Bytes::copy_from_slice(payload)].into_iter().collect();
        let pattern = self.patterns.at(header.step);
        Envelope::seal(&self.identity, pattern, header, payloads).unwrap().as_bytes().to_vec()
    }

    /// A good message with the next sequence number.
    pub(crate) fn write(&mut self, step: Step, payload: &str) -> Vec<u8> {
        let header = self.header(step);
        self.seal(header, payload.as_bytes())
    }

    /// Puts bytes under a right tag and a signature, whatever they say.
    pub(crate) fn seal_raw(&mut self, step: Step, signed: &[u8]) -> Vec<u8> {
        let tag = blake3::keyed_hash(self.patterns.at(step).tag_key(), signed);
        let signature = self.sign(signed);
        outer(signed, tag.as_bytes(), &signature)
    }

    /// This author's signature over the signed part of an envelope.
    pub(crate) fn sign(&self, signed: &[u8]) -> [u8; 64] {
        let mut input = b"omnimesh/1/envelope".to_vec();
        input.extend_from_slice(blake3::hash(signed).as_bytes());
        self.identity.sign(&input)
    }
}

/// The outer CBOR array of an envelope, with heads for a signed part of 256 bytes to 64 KiB or below 256.
pub(crate) fn outer(signed: &[u8], tag: &[u8; 32], signature: &[u8; 64]) -> Vec<u8> {
    let mut bytes = vec![0x83];
    match u8::try_from(signed.len()) {
        Ok(len) => bytes.extend([0x58, len]),
        Err(_) => bytes.extend([&[0x59][..], &u16::try_from(signed.len()).unwrap().to_be_bytes()].concat()),
    }
    bytes.extend_from_slice(signed);
    bytes.extend([0x58, 32]);
    bytes.extend_from_slice(tag);
    bytes.extend([0x58, 64]);
    bytes.extend_from_slice(signature);
    bytes
}

/// The signed part of an envelope.
pub(crate) fn signed_part(envelope: &[u8]) -> Vec<u8> {
    let envelope = Envelope::decode(&Bytes::copy_from_slice(envelope), usize::MAX).unwrap();
    envelope.signed_bytes().to_vec()
}

pub(crate) fn topic(mesh: &Mesh) -> String {
    Channel::new(NEWS).unwrap().topic(&mesh.id())
}

/// A protobuf field with bytes.
pub(crate) fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    let mut field = varint(number << 3 | 2);
    field.extend(varint(bytes.len() as u64));
    field.extend_from_slice(bytes);
    field
}

/// The part of a gossipsub frame that subscribes to a topic.
pub(crate) fn subscribe(topic: &str) -> Vec<u8> {
    field(1, &[&[0x08, 1][..], &field(2, topic.as_bytes())].concat())
}

/// The part of a gossipsub frame that carries a message.
pub(crate) fn publish(topic: &str, data: &[u8]) -> Vec<u8> {
    field(2, &[field(2, data), field(4, topic.as_bytes())].concat())
}

/// Who this is, as libp2p names it.
pub(crate) fn peer_of(node: NodeId) -> PeerId {
    peer::peer_id(&node)
}

/// Numbers that look random and repeat.
pub(crate) struct Dice(blake3::OutputReader);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof())
    }

    pub(crate) fn next(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.fill(&mut bytes);
        bytes
    }
}

/// Bytes for people, when a test fails.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
