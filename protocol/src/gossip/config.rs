//! What can be set about the router, and where each default comes from.
//!
//! "v1.0", "v1.1", "v1.2" name the gossipsub specification of that version; "rust" is rust-libp2p's default,
//! with which we share meshes; "guess" says that nobody measured.

use std::time::Duration;

use super::rpc::Topic;
use super::wire::Limits;

/// The largest of any mesh degree: more is a mistake, and degrees are counted in 16 bits.
const DEGREE_MAX: usize = 1_000;

/// Settings of the router. Shared by all who run the same one.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `D`: peers of a topic's mesh that we aim at. Default 6 (v1.0). Lower saves copies, higher saves time
    /// and gaps.
    pub mesh_degree: usize,
    /// `D_low`: below it the heartbeat grafts. Default 5 (rust; v1.0 says 4).
    pub mesh_degree_low: usize,
    /// `D_high`: above it the heartbeat prunes. Default 12 (v1.0).
    pub mesh_degree_high: usize,
    /// `D_score`: peers kept for their score when pruning. Default 4 (v1.1).
    pub mesh_degree_score: usize,
    /// `D_out`: peers kept that we dialled, against eclipse. Below `D_low` and at most `D / 2`. Default 2
    /// (v1.1).
    pub mesh_degree_out: usize,
    /// `D_lazy`: peers at least that get IHAVE in a heartbeat. Default 6 (v1.0). Zero with `gossip_factor`
    /// zero: no gossip.
    pub lazy_degree: usize,
    /// The part of the peers outside the mesh that gets IHAVE, if that is more. Default 0.25 (v1.1).
    pub gossip_factor: f64,
    /// Between heartbeats. Default 1 s (v1.0).
    pub heartbeat_interval: Duration,
    /// Before the first heartbeat, which then comes at a random part of the interval. Default 0: newcomers are
    /// grafted at once.
    pub heartbeat_initial_delay: Duration,
    /// Heartbeat intervals through which a message can be served to an IWANT. Default 5 (v1.0).
    pub history_length: u32,
    /// Heartbeats for which a message is told of in IHAVE. At most `history_length`. Default 3 (v1.0).
    pub history_gossip: u32,
    /// Own messages go to every subscriber we know, not to the mesh alone. Default true (v1.1).
    pub flood_publish: bool,
    /// A mesh below `mesh_degree_low` takes in a new subscriber at once, and so the nearest ones first; else the
    /// heartbeat chooses at random. Default true (ours: the specification only knows the heartbeat).
    pub graft_newcomers: bool,
    /// How long after our last message the peers are kept to which we publish without being subscribed.
    /// Default 60 s (v1.0).
    pub fanout_ttl: Duration,
    /// How long a pruned peer may not be grafted. Whole seconds on the wire. Default 60 s (v1.1). Zero: no
    /// backoff.
    pub prune_backoff: Duration,
    /// The same when we leave a topic. Default 10 s (v1.1).
    pub unsubscribe_backoff: Duration,
    /// We ourselves graft this much after a backoff has ended, for the clocks and the way. Default 1 s
    /// (rust: one heartbeat).
    pub backoff_slack: Duration,
    /// A GRAFT this soon after the PRUNE counts twice. Default 10 s (v1.1).
    pub graft_flood_threshold: Duration,
    /// How long a message is remembered as seen: at least this, at most twice. Default 120 s (v1.0). Too low
    /// and old messages come round again.
    pub seen_ttl: Duration,
    /// Messages remembered as seen. Default 1,048,576 (guess: 4,000 a second over two minutes). Above it the
    /// older half is forgotten early.
    pub seen_entries_max: usize,
    /// Messages that wait for a verdict. Default 4,096 (guess). Above it new ones are shed; they can come
    /// again.
    pub validating_max: usize,
    /// Heartbeats after which a message without a verdict is given up. Default 60 (guess).
    pub validating_beats_max: u32,
    /// Bytes of messages held for forwarding and IWANT. Default 64 MiB (guess). Above it the oldest are
    /// dropped early.
    pub cache_bytes_max: usize,
    /// Ids that we ask of one peer in a heartbeat, tell one peer of one topic in a heartbeat, and serve one
    /// peer in a heartbeat. Default 5,000 (v1.1 as implemented in go and rust).
    pub ihave_ids_max: usize,
    /// IHAVE frames taken from one peer in a heartbeat. Default 10 (v1.1 as implemented in go and rust).
    pub ihave_messages_max: u32,
    /// How many times one message is served to one peer. Default 3 (v1.1).
    pub retransmissions_max: u8,
    /// In this time a message that we asked for must come. Default 3 s (v1.1).
    pub iwant_followup: Duration,
    /// Messages with more bytes than this are answered by IDONTWANT. Default 1,000 (rust; v1.2 leaves it
    /// open). `usize::MAX`: never.
    pub idontwant_bytes_min: usize,
    /// Ids of IDONTWANT kept from one peer in a heartbeat. Default 1,000 (guess). Those above are passed
    /// over and cost a copy each.
    pub idontwant_ids_max: u32,
    /// Heartbeats for which an IDONTWANT is kept, at least. Default 3 (rust: 3 s).
    pub idontwant_beats: u32,
    /// Heartbeats between looks at whether the mesh is poor. Default 60 (v1.1).
    pub opportunistic_graft_beats: u32,
    /// Peers grafted when it is. Default 2 (v1.1).
    pub opportunistic_graft_peers: usize,
    /// Connected peers. Default 1,024 (guess). Further ones are sent away.
    pub peers_max: usize,
    /// Topics remembered per peer, besides those that we are subscribed to. Default 128 (guess).
    /// Further ones are passed over: we will not know that the peer is in them.
    pub topics_per_peer_max: usize,
    /// What frames may hold.
    pub limits: Limits,
    /// Peer scores; `None`: every score is zero. Default on.
    pub score: Option<ScoreConfig>,
    /// Tree mode between nodes of OmniMesh; `None`: they treat each other as stock routers do. Default on.
    pub tree: Option<TreeConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            mesh_degree: 6,
            mesh_degree_low: 5,
            mesh_degree_high: 12,
            mesh_degree_score: 4,
            mesh_degree_out: 2,
            lazy_degree: 6,
            gossip_factor: 0.25,
            heartbeat_interval: Duration::from_secs(1),
            heartbeat_initial_delay: Duration::ZERO,
            history_length: 5,
            history_gossip: 3,
            flood_publish: true,
            graft_newcomers: true,
            fanout_ttl: Duration::from_secs(60),
            prune_backoff: Duration::from_secs(60),
            unsubscribe_backoff: Duration::from_secs(10),
            backoff_slack: Duration::from_secs(1),
            graft_flood_threshold: Duration::from_secs(10),
            seen_ttl: Duration::from_secs(120),
            seen_entries_max: 1 << 20,
            validating_max: 4_096,
            validating_beats_max: 60,
            cache_bytes_max: 64 << 20,
            ihave_ids_max: 5_000,
            ihave_messages_max: 10,
            retransmissions_max: 3,
            iwant_followup: Duration::from_secs(3),
            idontwant_bytes_min: 1_000,
            idontwant_ids_max: 1_000,
            idontwant_beats: 3,
            opportunistic_graft_beats: 60,
            opportunistic_graft_peers: 2,
            peers_max: 1_024,
            topics_per_peer_max: 128,
            limits: Limits::default(),
            score: Some(ScoreConfig::default()),
            tree: Some(TreeConfig::default()),
        }
    }
}

/// Tree mode: mesh links between nodes of OmniMesh that bring nothing but duplicates carry ids instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeConfig {
    /// How long a message that a peer told of may take to come by an eager link, before it is asked for.
    /// About a round trip. Default 100 ms (guess: above most round trips on one continent; measured: nothing is
    /// asked for in vain where links take 10 to 50 ms). Too low asks for what is on its way; too high delays
    /// what was lost by so much.
    pub repair_timeout: Duration,
    /// Ids for lazy links wait so long for others to go with. Default 10 ms (guess). Zero: they go at once.
    pub announce_delay: Duration,
    /// A lazy link that knows of messages this much earlier than the eager one brings them becomes eager.
    /// Default 30 ms (guess).
    pub shortcut_gain: Duration,
    /// Each author has one of 64 trees, by the key in the envelope; otherwise, and where messages are not
    /// envelopes, all share one. Default true: a shared tree is best for one of its authors only.
    pub per_author: bool,
    /// Messages that we were told of and wait for. Default 8,192 (guess: 80,000 a second). Above it they are
    /// asked for at once.
    pub missing_max: usize,
}

impl Default for TreeConfig {
    fn default() -> Self {
        TreeConfig {
            repair_timeout: Duration::from_millis(100),
            announce_delay: Duration::from_millis(10),
            shortcut_gain: Duration::from_millis(30),
            per_author: true,
            missing_max: 8_192,
        }
    }
}

/// How peers are judged (v1.1, "Peer Scoring"). A score is the sum of the parts P1 to P7, each a weight
/// times a counter. The specification's threshold for peer exchange is missing, as none takes place.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreConfig {
    /// Below it (negative) no gossip with the peer. Default -65: lower than what the application says of one who is
    /// only suspected (-60). Such a peer is out of the mesh, and may be honest and have no other link.
    pub gossip_threshold: f64,
    /// Below it (negative) it gets none of our own messages outside the mesh. Default -70 (guess: between its
    /// neighbours).
    pub publish_threshold: f64,
    /// Below it (negative) nothing it says counts, and it is sent away. Default -80 (rust).
    pub graylist_threshold: f64,
    /// A mesh whose median score is below it grafts better peers. Default 1 (guess).
    pub opportunistic_graft_threshold: f64,
    /// The most that all topics together add to a score; zero: no cap. Default 50 (guess: less than one
    /// outright offence takes away).
    pub topic_score_cap: f64,
    /// P5: weight of what the application says. Default 1 (guess).
    pub app_weight: f64,
    /// P6: weight of the square of the peers from one IP address above the threshold. Default -5 (rust).
    pub colocation_weight: f64,
    /// P6: peers from one address that are no offence. Default 10 (rust). Loopback addresses never count.
    pub colocation_threshold: u32,
    /// P7: weight of the square of offences (broken promises, GRAFT in backoff, unreadable frames) above the
    /// threshold. Default -10 (rust).
    pub behaviour_weight: f64,
    /// P7: offences that are forgiven. Default 6 (guess: GRAFT and PRUNE that cross each other count two).
    pub behaviour_threshold: f64,
    /// P7: what is left of the counter after a decay interval. Default 0.99 (guess: half in 69 s).
    pub behaviour_decay: f64,
    /// Between decays; done in heartbeats. Default 1 s (rust).
    pub decay_interval: Duration,
    /// A counter below this is zero. Default 0.01 (v1.1).
    pub decay_to_zero: f64,
    /// How long a bad score outlives the connection. Default 1 h (rust).
    pub retain: Duration,
    /// Bad scores kept of peers that are gone. Default 1,024 (guess). Above it the one that would end first
    /// is forgotten.
    pub retained_max: usize,
    /// For every topic without its own entry in `topics`.
    pub topic: TopicScore,
    /// For single topics; sorted by name.
    pub topics: Vec<(Topic, TopicScore)>,
}

impl Default for ScoreConfig {
    fn default() -> Self {
        ScoreConfig {
            gossip_threshold: -65.0,
            publish_threshold: -70.0,
            graylist_threshold: -80.0,
            opportunistic_graft_threshold: 1.0,
            topic_score_cap: 50.0,
            app_weight: 1.0,
            colocation_weight: -5.0,
            colocation_threshold: 10,
            behaviour_weight: -10.0,
            behaviour_threshold: 6.0,
            behaviour_decay: 0.99,
            decay_interval: Duration::from_secs(1),
            decay_to_zero: 0.01,
            retain: Duration::from_secs(3_600),
            retained_max: 1_024,
            topic: TopicScore::default(),
            topics: Vec::new(),
        }
    }
}

/// How peers are judged in one topic (v1.1, "Topic parameters"). Weights and caps are guesses unless said
/// otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicScore {
    /// Weight of the topic's sum. Default 1.
    pub topic_weight: f64,
    /// P1: weight of the time in the mesh. Default 0.02.
    pub time_in_mesh_weight: f64,
    /// P1: its unit. Default 1 s.
    pub time_in_mesh_quantum: Duration,
    /// P1: its most. Default 300.
    pub time_in_mesh_cap: f64,
    /// P2: weight of messages first brought. Default 1.
    pub first_deliveries_weight: f64,
    /// P2: what is left after a decay interval. Default 0.95.
    pub first_deliveries_decay: f64,
    /// P2: its most. Default 30.
    pub first_deliveries_cap: f64,
    /// P3: weight of the square of what is missing of the threshold. Default 0, off: in a quiet topic it
    /// punishes everybody.
    pub mesh_deliveries_weight: f64,
    /// P3: what is left after a decay interval. Default 0.95.
    pub mesh_deliveries_decay: f64,
    /// P3: its most. Default 100.
    pub mesh_deliveries_cap: f64,
    /// P3: messages that a mesh peer should bring. Default 20 (rust).
    pub mesh_deliveries_threshold: f64,
    /// P3: a copy this soon after the verdict still counts. Default 10 ms (rust).
    pub mesh_deliveries_window: Duration,
    /// P3: time in the mesh before it counts. Default 5 s (rust).
    pub mesh_deliveries_activation: Duration,
    /// P3b: weight of what was missing when the peer left the mesh. Default 0, off.
    pub mesh_failure_weight: f64,
    /// P3b: what is left after a decay interval. Default 0.95.
    pub mesh_failure_decay: f64,
    /// P4: weight of the square of rejected messages. Default -1 (rust): nine within a minute are the
    /// graylist.
    pub invalid_weight: f64,
    /// P4: what is left after a decay interval. Default 0.97 (half in 23 s).
    pub invalid_decay: f64,
}

impl Default for TopicScore {
    fn default() -> Self {
        TopicScore {
            topic_weight: 1.0,
            time_in_mesh_weight: 0.02,
            time_in_mesh_quantum: Duration::from_secs(1),
            time_in_mesh_cap: 300.0,
            first_deliveries_weight: 1.0,
            first_deliveries_decay: 0.95,
            first_deliveries_cap: 30.0,
            mesh_deliveries_weight: 0.0,
            mesh_deliveries_decay: 0.95,
            mesh_deliveries_cap: 100.0,
            mesh_deliveries_threshold: 20.0,
            mesh_deliveries_window: Duration::from_millis(10),
            mesh_deliveries_activation: Duration::from_secs(5),
            mesh_failure_weight: 0.0,
            mesh_failure_decay: 0.95,
            invalid_weight: -1.0,
            invalid_decay: 0.97,
        }
    }
}

/// A setting that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("gossip: `{field}` {problem}")]
pub struct ConfigError {
    /// The setting.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

fn check(ok: bool, field: &'static str, problem: &'static str) -> Result<(), ConfigError> {
    if ok { Ok(()) } else { Err(ConfigError { field, problem }) }
}

/// A weight of a reward: finite and not negative.
fn reward(value: f64, field: &'static str) -> Result<(), ConfigError> {
    check(value.is_finite() && value >= 0.0, field, "must be a number of at least 0")
}

/// A weight of a penalty: finite and not positive.
fn penalty(value: f64, field: &'static str) -> Result<(), ConfigError> {
    check(value.is_finite() && value <= 0.0, field, "must be a number of at most 0")
}

fn decay(value: f64, field: &'static str) -> Result<(), ConfigError> {
    check(value > 0.0 && value < 1.0, field, "must be between 0 and 1")
}

impl Config {
    /// Says which setting is wrong, if one is.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_degrees()?;
        let is_factor = (0.0..=1.0).contains(&self.gossip_factor);
        check(is_factor, "gossip_factor", "must be between 0 and 1")?;
        check(!self.heartbeat_interval.is_zero(), "heartbeat_interval", "must not be 0")?;
        check(self.history_length > 0, "history_length", "must be at least 1")?;
        check(
            self.history_gossip <= self.history_length,
            "history_gossip",
            "must be at most `history_length`",
        )?;
        check(!self.seen_ttl.is_zero(), "seen_ttl", "must not be 0")?;
        check(self.seen_entries_max >= 2, "seen_entries_max", "must be at least 2")?;
        check(self.validating_max > 0, "validating_max", "must be at least 1")?;
        check(self.validating_beats_max > 0, "validating_beats_max", "must be at least 1")?;
        let holds_a_frame = self.cache_bytes_max >= self.limits.frame_bytes_max;
        check(holds_a_frame, "cache_bytes_max", "must have room for one frame (`limits.frame_bytes_max`)")?;
        check(self.opportunistic_graft_beats > 0, "opportunistic_graft_beats", "must be at least 1")?;
        check(self.idontwant_beats > 0, "idontwant_beats", "must be at least 1")?;
        // Peers are numbered in 16 bits, the gone ones whose score is kept among them.
        check((1..=30_000).contains(&self.peers_max), "peers_max", "must be between 1 and 30,000")?;
        check(self.topics_per_peer_max <= 4_096, "topics_per_peer_max", "must be at most 4,096")?;
        self.limits.validate()?;
        self.tree.as_ref().map_or(Ok(()), TreeConfig::validate)?;
        self.score.as_ref().map_or(Ok(()), ScoreConfig::validate)
    }

    fn validate_degrees(&self) -> Result<(), ConfigError> {
        let (low, degree, high) = (self.mesh_degree_low, self.mesh_degree, self.mesh_degree_high);
        check(degree > 0, "mesh_degree", "must be at least 1")?;
        check(low <= degree, "mesh_degree_low", "must be at most `mesh_degree`")?;
        check(high >= degree, "mesh_degree_high", "must be at least `mesh_degree`")?;
        check(high <= DEGREE_MAX, "mesh_degree_high", "must be at most 1,000")?;
        check(self.mesh_degree_score <= degree, "mesh_degree_score", "must be at most `mesh_degree`")?;
        let out = self.mesh_degree_out;
        check(out == 0 || out < low, "mesh_degree_out", "must be below `mesh_degree_low`")?;
        check(out <= degree / 2, "mesh_degree_out", "must be at most half of `mesh_degree`")?;
        check(self.lazy_degree <= DEGREE_MAX, "lazy_degree", "must be at most 1,000")
    }
}

impl Limits {
    fn validate(&self) -> Result<(), ConfigError> {
        // Room for a topic of the greatest length with one id.
        check(self.control_bytes_max >= 512, "limits.control_bytes_max", "must be at least 512")?;
        let fits = self.control_bytes_max <= self.batch_bytes_max;
        check(fits, "limits.control_bytes_max", "must be at most `limits.batch_bytes_max`")?;
        let fits = self.batch_bytes_max <= self.frame_bytes_max;
        check(fits, "limits.batch_bytes_max", "must be at most `limits.frame_bytes_max`")?;
        check(self.messages_max > 0, "limits.messages_max", "must be at least 1")
    }
}

impl TreeConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        check(!self.repair_timeout.is_zero(), "tree.repair_timeout", "must not be 0")?;
        let is_room = (8..=1 << 20).contains(&self.missing_max);
        check(is_room, "tree.missing_max", "must be between 8 and 1,048,576")
    }
}

impl ScoreConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        penalty(self.gossip_threshold, "score.gossip_threshold")?;
        penalty(self.publish_threshold, "score.publish_threshold")?;
        penalty(self.graylist_threshold, "score.graylist_threshold")?;
        let ordered = self.publish_threshold <= self.gossip_threshold;
        check(ordered, "score.publish_threshold", "must be at most `score.gossip_threshold`")?;
        let ordered = self.graylist_threshold <= self.publish_threshold;
        check(ordered, "score.graylist_threshold", "must be at most `score.publish_threshold`")?;
        reward(self.opportunistic_graft_threshold, "score.opportunistic_graft_threshold")?;
        reward(self.topic_score_cap, "score.topic_score_cap")?;
        check(self.app_weight.is_finite(), "score.app_weight", "must be a number")?;
        penalty(self.colocation_weight, "score.colocation_weight")?;
        check(self.colocation_threshold > 0, "score.colocation_threshold", "must be at least 1")?;
        penalty(self.behaviour_weight, "score.behaviour_weight")?;
        reward(self.behaviour_threshold, "score.behaviour_threshold")?;
        decay(self.behaviour_decay, "score.behaviour_decay")?;
        check(!self.decay_interval.is_zero(), "score.decay_interval", "must not be 0")?;
        decay(self.decay_to_zero, "score.decay_to_zero")?;
        check(self.retained_max <= 30_000, "score.retained_max", "must be at most 30,000")?;
        let sorted = self.topics.windows(2).all(|pair| matches!(pair, [a, b] if a.0 < b.0));
        check(sorted, "score.topics", "must be sorted by name, each once")?;
        self.topic.validate()?;
        self.topics.iter().try_for_each(|(_, topic)| topic.validate())
    }
}

impl TopicScore {
    fn validate(&self) -> Result<(), ConfigError> {
        reward(self.topic_weight, "score.topic.topic_weight")?;
        reward(self.time_in_mesh_weight, "score.topic.time_in_mesh_weight")?;
        check(!self.time_in_mesh_quantum.is_zero(), "score.topic.time_in_mesh_quantum", "must not be 0")?;
        reward(self.time_in_mesh_cap, "score.topic.time_in_mesh_cap")?;
        reward(self.first_deliveries_weight, "score.topic.first_deliveries_weight")?;
        decay(self.first_deliveries_decay, "score.topic.first_deliveries_decay")?;
        reward(self.first_deliveries_cap, "score.topic.first_deliveries_cap")?;
        penalty(self.mesh_deliveries_weight, "score.topic.mesh_deliveries_weight")?;
        decay(self.mesh_deliveries_decay, "score.topic.mesh_deliveries_decay")?;
        reward(self.mesh_deliveries_cap, "score.topic.mesh_deliveries_cap")?;
        reward(self.mesh_deliveries_threshold, "score.topic.mesh_deliveries_threshold")?;
        penalty(self.mesh_failure_weight, "score.topic.mesh_failure_weight")?;
        decay(self.mesh_failure_decay, "score.topic.mesh_failure_decay")?;
        penalty(self.invalid_weight, "score.topic.invalid_weight")?;
        decay(self.invalid_decay, "score.topic.invalid_decay")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field_of(change: impl FnOnce(&mut Config)) -> &'static str {
        let mut config = Config::default();
        change(&mut config);
        config.validate().unwrap_err().field
    }

    #[test]
    fn defaults_are_valid() {
        assert_eq!(Config::default().validate(), Ok(()));
    }

    #[test]
    fn errors_name_the_field() {
        assert_eq!(field_of(|c| c.mesh_degree_low = 7), "mesh_degree_low");
        assert_eq!(field_of(|c| c.mesh_degree_high = 5), "mesh_degree_high");
        assert_eq!(field_of(|c| c.mesh_degree_out = 5), "mesh_degree_out");
        assert_eq!(field_of(|c| (c.mesh_degree_out, c.mesh_degree) = (4, 7)), "mesh_degree_out");
        assert_eq!(field_of(|c| c.history_gossip = 6), "history_gossip");
        assert_eq!(field_of(|c| c.gossip_factor = f64::NAN), "gossip_factor");
        assert_eq!(field_of(|c| c.limits.batch_bytes_max = 70_000), "limits.batch_bytes_max");
        let score =
            |change: fn(&mut ScoreConfig)| field_of(|c| change(c.score.as_mut().expect("on by default")));
        assert_eq!(score(|s| s.gossip_threshold = 1.0), "score.gossip_threshold");
        assert_eq!(score(|s| s.graylist_threshold = -20.0), "score.graylist_threshold");
        assert_eq!(score(|s| s.topic.invalid_decay = 1.0), "score.topic.invalid_decay");
        assert_eq!(score(|s| s.behaviour_weight = f64::NAN), "score.behaviour_weight");
    }
}
