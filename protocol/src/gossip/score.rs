//! How a peer is judged: the counters P1 to P7 of gossipsub v1.1 ("Peer Scoring") and their sum.

use std::net::IpAddr;

use smallvec::SmallVec;

use super::config::{ScoreConfig, TopicScore};
use super::topics::TopicIx;
use crate::Time;

/// Decays that are made up for when heartbeats were late. (guess)
const DECAYS_MAX: u32 = 64;

/// The counters of one peer.
#[derive(Debug, Default)]
pub(super) struct PeerScore {
    /// P5.
    pub(super) app: f64,
    /// P6: where it connects from; `None` if that does not count.
    pub(super) ip: Option<IpAddr>,
    /// P6: connected peers with this address, itself among them.
    pub(super) colocated: u32,
    /// P7.
    pub(super) offences: f64,
    /// Once it is gone: until when this is kept.
    pub(super) retained_until: Time,
    /// Of no weight here: for the observer.
    pub(super) brought: Brought,
    /// It is on trial until then.
    pub(super) tried_until: Time,
    topics: SmallVec<[TopicCounters; 1]>,
}

/// What a peer brought since we know it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Brought {
    /// Messages that it brought while they were remembered, good or bad; each once.
    pub(super) copies: u64,
    /// Ids that it told in IHAVE.
    pub(super) told: u64,
    /// Messages accepted in topics while it was in their mesh.
    pub(super) expected: u64,
}

/// The counters of one peer in one topic.
#[derive(Debug)]
struct TopicCounters {
    topic: TopicIx,
    /// P1: since when it is in our mesh.
    grafted: Option<Time>,
    /// P3: since when it is there to bring messages; `None` while tree mode excuses it.
    counted: Option<Time>,
    /// P2.
    first_deliveries: f64,
    /// P3.
    mesh_deliveries: f64,
    /// P3b.
    mesh_failures: f64,
    /// P4.
    invalid: f64,
}

impl TopicCounters {
    fn is_zero(&self) -> bool {
        let sum = self.first_deliveries + self.mesh_deliveries + self.mesh_failures + self.invalid;
        self.grafted.is_none() && sum == 0.0
    }

    /// P3: how many deliveries are missing, if that counts by now.
    fn deficit(&self, params: &TopicScore, now: Time) -> f64 {
        let counts = self.counted.is_some_and(|at| now.since(at) > params.mesh_deliveries_activation);
        if counts { (params.mesh_deliveries_threshold - self.mesh_deliveries).max(0.0) } else { 0.0 }
    }

    fn score(&self, params: &TopicScore, now: Time) -> f64 {
        let time = self.grafted.map_or(0.0, |at| {
            (now.since(at).as_secs_f64() / params.time_in_mesh_quantum.as_secs_f64())
                .min(params.time_in_mesh_cap)
        });
        params.topic_weight
            * (params.time_in_mesh_weight * time
                + params.first_deliveries_weight * self.first_deliveries
                + params.mesh_deliveries_weight * self.deficit(params, now).powi(2)
                + params.mesh_failure_weight * self.mesh_failures
                + params.invalid_weight * self.invalid.powi(2))
    }
}

impl PeerScore {
    /// The sum. `params` are those of a topic.
    pub(super) fn total<'a>(
        &self,
        config: &ScoreConfig,
        now: Time,
        params: impl Fn(TopicIx) -> &'a TopicScore,
    ) -> f64 {
        let mut topics: f64 = self.topics.iter().map(|t| t.score(params(t.topic), now)).sum();
        if config.topic_score_cap > 0.0 {
            topics = topics.min(config.topic_score_cap);
        }
        let neighbours = f64::from(self.colocated.saturating_sub(config.colocation_threshold));
        let offences = (self.offences - config.behaviour_threshold).max(0.0);
        topics
            + config.app_weight * self.app
            + config.colocation_weight * neighbours.powi(2)
            + config.behaviour_weight * offences.powi(2)
    }

    fn of_topic(&mut self, topic: TopicIx) -> &mut TopicCounters {
        let at = self.topics.iter().position(|t| t.topic == topic).unwrap_or_else(|| {
            let zero = 0.0;
            self.topics.push(TopicCounters {
                topic,
                grafted: None,
                counted: None,
                first_deliveries: zero,
                mesh_deliveries: zero,
                mesh_failures: zero,
                invalid: zero,
            });
            self.topics.len() - 1
        });
        self.topics.get_mut(at).expect("found or just added")
    }

    pub(super) fn on_graft(&mut self, topic: TopicIx, now: Time) {
        let counters = self.of_topic(topic);
        (counters.grafted, counters.counted) = (Some(now), Some(now));
        counters.mesh_deliveries = 0.0;
    }

    /// Its link became lazy in some tree, or is eager in all.
    pub(super) fn on_laziness(&mut self, topic: TopicIx, is_lazy: bool, now: Time) {
        let Some(counters) = self.topics.iter_mut().find(|t| t.topic == topic && t.grafted.is_some()) else {
            return;
        };
        if is_lazy {
            counters.counted = None;
        } else if counters.counted.is_none() {
            counters.counted = Some(now);
            counters.mesh_deliveries = 0.0;
        }
    }

    /// It left our mesh; what it failed to bring sticks (P3b).
    pub(super) fn on_prune(&mut self, topic: TopicIx, params: &TopicScore, now: Time) {
        let counters = self.of_topic(topic);
        counters.mesh_failures += counters.deficit(params, now).powi(2);
        (counters.grafted, counters.counted) = (None, None);
    }

    /// It brought a message that was accepted. `first`: before all others.
    pub(super) fn on_delivery(&mut self, topic: TopicIx, params: &TopicScore, first: bool) {
        let counters = self.of_topic(topic);
        if first {
            counters.first_deliveries = (counters.first_deliveries + 1.0).min(params.first_deliveries_cap);
        }
        if counters.grafted.is_some() {
            counters.mesh_deliveries = (counters.mesh_deliveries + 1.0).min(params.mesh_deliveries_cap);
        }
    }

    /// It brought a message that was rejected (P4).
    pub(super) fn on_invalid(&mut self, topic: TopicIx) {
        self.of_topic(topic).invalid += 1.0;
    }

    /// The connection is gone: what it did well is not kept, so that leaving does not pay.
    pub(super) fn on_disconnected(&mut self) {
        for counters in &mut self.topics {
            counters.first_deliveries = 0.0;
            counters.mesh_deliveries = 0.0;
        }
        self.colocated = 0;
    }

    /// Nothing is in it.
    pub(super) fn is_zero(&self) -> bool {
        self.app == 0.0 && self.offences == 0.0 && self.topics.iter().all(TopicCounters::is_zero)
    }

    pub(super) fn knows_topic(&self, topic: TopicIx) -> bool {
        self.topics.iter().any(|t| t.topic == topic && !t.is_zero())
    }

    pub(super) fn forget_topic(&mut self, topic: TopicIx) {
        self.topics.retain(|t| t.topic != topic);
    }

    /// Lets the counters fade, `times` intervals' worth.
    pub(super) fn decay<'a>(
        &mut self,
        config: &ScoreConfig,
        times: u32,
        params: impl Fn(TopicIx) -> &'a TopicScore,
    ) {
        let fade = |counter: &mut f64, factor: f64| {
            for _ in 0..times.min(DECAYS_MAX) {
                *counter *= factor;
            }
            if *counter < config.decay_to_zero {
                *counter = 0.0;
            }
        };
        fade(&mut self.offences, config.behaviour_decay);
        for counters in &mut self.topics {
            let params = params(counters.topic);
            fade(&mut counters.first_deliveries, params.first_deliveries_decay);
            fade(&mut counters.mesh_deliveries, params.mesh_deliveries_decay);
            fade(&mut counters.mesh_failures, params.mesh_failure_decay);
            fade(&mut counters.invalid, params.invalid_decay);
        }
        self.topics.retain(|counters| !counters.is_zero());
    }
}
