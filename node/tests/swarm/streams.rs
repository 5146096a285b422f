//! Frames on streams: order, bounds, slow and hostile peers, stock peers.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use libp2p::swarm::SwarmEvent;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Swarm, SwarmBuilder, gossipsub, noise, tcp, yamux};
use omnimesh_node::swarm::{
    Class, Config, DownReason, Event, Inbound, Malformed, Outbound, Shed, StreamKind, TransportKind,
};

use crate::common::*;

/// Ten thousand small frames each way at once, on both kinds of streams.
async fn frames_flow_both_ways(a: Config, b: Config) {
    const COUNT: u32 = 10_000;
    let (mut a, mut b) = connected_pair(a, b).await;
    let mut ups = Vec::new();
    for node in [&mut a, &mut b] {
        let (mut gossip, mut control) = (None, None);
        event(node, "both streams", |event| {
            if let Event::StreamUp { kind, protocol, outbound, .. } = event {
                match kind {
                    StreamKind::Gossip => gossip = Some((protocol.to_string(), outbound.clone())),
                    StreamKind::Control => control = Some((protocol.to_string(), outbound.clone())),
                    StreamKind::Log | StreamKind::Blob | StreamKind::Compute => {
                        panic!("nothing is kept here")
                    }
                }
            }
            (gossip.is_some() && control.is_some()).then_some(())
        })
        .await;
        let (gossip, control) = (gossip.unwrap(), control.unwrap());
        assert_eq!(gossip.0, "/omnimesh/gossip/1");
        assert!(control.0.ends_with("/control"), "{}", control.0);
        ups.push((gossip.1, control.1));
    }
    let send = |out: Outbound| async move {
        for number in 0..COUNT {
            while out.try_send(Class::Own, numbered(number)).is_err() {
                tokio::task::yield_now().await;
            }
        }
    };
    let expected: Vec<Bytes> = (0..COUNT).map(numbered).collect();
    let count = COUNT as usize;
    let (gossip_out, control_out) = (ups[0].0.clone(), ups[0].1.clone());
    let gossip = tokio::join!(
        send(gossip_out),
        send(ups[1].0.clone()),
        frames(&mut a.gossip, count),
        frames(&mut b.gossip, count)
    );
    assert!(gossip.2 == expected && gossip.3 == expected, "gossip frames out of order");
    let control = tokio::join!(
        send(control_out),
        send(ups[1].1.clone()),
        frames(&mut a.control, count),
        frames(&mut b.control, count)
    );
    assert!(control.2 == expected && control.3 == expected, "control frames out of order");
    let received = metric(&b.registry, r#"swarm_stream_frames_total{kind="gossip",direction="received"}"#);
    assert_eq!(received, u64::from(COUNT));
    let writes = metric(&a.registry, r#"swarm_stream_writes_total{kind="gossip"}"#);
    assert!(writes < u64::from(COUNT) / 4, "{writes} writes for {COUNT} frames");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_flow_over_tcp() {
    frames_flow_both_ways(config(&[TCP]), config(&[TCP])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_flow_over_quic_alone() {
    frames_flow_both_ways(config(&[QUIC]), config(&[QUIC])).await;
}

#[tokio::test]
async fn frames_flow_within_the_process() {
    let mut config = config(&["/memory/0"]);
    config.transport = TransportKind::Memory;
    frames_flow_both_ways(config.clone(), config).await;
}

#[tokio::test]
async fn long_frames_arrive_whole() {
    let (mut a, mut b) = connected_pair(config(&[TCP]), config(&[TCP])).await;
    let (_, out) = stream_up(&mut a, StreamKind::Gossip).await;
    let long: Vec<Bytes> = (0..5u8).map(|i| Bytes::from(vec![i; 1 << 20])).collect();
    for frame in &long {
        while out.try_send(Class::Own, frame.clone()).is_err() {
            tokio::task::yield_now().await;
        }
    }
    let too_long = out.try_send(Class::Own, Bytes::from(vec![0; (1 << 20) + 1]));
    assert_eq!(too_long, Err(Shed::TooLong { length: (1 << 20) + 1, max: 1 << 20 }));
    assert!(frames(&mut b.gossip, 5).await == long);
}

#[tokio::test]
async fn a_frame_over_the_limit_closes_the_stream_which_is_opened_again() {
    let mut narrow = config(&[TCP]);
    narrow.gossip.frame_bytes_max = 1000;
    let (mut a, mut b) = connected_pair(config(&[TCP]), narrow).await;
    let (_, out) = stream_up(&mut a, StreamKind::Gossip).await;
    out.try_send(Class::Own, numbered(7)).unwrap();
    out.try_send(Class::Own, Bytes::from(vec![0; 1001])).unwrap();
    assert_eq!(frames(&mut b.gossip, 1).await, [numbered(7)]);
    match b.gossip.recv().await.unwrap() {
        Inbound::Malformed { peer, reason } => {
            assert_eq!(peer, a.handle.local_peer());
            assert_eq!(reason, Malformed::TooLong { length: 1001, max: 1000 });
        }
        Inbound::Frames { frames, .. } => panic!("{} frames", frames.len()),
    }
    assert_eq!(stream_down(&mut a, StreamKind::Gossip).await, DownReason::Closed);
    assert_eq!(out.try_send(Class::Own, numbered(8)), Err(Shed::Closed));
    assert_eq!(metric(&b.registry, r#"swarm_stream_malformed_total{kind="gossip"}"#), 1);
    let (_, out) = stream_up(&mut a, StreamKind::Gossip).await;
    out.try_send(Class::Own, numbered(9)).unwrap();
    assert_eq!(frames(&mut b.gossip, 1).await, [numbered(9)]);
}

#[tokio::test]
async fn a_stream_is_given_up_after_some_attempts() {
    let mut narrow = config(&[TCP]);
    narrow.gossip.frame_bytes_max = 1;
    let (mut a, _b) = connected_pair(config(&[TCP]), narrow).await;
    let mut downs = 0;
    let reason = event(&mut a, "GaveUp", |event| {
        match event {
            Event::StreamUp { kind: StreamKind::Gossip, outbound, .. } => {
                outbound.try_send(Class::Own, numbered(1)).unwrap();
            }
            Event::StreamDown { reason: DownReason::Closed, .. } => downs += 1,
            Event::StreamDown { reason, .. } => return Some(reason.clone()),
            _ => {}
        }
        None
    })
    .await;
    assert_eq!((reason, downs), (DownReason::GaveUp { attempts: 6 }, 6));
}

#[tokio::test]
async fn a_slow_caller_holds_the_peer_back_whose_queue_sheds() {
    const FRAME: usize = 10_000;
    let mut slow = config(&[TCP]);
    slow.gossip.inbound_bytes = 10 * FRAME;
    let mut fast = config(&[TCP]);
    (fast.gossip.queue_frames, fast.gossip.stall_timeout) = (50, Duration::from_secs(60));
    let (mut a, mut b) = connected_pair(fast, slow).await;
    let (_, out) = stream_up(&mut a, StreamKind::Gossip).await;
    stream_up(&mut b, StreamKind::Gossip).await;
    // 200 MB that nobody takes.
    let mut sent = 0u32;
    while sent < 20_000 {
        let mut frame = vec![0; FRAME];
        frame[..4].copy_from_slice(&sent.to_be_bytes());
        out.try_send(Class::Forwarded, frame.into()).unwrap();
        assert!(out.stats().frames <= 50);
        sent += 1;
        tokio::task::yield_now().await;
    }
    out.try_send(Class::Control, numbered(u32::MAX)).unwrap();
    let shed = out.stats().shed;
    let kept = sent - u32::try_from(shed[2]).unwrap();
    // What is not shed waits in the windows and buffers between: some MiB at most.
    assert!(kept < 1000, "{kept} frames are somewhere");
    assert_eq!(shed[..2], [0, 0]);
    assert!(b.gossip.len() <= 10);
    let counted = metric(&a.registry, r#"swarm_stream_shed_total{kind="gossip",class="forwarded"}"#);
    assert_eq!(counted, shed[2]);
    // Now they are taken: the rest comes in order, the control frame before what still waited.
    let rest = frames(&mut b.gossip, kept as usize + 1).await;
    let number = |frame: &Bytes| u32::from_be_bytes(frame[..4].try_into().unwrap());
    let numbers: Vec<u32> = rest.iter().map(number).filter(|number| *number != u32::MAX).collect();
    assert!(numbers.is_sorted());
    assert_eq!(numbers.last(), Some(&(sent - 1)));
    assert_ne!(rest.last().map(number), Some(u32::MAX));
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_cut_off() {
    let mut slow = config(&[TCP]);
    (slow.gossip.inbound_batches, slow.gossip.inbound_bytes) = (1, 1000);
    let mut fast = config(&[TCP]);
    (fast.gossip.queue_frames, fast.gossip.stall_timeout) = (50, Duration::from_millis(200));
    let (mut a, mut b) = connected_pair(fast, slow).await;
    let (_, out) = stream_up(&mut a, StreamKind::Gossip).await;
    stream_up(&mut b, StreamKind::Gossip).await;
    let flood = tokio::spawn(async move {
        while out.try_send(Class::Forwarded, Bytes::from(vec![0; 50_000])) != Err(Shed::Closed) {
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(stream_down(&mut a, StreamKind::Gossip).await, DownReason::Stalled);
    disconnected(&mut a).await;
    flood.await.unwrap();
    assert_eq!(metric(&a.registry, r#"swarm_stream_stalled_total{kind="gossip"}"#), 1);
}

/// Its stream and its socket are full, so that not even the end of the connection can be told to it.
#[tokio::test]
async fn a_peer_that_is_frozen_is_cut_off() {
    let mut hasty = config(&[TCP]);
    (hasty.gossip.stall_timeout, hasty.ping_interval) = (Duration::from_millis(200), Duration::from_secs(60));
    let mut a = start(1, hasty).await;
    let (_frozen, out) = Frozen::connected(&mut a).await;
    let flood = tokio::spawn(async move {
        while out.try_send(Class::Forwarded, Bytes::from(vec![0; 50_000])) != Err(Shed::Closed) {
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(stream_down(&mut a, StreamKind::Gossip).await, DownReason::Stalled);
    disconnected(&mut a).await;
    flood.await.unwrap();
}

/// It was killed, and neither pings nor full queues have told yet that the old connection is dead.
#[tokio::test]
async fn a_peer_that_is_back_is_spoken_with_on_its_new_connection() {
    for listen in [TCP, QUIC] {
        let mut patient = config(&[listen]);
        (patient.gossip.stall_timeout, patient.ping_interval) = (PATIENCE * 2, PATIENCE * 2);
        let mut a = start(1, patient).await;
        let (_killed, old) = Frozen::connected(&mut a).await;
        let mut back = start(Frozen::SEED, config(&[])).await;
        back.handle.dial(Some(a.handle.local_peer()), a.listening.clone()).unwrap();
        let (_, out) = stream_up(&mut a, StreamKind::Gossip).await;
        assert_eq!(old.try_send(Class::Own, numbered(1)), Err(Shed::Closed));
        out.try_send(Class::Own, numbered(2)).unwrap();
        assert_eq!(frames(&mut back.gossip, 1).await, [numbered(2)]);
    }
}

/// A stock gossipsub peer with a subscription, on TCP.
fn stock_peer(topic: &str) -> Swarm<gossipsub::Behaviour> {
    let config =
        gossipsub::ConfigBuilder::default().validation_mode(gossipsub::ValidationMode::None).build().unwrap();
    let mut behaviour: gossipsub::Behaviour =
        gossipsub::Behaviour::new(gossipsub::MessageAuthenticity::Anonymous, config).unwrap();
    behaviour.subscribe(&gossipsub::IdentTopic::new(topic)).unwrap();
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| behaviour)
        .unwrap()
        .build()
}

#[tokio::test]
async fn a_stock_gossipsub_peer_speaks_with_us() {
    let mut node = start(1, config(&[TCP])).await;
    let mut stock = stock_peer("omnimesh-test-topic");
    let stock_id = *stock.local_peer_id();
    stock.dial(node.listening[0].clone()).unwrap();
    let subscribed = tokio::spawn(async move {
        loop {
            if let SwarmEvent::Behaviour(gossipsub::Event::Subscribed { topic, .. }) =
                stock.select_next_some().await
            {
                return topic.to_string();
            }
        }
    });
    let (mut up, mut unsupported) = (None, false);
    let (protocol, out) = event(&mut node, "both streams' fates", |event| {
        match event {
            Event::StreamUp { peer, kind: StreamKind::Gossip, protocol, outbound } => {
                assert_eq!(*peer, stock_id);
                up = Some((protocol.to_string(), outbound.clone()));
            }
            Event::StreamUnsupported { kind: StreamKind::Control, .. } => unsupported = true,
            _ => {}
        }
        up.clone().filter(|_| unsupported)
    })
    .await;
    assert_eq!(protocol, "/meshsub/1.2.0");
    // It may tell its extensions first.
    let topic = b"omnimesh-test-topic";
    let rpc = loop {
        let rpc = frames(&mut node.gossip, 1).await.pop().unwrap();
        if rpc.windows(topic.len()).any(|part| part == topic) {
            break rpc;
        }
    };
    // Its own subscription sent back is a subscription of ours.
    out.try_send(Class::Control, rpc).unwrap();
    let topic = tokio::time::timeout(PATIENCE, subscribed).await.unwrap().unwrap();
    assert_eq!(topic, "omnimesh-test-topic");
}

#[tokio::test]
async fn a_stream_moves_to_another_connection_when_its_own_dies() {
    let mut node = start(1, config(&[TCP])).await;
    let mut stock = stock_peer("t");
    let mut connections = Vec::new();
    let (mut up, mut count, mut places) = (None, 0, Vec::new());
    let dial = || {
        DialOpts::peer_id(node.handle.local_peer())
            .condition(PeerCondition::Always)
            .addresses(node.listening.clone())
            .allocate_new_port()
            .build()
    };
    stock.dial(dial()).unwrap();
    let second = dial();
    // The first stream comes up on the first connection, the only one; then a second one is made.
    let mut second = Some(second);
    while up.is_none() || count < 2 || connections.len() < 2 {
        tokio::select! {
            event = stock.select_next_some() => {
                if let SwarmEvent::ConnectionEstablished { connection_id, .. } = event {
                    connections.push(connection_id);
                }
            }
            event = node.events.recv() => match event.unwrap() {
                Event::Connected { connections, address, .. } => {
                    count = connections;
                    places.push(address);
                }
                Event::StreamUp { kind: StreamKind::Gossip, outbound, .. } => {
                    up = Some(outbound);
                    stock.dial(second.take().unwrap()).unwrap();
                }
                Event::StreamDown { reason, .. } => panic!("{reason}"),
                _ => {}
            }
        }
    }
    assert!(stock.close_connection(connections[0]));
    let driver = tokio::spawn(async move {
        loop {
            stock.select_next_some().await;
        }
    });
    let (mut closed, mut down) = (None, None);
    event(&mut node, "the connection and its stream are gone", |event| {
        match event {
            Event::Closed { address, .. } => closed = Some(address.clone()),
            Event::StreamDown { kind: StreamKind::Gossip, reason, .. } => down = Some(reason.clone()),
            _ => {}
        }
        (closed.is_some() && down.is_some()).then_some(())
    })
    .await;
    assert_eq!((closed.as_ref(), down), (places.first(), Some(DownReason::Closed)));
    assert!(up.unwrap().is_closed());
    let (protocol, _) = stream_up(&mut node, StreamKind::Gossip).await;
    assert_eq!(protocol, "/meshsub/1.2.0");
    driver.abort();
}

#[tokio::test]
async fn what_waits_is_written_before_the_end() {
    let mut patient = config(&[QUIC]);
    // However slow the machine is: what is looked at is that nothing is lost.
    patient.control.finish_timeout = PATIENCE;
    let (mut a, mut b) = connected_pair(patient, config(&[QUIC])).await;
    let (_, out) = stream_up(&mut a, StreamKind::Control).await;
    stream_up(&mut b, StreamKind::Control).await;
    // Nearly as much as the queue takes, more than goes out at once.
    let expected: Vec<Bytes> = (0..2000).map(|number| numbered(number).repeat(250).into()).collect();
    for frame in &expected {
        out.try_send(Class::Own, frame.clone()).unwrap();
    }
    a.handle.shutdown().unwrap();
    assert!(frames(&mut b.control, expected.len()).await == expected);
    disconnected(&mut b).await;
    while a.events.recv().await.is_some() {}
    assert_eq!(out.try_send(Class::Own, numbered(0)), Err(Shed::Closed));
    assert!(a.handle.bootstrap().is_err());
}
