//! Counters of the streams, in the registry of the node.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::event::StreamKind;
use super::queue::Class;

type Labels = Vec<(&'static str, &'static str)>;

/// The counters of all kinds of streams.
#[derive(Debug, Clone)]
pub(super) struct Metrics {
    pub(super) gossip: Arc<StreamMetrics>,
    pub(super) control: Arc<StreamMetrics>,
    pub(super) log: Arc<StreamMetrics>,
    pub(super) blob: Arc<StreamMetrics>,
    pub(super) compute: Arc<StreamMetrics>,
    /// Events dropped because nobody took them.
    pub(super) events_dropped: Counter,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("swarm");
        let mut family = |name: &str, help: &str| {
            let family = Family::<Labels, Counter>::default();
            registry.register(name, help, family.clone());
            family
        };
        let families = Families {
            frames: family("stream_frames", "Frames carried, by kind and direction"),
            bytes: family("stream_bytes", "Bytes of frames carried, by kind and direction"),
            writes: family("stream_writes", "Writes, each of one or more frames, by kind"),
            shed: family("stream_shed", "Frames not sent because a peer is too slow, by kind and class"),
            malformed: family("stream_malformed", "Streams closed for broken framing, by kind"),
            stalled: family("stream_stalled", "Connections closed because the peer does not read, by kind"),
        };
        let events_dropped = Counter::default();
        let help = "Discovery and round-trip events dropped because nobody took them";
        registry.register("events_dropped", help, events_dropped.clone());
        Metrics {
            gossip: Arc::new(families.of(StreamKind::Gossip)),
            control: Arc::new(families.of(StreamKind::Control)),
            log: Arc::new(families.of(StreamKind::Log)),
            blob: Arc::new(families.of(StreamKind::Blob)),
            compute: Arc::new(families.of(StreamKind::Compute)),
            events_dropped,
        }
    }

    pub(super) fn of(&self, kind: StreamKind) -> &Arc<StreamMetrics> {
        match kind {
            StreamKind::Gossip => &self.gossip,
            StreamKind::Control => &self.control,
            StreamKind::Log => &self.log,
            StreamKind::Blob => &self.blob,
            StreamKind::Compute => &self.compute,
        }
    }
}

struct Families {
    frames: Family<Labels, Counter>,
    bytes: Family<Labels, Counter>,
    writes: Family<Labels, Counter>,
    shed: Family<Labels, Counter>,
    malformed: Family<Labels, Counter>,
    stalled: Family<Labels, Counter>,
}

impl Families {
    fn of(&self, kind: StreamKind) -> StreamMetrics {
        let labels = |more: &[(&'static str, &'static str)]| {
            let mut labels = vec![("kind", kind.name())];
            labels.extend_from_slice(more);
            labels
        };
        let get = |family: &Family<Labels, Counter>, more: &[(&'static str, &'static str)]| {
            family.get_or_create(&labels(more)).clone()
        };
        StreamMetrics {
            frames_sent: get(&self.frames, &[("direction", "sent")]),
            frames_received: get(&self.frames, &[("direction", "received")]),
            bytes_sent: get(&self.bytes, &[("direction", "sent")]),
            bytes_received: get(&self.bytes, &[("direction", "received")]),
            writes: get(&self.writes, &[]),
            shed: Class::ALL.map(|class| get(&self.shed, &[("class", class.name())])),
            malformed: get(&self.malformed, &[]),
            stalled: get(&self.stalled, &[]),
        }
    }
}

/// The counters of one kind of streams; each is an atomic integer, shared with the registry.
#[derive(Debug, Clone, Default)]
pub(super) struct StreamMetrics {
    pub(super) frames_sent: Counter,
    pub(super) frames_received: Counter,
    pub(super) bytes_sent: Counter,
    pub(super) bytes_received: Counter,
    pub(super) writes: Counter,
    shed: [Counter; 3],
    pub(super) malformed: Counter,
    pub(super) stalled: Counter,
}

impl StreamMetrics {
    pub(super) fn shed(&self, class: Class) -> &Counter {
        let [control, own, forwarded] = &self.shed;
        match class {
            Class::Control => control,
            Class::Own => own,
            Class::Forwarded => forwarded,
        }
    }
}
