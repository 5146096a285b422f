//! Stock rust-libp2p gossipsub peers, as somebody else's program would run them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use libp2p::gossipsub::{
    self, ConfigBuilder, IdentTopic, MessageAcceptance, MessageAuthenticity, MetricsConfig, ValidationMode,
};
use libp2p::identity::Keypair;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, identify, noise, tcp, yamux};
use omnimesh_protocol::MessageId;
use omnimesh_protocol::envelope::Envelope;
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, oneshot};

/// How such a peer is set up.
pub(crate) struct Options {
    /// The gossipsub configuration, after what interoperation needs was set.
    pub(crate) change: fn(&mut ConfigBuilder),
    /// Signs its messages and wants those of others signed, as is gossipsub's default.
    pub(crate) signs: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { change: |_| {}, signs: false }
    }
}

/// A running peer; it ends when this is dropped.
pub(crate) struct Stock {
    pub(crate) peer: PeerId,
    /// With the peer's id at the end.
    pub(crate) address: Multiaddr,
    commands: mpsc::Sender<Command>,
    got: Arc<Mutex<BTreeMap<String, u32>>>,
}

enum Command {
    Dial(Multiaddr),
    Publish(Bytes, oneshot::Sender<Result<(), gossipsub::PublishError>>),
    Unsubscribe,
    Mesh(oneshot::Sender<BTreeSet<PeerId>>),
    Metrics(oneshot::Sender<String>),
    Hold(bool),
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    gossipsub: gossipsub::Behaviour,
    identify: identify::Behaviour,
}

/// What a message is called in these tests: its payload up to the first bar.
pub(crate) fn label(payload: &[u8]) -> String {
    let end = payload.iter().position(|byte| *byte == b'|').unwrap_or(payload.len());
    String::from_utf8_lossy(&payload[..end]).into_owned()
}

impl Stock {
    /// Starts a peer that is subscribed to `topic`.
    pub(crate) async fn start(seed: u8, topic: &str, options: Options) -> Stock {
        let keypair = Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes are a key");
        let mut registry = Registry::default();
        let topic = IdentTopic::new(topic);
        let mut swarm = swarm(keypair, &options, &mut registry);
        swarm.behaviour_mut().gossipsub.subscribe(&topic).expect("it may subscribe");
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().expect("an address")).expect("it can listen");
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address;
            }
        };
        let peer = *swarm.local_peer_id();
        let address = address.with_p2p(peer).expect("it names no other peer");
        let (commands, receiver) = mpsc::channel(64);
        let got = Arc::default();
        let task = Task {
            swarm,
            topic,
            registry,
            got: Arc::clone(&got),
            is_validating: !options.signs,
            is_holding: false,
            held: Vec::new(),
        };
        tokio::spawn(task.run(receiver));
        Stock { peer, address, commands, got }
    }

    async fn command(&self, command: Command) {
        self.commands.send(command).await.expect("the peer runs");
    }

    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Command) -> T {
        let (sender, receiver) = oneshot::channel();
        self.command(question(sender)).await;
        receiver.await.expect("the peer runs")
    }

    pub(crate) async fn dial(&self, address: &Multiaddr) {
        self.command(Command::Dial(address.clone())).await;
    }

    pub(crate) async fn publish(&self, data: impl Into<Bytes>) -> Result<(), gossipsub::PublishError> {
        self.ask(|answer| Command::Publish(data.into(), answer)).await
    }

    pub(crate) async fn unsubscribe(&self) {
        self.command(Command::Unsubscribe).await;
    }

    /// From now on forwards nothing, or what it held and all that follows.
    pub(crate) async fn hold(&self, hold: bool) {
        self.command(Command::Hold(hold)).await;
    }

    /// The peers in its mesh.
    pub(crate) async fn mesh(&self) -> BTreeSet<PeerId> {
        self.ask(Command::Mesh).await
    }

    /// Its gossipsub's own metrics, as text.
    pub(crate) async fn metrics(&self) -> String {
        self.ask(Command::Metrics).await
    }

    /// How often it got which message, by label.
    pub(crate) fn got(&self) -> BTreeMap<String, u32> {
        self.got.lock().expect("nobody panics with it").clone()
    }
}

fn swarm(keypair: Keypair, options: &Options, registry: &mut Registry) -> Swarm<Behaviour> {
    let mut config = ConfigBuilder::default();
    config
        .message_id_fn(|message| MessageId::of(&message.data).as_bytes().to_vec().into())
        .heartbeat_initial_delay(Duration::from_millis(100));
    let authenticity = if options.signs {
        config.validation_mode(ValidationMode::Strict);
        MessageAuthenticity::Signed(keypair.clone())
    } else {
        config.validation_mode(ValidationMode::Anonymous).validate_messages();
        MessageAuthenticity::Anonymous
    };
    (options.change)(&mut config);
    let config = config.build().expect("the configuration is valid");
    let gossipsub: gossipsub::Behaviour = gossipsub::Behaviour::new(authenticity, config)
        .expect("they go together")
        .with_metrics(registry, MetricsConfig::default());
    let identify = identify::Config::new("/somebody/else".into(), keypair.public());
    SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .expect("TCP works")
        .with_behaviour(|_| Behaviour { gossipsub, identify: identify::Behaviour::new(identify) })
        .expect("infallible")
        // Gossipsub keeps a connection for its mesh only.
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
        .build()
}

struct Task {
    swarm: Swarm<Behaviour>,
    topic: IdentTopic,
    registry: Registry,
    got: Arc<Mutex<BTreeMap<String, u32>>>,
    /// Waits for a verdict before it forwards.
    is_validating: bool,
    is_holding: bool,
    held: Vec<(gossipsub::MessageId, PeerId)>,
}

impl Task {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        // Gossipsub's heartbeat stalls in a swarm in which nothing else happens.
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                command = commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => return,
                },
                event = self.swarm.select_next_some() => self.on_event(event),
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        let gossipsub = &mut self.swarm.behaviour_mut().gossipsub;
        match command {
            Command::Dial(address) => self.swarm.dial(address).expect("it may dial"),
            Command::Publish(data, answer) => {
                let published = gossipsub.publish(self.topic.clone(), data);
                let _ = answer.send(published.map(|_| ()));
            }
            Command::Unsubscribe => {
                gossipsub.unsubscribe(&self.topic);
            }
            Command::Mesh(answer) => {
                let _ = answer.send(gossipsub.mesh_peers(&self.topic.hash()).copied().collect());
            }
            Command::Metrics(answer) => {
                let mut text = String::new();
                prometheus_client::encoding::text::encode(&mut text, &self.registry)
                    .expect("metrics can be written");
                let _ = answer.send(text);
            }
            Command::Hold(hold) => {
                self.is_holding = hold;
                for (id, from) in self.held.drain(..).filter(|_| !hold) {
                    gossipsub.report_message_validation_result(&id, &from, MessageAcceptance::Accept);
                }
            }
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        let SwarmEvent::Behaviour(BehaviourEvent::Gossipsub(gossipsub::Event::Message {
            propagation_source,
            message_id,
            message,
        })) = event
        else {
            return;
        };
        let envelope = Envelope::decode(&message.data.into(), 1 << 20).expect("envelopes only");
        for payload in envelope.payloads() {
            let mut got = self.got.lock().expect("nobody panics with it");
            *got.entry(label(payload)).or_default() += 1;
        }
        if self.is_holding {
            self.held.push((message_id, propagation_source));
        } else if self.is_validating {
            self.swarm.behaviour_mut().gossipsub.report_message_validation_result(
                &message_id,
                &propagation_source,
                MessageAcceptance::Accept,
            );
        }
    }
}
