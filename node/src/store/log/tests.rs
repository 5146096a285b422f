use std::num::{NonZeroU64, NonZeroUsize};

use omnimesh_protocol::envelope::{Channel, Header, Kind};
use omnimesh_protocol::log::Change;
use omnimesh_protocol::pattern::PatternGenerator;
use omnimesh_protocol::{Identity, Mesh};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

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
    drop(store);
    let log = &open(dir.path()).1.logs[0];
    assert_eq!(
        (log.head, log.step, log.proof.as_ref()),
        (records[5].head(), records[5].step(), Some(&proof))
    );
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
        {
            let database = store.database.read().unwrap();
            let write = database.as_ref().unwrap().begin_write().unwrap();
            damage(&mut write.open_table(RECORDS).unwrap());
            write.commit().unwrap();
        }
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
