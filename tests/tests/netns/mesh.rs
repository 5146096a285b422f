//! A mesh of one node on each host, and what is asked of it.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use omnimesh_tests::{Lab, Node, SOON, Spec, Subscriber, check, wait_for};

use crate::hosts::Hosts;

/// The channel of the tests.
const CHANNEL: &str = "news";
/// A broadcast is with everybody after so long at most, also if its first copies were lost: three heartbeats in
/// which neighbours tell each other what there was, and room for a busy machine.
pub(crate) const DELIVERED_MAX: Duration = Duration::from_secs(15);

/// A node on each host, and a subscriber beside each.
pub(crate) struct Mesh<'lab> {
    pub(crate) nodes: Vec<Node<'lab>>,
    subscribers: Vec<Subscriber>,
}

impl<'lab> Mesh<'lab> {
    /// Starts a node at default ports on each host, the first by itself and the others by its address, and waits until
    /// they are one mesh.
    #[track_caller]
    pub(crate) fn start(lab: &'lab Lab, hosts: &Hosts) -> Mesh<'lab> {
        Mesh::start_on(lab, hosts, hosts.count())
    }

    /// The same on the first of the hosts.
    #[track_caller]
    pub(crate) fn start_on(lab: &'lab Lab, hosts: &Hosts, count: usize) -> Mesh<'lab> {
        let spec = |host: usize| spec(lab, hosts, &format!("node-{}", host + 1), host);
        let first = spec(0).start();
        let bootstrap = bootstrap(&first, hosts);
        let rest = (1..count).map(|host| spec(host).args(&["--bootstrap", &bootstrap]).start());
        let nodes: Vec<Node<'lab>> = std::iter::once(first).chain(rest).collect();
        let mut mesh = Mesh { nodes, subscribers: Vec::new() };
        for node in &mut mesh.nodes {
            node.wait_ready();
        }
        mesh.wait_whole(SOON);
        mesh.subscribers = mesh.nodes.iter().map(|node| node.subscribe(CHANNEL)).collect();
        mesh
    }

    /// Waits until each node holds each for alive. Returns how long it took.
    #[track_caller]
    pub(crate) fn wait_whole(&self, limit: Duration) -> Duration {
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        self.wait_islands(&[&all], limit)
    }

    /// Waits until each node holds those of its group for alive and all others for dead. Returns how long it took.
    #[track_caller]
    pub(crate) fn wait_islands(&self, groups: &[&[usize]], limit: Duration) -> Duration {
        let began = Instant::now();
        wait_for(&format!("the islands {groups:?}"), limit, || {
            for group in groups {
                for host in *group {
                    self.check_view(*host, group)?;
                }
            }
            Ok(())
        });
        began.elapsed()
    }

    /// Fails unless the node sees exactly the group as alive and all others as dead.
    fn check_view(&self, host: usize, group: &[usize]) -> Result<(), String> {
        let members = self.nodes[host].members()?;
        let expected: BTreeMap<String, String> = (0..self.nodes.len())
            .map(|other| {
                let state = if group.contains(&other) { "alive" } else { "dead" };
                (self.nodes[other].peer_id().to_owned(), state.to_owned())
            })
            .collect();
        check(members == expected, || format!("{} sees {members:?}, not {expected:?}", host + 1))
    }

    /// The states that a node sees which are not `alive`.
    pub(crate) fn not_alive(&self, host: usize) -> Vec<String> {
        let members = self.nodes[host].members().unwrap_or_default();
        members.into_values().filter(|state| state != "alive").collect()
    }

    /// Insists that these nodes have been connected to each other for so long.
    #[track_caller]
    pub(crate) fn assert_connected(&self, group: &[usize], least: Duration) {
        for host in group {
            let peers = self.nodes[*host].json(&["peers"]);
            let peers = peers.as_array().expect("a list of peers");
            for other in group.iter().filter(|other| *other != host) {
                let id = self.nodes[*other].peer_id();
                let peer = peers.iter().find(|peer| peer["peer_id"] == id);
                let connected_s = peer.and_then(|peer| peer["connected_s"].as_u64());
                assert!(
                    connected_s.is_some_and(|connected_s| connected_s >= least.as_secs()),
                    "node-{} and node-{} have not been connected for {least:?}: {peer:?}",
                    host + 1,
                    other + 1
                );
            }
        }
    }

    /// Publishes so many messages from each of these nodes, all nodes at once, with a pause after each. Returns what
    /// was published.
    #[track_caller]
    pub(crate) fn publish(&self, from: &[usize], what: &str, count: usize, pause: Duration) -> Vec<Message> {
        let one = |host: usize| {
            let texts = (1..=count).map(move |number| Message {
                text: format!("{what} {number} of node-{}", host + 1),
                from: host,
            });
            let published: Vec<Message> = texts.collect();
            for message in &published {
                self.nodes[host].publish(CHANNEL, &message.text).unwrap_or_else(|why| panic!("{why}"));
                thread::sleep(pause);
            }
            published
        };
        thread::scope(|scope| {
            let publishers: Vec<_> = from.iter().map(|host| scope.spawn(move || one(*host))).collect();
            publishers.into_iter().flat_map(|publisher| publisher.join().expect("it publishes")).collect()
        })
    }

    /// Waits until each of these nodes has delivered each of the messages of others, and then insists that none was
    /// delivered twice.
    #[track_caller]
    pub(crate) fn wait_delivered(&self, messages: &[Message], to: &[usize], limit: Duration) {
        wait_for(&format!("{} messages at {to:?}", messages.len()), limit, || {
            for host in to {
                let counts = self.counts(*host);
                let expected = messages.iter().filter(|message| message.from != *host);
                let missing: Vec<&str> = expected
                    .map(|message| message.text.as_str())
                    .filter(|text| !counts.contains_key(*text))
                    .collect();
                check(missing.is_empty(), || format!("node-{} lacks {missing:?}", host + 1))?;
            }
            Ok(())
        });
        for host in 0..self.nodes.len() {
            let twice: Vec<(String, usize)> =
                self.counts(host).into_iter().filter(|(_, count)| *count > 1).collect();
            assert_eq!(twice, [], "node-{} delivered twice", host + 1);
        }
    }

    /// Publishes one message from each node and waits until all have all.
    #[track_caller]
    pub(crate) fn exchange(&self, what: &str) {
        self.exchange_among(&(0..self.nodes.len()).collect::<Vec<_>>(), what);
    }

    /// The same among some.
    #[track_caller]
    pub(crate) fn exchange_among(&self, group: &[usize], what: &str) {
        let messages = self.publish(group, what, 1, Duration::ZERO);
        self.wait_delivered(&messages, group, DELIVERED_MAX);
    }

    /// How long the slowest of all deliveries took, in milliseconds.
    pub(crate) fn slowest_ms(&self) -> f64 {
        let messages = self.subscribers.iter().flat_map(Subscriber::messages);
        messages.filter_map(|message| message["latency_ms"].as_f64()).fold(0.0, f64::max)
    }

    /// How often a node delivered which text.
    fn counts(&self, host: usize) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for message in self.subscribers[host].messages() {
            *counts.entry(message["data"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
        counts
    }

    /// How far the nodes' mesh times are apart at most.
    #[track_caller]
    pub(crate) fn skew(&self) -> Duration {
        let now_ms = || SystemTime::UNIX_EPOCH.elapsed().expect("the clock is set").as_secs_f64() * 1e3;
        // What each is ahead of this process's clock: at least, and at most.
        let ahead: Vec<(f64, f64)> = self
            .nodes
            .iter()
            .map(|node| {
                let (before, step) = (now_ms(), node.json(&["step"]));
                let mesh = step["mesh_time_ms"].as_f64().expect("a number");
                (mesh - now_ms(), mesh - before)
            })
            .collect();
        let latest = ahead.iter().map(|ahead| ahead.0).fold(f64::MIN, f64::max);
        let earliest = ahead.iter().map(|ahead| ahead.1).fold(f64::MAX, f64::min);
        // What cannot be explained by the time that asking took.
        Duration::from_secs_f64((latest - earliest).max(0.0) / 1e3)
    }
}

/// A node at default ports on a host.
pub(crate) fn spec<'lab>(lab: &'lab Lab, hosts: &Hosts, name: &str, host: usize) -> Spec<'lab> {
    let prefix = hosts.prefix(host);
    let prefix: Vec<&str> = prefix.iter().map(String::as_str).collect();
    // The defaults, which the harness would replace.
    lab.node(name)
        .prefix(&prefix)
        .listen("/ip4/0.0.0.0/tcp/7411")
        .listen("/ip4/0.0.0.0/udp/7411/quic-v1")
        .api("127.0.0.1:7412")
        .open("hosts")
}

/// The address of the first node in the network.
#[track_caller]
pub(crate) fn bootstrap(first: &Node<'_>, hosts: &Hosts) -> String {
    let is_it = |told: &&String| told.contains(&format!("/{}/tcp/", hosts.address(0)));
    first.addresses().iter().find(is_it).expect("a node tells its address in the network").clone()
}

/// A message that was published.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    text: String,
    from: usize,
}
