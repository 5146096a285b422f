//! `registry.json`, `registry_states.json`

use omnimesh_protocol::projection::{EntryRef, Head, Outcome, Projection, Replay};
use omnimesh_protocol::registry::{
    Action, Direction, Encoded, Entry, EntryKey, Fault, FieldName, Fields, Link, LinkView, ListQuery,
    Operation, Rank, Relation, State, Tick, Value,
};
use omnimesh_protocol::{Hash, NodeId, Outbox, Seq, Step};
use serde::{Deserialize, Serialize};

use crate::{Hex, Num, cbor, settle};

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct FieldCase {
    name: String,
    value: Hex,
}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Case {
    comment: String,
    payload: Hex,
    /// `good` or the fault.
    outcome: String,
    action: Option<String>,
    kind: Option<String>,
    name: Option<String>,
    relation: Option<String>,
    to_kind: Option<String>,
    to_name: Option<String>,
    after_step: Option<Num>,
    after_count: Option<u32>,
    ttl: Option<Num>,
    fields: Option<Vec<FieldCase>>,
}

/// A case as a reader of the payload finds it.
fn read(comment: &str, payload: &[u8]) -> Case {
    let mut case = Case {
        comment: comment.to_owned(),
        payload: payload.into(),
        outcome: "good".to_owned(),
        action: None,
        kind: None,
        name: None,
        relation: None,
        to_kind: None,
        to_name: None,
        after_step: None,
        after_count: None,
        ttl: None,
        fields: None,
    };
    let operation = match Operation::decode(payload) {
        Ok(operation) => operation,
        Err(fault) => {
            case.outcome = fault.code().to_owned();
            return case;
        }
    };
    assert_eq!(operation.encode().unwrap(), payload);
    case.after_step = operation.after.map(|after| Num(after.step.0));
    case.after_count = operation.after.map(|after| after.count);
    let (action, key) = match &operation.action {
        Action::Put { key, .. } => ("put", key),
        Action::Update { key, .. } => ("update", key),
        Action::Delete { key } => ("delete", key),
        Action::Link(link) => ("link", &link.from),
        Action::Unlink(link) => ("unlink", &link.from),
    };
    (case.action, case.kind) = (Some(action.to_owned()), Some(key.kind.to_string()));
    case.name = Some(key.name.to_string());
    match operation.action {
        Action::Put { ttl, fields, .. } | Action::Update { ttl, fields, .. } => {
            case.ttl = ttl.map(Num);
            let fields = fields
                .iter()
                .map(|(name, value)| FieldCase { name: name.to_string(), value: value.as_bytes().into() });
            case.fields = Some(fields.collect());
        }
        Action::Link(link) | Action::Unlink(link) => {
            case.relation = Some(link.relation.to_string());
            case.to_kind = Some(link.to.kind.to_string());
            case.to_name = Some(link.to.name.to_string());
        }
        Action::Delete { .. } => {}
    }
    case
}

fn key(text: &str) -> EntryKey {
    text.parse().unwrap()
}

fn link(from: &str, relation: &str, to: &str) -> Link {
    Link { from: key(from), relation: Relation::new(relation).unwrap(), to: key(to) }
}

fn fields<const N: usize>(fields: [(&str, Value); N]) -> Fields {
    fields.map(|(name, value)| (FieldName::new(name).unwrap(), value.encode().unwrap())).into()
}

fn put(name: &str, ttl: Option<u64>, fields: Fields) -> Action {
    Action::Put { key: key(name), ttl, fields }
}

fn update(name: &str, ttl: Option<u64>, fields: Fields) -> Action {
    Action::Update { key: key(name), ttl, fields }
}

fn tick(step: u64, count: u32) -> Option<Tick> {
    Some(Tick { step: Step(step), count })
}

/// One of each type of value.
fn values() -> Fields {
    let map = [("b", Value::from(1)), ("aa", Value::from(-1)), ("", Value::Null)];
    fields([
        ("yes", Value::from(true)),
        ("no", Value::from(false)),
        ("least", Value::from(i64::MIN)),
        ("most", Value::from(i64::MAX)),
        ("float", Value::from(1.5)),
        ("small float", Value::from(5e-324)),
        ("zero", Value::from(0.0)),
        ("text", Value::from("ü")),
        ("bytes", Value::Bytes(vec![0, 255])),
        ("list", Value::List(vec![Value::from(23), Value::from(24), Value::List(vec![])])),
        ("map", Value::Map(map.map(|(name, value)| (name.to_owned(), value)).into())),
    ])
}

fn good_cases() -> Vec<Case> {
    let longest = format!("{}/{}", "k".repeat(32), "n".repeat(128));
    let nested = (0..8).fold(Value::Null, |inner, _| Value::List(vec![inner]));
    let full = (0..64).map(|n| (FieldName::new(&format!("{n}")).unwrap(), Value::from(n).encode().unwrap()));
    let cases = [
        ("an entry without fields", put("agent/scout", None, Fields::new()), None),
        ("a value of each type", put("model/llama", None, values()), None),
        (
            "a time-to-live",
            put("service/api", Some(u64::MAX), fields([("address", "https://x".into())])),
            None,
        ),
        (
            "the longest names",
            put(&longest, None, fields([(&"f".repeat(64), 0.into())])),
            tick(u64::MAX, u32::MAX),
        ),
        ("as many fields as there may be", put("a/é", None, full.collect()), tick(0, 0)),
        ("as deep as it may be", put("tool/t", None, fields([("x", nested)])), None),
        (
            "a value of 16,384 bytes",
            put("tool/t", None, fields([("x", Value::Bytes(vec![7; 16_381]))])),
            None,
        ),
        ("a removal", update("my-kind_2/Own Name/x", None, fields([("x", Value::Null)])), tick(1000, 3)),
        ("a renewal", update("service/api", Some(30), Fields::new()), tick(1 << 32, 256)),
        ("", Action::Delete { key: key("dataset/d") }, tick(24, 1)),
        ("", Action::Link(link("agent/scout", "deployed_on", "infrastructure/rack-7")), None),
        ("to itself", Action::Link(link("workflow/w", "uses", "workflow/w")), None),
        ("", Action::Unlink(link("agent/scout", "my-own", "tool/t")), tick(23, 24)),
    ];
    let payloads = cases.map(|(comment, action, after)| {
        let payload = Operation { action: action.clone(), after }.encode().unwrap();
        assert_eq!(Operation::decode(&payload).unwrap().action, action);
        read(comment, &payload)
    });
    payloads.into()
}

/// An operation of these items, each encoded.
fn raw(items: &[&[u8]]) -> Vec<u8> {
    cbor::array(&items.iter().map(|item| item.to_vec()).collect::<Vec<_>>())
}

fn with_names(kind: &[u8], name: &[u8]) -> Vec<u8> {
    raw(&[&[1], &[2], &cbor::text(kind), &cbor::text(name), cbor::NULL])
}

fn with_fields(code: u8, ttl: &[u8], fields: &[u8]) -> Vec<u8> {
    raw(&[&[1], &[code], &cbor::text("tool"), &cbor::text("t"), cbor::NULL, ttl, fields])
}

fn with_value(value: &[u8]) -> Vec<u8> {
    with_fields(0, cbor::NULL, &[&[0xa1, 0x61, b'x'], value].concat())
}

fn with_after(after: &[u8]) -> Vec<u8> {
    raw(&[&[1], &[2], &cbor::text("tool"), &cbor::text("t"), after])
}

fn float(value: f64) -> Vec<u8> {
    [&[0xfb][..], &value.to_be_bytes()].concat()
}

fn bad_values() -> Vec<(&'static str, Vec<u8>, Fault)> {
    use Fault::{BadNumber, Malformed, NotCanonical, TooDeep, TooLarge, Truncated};
    let deep = |levels| [vec![0x81; levels], cbor::NULL.to_vec()].concat();
    vec![
        ("not a number", with_value(&float(f64::NAN)), NotCanonical),
        ("infinity", with_value(&float(f64::INFINITY)), NotCanonical),
        ("negative zero", with_value(&float(-0.0)), NotCanonical),
        ("a float of four bytes", with_value(&[0xfa, 0x3f, 0xc0, 0, 0]), Malformed),
        ("a float of two bytes", with_value(&[0xf9, 0x3c, 0]), Malformed),
        ("undefined", with_value(&[0xf7]), Malformed),
        ("a tag", with_value(&[0xc1, 0]), Malformed),
        ("2^63", with_value(&cbor::uint(1 << 63)), BadNumber),
        ("-2^63 - 1", with_value(&cbor::head(1, 1 << 63)), BadNumber),
        ("a negative integer in two bytes where one does", with_value(&[0x38, 0x17]), NotCanonical),
        ("nine levels", with_value(&deep(9)), TooDeep),
        ("nine levels, one of them a map", with_value(&[&[0xa1, 0x60][..], &deep(8)].concat()), TooDeep),
        ("16,385 bytes", with_value(&cbor::bytes(vec![7; 16_382])), TooLarge),
        (
            "a list that claims more than there is",
            with_value(&[0x9b, 255, 255, 255, 255, 255, 255, 255, 255]),
            Truncated,
        ),
        ("a list of indefinite length", with_value(&[0x9f, 0xff]), NotCanonical),
        ("keys of a map out of order", with_value(&[0xa2, 0x62, b'a', b'a', 0, 0x61, b'b', 0]), NotCanonical),
        ("a key twice", with_value(&[0xa2, 0x60, 0, 0x60, 0]), NotCanonical),
        ("a number for a key", with_value(&[0xa1, 0, 0]), Malformed),
        ("text that is not UTF-8", with_value(&[0x61, 0xff]), Malformed),
        ("null in a put", with_value(cbor::NULL), Malformed),
    ]
}

fn bad_cases() -> Vec<Case> {
    use Fault::*;
    let one = || with_fields(0, cbor::NULL, &[0xa0]);
    let two_fields = |a: u8, b: u8| with_fields(0, cbor::NULL, &[0xa2, 0x61, a, 0, 0x61, b, 0]);
    let pairs: Vec<u8> = (b' '..=b'`').flat_map(|name| [0x61, name, 0]).collect();
    let many = with_fields(0, cbor::NULL, &[vec![0xb8, 65], pairs].concat());
    let long_name = [vec![0xa1, 0x78, 65], vec![b'f'; 65], vec![0]].concat();
    let mut cases = vec![
        ("no bytes", vec![], Truncated),
        ("49,153 bytes", vec![0; 49_153], TooLarge),
        ("a map", vec![0xa1, 1, 2], Malformed),
        ("an empty array", vec![0x80], Truncated),
        ("version 2", vec![0x81, 2], UnknownVersion),
        ("a negative version", vec![0x81, 0x20], Malformed),
        ("operation 5", vec![0x82, 1, 5], UnknownOperation),
        ("an item is missing", raw(&[&[1], &[2], &cbor::text("tool"), &cbor::text("t")]), Malformed),
        (
            "an item too many",
            raw(&[&[1], &[2], &cbor::text("tool"), &cbor::text("t"), &[0], &[0]]),
            Malformed,
        ),
        ("cut", one()[..one().len() - 1].to_vec(), Truncated),
        ("a byte more", [one(), vec![0]].concat(), TrailingBytes),
        ("an empty kind", with_names(b"", b"t"), BadName),
        ("a kind with a capital", with_names(b"Tool", b"t"), BadName),
        ("a kind that begins with a digit", with_names(b"2l", b"t"), BadName),
        ("a kind of 33 bytes", with_names(&[b'k'; 33], b"t"), BadName),
        ("an empty name", with_names(b"tool", b""), BadName),
        ("a name with a line feed", with_names(b"tool", b"a\nb"), BadName),
        ("a name with U+009B", with_names(b"tool", "\u{9b}".as_bytes()), BadName),
        ("a name of 129 bytes", with_names(b"tool", &[b'n'; 129]), BadName),
        ("a name that is not UTF-8", with_names(b"tool", &[0xff]), Malformed),
        (
            "bytes for the name",
            raw(&[&[1], &[2], &cbor::text("tool"), &cbor::bytes("t"), cbor::NULL]),
            Malformed,
        ),
        ("one number for after", with_after(&[0x81, 1]), Malformed),
        ("a negative step in after", with_after(&[0x82, 0x20, 1]), Malformed),
        ("a count of 2^32", with_after(&[&[0x82, 1][..], &cbor::uint(1 << 32)].concat()), BadNumber),
        ("a time-to-live of 0", with_fields(0, &[0], &[0xa0]), Malformed),
        ("a negative time-to-live", with_fields(0, &[0x20], &[0xa0]), Malformed),
        ("an update of nothing", with_fields(1, cbor::NULL, &[0xa0]), Malformed),
        ("an array for the fields", with_fields(0, cbor::NULL, &[0x80]), Malformed),
        ("65 fields", many, TooManyFields),
        ("fields out of order", two_fields(b'b', b'a'), NotCanonical),
        ("a field twice", two_fields(b'a', b'a'), NotCanonical),
        ("a field without a name", with_fields(0, cbor::NULL, &[0xa1, 0x60, 0]), BadName),
        ("a field name of 65 bytes", with_fields(0, cbor::NULL, &long_name), BadName),
        ("version in two bytes", vec![0x82, 0x18, 1, 5], NotCanonical),
    ];
    cases.extend(bad_values());
    let cases = cases.into_iter().map(|(comment, payload, fault)| {
        let case = read(comment, &payload);
        assert_eq!(case.outcome, fault.code(), "{comment}");
        case
    });
    cases.collect()
}

#[test]
fn registry_operations() {
    let mut cases = good_cases();
    cases.extend(bad_cases());
    let description = "Payloads of durable envelopes of channel `registry`. `outcome` is `good` or why the payload is \
                       refused. Values of fields are their CBOR. Fields that the operation does not have are null.";
    for case in settle("registry.json", description, cases) {
        assert_eq!(read(&case.comment, &case.payload.0), case);
    }
}

/// An entry of a log, and what became of it.
#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
pub(crate) struct EntryCase {
    pub(crate) author: Hex,
    pub(crate) seq: Num,
    pub(crate) step: Num,
    pub(crate) hash: Hex,
    pub(crate) channel: String,
    pub(crate) payload: Hex,
    pub(crate) became: String,
}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct StateCase {
    comment: String,
    cut_author: Option<Hex>,
    cut_seq: Option<Num>,
    cut_hash: Option<Hex>,
    entries: Vec<EntryCase>,
    compact: Option<Num>,
    items: Vec<Hex>,
    hash: Hex,
    heads: Hex,
    snapshot: Hex,
}

/// Applies an entry, and notes what became of it.
pub(crate) fn apply<P: Projection>(state: &mut P, entry: &mut EntryCase) {
    let outcome = state.apply(
        &EntryRef {
            author: NodeId::from_bytes(entry.author.array()),
            seq: Seq(entry.seq.0),
            step: Step(entry.step.0),
            hash: Hash::from_bytes(entry.hash.array()),
            category: &entry.channel,
            payload: &entry.payload.0,
        },
        &mut Outbox::new(),
    );
    entry.became = match outcome {
        Outcome::Applied => "applied",
        Outcome::OtherCategory => "other_category",
        Outcome::CutOff => "cut_off",
        Outcome::BelowFloor => "below_floor",
        Outcome::Refused(code) => code,
    }
    .to_owned();
}

/// Writes a log entry by entry.
pub(crate) struct Log {
    author: u8,
    seq: u64,
}

impl Log {
    pub(crate) fn new(author: u8) -> Self {
        Log { author, seq: 0 }
    }

    pub(crate) fn entry(&mut self, step: u64, channel: &str, payload: Vec<u8>) -> EntryCase {
        self.seq += 1;
        EntryCase {
            author: [self.author; 32].into(),
            seq: Num(self.seq),
            step: Num(step),
            hash: Hash::of(&[self.author, u8::try_from(self.seq).unwrap()]).as_bytes().into(),
            channel: channel.to_owned(),
            payload: payload.into(),
            became: String::new(),
        }
    }

    fn write(&mut self, step: u64, after: Option<Tick>, action: Action) -> EntryCase {
        self.entry(step, "registry", Operation { action, after }.encode().unwrap())
    }
}

fn rank_item(rank: &Rank) -> Vec<u8> {
    cbor::array(&[
        cbor::uint(rank.tick.step.0),
        cbor::uint(u64::from(rank.tick.count)),
        cbor::bytes(rank.author.as_bytes()),
        cbor::uint(rank.seq.0),
    ])
}

/// As the document says it, not as the crate does it.
fn entry_item(entry: &Entry) -> Vec<u8> {
    let fields = entry.fields.iter().map(|(name, field)| {
        let value: &Encoded = &field.value;
        cbor::array(&[
            cbor::text(name.as_str()),
            rank_item(&field.rank),
            cbor::bytes(blake3::hash(value.as_bytes()).as_bytes()),
        ])
    });
    cbor::array(&[
        cbor::uint(0),
        cbor::text(entry.key.kind.as_str()),
        cbor::text(entry.key.name.as_str()),
        rank_item(&entry.created),
        entry.expires.map_or(cbor::NULL.to_vec(), |step| cbor::uint(step.0)),
        cbor::array(&fields.collect::<Vec<_>>()),
    ])
}

fn hash_of_items(items: &[Hex]) -> Hex {
    let mut sums = [0_u16; 1024];
    for item in items {
        let mut bytes = [0; 2048];
        let mut hasher = blake3::Hasher::new_derive_key("omnimesh 2026-11 registry item");
        hasher.update(&item.0).finalize_xof().fill(&mut bytes);
        for (sum, pair) in sums.iter_mut().zip(bytes.chunks(2)) {
            *sum = sum.wrapping_add(u16::from_le_bytes(pair.try_into().unwrap()));
        }
    }
    let bytes: Vec<u8> = sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
    blake3::derive_key("omnimesh 2026-11 registry state", &bytes).into()
}

/// Applies the entries and says what came of it.
fn state_case(
    comment: &str,
    cut: Option<(u8, u64)>,
    entries: &[EntryCase],
    compact: Option<u64>,
) -> StateCase {
    let mut state = State::new();
    let mut out = Outbox::new();
    let cut = cut.map(|(author, seq)| {
        let end = Head { seq: Seq(seq), hash: Hash::of(&[author, u8::try_from(seq).unwrap()]) };
        (NodeId::from_bytes([author; 32]), end)
    });
    if let Some((author, end)) = cut {
        assert_eq!(state.cut(author, Some(end), &mut out), Replay::NotNeeded);
    }
    let mut entries = entries.to_vec();
    entries.iter_mut().for_each(|entry| apply(&mut state, entry));
    if let Some(floor) = compact {
        state.compact(Step(floor));
    }
    let page = state.list(&ListQuery { limit: 100, ..ListQuery::default() }, Step(0)).value;
    let mut items: Vec<Hex> = page.entries.iter().map(|entry| entry_item(entry).into()).collect();
    for name in LINKED {
        let views = state.links(&key(name), Direction::Out, &[], Step(0)).value;
        items.extend(views.iter().map(|view| Hex::from(link_item(view))));
    }
    items.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(hash_of_items(&items), state.hash().as_bytes().into(), "{comment}");
    StateCase {
        comment: comment.to_owned(),
        cut_author: cut.map(|(author, _)| author.as_bytes().into()),
        cut_seq: cut.map(|(_, end)| Num(end.seq.0)),
        cut_hash: cut.map(|(_, end)| end.hash.as_bytes().into()),
        entries,
        compact: compact.map(Num),
        items,
        hash: state.hash().as_bytes().into(),
        heads: state.as_of(Step(0)).heads.as_bytes().into(),
        snapshot: state.snapshot().into(),
    }
}

fn link_item(view: &LinkView) -> Vec<u8> {
    let LinkView { link, rank, .. } = view;
    cbor::array(&[
        cbor::uint(1),
        cbor::text(link.from.kind.as_str()),
        cbor::text(link.from.name.as_str()),
        cbor::text(link.relation.as_str()),
        cbor::text(link.to.kind.as_str()),
        cbor::text(link.to.name.as_str()),
        rank_item(rank),
    ])
}

/// Where links begin.
const LINKED: [&str; 3] = ["model/llama", "service/api", "tool/old"];

fn history() -> Vec<EntryCase> {
    let [mut a, mut b, mut c] = [1, 2, 3].map(Log::new);
    let removal = fields([("zone", Value::Null), ("size", 3.into())]);
    // A step more than may be claimed.
    let refused = c.write(12, tick(29, 0), put("agent/late", None, Fields::new()));
    vec![
        a.write(10, None, put("model/llama", None, fields([("size", 7.into()), ("zone", "eu".into())]))),
        b.write(10, None, put("model/llama", None, fields([("size", 8.into())]))),
        a.write(10, tick(10, 0), update("model/llama", None, removal)),
        a.write(11, None, put("service/api", Some(5), fields([("address", "https://a".into())]))),
        b.write(12, None, update("service/api", Some(9), fields([("health", "?".into())]))),
        b.write(12, None, Action::Link(link("service/api", "runs", "model/llama"))),
        b.write(13, None, Action::Link(link("model/llama", "uses", "dataset/none"))),
        refused,
        c.entry(12, "log", b"not for the registry".to_vec()),
        c.entry(12, "registry", b"neither".to_vec()),
        c.write(12, tick(14, 0), Action::Delete { key: key("tool/old") }),
        a.write(13, None, put("tool/old", None, fields([("x", 1.into())]))),
        a.write(13, None, update("tool/never", None, fields([("x", 1.into())]))),
        c.write(13, None, Action::Unlink(link("model/llama", "runs", "model/llama"))),
        c.write(14, tick(14, 0), Action::Link(link("tool/old", "uses", "tool/old"))),
        c.write(14, None, Action::Link(link("tool/old", "uses", "model/llama"))),
    ]
}

#[test]
fn registry_states() {
    let history = history();
    let mut backwards = history.clone();
    backwards.reverse();
    let doubled = [history.clone(), backwards.clone()].concat();
    let one = &history[..1];
    let cases = vec![
        state_case("nothing", None, &[], None),
        state_case("one entry", None, one, None),
        state_case("writes of three authors", None, &history, None),
        state_case("the same in another order", None, &backwards, None),
        state_case("the same twice", None, &doubled, None),
        state_case(
            "the log of the second author is cut after its second entry",
            Some((2, 2)),
            &history,
            None,
        ),
        state_case("tombstones below step 14 are dropped", None, &history, Some(14)),
        state_case("tombstones below step 15 are dropped", None, &history, Some(15)),
    ];
    let same: Vec<_> = cases[2..5].iter().map(|case| (&case.hash, &case.heads, &case.snapshot)).collect();
    assert!(same.iter().all(|case| *case == same[0]));
    assert_eq!(cases[2].hash, cases[7].hash);
    let description = "Entries of logs, in the order in which they came, and the registry that they make. Where a log \
                       is cut it was cut before. `items` are what the hash is made of.";
    for case in settle("registry_states.json", description, cases) {
        let mut state = State::new();
        state.restore(&case.snapshot.0).unwrap();
        assert_eq!(case.hash, state.hash().as_bytes().into());
        assert_eq!(case.heads, state.as_of(Step(0)).heads.as_bytes().into());
        assert_eq!(case.hash, hash_of_items(&case.items));
    }
}
