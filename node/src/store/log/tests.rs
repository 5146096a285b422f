use std::num::{NonZeroU64, NonZeroUsize};

use omnimesh_protocol::envelope::{Channel, Header, Kind};
use omnimesh_protocol::log::Change;
use omnimesh_protocol::pattern::PatternGenerator;
use omnimesh_protocol::{Identity, Mesh};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use redb::Database;

use super::*;

pub(super) const BYTES_MAX: usize = 65_536;

pub(super) fn mesh() -> Mesh {
    Mesh::open("log-store").unwrap()
}

/// A log of records, of one to three entries each.
pub(super) fn chain(author: u8, records: usize) -> Vec<Record> {
    let (mesh, identity) = (mesh(), Identity::from_seed(&[author; 32]));
    let interval = NonZeroU64::new(1000).unwrap();
    let mut patterns = PatternGenerator::new(mesh.secret().clone(), interval, NonZeroUsize::MIN);
    let (mut seq, mut prev, mut chain) = (1, None, Vec::new());
    for number in 0..records {
        let step = Step(100 + number as u64 / 7);
        let header = Header {
            mesh: mesh.id(),
            author: identity.id(),
            seq: Seq(seq),
            step,
            kind: Kind::Durable,
            channel: Channel::new("log").unwrap(),
            prev,
            timestamp_us: None,
        };
        let entries = 1 + number % 3;
        let payloads =
            (0..entries).map(|entry| Bytes::from(format!("{author} wrote {number}.{entry}"))).collect();
        let envelope = Envelope::seal(&identity, patterns.at(step), header, payloads).unwrap();
        let record = Record::new(envelope).unwrap();
        (seq, prev) = (seq + entries as u64, Some(record.digest()));
        chain.push(record);
    }
    chain
}

pub(super) fn open(dir: &Path) -> (LogStore, Opened) {
    LogStore::open(dir, mesh().id(), BYTES_MAX).unwrap()
}

pub(super) fn append_all(store: &LogStore, records: &[Record]) {
    let changes: Vec<_> = records.iter().cloned().map(Change::Append).collect();
    store.write(&changes).unwrap();
}

pub(super) fn bytes_of(records: &[Record]) -> Vec<Bytes> {
    records.iter().map(|record| record.as_bytes().clone()).collect()
}

pub(super) fn all(store: &LogStore, author: NodeId) -> Result<Vec<Bytes>, ReadError> {
    store.read(author, Seq(0), Seq(u64::MAX), usize::MAX)
}

#[test]
fn what_was_written_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (chain(1, 30), chain(2, 5));
    {
        let (store, opened) = open(dir.path());
        assert!(opened.logs.is_empty() && opened.damage.is_empty());
        append_all(&store, &one);
        append_all(&store, &two);
    }
    let (store, opened) = open(dir.path());
    assert_eq!(opened.damage, []);
    let ends: Vec<_> = opened.logs.iter().map(|log| (log.author, log.base, log.head, log.step)).collect();
    let end = |chain: &[Record]| {
        let last = chain.last().unwrap();
        (last.author(), Seq(1), last.head(), last.step())
    };
    let mut expected = [end(&one), end(&two)];
    expected.sort();
    assert_eq!(ends, expected);
    assert_eq!(all(&store, one[0].author()).unwrap(), bytes_of(&one));
    // Ranges are of first sequence numbers, and bytes are bounded but for the first record.
    let some = store.read(one[0].author(), one[3].first(), one[5].first(), usize::MAX).unwrap();
    assert_eq!(some, bytes_of(&one[3..=5]));
    assert_eq!(store.read(one[0].author(), one[3].first(), Seq(u64::MAX), 1).unwrap(), bytes_of(&one[3..=3]));
    assert_eq!(store.find(one[0].author(), one[4].last()).unwrap().as_ref(), Some(one[4].as_bytes()));
    assert_eq!(store.find(one[0].author(), Seq(10_000)).unwrap(), None);
    assert_eq!(store.find(Identity::from_seed(&[9; 32]).id(), Seq(1)).unwrap(), None);
}

#[test]
fn an_append_replaces_what_is_left_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let records = chain(1, 10);
    append_all(&store, &records);
    append_all(&store, &records[4..6]);
    assert_eq!(all(&store, records[0].author()).unwrap(), bytes_of(&records[..6]));
    drop(store);
    assert_eq!(open(dir.path()).1.logs[0].head, records[5].head());
}

/// What author 1 could have written in a record's place.
pub(super) fn resealed(record: &Record, text: &'static str) -> Record {
    let (mesh, identity) = (mesh(), Identity::from_seed(&[1; 32]));
    let interval = NonZeroU64::new(1000).unwrap();
    let mut patterns = PatternGenerator::new(mesh.secret().clone(), interval, NonZeroUsize::MIN);
    let header = record.envelope().header().clone();
    let pattern = patterns.at(header.step);
    let payloads = [text.into()].into_iter().collect();
    Record::new(Envelope::seal(&identity, pattern, header, payloads).unwrap()).unwrap()
}

#[test]
fn a_frozen_log_ends_before_its_fork() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let records = chain(1, 10);
    append_all(&store, &records);
    let other = resealed(&records[6], "else");
    let proof = Proof::new(&records[6], &other).unwrap();
    store.write(&[Change::Freeze { proof: proof.clone(), head: records[5].head() }]).unwrap();
    assert_eq!(all(&store, records[0].author()).unwrap(), bytes_of(&records[..6]));
    let seen = store.log(records[0].author()).unwrap().unwrap();
    drop(store);
    let log = &open(dir.path()).1.logs[0];
    assert_eq!(
        (log.head, log.step, log.proof.as_ref()),
        (records[5].head(), records[5].step(), Some(&proof))
    );
    assert_eq!(&seen, log);
}

/// The proof may come before any entry, to a node that was away.
#[test]
fn a_log_is_frozen_also_if_nothing_of_it_is_there_yet() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let records = chain(1, 3);
    let proof = Proof::new(&records[1], &resealed(&records[1], "else")).unwrap();
    store.write(&[Change::Freeze { proof: proof.clone(), head: Head::EMPTY }]).unwrap();
    drop(store);
    let (store, opened) = open(dir.path());
    assert_eq!(opened.logs.len(), 1, "a frozen log never thaws");
    assert_eq!((opened.logs[0].head, opened.logs[0].proof.as_ref()), (Head::EMPTY, Some(&proof)));
    assert!(opened.damage.is_empty(), "{:?}", opened.damage);
    append_all(&store, &records[..1]);
    let log = store.log(records[0].author()).unwrap().unwrap();
    assert_eq!((log.head, log.proof), (records[0].head(), Some(proof)), "what comes before the fork counts");
}

#[test]
fn another_meshs_log_and_a_later_programs_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let records = chain(1, 3);
    append_all(&open(dir.path()).0, &records);
    let other = Mesh::open("another").unwrap();
    let refused = LogStore::open(dir.path(), other.id(), BYTES_MAX).unwrap_err();
    assert!(matches!(refused, OpenError::OtherMesh { .. }), "{refused}");
    {
        let database = Database::open(dir.path().join(LOG_FILE)).unwrap();
        let write = database.begin_write().unwrap();
        let later = (FORMAT + 1).to_le_bytes();
        write.open_table(META).unwrap().insert("format", later.as_slice()).unwrap();
        write.commit().unwrap();
    }
    let refused = LogStore::open(dir.path(), mesh().id(), BYTES_MAX).unwrap_err();
    assert!(matches!(refused, OpenError::Newer { found: 2, .. }), "{refused}");
    assert!(fs::read_dir(dir.path()).unwrap().count() == 1, "nothing was put aside");
}

#[test]
fn a_backup_is_a_log_of_its_own() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (store, _) = open(dir.path());
    let records = chain(1, 20);
    append_all(&store, &records[..15]);
    store.save_snapshot("registry", b"all of it").unwrap();
    store.backup(&other.path().join(LOG_FILE)).unwrap();
    append_all(&store, &records[15..]);
    assert!(store.backup(&other.path().join(LOG_FILE)).is_err(), "it is there already");
    let (copy, opened) = open(other.path());
    assert_eq!(opened.damage, []);
    assert_eq!(all(&copy, records[0].author()).unwrap(), bytes_of(&records[..15]));
    assert_eq!(copy.snapshot("registry").unwrap().as_deref(), Some(&b"all of it"[..]));
    assert_eq!(copy.snapshot("jobs").unwrap(), None);
}

/// A record that was exchanged for another valid one, or that vanished, is noticed as one that was flipped is.
#[test]
fn damage_within_the_database_is_found_and_cut() {
    let records = chain(1, 10);
    let author = records[0].author();
    let key = (author.as_bytes(), records[6].first().0);
    let replaced = sealed(&record_key(&author, key.1), chain(2, 1)[0].as_bytes());
    type Damage<'a> = (&'a str, &'a dyn Fn(&mut Table<'_, (&'static [u8; 32], u64), &'static [u8]>));
    let damages: [Damage<'_>; 3] = [
        ("flipped", &|table| {
            let mut value = table.get(key).unwrap().unwrap().value().to_vec();
            value[40] ^= 4;
            table.insert(key, value.as_slice()).unwrap();
        }),
        ("vanished", &|table| {
            table.remove(key).unwrap();
        }),
        ("exchanged", &|table| {
            table.insert(key, replaced.as_slice()).unwrap();
        }),
    ];
    for (name, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(dir.path());
        append_all(&store, &records);
        tamper(&store, |write| damage(&mut write.open_table(RECORDS).unwrap()));
        // Not in the way of what is asked for: served.
        assert_eq!(store.find(author, Seq(1)).unwrap().as_ref(), Some(records[0].as_bytes()), "{name}");
        let Err(ReadError::Damaged(found)) = all(&store, author) else { panic!("{name} was served") };
        let log = found.log.unwrap();
        assert_eq!((log.head, log.step), (records[5].head(), records[5].step()), "{name}");
        assert!(found.what.contains(&author.to_string()), "{}", found.what);
        assert_eq!(all(&store, author).unwrap(), bytes_of(&records[..6]), "{name}");
        // It is repaired by appending what was fetched.
        append_all(&store, &records[6..]);
        assert_eq!(all(&store, author).unwrap(), bytes_of(&records), "{name}");
        assert_eq!(store.verify(author).unwrap(), None, "{name}");
    }
}

/// Changes tables of the file behind the store's back.
fn tamper(store: &LogStore, change: impl FnOnce(&redb::WriteTransaction)) {
    let changed = store.database.write(|write| {
        change(write);
        Ok(())
    });
    changed.unwrap();
}

fn flip(store: &LogStore, record: &Record) {
    tamper(store, |write| {
        let (author, first) = (record.author(), record.first().0);
        let mut table = write.open_table(RECORDS).unwrap();
        let mut value = table.get((author.as_bytes(), first)).unwrap().unwrap().value().to_vec();
        value[40] ^= 4;
        table.insert((author.as_bytes(), first), value.as_slice()).unwrap();
    });
}

fn append_one(store: &LogStore, record: &Record) -> Result<(), StoreError> {
    store.write(&[Change::Append(record.clone())])
}

/// A write that was under way when damage was found would leave a hole.
#[test]
fn a_write_that_would_leave_a_hole_fails_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let (records, other) = (chain(1, 10), chain(2, 1));
    let author = records[0].author();
    assert!(matches!(append_one(&store, &records[1]), Err(StoreError::Damaged(_))), "nothing is before it");
    append_all(&store, &records[..8]);
    flip(&store, &records[6]);
    assert!(store.verify(author).unwrap().is_some());
    let changes = [Change::Append(other[0].clone()), Change::Append(records[8].clone())];
    let Err(StoreError::Damaged(what)) = store.write(&changes) else { panic!("there is a hole") };
    assert!(what.contains(&author.to_string()), "{what}");
    assert_eq!(store.logs().unwrap().len(), 1, "nothing of it is there");
    append_all(&store, &records[6..]);
    assert_eq!(all(&store, author).unwrap(), bytes_of(&records));
    // Between the ends of records there is no place either.
    let three = records.iter().find(|record| record.entries() == 3).unwrap();
    let within = records.iter().position(|record| record.first() > three.first()).unwrap();
    let short = resealed_at(&records[within], three.first().saturating_add(1));
    assert!(matches!(append_one(&store, &short), Err(StoreError::Damaged(_))));
}

/// The record with another first number.
fn resealed_at(record: &Record, first: Seq) -> Record {
    let (mesh, identity) = (mesh(), Identity::from_seed(&[1; 32]));
    let interval = NonZeroU64::new(1000).unwrap();
    let mut patterns = PatternGenerator::new(mesh.secret().clone(), interval, NonZeroUsize::MIN);
    let header = Header { seq: first, ..record.envelope().header().clone() };
    let pattern = patterns.at(header.step);
    Record::new(Envelope::seal(&identity, pattern, header, ["else".into()].into_iter().collect()).unwrap())
        .unwrap()
}

/// Or the node would sign numbers of its own log twice.
#[test]
fn how_far_a_log_had_come_survives_damage_and_restarts() {
    type Damage<'a> = (&'a str, &'a dyn Fn(&LogStore, &[Record]));
    let damages: [Damage<'_>; 3] = [
        ("its last record", &|store, records| flip(store, &records[9])),
        ("a record in the middle", &|store, records| flip(store, &records[4])),
        ("where it ends", &|store, records| {
            tamper(store, |write| {
                let mut logs = write.open_table(LOGS).unwrap();
                logs.insert(records[0].author().as_bytes(), b"nothing that makes sense".as_slice()).unwrap();
            });
            flip(store, &records[8]);
        }),
    ];
    for (name, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        let records = chain(1, 10);
        let author = records[0].author();
        {
            let (store, _) = open(dir.path());
            append_all(&store, &records);
            damage(&store, &records);
        }
        for start in 0..3 {
            let (store, _) = open(dir.path());
            let _ = store.verify(author).unwrap();
            assert!(store.log(author).unwrap().unwrap().head.seq < records[9].last(), "{name}");
            assert_eq!(store.reached(author).unwrap(), records[9].last(), "{name}, start {start}");
            assert_eq!(store.gaps().unwrap(), [author], "{name}");
        }
        let (store, _) = open(dir.path());
        let end = store.log(author).unwrap().unwrap().head.seq;
        for record in records.iter().filter(|record| record.first() > end) {
            append_one(&store, record).unwrap();
        }
        assert_eq!(all(&store, author).unwrap(), bytes_of(&records), "{name}");
        assert_eq!((store.reached(author).unwrap(), store.gaps().unwrap()), (records[9].last(), vec![]));
    }
}

/// What was acknowledged and has no copy elsewhere is not lost because something before it was.
#[test]
fn sound_records_behind_damage_count_again_once_the_gap_is_filled() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let records = chain(1, 10);
    let author = records[0].author();
    append_all(&store, &records);
    flip(&store, &records[3]);
    flip(&store, &records[7]);
    assert!(store.verify(author).unwrap().is_some());
    assert_eq!(all(&store, author).unwrap(), bytes_of(&records[..3]), "what is behind it is not served");
    assert_eq!(store.find(author, records[5].first()).unwrap(), None);
    assert_eq!(store.kept(author, usize::MAX).unwrap(), Some(vec![]), "the gap is there");
    drop(store);
    let (store, opened) = open(dir.path());
    assert_eq!(opened.damage, [], "it was told before");
    append_one(&store, &records[3]).unwrap();
    assert_eq!(store.kept(author, 1).unwrap(), Some(records[4..5].to_vec()), "at least one");
    assert_eq!(store.kept(author, usize::MAX).unwrap(), Some(records[4..7].to_vec()));
    for record in &records[4..8] {
        append_one(&store, record).unwrap();
    }
    assert_eq!(store.kept(author, usize::MAX).unwrap(), Some(records[8..].to_vec()));
    append_all(&store, &records[8..]);
    assert_eq!(store.kept(author, usize::MAX).unwrap(), None);
    assert_eq!(all(&store, author).unwrap(), bytes_of(&records));
    // Behind what another history has put there, nothing follows.
    flip(&store, &records[3]);
    assert!(store.verify(author).unwrap().is_some());
    append_one(&store, &resealed(&records[3], "else")).unwrap();
    assert_eq!(store.kept(author, usize::MAX).unwrap(), Some(vec![]));
}

/// Freezing a log does not hide what is damaged before the fork.
#[test]
fn damage_before_a_fork_is_found_after_the_freeze() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let records = chain(1, 10);
    append_all(&store, &records);
    flip(&store, &records[5]);
    let proof = Proof::new(&records[6], &resealed(&records[6], "else")).unwrap();
    store.write(&[Change::Freeze { proof: proof.clone(), head: records[5].head() }]).unwrap();
    drop(store);
    let (store, opened) = open(dir.path());
    assert_eq!(opened.damage.len(), 1);
    let log = &opened.logs[0];
    assert_eq!((log.head, log.step, &log.proof), (records[4].head(), records[4].step(), &Some(proof)));
    append_one(&store, &records[5]).unwrap();
    assert_eq!(all(&store, records[0].author()).unwrap(), bytes_of(&records[..6]));
}

/// Whatever byte of the file is wrong, and wherever it ends: what is served is what was written, in order from the
/// beginning, or nothing.
#[test]
fn nothing_is_served_that_was_not_written() {
    const CORRUPTIONS: u64 = 1_000;
    let seed = std::env::var("OMNIMESH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1_u64);
    println!("seed {seed}; again with OMNIMESH_SEED={seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let chains = [chain(1, 40), chain(2, 10), chain(3, 1)];
    let original = tempfile::tempdir().unwrap();
    for chain in &chains {
        append_all(&open(original.path()).0, chain);
    }
    let file = fs::read(original.path().join(LOG_FILE)).unwrap();
    let (mut refused, mut damaged, mut unharmed) = (0, 0, 0);
    for number in 0..CORRUPTIONS {
        let mut file = file.clone();
        let at = usize::try_from(rng.next_u64() % file.len() as u64).unwrap();
        match number % 10 {
            0 => file.truncate(at),
            1 => file.iter_mut().skip(at).take(512).for_each(|byte| *byte = 0),
            _ => file[at] ^= 1 << (rng.next_u64() % 8),
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(LOG_FILE), &file).unwrap();
        let what = format!("corruption {number} at {at}");
        let (store, opened) = match LogStore::open(dir.path(), mesh().id(), BYTES_MAX) {
            Ok(opened) => opened,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
                continue;
            }
        };
        let mut is_whole = opened.damage.is_empty();
        for chain in &chains {
            let author = chain[0].author();
            let served = match all(&store, author) {
                Ok(served) => served,
                Err(_) => {
                    is_whole = false;
                    all(&store, author).unwrap_or_default()
                }
            };
            assert!(bytes_of(chain).starts_with(&served), "{what}: what {author} did not write was served");
            let head = opened.logs.iter().find(|log| log.author == author).map(|log| log.head);
            if served.len() < chain.len() {
                let told = !is_whole || head != Some(chain.last().unwrap().head());
                assert!(told, "{what}: entries of {author} are missing, and nothing was said");
            }
        }
        match is_whole {
            true => unharmed += 1,
            false => damaged += 1,
        }
    }
    println!("{refused} refused, {damaged} found damaged, {unharmed} without harm to what is in use");
    assert!(damaged > 0);
}
