//! Listening, dialling, limits, discovery and what peers tell.

use std::collections::BTreeSet;
use std::time::Duration;

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use omnimesh_node::swarm::{Class, Config, DialFailure, Error, Event, Source, StreamKind};
use omnimesh_protocol::MeshId;

use crate::common::*;

#[tokio::test]
async fn failed_dials_say_why() {
    let mut a = start(1, config(&[TCP, QUIC])).await;
    let b = start(2, config(&[TCP, QUIC])).await;
    let stranger = PeerId::random();
    // Taken, and nobody listens there.
    let taken = tokio::net::TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let closed = taken.local_addr().unwrap().port();
    let closed: Multiaddr = format!("/ip4/127.0.0.1/tcp/{closed}").parse().unwrap();

    a.handle.dial(Some(stranger), vec![closed.clone()]).unwrap();
    let (peer, addresses, kind, reason) = dial_failed(&mut a).await;
    assert_eq!((peer, addresses, kind), (Some(stranger), vec![closed.clone()], DialFailure::Refused));
    assert!(reason.contains("refused") && reason.contains(&closed.to_string()), "{reason}");

    // Nobody named: still told by address.
    a.handle.dial(None, vec![closed.clone()]).unwrap();
    let (peer, addresses, kind, _) = dial_failed(&mut a).await;
    assert_eq!((peer, addresses, kind), (None, vec![closed], DialFailure::Refused));

    // A UDP port where nobody answers.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = format!("/ip4/127.0.0.1/udp/{}/quic-v1", silent.local_addr().unwrap().port());
    let mut hasty = config(&[QUIC]);
    hasty.limits.handshake_timeout = Duration::from_secs(1);
    let mut hasty = start(3, hasty).await;
    hasty.handle.dial(Some(stranger), vec![address.parse().unwrap()]).unwrap();
    let (_, _, kind, reason) = dial_failed(&mut hasty).await;
    assert_eq!(kind, DialFailure::Timeout, "{reason}");

    for address in &b.listening {
        a.handle.dial(Some(stranger), vec![address.clone()]).unwrap();
        let (_, _, kind, reason) = dial_failed(&mut a).await;
        assert_eq!(kind, DialFailure::WrongPeer { obtained: b.handle.local_peer() }, "{reason}");
    }

    a.handle.dial(Some(a.handle.local_peer()), b.listening.clone()).unwrap();
    assert_eq!(dial_failed(&mut a).await.2, DialFailure::Myself);
    a.handle.dial(Some(stranger), vec!["/memory/1".parse().unwrap()]).unwrap();
    assert_eq!(dial_failed(&mut a).await.2, DialFailure::AddressUnsupported);
    a.handle.dial(Some(stranger), vec![]).unwrap();
    assert_eq!(dial_failed(&mut a).await.2, DialFailure::NoAddress);
    a.handle.dial(None, vec!["/dns/no-such-host.invalid/tcp/1".parse().unwrap()]).unwrap();
    let (_, _, kind, reason) = dial_failed(&mut a).await;
    assert!(matches!(kind, DialFailure::Unresolved | DialFailure::Timeout), "{kind:?} {reason}");
    a.handle.leave_alone(b.handle.local_peer(), Duration::from_secs(3600)).unwrap();
    a.handle.dial(Some(b.handle.local_peer()), b.listening.clone()).unwrap();
    let (_, _, kind, reason) = dial_failed(&mut a).await;
    assert_eq!(kind, DialFailure::Blocked);
    assert!(reason.contains("not dialled for another 3600 s"), "{reason}");
    a.handle.leave_alone(b.handle.local_peer(), Duration::ZERO).unwrap();

    // The peer that the address names, and then again while connected.
    let full = b.listening[0].clone().with(Protocol::P2p(b.handle.local_peer()));
    a.handle.dial(None, vec![full]).unwrap();
    let connected = event(&mut a, "Connected", |event| match event {
        Event::Connected { peer, outbound, address, connections } => {
            Some((*peer, *outbound, address.clone(), *connections))
        }
        _ => None,
    })
    .await;
    assert_eq!(connected, (b.handle.local_peer(), true, b.listening[0].clone(), 1));
    a.handle.dial(Some(b.handle.local_peer()), b.listening.clone()).unwrap();
    assert_eq!(dial_failed(&mut a).await.2, DialFailure::AlreadyConnected);
}

#[tokio::test]
async fn another_peer_at_one_address_does_not_hide_the_other_addresses() {
    let mut a = start(1, config(&[TCP])).await;
    let (b, c) = (start(2, config(&[TCP])).await, start(3, config(&[TCP])).await);
    // The lower port is dialled first, and answers before the other is dialled.
    let port = |node: &Node| {
        node.listening[0].iter().find_map(|part| match part {
            Protocol::Tcp(port) => Some(port),
            _ => None,
        })
    };
    let (wrong, right) = if port(&b) < port(&c) { (b, c) } else { (c, b) };
    let addresses = [wrong.listening.clone(), right.listening.clone()].concat();
    a.handle.dial(Some(right.handle.local_peer()), addresses).unwrap();
    let connected = event(&mut a, "Connected", |event| match event {
        Event::Connected { peer, address, .. } => Some((*peer, address.clone())),
        Event::DialFailed { reason, .. } => panic!("{reason}"),
        _ => None,
    })
    .await;
    assert_eq!(connected, (right.handle.local_peer(), right.listening[0].clone()));
    // With nothing left to try, the dial has failed.
    a.handle.dial(Some(PeerId::random()), wrong.listening.clone()).unwrap();
    assert!(matches!(dial_failed(&mut a).await.2, DialFailure::WrongPeer { .. }));
}

#[tokio::test]
async fn more_connections_than_allowed_are_refused() {
    let mut small = config(&[TCP]);
    small.limits.connections = 1;
    let mut a = start(1, small).await;
    let (b, c) = (start(2, config(&[TCP])).await, start(3, config(&[TCP])).await);
    a.handle.dial(Some(b.handle.local_peer()), b.listening.clone()).unwrap();
    event(&mut a, "Connected", |event| matches!(event, Event::Connected { .. }).then_some(())).await;
    a.handle.dial(Some(c.handle.local_peer()), c.listening.clone()).unwrap();
    let (peer, _, kind, reason) = dial_failed(&mut a).await;
    assert_eq!((peer, kind), (Some(c.handle.local_peer()), DialFailure::LimitReached), "{reason}");
}

#[tokio::test]
async fn what_cannot_be_listened_on_is_told_before_anything_starts() {
    let failure = async |config: Config| match try_start(9, config).await {
        Ok(node) => panic!("it listens on {:?}", node.listening),
        Err(error) => error,
    };
    for address in [TCP, QUIC] {
        let first = start(1, config(&[address])).await;
        let taken = &first.listening[0];
        match failure(config(&[&taken.to_string()])).await {
            Error::PortInUse { address } => assert_eq!(&address, taken),
            error => panic!("{error}"),
        }
    }
    let reason = failure(config(&["/memory/0"])).await.to_string();
    assert!(reason.contains("/memory/0") && reason.contains("/tcp/"), "{reason}");
    // 203.0.113.0/24 is for documentation: no machine should have it.
    for address in ["/ip4/203.0.113.77/tcp/0", "/ip4/203.0.113.77/udp/0/quic-v1"] {
        let reason = failure(config(&[address])).await.to_string();
        assert!(reason.contains("no such address"), "{reason}");
    }
    let mut nonsense = config(&[TCP]);
    nonsense.gossip.frame_bytes_max = 0;
    assert!(matches!(failure(nonsense).await, Error::Config { setting: "frame_bytes_max", .. }));
}

#[tokio::test]
async fn a_peer_of_another_mesh_is_told() {
    let mut other = config(&[TCP]);
    other.mesh = MeshId::from_bytes([2; 16]);
    let (mut a, mut b) = connected_pair(config(&[TCP]), other).await;
    for (node, foreign) in [(&mut a, [2; 16]), (&mut b, [1; 16])] {
        let (mut mesh, mut unsupported) = (None, false);
        let mesh = event(node, "ForeignMesh and no control stream", |event| {
            match event {
                Event::ForeignMesh { mesh: other, .. } => mesh = Some(other.clone()),
                Event::StreamUnsupported { kind: StreamKind::Control, .. } => unsupported = true,
                _ => {}
            }
            mesh.clone().filter(|_| unsupported)
        })
        .await;
        assert_eq!(mesh, MeshId::from_bytes(foreign).to_string());
    }
}

#[tokio::test]
async fn peers_tell_who_they_are_and_how_far() {
    let (mut a, b) = connected_pair(config(&[TCP]), config(&[TCP, QUIC])).await;
    let (mut identified, mut measured) = (false, false);
    event(&mut a, "Identified and Rtt", |event| {
        match event {
            Event::Identified { peer, protocol_version, agent, protocols, listen } => {
                assert_eq!((*peer, protocol_version.as_str()), (b.handle.local_peer(), "/omnimesh/1"));
                assert!(agent.starts_with("omnimesh/"), "{agent}");
                assert!(protocols.iter().any(|protocol| protocol == "/meshsub/1.2.0"));
                let told: BTreeSet<_> = listen.iter().collect();
                assert_eq!(told, b.listening.iter().collect());
                identified = true;
            }
            Event::Rtt { peer, .. } => measured = *peer == b.handle.local_peer(),
            _ => {}
        }
        (identified && measured).then_some(())
    })
    .await;
    assert_eq!(metric(&a.registry, "libp2p_identify_received_total"), 1);
}

#[tokio::test]
async fn kademlia_finds_the_peers_of_a_peer() {
    let (mut a, b) = connected_pair(config(&[TCP]), config(&[TCP])).await;
    let c = start(3, config(&[TCP])).await;
    c.handle.dial(Some(b.handle.local_peer()), b.listening.clone()).unwrap();
    // Whether B has heard of C yet shows only by asking it, again after each thing that happens (a ping at least).
    let wanted = c.handle.local_peer();
    let handle = a.handle.clone();
    let addresses = event(&mut a, "Discovered", |event| match event {
        Event::Discovered { peer, addresses, source } if *peer == wanted => {
            assert_eq!(*source, Source::Kademlia);
            Some(addresses.clone())
        }
        _ => {
            handle.bootstrap().unwrap();
            None
        }
    })
    .await;
    assert_eq!(addresses, c.listening);
}

#[tokio::test]
async fn peers_part_and_meet_again() {
    let (mut a, mut b) = connected_pair(config(&[TCP]), config(&[TCP])).await;
    let (_, out) = stream_up(&mut a, StreamKind::Gossip).await;
    stream_up(&mut b, StreamKind::Gossip).await;
    a.handle.disconnect(b.handle.local_peer()).unwrap();
    disconnected(&mut a).await;
    disconnected(&mut b).await;
    assert!(out.is_closed());
    b.handle.dial(Some(a.handle.local_peer()), a.listening.clone()).unwrap();
    let (_, out) = stream_up(&mut a, StreamKind::Gossip).await;
    out.try_send(Class::Own, numbered(1)).unwrap();
    assert_eq!(frames(&mut b.gossip, 1).await, [numbered(1)]);
}

#[tokio::test]
async fn events_that_nobody_takes_stay_bounded_and_none_is_lost() {
    let mut node = start(1, config(&[TCP])).await;
    let me = node.handle.local_peer();
    // Each fails at once with an event; at some point no more are taken.
    let (mut given, mut refused) = (0, 0);
    while refused < 1000 {
        match node.handle.dial(Some(me), Vec::new()) {
            Ok(()) => (given, refused) = (given + 1, 0),
            Err(_) => refused += 1,
        }
        assert!(given < 10_000, "no end");
        tokio::task::yield_now().await;
    }
    for _ in 0..given {
        assert_eq!(dial_failed(&mut node).await.2, DialFailure::Myself);
    }
}

#[tokio::test]
async fn a_connection_that_answers_no_ping_is_closed() {
    let mut impatient = config(&[TCP]);
    impatient.ping_interval = Duration::from_millis(50);
    impatient.ping_timeout = Duration::from_secs(2);
    let mut a = start(1, impatient).await;
    let _frozen = Frozen::connected(&mut a).await;
    disconnected(&mut a).await;
}
