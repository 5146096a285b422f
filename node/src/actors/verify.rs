//! Signatures: checked on a pool of threads, answered in the order in which they were asked for.
//!
//! ```text
//!  offer ─► waiting ─► one batch at a time on the pool ─► results() ─► done ─► the actor
//!              └─ a lone message, while none is under way: the actor checks it on the spot
//! ```
//!
//! What comes while a batch is under way waits and makes the next one, so batches grow with the load and a
//! lone message waits for nobody. Order matters: the replay window of an author reaches only so far back, and
//! a batch that overtook an earlier one would have the earlier one refused as replayed.
//!
//! Invariants: at most `waiting_max` messages wait or are under way; each that was taken is answered once,
//! unless [`Verifier::restart`] forgets it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use futures::{Stream, stream};
use omnimesh_protocol::MessageId;
use omnimesh_protocol::relay::Unchecked;
use omnimesh_protocol::validate::{Unverified, Verified};
use rayon::prelude::*;
use tokio::sync::mpsc;

use super::lock;

/// So few are checked on the spot if none is under way: sooner than a thread of the pool wakes up.
const LONE: usize = 1;

/// Batches of this size and larger are split among the pool's threads; smaller ones cost less than the split.
const PARALLEL_BATCH: usize = 8;

/// Batches that a restarted actor left behind, at most; a result finds room as long as they are not more.
const BATCHES_MAX: usize = 64;

type Message = (MessageId, Unverified);
/// What came of each message, in order.
pub(super) type Results = Vec<(MessageId, Result<Verified, Unchecked>)>;

/// A batch that is done.
#[derive(Debug)]
pub(super) struct Checked {
    token: u64,
    results: Results,
}

/// How much of it there was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) batches: u64,
    pub(crate) messages: u64,
    pub(crate) shed: u64,
}

#[derive(Debug)]
pub(super) struct Verifier {
    pool: Arc<rayon::ThreadPool>,
    waiting_max: usize,
    batch_max: usize,
    waiting: VecDeque<Message>,
    under_way: usize,
    /// Tells the batch under way from one that a restarted actor left behind.
    token: u64,
    sender: mpsc::Sender<Checked>,
    receiver: Arc<Mutex<mpsc::Receiver<Checked>>>,
    counters: Counters,
}

/// Checks one signature.
pub(super) fn check((id, message): Message) -> (MessageId, Result<Verified, Unchecked>) {
    (id, message.verify().map_err(Unchecked::Refused))
}

impl Verifier {
    pub(super) fn new(pool: Arc<rayon::ThreadPool>, waiting_max: usize, batch_max: usize) -> Self {
        let (sender, receiver) = mpsc::channel(BATCHES_MAX);
        Verifier {
            pool,
            waiting_max,
            batch_max: batch_max.max(1),
            waiting: VecDeque::new(),
            under_way: 0,
            token: 0,
            sender,
            receiver: Arc::new(Mutex::new(receiver)),
            counters: Counters::default(),
        }
    }

    /// Takes messages; those for which there is no room are the answer.
    pub(super) fn offer(&mut self, mut messages: Vec<Message>) -> Vec<MessageId> {
        let room = self.waiting_max.saturating_sub(self.len()).min(messages.len());
        let shed: Vec<MessageId> = messages.drain(room..).map(|(id, _)| id).collect();
        self.counters.shed += shed.len() as u64;
        self.waiting.extend(messages);
        shed
    }

    /// Begins the next batch if none is under way. A lone message is the answer, to be given to [`check`].
    pub(super) fn begin(&mut self) -> Option<Message> {
        if self.under_way > 0 || self.waiting.is_empty() {
            return None;
        }
        self.counters.batches += 1;
        if self.waiting.len() <= LONE {
            self.counters.messages += 1;
            return self.waiting.pop_front();
        }
        let batch: Vec<Message> = self.waiting.drain(..self.waiting.len().min(self.batch_max)).collect();
        self.under_way = batch.len();
        self.counters.messages += batch.len() as u64;
        let (token, sender) = (self.token, self.sender.clone());
        self.pool.spawn(move || {
            let results = if batch.len() < PARALLEL_BATCH {
                batch.into_iter().map(check).collect()
            } else {
                batch.into_par_iter().map(check).collect()
            };
            // There is room; if the actor is gone, nobody asks.
            let _ = sender.try_send(Checked { token, results });
        });
        None
    }

    /// Takes a batch that is done, and begins the next one so that the pool works on meanwhile.
    pub(super) fn done(&mut self, checked: Checked) -> Results {
        if checked.token != self.token {
            return Results::new();
        }
        self.under_way = 0;
        // A lone one is left to the actor, after the results of those before it.
        if self.waiting.len() > LONE {
            let lone = self.begin();
            debug_assert!(lone.is_none(), "more than a lone message waits");
        }
        checked.results
    }

    /// The batches that are done. Outlives a restart.
    pub(super) fn results(&self) -> impl Stream<Item = Checked> + use<> {
        let receiver = Arc::clone(&self.receiver);
        stream::poll_fn(move |cx| lock(&receiver).poll_recv(cx))
    }

    /// Forgets what waits and what is under way.
    pub(super) fn restart(&mut self) {
        self.token += 1;
        self.under_way = 0;
        self.waiting.clear();
    }

    /// Messages that wait or are under way.
    pub(super) fn len(&self) -> usize {
        self.under_way + self.waiting.len()
    }

    pub(super) fn counters(&self) -> Counters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use futures::executor::block_on;
    use omnimesh_protocol::envelope::{Channel, Envelope, Header, Kind};
    use omnimesh_protocol::pattern::PatternGenerator;
    use omnimesh_protocol::validate::{Config, Validator};
    use omnimesh_protocol::{Identity, Mesh, NodeId, Seq, Step, replay};

    use super::*;

    fn messages(count: u64) -> Vec<Message> {
        let mesh = Mesh::open("test").unwrap();
        let config = Config {
            phase_interval: 100.try_into().unwrap(),
            pattern_cache: 8.try_into().unwrap(),
            message_bytes_max: 65_536,
            step_window_past: 8,
            step_window_future: 2,
            replay: replay::Config { window: 1024, authors_max: 8.try_into().unwrap() },
        };
        let mut patterns =
            PatternGenerator::new(mesh.secret().clone(), config.phase_interval, config.pattern_cache);
        let channel = Channel::new("news").unwrap();
        let mut validator = Validator::new(mesh.clone(), config, None);
        (1..=count)
            .map(|seq| {
                let header = Header {
                    mesh: mesh.id(),
                    author: NodeId::from_bytes([0; 32]),
                    seq: Seq(seq),
                    step: Step(7),
                    kind: Kind::Ephemeral,
                    channel: channel.clone(),
                    prev: None,
                    timestamp_us: None,
                };
                let payloads = [bytes::Bytes::from_static(b"hello")].into_iter().collect();
                let identity = Identity::from_seed(&[1; 32]);
                let envelope = Envelope::seal(&identity, patterns.at(Step(7)), header, payloads).unwrap();
                let bytes = envelope.as_bytes();
                (envelope.id(), validator.precheck(Some(Step(7)), &channel, bytes).unwrap())
            })
            .collect()
    }

    fn verifier(waiting_max: usize) -> Verifier {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        Verifier::new(Arc::new(pool), waiting_max, 10)
    }

    fn ids(messages: &[Message]) -> Vec<MessageId> {
        messages.iter().map(|(id, _)| *id).collect()
    }

    #[test]
    fn results_come_in_the_order_of_the_questions_and_the_rest_is_shed() {
        let mut verifier = verifier(41);
        let mut messages = messages(50);
        let asked = ids(&messages);
        let rest = messages.split_off(12);
        assert!(verifier.offer(messages).is_empty());
        assert!(verifier.begin().is_none());
        assert_eq!(verifier.offer(rest), asked[41..]);
        assert!(verifier.begin().is_none(), "one batch at a time");
        assert_eq!(verifier.len(), 41);
        let (mut results, mut answered) = (verifier.results(), Vec::new());
        while verifier.under_way > 0 {
            let done = verifier.done(block_on(results.next()).unwrap());
            assert!(done.iter().all(|(_, result)| result.is_ok()));
            answered.extend(done.iter().map(|(id, _)| *id));
        }
        let (id, result) = check(verifier.begin().expect("the last one is alone"));
        assert!(result.is_ok());
        answered.push(id);
        assert_eq!(answered, asked[..41]);
        assert_eq!(verifier.len(), 0);
        assert_eq!(verifier.counters(), Counters { batches: 5, messages: 41, shed: 9 });
    }

    #[test]
    fn a_lone_message_waits_for_nobody_and_what_was_left_behind_is_no_answer() {
        let mut verifier = verifier(100);
        let mut messages = messages(4);
        let last = messages.split_off(3);
        verifier.offer(messages.split_off(2));
        assert!(verifier.begin().is_some());
        verifier.offer(messages);
        assert!(verifier.begin().is_none());
        verifier.restart();
        verifier.offer(last);
        assert!(verifier.begin().is_some());
        let left_behind = block_on(verifier.results().next()).unwrap();
        assert!(verifier.done(left_behind).is_empty());
        assert_eq!(verifier.len(), 0);
    }
}
