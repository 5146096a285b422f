use omnimesh_protocol::log::checkpoint::{CheckpointError, HEADS};
use omnimesh_protocol::log::{Change, Head, StoredLog};
use redb::Database;

use super::super::tests::{all, append_all, bytes_of, chain, mesh, open};
use super::super::{LOG_FILE, Opened};
use super::*;

/// Two logs of so many records, some fifteen steps long, from step 100 on.
fn logs(records: usize) -> [Vec<Record>; 2] {
    [chain(1, records), chain(2, records)]
}

fn seal(store: &LogStore, step: u64) -> StoredCheckpoint {
    let stored = store.fold(mesh().id(), Step(step)).unwrap();
    store.write(&[Change::Seal(Box::new(stored.clone()))]).unwrap();
    stored
}

/// All chunks of a checkpoint, from one store into another.
fn carry(from: &LogStore, into: &LogStore, sealed: &Sealed) {
    let checkpoint = &sealed.checkpoint;
    for (number, part) in sealed.parts().enumerate() {
        for index in 0..part.chunks() {
            let chunk = from.chunk(checkpoint.id(), number, index).unwrap().unwrap();
            assert_eq!(Some(chunk.len()), part.chunk_bytes(index));
            into.stage(checkpoint.id(), number, index, &chunk).unwrap();
        }
        assert_eq!(from.chunk(checkpoint.id(), number, part.chunks()).unwrap(), None);
    }
}

fn jumps(cut: &Cut) -> Vec<Change> {
    let jump = |(author, cut): (&NodeId, &omnimesh_protocol::log::checkpoint::CutHead)| {
        let base = cut.head.seq.saturating_add(1);
        Change::Jump(StoredLog { author: *author, base, head: cut.head, step: cut.step, proof: None })
    };
    cut.0.iter().map(jump).collect()
}

#[test]
fn what_a_checkpoint_covers_is_dropped_and_the_next_one_is_as_if_it_were_there() {
    let [dir, whole] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let ((store, _), (keeper, _)) = (open(dir.path()), open(whole.path()));
    let logs = logs(100);
    for log in &logs {
        append_all(&store, log);
        append_all(&keeper, log);
    }
    assert_eq!(store.drop_covered(Step(110), None).unwrap(), [], "nothing is covered");
    let first = seal(&store, 108);
    assert_eq!(
        first.cut.entries(),
        2 * logs[0].iter().filter(|record| record.step() < Step(108)).map(Record::entries).sum::<u64>()
    );
    // A part of it, then all.
    let dropped = store.drop_covered(Step(104), None).unwrap();
    assert_eq!(dropped.len(), 2);
    let left: Vec<Record> = logs[0].iter().filter(|record| record.step() >= Step(104)).cloned().collect();
    assert_eq!(dropped[0].1, left[0].first());
    assert_eq!(all(&store, logs[0][0].author()).unwrap(), bytes_of(&left));
    let bytes = store.bytes_on_disk();
    store.drop_covered(Step(0), Some(1)).unwrap();
    let left: Vec<Record> = logs[0].iter().filter(|record| record.step() >= Step(108)).cloned().collect();
    assert_eq!(all(&store, logs[0][0].author()).unwrap(), bytes_of(&left));
    assert_eq!(store.verify(logs[0][0].author()).unwrap(), None);
    assert!(store.bytes_on_disk() <= bytes);
    assert_eq!(store.drop_covered(Step(0), Some(1)).unwrap(), [], "there is no more");
    let id = |store: &LogStore, step| store.fold(mesh().id(), Step(step)).unwrap().sealed.checkpoint.id();
    assert_eq!(id(&store, 112), id(&keeper, 112));
    drop(store);
    let (store, Opened { logs: found, damage, checkpoints, base }) = open(dir.path());
    assert_eq!((damage.as_slice(), base), ([].as_slice(), first.cut.clone()));
    assert_eq!(checkpoints, [first]);
    assert_eq!(found[0].base, left[0].first());
    assert_eq!(id(&store, 113), id(&keeper, 113));
}

#[test]
fn a_checkpoint_can_be_taken_in_place_of_the_entries() {
    let [dir, other] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let ((store, _), (newcomer, _)) = (open(dir.path()), open(other.path()));
    let logs = logs(100);
    logs.iter().for_each(|log| append_all(&store, log));
    // It has some of them itself.
    append_all(&newcomer, &logs[0][..20]);
    let stored = seal(&store, 108);
    let checkpoint = &stored.sealed.checkpoint;
    assert!(newcomer.open_checkpoint(&stored.sealed).is_err(), "nothing is there yet");
    carry(&store, &newcomer, &stored.sealed);
    newcomer.open_checkpoint(&stored.sealed).unwrap();
    assert_eq!(newcomer.chunk(checkpoint.id(), 0, 0).unwrap(), None, "what is not sealed is not served");
    let mut changes = vec![Change::Seal(Box::new(stored.clone()))];
    changes.extend(jumps(&stored.cut));
    newcomer.write(&changes).unwrap();
    assert_eq!(all(&newcomer, logs[0][0].author()).unwrap(), Vec::<Bytes>::new());
    assert_eq!(newcomer.base().unwrap().cut, stored.cut);
    drop(newcomer);
    let (newcomer, opened) = open(other.path());
    assert_eq!(opened.damage, []);
    assert_eq!((opened.checkpoints, opened.base), (vec![stored.clone()], stored.cut.clone()));
    for log in &opened.logs {
        assert_eq!(log.head, stored.cut.head(&log.author));
        assert_eq!(newcomer.verify(log.author).unwrap(), None);
    }
    for log in &logs {
        let rest: Vec<Record> = log.iter().filter(|record| record.step() >= Step(108)).cloned().collect();
        append_all(&newcomer, &rest);
        assert_eq!(all(&newcomer, log[0].author()).unwrap(), bytes_of(&rest));
    }
    let id = |store: &LogStore| store.fold(mesh().id(), Step(112)).unwrap().sealed.checkpoint.id();
    assert_eq!(id(&newcomer), id(&store));
    // And it can give it to others.
    let third = tempfile::tempdir().unwrap();
    carry(&newcomer, &open(third.path()).0, &stored.sealed);
}

#[test]
fn what_is_not_what_was_signed_is_not_taken() {
    let [dir, other] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let ((store, _), (newcomer, _)) = (open(dir.path()), open(other.path()));
    logs(30).iter().for_each(|log| append_all(&store, log));
    let stored = seal(&store, 103);
    let checkpoint = stored.sealed.checkpoint.clone();
    carry(&store, &newcomer, &stored.sealed);
    newcomer.open_checkpoint(&stored.sealed).unwrap();
    // What all parts agree on, and an author has not signed: the last bytes are those of a signature.
    let mut heads = store.chunk(checkpoint.id(), 2, 0).unwrap().unwrap().to_vec();
    *heads.last_mut().unwrap() ^= 1;
    newcomer.stage(checkpoint.id(), 2, 0, &heads).unwrap();
    let forged = Sealed { heads: Part::new(HEADS, &heads), ..stored.sealed.clone() };
    assert_eq!(
        newcomer.open_checkpoint(&forged),
        Err(StoreError::BadCheckpoint(CheckpointError::Heads)),
        "it is not the disk that is blamed"
    );
    let mut state = store.chunk(checkpoint.id(), 1, 0).unwrap().unwrap().to_vec();
    state[9] ^= 1;
    newcomer.stage(checkpoint.id(), 1, 0, &state).unwrap();
    assert!(newcomer.open_checkpoint(&stored.sealed).is_err());
    // Were it sealed nonetheless, nothing of the write would be there.
    let mut changes = vec![Change::Seal(Box::new(stored.clone()))];
    changes.extend(jumps(&stored.cut));
    assert!(newcomer.write(&changes).is_err());
    assert!(newcomer.checkpoints().unwrap_or_default().is_empty());
    drop(newcomer);
    let (newcomer, opened) = open(other.path());
    assert!(opened.logs.is_empty() && opened.checkpoints.is_empty());
    let loose = newcomer.chunk_rows();
    assert_eq!(loose, 0, "what was staged is gone after a restart");
}

#[test]
fn the_two_newest_checkpoints_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    logs(100).iter().for_each(|log| append_all(&store, log));
    let sealed: Vec<StoredCheckpoint> = [103, 106, 109].into_iter().map(|step| seal(&store, step)).collect();
    let is_there =
        |stored: &StoredCheckpoint| store.chunk(stored.sealed.checkpoint.id(), 1, 0).unwrap().is_some();
    assert_eq!([&sealed[0], &sealed[1], &sealed[2]].map(is_there), [false, true, true]);
    assert_eq!(store.checkpoints().unwrap().last(), Some(&sealed[2]));
    // One that was made and not sealed goes when the next one is made.
    let rows = store.chunk_rows();
    store.fold(mesh().id(), Step(111)).unwrap();
    store.fold(mesh().id(), Step(112)).unwrap();
    assert_eq!(store.chunk_rows(), rows + 3, "the three parts of one");
    drop(store);
    assert_eq!(open(dir.path()).0.chunk_rows(), rows);
}

#[test]
fn a_checkpoint_that_goes_leaves_what_no_other_covers_in_the_base() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    logs(100).iter().for_each(|log| append_all(&store, log));
    let first = seal(&store, 103);
    // What islands have sealed that know one author each.
    let mut taken = Vec::new();
    for (author, records, step) in [(2, 50, 120), (2, 60, 130), (3, 10, 140)] {
        let other = tempfile::tempdir().unwrap();
        let (island, _) = open(other.path());
        append_all(&island, &chain(author, records));
        let stored = seal(&island, step);
        carry(&island, &store, &stored.sealed);
        assert_eq!(store.base().unwrap().cut, Cut::default(), "nothing has gone yet that is not covered");
        store.write(&[Change::Seal(Box::new(stored.clone()))]).unwrap();
        taken.push(stored);
    }
    assert_eq!(store.checkpoints().unwrap(), [taken[1].clone(), taken[2].clone()]);
    assert!(store.base().unwrap().covers(&first.cut));
    drop(store);
    let (_, opened) = open(dir.path());
    assert!(opened.base.covers(&first.cut) && opened.damage.is_empty());
}

#[test]
fn damage_of_a_checkpoint_or_of_the_base_is_found_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let logs = logs(100);
    logs.iter().for_each(|log| append_all(&store, log));
    seal(&store, 104);
    let second = seal(&store, 108);
    store.drop_covered(Step(108), None).unwrap();
    let base = store.base().unwrap();
    drop(store);
    let spoil = |work: &dyn Fn(&WriteTransaction)| {
        let database = Database::open(dir.path().join(LOG_FILE)).unwrap();
        let write = database.begin_write().unwrap();
        work(&write);
        write.commit().unwrap();
    };
    spoil(&|write| {
        let value = sealed(b"another key", b"not it");
        write.open_table(SNAPSHOTS).unwrap().insert(BASE_CUT, value.as_slice()).unwrap();
    });
    let (store, opened) = open(dir.path());
    assert_eq!(opened.damage.len(), 1, "{:?}", opened.damage);
    assert_eq!(store.base().unwrap().cut, base.cut, "it is made anew of the checkpoint");
    drop(store);
    assert_eq!(open(dir.path()).1.damage, [], "once");
    let id = *second.sealed.checkpoint.id().as_bytes();
    spoil(&|write| {
        let value = sealed(b"another key", b"not it");
        write.open_table(CHUNKS).unwrap().insert((&id, 1, 0), value.as_slice()).unwrap();
    });
    let (store, opened) = open(dir.path());
    assert_eq!(opened.damage.len(), 1, "{:?}", opened.damage);
    assert_eq!(opened.checkpoints[0].sealed.checkpoint.step, Step(104), "the one before it counts");
    assert_eq!(store.chunk(second.sealed.checkpoint.id(), 1, 0).unwrap(), None);
    assert_eq!(store.base().unwrap().cut, base.cut);
}

#[test]
fn a_log_that_is_all_dropped_goes_on_behind_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let records = chain(1, 30);
    append_all(&store, &records[..20]);
    seal(&store, 200);
    store.drop_covered(Step(200), None).unwrap();
    drop(store);
    let (store, opened) = open(dir.path());
    assert_eq!(opened.damage, []);
    let log = &opened.logs[0];
    assert_eq!((log.head, log.base), (records[19].head(), records[20].first()));
    assert_eq!(store.verify(log.author).unwrap(), None);
    append_all(&store, &records[20..]);
    assert_eq!(all(&store, log.author).unwrap(), bytes_of(&records[20..]));
    // Frozen at the cut, it ends there.
    let proof = omnimesh_protocol::log::Proof::new(&records[20], &forked(&records[20])).unwrap();
    store.write(&[Change::Freeze { proof, head: records[19].head() }]).unwrap();
    drop(store);
    let log = &open(dir.path()).1.logs[0];
    assert_eq!((log.head, log.step), (records[19].head(), records[19].step()));
    assert_ne!(log.head, Head::EMPTY);
}

fn forked(record: &Record) -> Record {
    super::super::tests::resealed(record, "else")
}

impl LogStore {
    fn chunk_rows(&self) -> usize {
        let rows = |read: &redb::ReadTransaction| {
            Ok(read.open_table(CHUNKS)?.range::<(&[u8; 32], u64, u64)>(..)?.count())
        };
        self.database.read(rows).unwrap()
    }
}
