//! `checkpoints.json`

use bytes::Bytes;
use omnimesh_protocol::envelope::{Channel, Envelope, Header, Kind, Payloads};
use omnimesh_protocol::log::Record;
use omnimesh_protocol::log::checkpoint::{Base, Cut, Sealed, Vote};
use omnimesh_protocol::pattern::PatternGenerator;
use omnimesh_protocol::registry::{Action, EntryKey, Fields, Link, Operation, Relation};
use omnimesh_protocol::{Identity, Mesh, Seq, Step};
use serde::{Deserialize, Serialize};

use crate::{Hex, Num, secret, settle};

#[derive(Serialize, Deserialize)]
struct Case {
    comment: String,
    mesh: Hex,
    /// Entries of steps before it are covered.
    step: Num,
    /// All logs, record by record: each author's in order.
    records: Vec<Hex>,
    /// Seeds of those who sign.
    signers: Vec<Hex>,
    cut: Hex,
    registry: Hex,
    heads: Hex,
    checkpoint: Hex,
    id: Hex,
    sealed: Hex,
}

fn mesh() -> Mesh {
    Mesh::new("kitchen", secret()).unwrap()
}

fn identity(seed: u8) -> Identity {
    Identity::from_seed(&[seed; 32])
}

/// The log of an author in the mesh `kitchen`.
struct Log {
    author: u8,
    records: Vec<Record>,
}

impl Log {
    fn new(author: u8) -> Self {
        Log { author, records: Vec::new() }
    }

    /// Writes a record.
    fn add(mut self, step: u64, category: &str, payloads: &[&[u8]]) -> Self {
        let mesh = mesh();
        let mut patterns =
            PatternGenerator::new(mesh.secret().clone(), 100.try_into().unwrap(), 4.try_into().unwrap());
        let last = self.records.last();
        let header = Header {
            mesh: mesh.id(),
            author: identity(self.author).id(),
            seq: last.map_or(Seq(1), |last| last.last().saturating_add(1)),
            step: Step(step),
            kind: Kind::Durable,
            channel: Channel::new(category).unwrap(),
            prev: last.map(Record::digest),
            timestamp_us: None,
        };
        let payloads: Payloads = payloads.iter().map(|bytes| Bytes::copy_from_slice(bytes)).collect();
        let pattern = patterns.at(Step(step));
        let envelope = Envelope::seal(&identity(self.author), pattern, header, payloads).unwrap();
        self.records.push(Record::new(envelope).unwrap());
        self
    }
}

fn key(name: &str) -> EntryKey {
    format!("model/{name}").parse().unwrap()
}

fn operation(action: Action) -> Vec<u8> {
    Operation { action, after: None }.encode().unwrap()
}

fn case(comment: &str, step: u64, logs: &[Log], signers: &[u8]) -> Case {
    let mut base = Base::default();
    for log in logs {
        // The first that is not taken ends it.
        let _ = log.records.iter().take_while(|record| base.take(record, Step(step))).count();
    }
    let (mut sealed, parts) = base.checkpoint(mesh().id(), Step(step));
    let id = sealed.checkpoint.id();
    sealed.votes = signers.iter().map(|seed| Vote::new(&identity(*seed), mesh().id(), &id)).collect();
    sealed.votes.sort_by_key(|vote| vote.signer);
    Case {
        comment: comment.to_owned(),
        mesh: mesh().id().as_bytes().into(),
        step: Num(step),
        records: logs.iter().flat_map(|log| &log.records).map(|record| record.as_bytes().into()).collect(),
        signers: signers.iter().map(|seed| [*seed; 32].into()).collect(),
        cut: (&parts[0]).into(),
        registry: (&parts[1]).into(),
        heads: (&parts[2]).into(),
        checkpoint: sealed.checkpoint.encode().into(),
        id: id.as_bytes().into(),
        sealed: sealed.encode().into(),
    }
}

#[test]
fn checkpoints() {
    let put = |name: &str| operation(Action::Put { key: key(name), ttl: None, fields: Fields::default() });
    let link = operation(Action::Link(Link {
        from: key("large"),
        relation: Relation::new("uses").unwrap(),
        to: key("small"),
    }));
    let delete = operation(Action::Delete { key: key("small") });
    let first = || {
        Log::new(1)
            .add(1000, "log", &[b"one", b"two"])
            .add(1001, "registry", &[&put("large"), &put("small")])
            .add(1010, "log", &[b"of step 1010"])
    };
    let second = || Log::new(2).add(1002, "registry", &[&link]).add(1009, "registry", &[&delete]);
    let cases = vec![
        case("one entry of one author", 1001, &[Log::new(1).add(1000, "log", &[b"one"])], &[1]),
        case(
            "two authors; what is of the step itself is not covered",
            1010,
            &[first(), second()],
            &[1, 2, 3],
        ),
        case(
            "the same logs, and an author that has written nothing before the step",
            1002,
            &[first(), second()],
            &[3, 1],
        ),
        case("everything", 2000, &[first(), second()], &[]),
    ];
    let description = "Checkpoints of logs in the mesh `kitchen` of `envelopes.json`, and their parts. `heads` is not signed. Those \
                       without signers were just made.";
    for case in settle("checkpoints.json", description, cases) {
        let sealed = Sealed::decode(&case.sealed.0.clone().into()).unwrap();
        assert!(sealed.verify() && sealed.votes.len() == case.signers.len(), "{}", case.comment);
        assert_eq!(sealed.checkpoint.id().as_bytes()[..], case.id.0, "{}", case.comment);
        let parts: Vec<Bytes> =
            [&case.cut, &case.registry, &case.heads].map(|part| part.0.clone().into()).to_vec();
        let base = Base::open(&sealed, &parts, 2).unwrap();
        assert_eq!(base.verify(mesh().id()), Ok(()), "{}", case.comment);
        assert_eq!(Cut::decode(&parts[0], 2), Some(base.cut), "{}", case.comment);
    }
}
