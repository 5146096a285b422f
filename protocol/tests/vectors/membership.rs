//! `membership_packets.json`

use omnimesh_protocol::membership::{Config, Input, Local, Refusal, State};
use omnimesh_protocol::{Identity, Outbox, Time};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

use crate::{Hex, Num, settle};

#[derive(Serialize, Deserialize)]
struct Case {
    comment: String,
    packet: Hex,
    /// What it says; absent if it must be refused.
    says: Option<Says>,
}

#[derive(Serialize, Deserialize, Clone)]
struct Says {
    sender: Life,
    sender_addresses: Vec<String>,
    sender_incarnation: u16,
    receiver: Life,
    message: String,
    /// Whom the message speaks of, if it does.
    about: Option<Life>,
    probe: Option<u8>,
    /// Absent if the packet has no list of members.
    members: Option<Vec<MemberFields>>,
}

#[derive(Serialize, Deserialize, Clone)]
struct Life {
    node: Hex,
    generation: Num,
    left: bool,
}

#[derive(Serialize, Deserialize, Clone)]
struct MemberFields {
    life: Life,
    addresses: Vec<String>,
    incarnation: u16,
    state: String,
}

const MESSAGES: [&str; 10] = [
    "Ping",
    "Ack",
    "PingReq",
    "IndirectPing",
    "IndirectAck",
    "ForwardedAck",
    "Announce",
    "Feed",
    "Gossip",
    "TurnUndead",
];
const STATES: [&str; 3] = ["alive", "suspect", "down"];

fn life(seed: u8, generation: u64) -> Life {
    let node = Identity::from_seed(&[seed; 32]).id().as_bytes().into();
    Life { node, generation: Num(generation), left: false }
}

fn put_life(out: &mut Vec<u8>, life: &Life) {
    out.extend_from_slice(&life.node.0);
    out.extend_from_slice(&life.generation.0.to_be_bytes());
    out.push(u8::from(life.left));
}

fn put_addresses(out: &mut Vec<u8>, addresses: &[String]) {
    out.push(u8::try_from(addresses.len()).unwrap());
    for address in addresses {
        out.extend_from_slice(&u16::try_from(address.len()).unwrap().to_be_bytes());
        out.extend_from_slice(address.as_bytes());
    }
}

fn tag(names: &[&str], name: &str) -> u8 {
    u8::try_from(names.iter().position(|known| *known == name).unwrap()).unwrap()
}

/// The packet, put together by the document.
fn encode(says: &Says) -> Vec<u8> {
    let mut out = Vec::new();
    put_life(&mut out, &says.sender);
    put_addresses(&mut out, &says.sender_addresses);
    out.extend_from_slice(&says.sender_incarnation.to_be_bytes());
    put_life(&mut out, &says.receiver);
    out.push(tag(&MESSAGES, &says.message));
    if let Some(about) = &says.about {
        put_life(&mut out, about);
    }
    out.extend(says.probe);
    let Some(members) = &says.members else { return out };
    out.extend_from_slice(&u16::try_from(members.len()).unwrap().to_be_bytes());
    for member in members {
        put_life(&mut out, &member.life);
        put_addresses(&mut out, &member.addresses);
        out.extend_from_slice(&member.incarnation.to_be_bytes());
        out.push(tag(&STATES, &member.state));
    }
    out
}

fn says(message: &str) -> Says {
    let speaks_of_another = ["PingReq", "IndirectPing", "IndirectAck", "ForwardedAck"].contains(&message);
    let is_probe = speaks_of_another || ["Ping", "Ack"].contains(&message);
    Says {
        sender: life(1, 1_700_000_000_000),
        sender_addresses: vec!["/ip4/192.0.2.1/tcp/7411".to_owned()],
        sender_incarnation: 7,
        receiver: life(2, 1_700_000_000_500),
        message: message.to_owned(),
        about: speaks_of_another.then(|| life(3, 1_700_000_000_900)),
        probe: is_probe.then_some(200),
        members: None,
    }
}

fn member(seed: u8, state: &str, addresses: &[&str]) -> MemberFields {
    let addresses = addresses.iter().map(|address| (*address).to_owned()).collect();
    MemberFields {
        life: life(seed, 1_700_000_000_900),
        addresses,
        incarnation: 65_535,
        state: state.to_owned(),
    }
}

fn good(comment: &str, says: Says) -> Case {
    Case { comment: comment.to_owned(), packet: encode(&says).into(), says: Some(says) }
}

fn good_cases() -> Vec<Case> {
    let mut cases: Vec<_> = MESSAGES.iter().map(|message| good(message, says(message))).collect();
    let mut announce = says("Announce");
    (announce.sender_addresses, announce.receiver.generation) = (Vec::new(), Num(0));
    cases.push(good("Announce to any life of the receiver, without addresses", announce));
    let mut gossip = says("Gossip");
    let mut left = member(4, "down", &[]);
    left.life.left = true;
    gossip.members = Some(vec![
        member(3, "alive", &["/ip4/192.0.2.3/tcp/7411", "/ip4/192.0.2.3/udp/7411/quic-v1"]),
        member(5, "suspect", &[]),
        left,
    ]);
    cases.push(good("Gossip of one alive, one suspect and one that left", gossip));
    let mut ping = says("Ping");
    ping.members = Some(vec![member(3, "alive", &[])]);
    cases.push(good("Ping that carries a rumour", ping.clone()));
    ping.members = Some(Vec::new());
    cases.push(good("Ping with an empty list of members", ping));
    cases
}

fn bad_cases() -> Vec<Case> {
    let bad = |comment: &str, packet: Vec<u8>| Case {
        comment: comment.to_owned(),
        packet: packet.into(),
        says: None,
    };
    let ping = encode(&says("Ping"));
    let changed = |change: &dyn Fn(&mut Says)| {
        let mut says = says("Ping");
        says.members = Some(vec![member(3, "alive", &[])]);
        change(&mut says);
        encode(&says)
    };
    let with = |at: usize, value: u8| {
        let mut packet = ping.clone();
        packet[at] = value;
        packet
    };
    let with_list = |message| {
        let mut says = says(message);
        says.members = Some(Vec::new());
        encode(&says)
    };
    let full = changed(&|_| ());
    let last_state = [&full[..full.len() - 1], &[3]].concat();
    vec![
        bad("no bytes", Vec::new()),
        bad("cut by one byte", ping[..ping.len() - 1].to_vec()),
        bad("half a length of members", [&ping[..], &[0]].concat()),
        bad("a byte after the last member", [&full[..], &[0]].concat()),
        bad("fewer members than it says", [&ping[..], &[0, 1]].concat()),
        bad("a list of members after Announce", with_list("Announce")),
        bad("a list of members after TurnUndead", with_list("TurnUndead")),
        bad("message 10", with(ping.len() - 2, 10)),
        bad("flags 2", with(40, 2)),
        bad("state 3", last_state),
        bad("nine addresses", changed(&|says| says.sender_addresses = vec!["/a".to_owned(); 9])),
        bad("an empty address", changed(&|says| says.sender_addresses = vec![String::new()])),
        bad("an address of 257 bytes", changed(&|says| says.sender_addresses = vec!["a".repeat(257)])),
        bad("an address that is not UTF-8", with(44, 0xff)),
        bad(
            "longer than 8,192 bytes",
            changed(&|says| {
                says.members = Some(vec![member(3, "alive", &["/a"; 8]); 110]);
            }),
        ),
        bad("a sender that is not the peer at the other end", changed(&|says| says.sender = life(3, 1))),
    ]
}

/// Gives the packet of node 1 to node 2; true if it can be read and is node 1's.
fn is_taken(packet: &Hex) -> bool {
    let mut rng = ChaCha8Rng::from_seed([0; 32]);
    let [sender, receiver] = [1, 2].map(|seed| Identity::from_seed(&[seed; 32]).id());
    let local = Local { node: receiver, generation: 1_700_000_000_500, addresses: Vec::new() };
    let mut state = State::new(Config::default(), local, &mut rng).unwrap();
    let input = Input::Packet { from: sender, bytes: packet.0.clone().into() };
    state.handle(Time::from_millis(1), input, &mut rng, &mut Outbox::new());
    let unreadable = [Refusal::TooLong, Refusal::Malformed, Refusal::NotTheSender];
    !unreadable.iter().any(|reason| state.refusals().contains_key(reason))
}

#[test]
fn membership_packets() {
    let mut cases = good_cases();
    cases.extend(bad_cases());
    let description = "Packets in `Swim` frames, from node 1 to node 2 (seeds of 32 bytes 01 and 02), and what they \
                       say; `says` is null where the packet must be refused.";
    for case in settle("membership_packets.json", description, cases) {
        assert_eq!(is_taken(&case.packet), case.says.is_some(), "{}", case.comment);
        if let Some(says) = &case.says {
            assert_eq!(case.packet, encode(says).into(), "{}", case.comment);
        }
    }
}
