//! `rejected.json`

use std::collections::BTreeSet;

use omnimesh_protocol::envelope::Channel;
use omnimesh_protocol::mesh::MeshSecret;
use omnimesh_protocol::refusal::Refusal;
use omnimesh_protocol::validate::{Config, Validator};
use omnimesh_protocol::{Mesh, NodeId, Step, replay};
use serde::{Deserialize, Serialize};

use crate::draft::{self, around, draft, outer};
use crate::{Hex, Num, Piece, cbor, curve, joined, secret, settle};

/// The state of the node that judges.
#[derive(Serialize, Deserialize)]
struct Judge {
    mesh_name: String,
    mesh_secret: Hex,
    phase_interval: Num,
    /// Absent while the node is not synchronised.
    step: Option<Num>,
    step_window_past: Num,
    step_window_future: Num,
    message_bytes_max: usize,
    replay_window: Num,
    authors_max: usize,
    replay_floor: Option<Num>,
    /// The channel of the topic on which the message came.
    channel: String,
    quarantined: Vec<Hex>,
    accepted_before: Vec<Hex>,
}

#[derive(Serialize, Deserialize)]
struct Case {
    name: String,
    expect: String,
    judge: Judge,
    /// Joined, the envelope.
    envelope: Vec<Piece>,
}

const ACCEPTED: &str = "accepted";

fn judge() -> Judge {
    Judge {
        mesh_name: draft::mesh().name().to_owned(),
        mesh_secret: secret().as_bytes().into(),
        phase_interval: Num(draft::PHASE_INTERVAL),
        step: Some(Num(1000)),
        step_window_past: Num(8),
        step_window_future: Num(2),
        message_bytes_max: 65_536,
        replay_window: Num(1024),
        authors_max: 16,
        replay_floor: None,
        channel: "news".to_owned(),
        quarantined: Vec::new(),
        accepted_before: Vec::new(),
    }
}

fn run(case: &Case) -> String {
    let judge = &case.judge;
    let mesh = Mesh::new(&judge.mesh_name, MeshSecret::from_bytes(judge.mesh_secret.array())).unwrap();
    let config = Config {
        phase_interval: judge.phase_interval.0.try_into().unwrap(),
        pattern_cache: 4.try_into().unwrap(),
        message_bytes_max: judge.message_bytes_max,
        step_window_past: judge.step_window_past.0,
        step_window_future: judge.step_window_future.0,
        replay: replay::Config {
            window: judge.replay_window.0,
            authors_max: judge.authors_max.try_into().unwrap(),
        },
    };
    let mut validator = Validator::new(mesh, config, judge.replay_floor.map(|floor| Step(floor.0)));
    let now = judge.step.map(|step| Step(step.0));
    let channel = Channel::new(&judge.channel).unwrap();
    let mut accept = |bytes: Vec<u8>| {
        let unverified = validator.precheck(now, &channel, &bytes.into()).map_err(|(reason, _)| reason)?;
        let verified = unverified.verify()?;
        validator.commit(now.expect("the gates passed"), verified).map(drop)
    };
    for before in &judge.accepted_before {
        assert_eq!(accept(before.0.clone()), Ok(()), "{}: before", case.name);
    }
    let quarantined: Vec<_> = judge.quarantined.iter().map(|id| NodeId::from_bytes(id.array())).collect();
    let bytes = joined(&case.envelope);
    // Whoever is in quarantine got there after what was accepted.
    if quarantined.is_empty() {
        return accept(bytes).err().map_or(ACCEPTED, Refusal::code).to_owned();
    }
    quarantined.into_iter().for_each(|id| validator.quarantine(id));
    let refused = validator.precheck(now, &channel, &bytes.into()).map(drop);
    refused.err().map_or(ACCEPTED, |(reason, _)| reason.code()).to_owned()
}

#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn add(&mut self, expect: &str, name: &str, bytes: &[u8]) -> &mut Judge {
        self.add_pieces(expect, name, vec![Piece::once(bytes)])
    }

    fn add_pieces(&mut self, expect: &str, name: &str, envelope: Vec<Piece>) -> &mut Judge {
        let (name, expect) = (name.to_owned(), expect.to_owned());
        self.0.push(Case { name, expect, judge: judge(), envelope });
        &mut self.0.last_mut().unwrap().judge
    }

    /// The good draft with one item of the signed part replaced; tag and signature fit.
    fn add_item(&mut self, expect: &str, name: &str, at: usize, item: Vec<u8>) {
        let mut items = draft().items();
        items[at] = item;
        self.add(expect, name, &around(&cbor::array(&items)));
    }
}

fn size_and_shape(cases: &mut Cases) {
    let good = draft().sealed(1);
    cases.add(ACCEPTED, "the envelope that most of the others are made of", &good);
    cases.add(ACCEPTED, "as large as the limit", &good).message_bytes_max = good.len();
    cases.add("too_large", "one byte larger than the limit", &good).message_bytes_max = good.len() - 1;
    let zeros = vec![Piece { hex: [0].into(), times: 65_537 }];
    cases.add_pieces("too_large", "zeros, one byte more than the limit", zeros);

    cases.add("truncated", "no bytes", &[]);
    cases.add("truncated", "cut in the middle", &good[..good.len() / 2]);
    cases.add("truncated", "cut by one byte", &good[..good.len() - 1]);
    cases.add(
        "truncated",
        "a byte string that claims 2^64 - 1 bytes",
        &[0x83, 0x5b, 255, 255, 255, 255, 255, 255, 255, 255, 0],
    );
    cases.add(
        "truncated",
        "an array that claims 2^64 - 1 items",
        &[0x9b, 255, 255, 255, 255, 255, 255, 255, 255, 0],
    );
    cases.add("truncated", "a head without its length", &[0x83, 0x59, 0x01]);
    let signed = draft().signed();
    cases.add("truncated", "a signed part cut by one byte", &around(&signed[..signed.len() - 1]));
    cases.add("truncated", "an empty signed part", &around(&[]));

    cases.add("trailing_bytes", "one byte more", &[&good[..], &[0]].concat());
    cases.add("trailing_bytes", "twice the same", &[&good[..], &good].concat());
    cases.add("trailing_bytes", "one byte more in the signed part", &around(&[&signed[..], &[0]].concat()));

    let levels = |times| vec![Piece { hex: [0x81].into(), times }];
    let deep = |times| {
        let signed = [vec![0x8a; 1], [0x81].repeat(times), vec![0x00]].concat();
        around(&signed)
    };
    let judge = cases.add_pieces("too_deep", "100,000 levels", levels(100_000));
    judge.message_bytes_max = 1 << 20;
    cases.add_pieces("too_deep", "five levels, and then nothing", levels(5));
    cases.add_pieces("truncated", "four levels, and then nothing", levels(4));
    cases.add("too_deep", "five levels in the signed part", &deep(4));
    cases.add("malformed", "four levels", &[0x81, 0x81, 0x81, 0x80]);
}

fn encoding(cases: &mut Cases) {
    let good = draft().sealed(1);
    let signed = draft().signed();
    let indefinite = |major: u8, pieces: &[u8]| [&[major << 5 | 31], pieces, &[0xff]].concat();
    let refused = "not_canonical";
    cases.add(refused, "a head of two bytes for three items", &[&[0x98, 0x03], &good[1..]].concat());
    cases.add(refused, "an array of indefinite length", &indefinite(4, &good[1..]));
    let long_length = [&[0x83, 0x59, 0x00], &good[2..]].concat();
    assert_eq!(good[1], 0x58, "the signed part has a length of one byte");
    cases.add(refused, "a length of two bytes where one does", &long_length);
    cases.add_item(refused, "a sequence number in two bytes where one does", 3, vec![0x18, 7]);
    cases.add_item(refused, "a step in four bytes where two do", 4, vec![0x1a, 0, 0, 0x03, 0xe8]);
    cases.add_item(
        refused,
        "a step in eight bytes where two do",
        4,
        vec![0x1b, 0, 0, 0, 0, 0, 0, 0x03, 0xe8],
    );
    cases.add_item(refused, "a channel in pieces", 6, indefinite(3, &cbor::text("news")));
    cases.add_item(
        refused,
        "a payload in pieces",
        9,
        [&[0x81][..], &indefinite(2, &cbor::bytes("hello"))].concat(),
    );
    cases.add_item(refused, "payloads of indefinite length", 9, indefinite(4, &cbor::bytes("hello")));

    let foreign: [(&str, &[u8]); 12] = [
        ("a negative number", &[0x26]),
        ("a negative number in more bytes than it needs", &[0x38, 0x01]),
        ("a tag", &[0xc1, 0x07]),
        ("a tag in more bytes than it needs", &[0xd8, 0x01, 0x07]),
        ("a map", &[0xa0]),
        ("a map of indefinite length", &[0xbf, 0xff]),
        ("false", &[0xf4]),
        ("undefined", &[0xf7]),
        ("a float of two bytes", &[0xf9, 0x00, 0x00]),
        ("a float of eight bytes", &[0xfb, 0x40, 0x1c, 0, 0, 0, 0, 0, 0]),
        ("a break without a beginning", &[0xff]),
        ("a reserved head", &[0x1c]),
    ];
    for (name, item) in foreign {
        cases.add_item("malformed", &format!("{name} for the sequence number"), 3, item.to_vec());
    }
    cases.add("malformed", "a tag before the envelope", &[&[0xd9, 0xd9, 0xf7], &good[..]].concat());
    cases.add("malformed", "a map", &[0xa0]);
    cases.add("malformed", "null", cbor::NULL);
    cases.add("malformed", "a number", &[0x01]);
    cases.add("malformed", "text", &cbor::text("hello"));
    cases.add("malformed", "the signed part alone", &signed);
}

fn fields(cases: &mut Cases) {
    let refused = "malformed";
    let signed = draft().signed();
    let (tag, signature) = (draft::tag(&secret(), 1000, &signed), draft::signature(1, &signed));
    cases.add(refused, "two items", &cbor::array(&[cbor::bytes(&signed), cbor::bytes(tag)]));
    cases.add(
        refused,
        "four items",
        &cbor::array(&[cbor::bytes(&signed), cbor::bytes(tag), cbor::bytes(signature), cbor::bytes([])]),
    );
    cases.add(
        refused,
        "text for the signed part",
        &cbor::array(&[cbor::text(&signed), cbor::bytes(tag), cbor::bytes(signature)]),
    );
    cases.add(refused, "a tag of 31 bytes", &outer(&signed, &tag[..31], &signature));
    cases.add(refused, "a tag of 33 bytes", &outer(&signed, &[&tag[..], &[0]].concat(), &signature));
    cases.add(refused, "a signature of 63 bytes", &outer(&signed, &tag, &signature[..63]));
    cases.add(
        refused,
        "null for the signature",
        &cbor::array(&[cbor::bytes(&signed), cbor::bytes(tag), cbor::NULL.to_vec()]),
    );
    cases.add(refused, "a signed part that is no array", &around(&cbor::uint(1)));
    cases.add(refused, "a signed part that is an empty array", &around(&cbor::array(&[])));
    let items = draft().items();
    cases.add(refused, "nine items in the signed part", &around(&cbor::array(&items[..9])));
    let eleven = [&items[..], &[cbor::NULL.to_vec()]].concat();
    cases.add(refused, "eleven items in the signed part", &around(&cbor::array(&eleven)));
    let many = [&items[..], &vec![cbor::NULL.to_vec(); 20]].concat();
    cases.add(refused, "thirty items in the signed part, and version 1", &around(&cbor::array(&many)));

    let payloads = |count| cbor::array(&vec![cbor::bytes([]); count]);
    let null = || cbor::NULL.to_vec();
    for (name, at, value) in [
        ("text for the version", 0, cbor::text("1")),
        ("a mesh id of 15 bytes", 1, cbor::bytes([0; 15])),
        ("text for the mesh id", 1, cbor::text([b'a'; 16])),
        ("an author of 33 bytes", 2, cbor::bytes([0; 33])),
        ("sequence number 0", 3, cbor::uint(0)),
        ("sequence number 2^64 - 1", 3, cbor::uint(u64::MAX)),
        ("null for the step", 4, null()),
        ("kind 2", 5, cbor::uint(2)),
        ("kind 256", 5, cbor::uint(256)),
        ("an empty channel", 6, cbor::text("")),
        ("a channel of 65 bytes", 6, cbor::text("c".repeat(65))),
        ("a channel with a slash", 6, cbor::text("ne/ws")),
        ("a channel beyond ASCII", 6, cbor::text("küche")),
        ("a channel that is not UTF-8", 6, cbor::text([0xff])),
        ("bytes for the channel", 6, cbor::bytes("news")),
        ("a previous entry of an ephemeral message", 7, cbor::bytes([0; 32])),
        ("text for the timestamp", 8, cbor::text("1")),
        ("null for the payloads", 9, null()),
        ("no payload", 9, payloads(0)),
        ("257 payloads", 9, payloads(257)),
        ("text for a payload", 9, cbor::array(&[cbor::text("hello")])),
        ("an array for a payload", 9, cbor::array(&[payloads(1)])),
        ("null for a payload", 9, cbor::array(&[null()])),
    ] {
        cases.add_item(refused, name, at, value);
    }
    let mut durable = draft();
    durable.kind = 1;
    let mut short_prev = durable.items();
    short_prev[7] = cbor::bytes([0; 31]);
    cases.add(refused, "a previous entry of 31 bytes", &around(&cbor::array(&short_prev)));
    let mut last = draft();
    (last.seq, last.payloads) = (u64::MAX - 1, vec![vec![]; 2]);
    cases.add(refused, "a bundle whose numbers would pass 2^64 - 1", &last.sealed(1));
    last.payloads.pop();
    cases.add(ACCEPTED, "the last sequence number there is", &last.sealed(1));

    cases.add_item("unknown_version", "version 0", 0, cbor::uint(0));
    cases.add_item("unknown_version", "version 2", 0, cbor::uint(2));
    cases.add_item("unknown_version", "version 2^64 - 1", 0, cbor::uint(u64::MAX));
    let future = cbor::array(&[cbor::uint(2), cbor::text("whatever"), cbor::array(&[])]);
    cases.add("unknown_version", "version 2 with other fields", &outer(&future, &[], &[]));
    let long = cbor::array(&[vec![cbor::uint(2)], vec![null(); 30]].concat());
    cases.add("unknown_version", "version 2 with more than 23 fields", &around(&long));
}

fn place_and_time(cases: &mut Cases) {
    let change = |change: &dyn Fn(&mut draft::Draft)| {
        let mut draft = draft();
        change(&mut draft);
        draft.sealed(1)
    };
    let other_mesh = change(&|draft| draft.mesh = *Mesh::new("garden", secret()).unwrap().id().as_bytes());
    cases.add("wrong_mesh", "the same secret, another name", &other_mesh);
    cases.add("wrong_channel", "came on the topic of another channel", &draft().sealed(1)).channel =
        "olds".to_owned();
    cases.add("not_synchronised", "the judge has no step", &draft().sealed(1)).step = None;
    for (expect, name, step, now) in [
        ("stale_step", "one step too old", 991, 1000),
        (ACCEPTED, "as old as may be, and of the phase before", 992, 1000),
        (ACCEPTED, "as far ahead as may be", 1002, 1000),
        ("future_step", "one step too far ahead", 1003, 1000),
        ("stale_step", "step 0", 0, 1000),
        ("future_step", "the last step there is", u64::MAX, 1000),
        (ACCEPTED, "step 0, in the window of a young mesh", 0, 3),
        (ACCEPTED, "the last step there is, at its time", u64::MAX, u64::MAX - 1),
    ] {
        let bytes = change(&|draft| draft.step = step);
        cases.add(expect, name, &bytes).step = Some(Num(now));
    }
}

fn tags(cases: &mut Cases) {
    let signed = draft().signed();
    let signature = draft::signature(1, &signed);
    let open = MeshSecret::open("kitchen");
    let mut flipped = draft::tag(&secret(), 1000, &signed);
    flipped[31] ^= 1;
    for (name, tag) in [
        ("the tag of another secret", draft::tag(&open, 1000, &signed)),
        ("the tag of the step before", draft::tag(&secret(), 999, &signed)),
        ("the tag key for the tag", draft::tag_key(&secret(), 1000)),
        ("the digest for the tag", *blake3::hash(&signed).as_bytes()),
        ("a flipped bit in the tag", flipped),
        ("zeros for the tag", [0; 32]),
    ] {
        cases.add("bad_pattern", name, &outer(&signed, &tag, &signature));
    }
    let mut changed = draft().sealed(1);
    let at = changed.windows(5).position(|bytes| bytes == b"hello").unwrap();
    changed[at] ^= 0x20;
    cases.add("bad_pattern", "a flipped bit in the payload", &changed);
    cases.add("bad_pattern", "the judge has another phase interval", &draft().sealed(1)).phase_interval =
        Num(99);
}

fn repeats(cases: &mut Cases) {
    let good = draft().sealed(1);
    let bundle = |seq, count| {
        let mut draft = draft();
        (draft.seq, draft.payloads) = (seq, vec![b"x".to_vec(); count]);
        draft.sealed(1)
    };
    cases.add("replay", "the same envelope again", &good).accepted_before = vec![Hex::from(&good)];
    cases.add("replay", "the same number with another payload", &bundle(7, 1)).accepted_before =
        vec![Hex::from(&good)];
    cases.add("replay", "a bundle that ends in a used number", &bundle(5, 3)).accepted_before =
        vec![Hex::from(&good)];
    cases.add("replay", "a number inside a bundle that was accepted", &good).accepted_before =
        vec![bundle(5, 4).into()];
    cases.add(ACCEPTED, "the numbers before a used one", &bundle(5, 2)).accepted_before =
        vec![Hex::from(&good)];
    cases.add("replay", "a number below the window", &bundle(976, 1)).accepted_before =
        vec![bundle(2000, 1).into()];
    cases.add(ACCEPTED, "the lowest number of the window", &bundle(977, 1)).accepted_before =
        vec![bundle(2000, 1).into()];
    let mut by_other = draft();
    by_other.author = *omnimesh_protocol::Identity::from_seed(&[2; 32]).id().as_bytes();
    cases.add(ACCEPTED, "the same number of another author", &by_other.sealed(2)).accepted_before =
        vec![Hex::from(&good)];
    cases.add("not_provably_new", "at the floor", &good).replay_floor = Some(Num(1000));
    cases.add(ACCEPTED, "above the floor", &good).replay_floor = Some(Num(999));
    cases.add("quarantined", "the author is in quarantine", &good).quarantined = vec![draft().author.into()];
}

fn signatures(cases: &mut Cases) {
    let by = |author: [u8; 32]| {
        let mut draft = draft();
        draft.author = author;
        let signed = draft.signed();
        let tag = draft::tag(&secret(), 1000, &signed);
        (signed, tag)
    };
    for (name, key) in [
        ("the author is a point of order 1", curve::small_order_keys()[0]),
        ("the author is a point of order 8", curve::small_order_keys()[1]),
        ("the author is no point of the curve", curve::key_off_the_curve()),
    ] {
        let (signed, tag) = by(key);
        cases.add("bad_key", name, &outer(&signed, &tag, &draft::signature(1, &signed)));
    }
    let (signed, tag) = by(draft().author);
    let good = draft::signature(1, &signed);
    let input = draft::signature_input(&signed);
    let identity = omnimesh_protocol::Identity::from_seed(&[1; 32]);
    let mut flipped = good;
    flipped[0] ^= 1;
    for (name, signature) in [
        ("another member's signature", draft::signature(2, &signed)),
        ("a flipped bit in the signature", flipped),
        ("zeros for the signature", [0; 64]),
        ("a signature without the context", identity.sign(blake3::hash(&signed).as_bytes())),
        ("a signature of the signed part itself", identity.sign(&signed)),
        ("a signature with S + L in place of S", curve::with_s_above_order(&good)),
        (
            "a signature with R of small order, which the ordinary check takes",
            curve::signature_with_identity_as_r(1, &curve::small_order_keys()[0], &input),
        ),
        ("a signature that only a check with the cofactor takes", curve::signature_with_mixed_r(1, &input)),
    ] {
        cases.add("bad_signature", name, &outer(&signed, &tag, &signature));
    }
    let (signed, tag) = by(curve::mixed_key(1));
    let input = draft::signature_input(&signed);
    for (expect, name, valid) in [
        (
            "bad_signature",
            "a key with a part of order 8, whose signature only a check with the cofactor takes",
            false,
        ),
        (ACCEPTED, "a key with a part of order 8, whose signature is good", true),
    ] {
        cases.add(expect, name, &outer(&signed, &tag, &curve::signature_of_mixed_key(1, &input, valid)));
    }
    let (signed, tag) = by(curve::key_with_y_above_prime());
    let name = "the author's y is above the prime: a point, so only the signature is bad";
    cases.add("bad_signature", name, &outer(&signed, &tag, &good));
}

/// Durable messages come on the log's channel, and others do not.
fn kinds(cases: &mut Cases) {
    let change = |change: &dyn Fn(&mut draft::Draft)| {
        let mut draft = draft();
        (draft.kind, draft.seq, draft.prev) = (1, 2, Some([7; 32]));
        change(&mut draft);
        draft.sealed(1)
    };
    let on_log = |judge: &mut Judge| judge.channel = "_log".to_owned();
    let next = change(&|_| {});
    let first = change(&|draft| (draft.seq, draft.prev) = (1, None));
    cases.add("wrong_kind", "a durable message on the channel that it names", &next);
    for (expect, name, bytes) in [
        (ACCEPTED, "a durable message on the log's channel", &next),
        (ACCEPTED, "the first of its log, on the log's channel", &first),
        ("wrong_kind", "an ephemeral message on the log's channel", &draft().sealed(1)),
        (
            "wrong_kind",
            "an ephemeral message that names the log's channel, on it",
            &change(&|draft| (draft.kind, draft.prev, draft.channel) = (0, None, "_log".to_owned())),
        ),
        ("wrong_kind", "the first of a log with a message before it", &change(&|draft| draft.seq = 1)),
        ("wrong_kind", "the second of a log with none before it", &change(&|draft| draft.prev = None)),
        ("stale_step", "a durable message that is one step too old", &change(&|draft| draft.step = 991)),
    ] {
        on_log(cases.add(expect, name, bytes));
    }
    let judge = cases.add(ACCEPTED, "a durable message for the second time: its log knows better", &next);
    on_log(judge);
    judge.accepted_before = vec![Hex::from(next.clone())];
    let judge = cases.add("not_synchronised", "a durable message, and the judge has no step", &next);
    on_log(judge);
    judge.step = None;
    let judge = cases.add("wrong_kind", "order: durable, and the judge has no step", &next);
    judge.step = None;
}

/// Envelopes with several faults: the first gate decides.
fn order(cases: &mut Cases) {
    let mut faulty = draft();
    (faulty.mesh, faulty.step, faulty.channel) = ([9; 16], 5000, "olds".to_owned());
    let broken = |draft: &draft::Draft| outer(&draft.signed(), &[0; 32], &[0; 64]);
    let good = Hex::from(draft().sealed(1));
    cases.add("wrong_mesh", "order: mesh, channel, step, tag and signature are wrong", &broken(&faulty));
    cases.add("wrong_mesh", "order: mesh is wrong, and the judge has no step", &broken(&faulty)).step = None;
    faulty.mesh = draft().mesh;
    cases.add("wrong_channel", "order: channel, step, tag and signature are wrong", &broken(&faulty));
    cases.add("wrong_channel", "order: channel is wrong, and the judge has no step", &broken(&faulty)).step =
        None;
    faulty.channel = draft().channel;
    cases.add("future_step", "order: step, tag and signature are wrong", &broken(&faulty));
    faulty.step = 991;
    cases.add("stale_step", "order: too old, tag and signature are wrong", &broken(&faulty));
    faulty.step = 1000;
    let judge = cases.add(
        "bad_pattern",
        "order: the tag is wrong, the number is used, the author in quarantine",
        &broken(&faulty),
    );
    (judge.accepted_before, judge.quarantined) = (vec![good.clone()], vec![draft().author.into()]);
    let signed = faulty.signed();
    let unsigned = outer(&signed, &draft::tag(&secret(), 1000, &signed), &[0; 64]);
    let judge = cases.add(
        "replay",
        "order: the number is used, the author in quarantine, the signature wrong",
        &unsigned,
    );
    (judge.accepted_before, judge.quarantined) = (vec![good], vec![draft().author.into()]);
    let judge =
        cases.add("quarantined", "order: the author is in quarantine, and the signature wrong", &unsigned);
    judge.quarantined = vec![draft().author.into()];
    let mut nothing_right = faulty.clone();
    (nothing_right.mesh, nothing_right.seq) = ([9; 16], 0);
    cases.add("malformed", "order: sequence number 0, and nothing else right", &broken(&nothing_right));
    let mut items = faulty.items();
    (items[0], items[3]) = (cbor::uint(2), cbor::uint(0));
    cases.add("unknown_version", "order: version 2, and sequence number 0", &around(&cbor::array(&items)));
    cases.add(
        "truncated",
        "order: the signed part is cut, and the tag has 1 byte",
        &outer(&signed[..20], &[0], &[]),
    );
    cases.add("malformed", "order: text for the tag, and the signed part is cut", &{
        cbor::array(&[cbor::bytes(&signed[..20]), cbor::text(""), cbor::bytes([0; 64])])
    });
    cases.add("trailing_bytes", "order: null, and bytes after it", &[0xf6, 0x00]);
    let judge = cases.add("too_large", "order: too large, and nothing else right", &[0xff; 20]);
    judge.message_bytes_max = 19;
}

#[test]
fn rejected() {
    let mut cases = Cases::default();
    for group in [size_and_shape, encoding, fields, place_and_time, kinds, tags, repeats, signatures, order] {
        group(&mut cases);
    }
    let description = "Envelopes and what a node in the given state says of them: a reason code, or `accepted` where \
                       a case marks the edge of what is allowed. The pieces of `envelope`, each repeated `times` \
                       times, are joined. The judge has accepted `accepted_before`, in order, at its present step, \
                       and has put the authors in `quarantined` (public keys) into quarantine after that.";
    let mut reasons = BTreeSet::new();
    for case in settle("rejected.json", description, cases.0) {
        assert_eq!(run(&case), case.expect, "{}", case.name);
        reasons.insert(case.expect);
    }
    for reason in Refusal::ALL {
        assert!(reasons.contains(reason.code()), "no case for {}", reason.code());
    }
}
