use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use super::*;

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|place| u8::try_from(place * 131 % 241).unwrap()).collect()
}

fn open(dir: &Path, bytes_max: u64) -> Arc<BlobStore> {
    Arc::new(BlobStore::open(dir, bytes_max).unwrap())
}

fn read(store: &BlobStore, blob: BlobRef) -> Result<Option<Vec<u8>>, BlobError> {
    let mut bytes = Vec::new();
    for group in 0..groups_of(blob.size) {
        match store.group(&blob.hash, group)? {
            Some(group) => bytes.extend_from_slice(&group),
            None => return Ok(None),
        }
    }
    Ok(Some(bytes))
}

#[test]
fn what_was_put_is_read_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let all: Vec<_> = [0, 1, 1 << 20, (1 << 20) + 1, (3 << 20) + 77].map(content).into();
    let mut blobs = Vec::new();
    {
        let store = open(dir.path(), 10 << 20);
        for bytes in &all {
            let blob = store.put(&bytes[..], false).unwrap();
            assert_eq!(blob, BlobRef::of(bytes));
            assert_eq!(store.put(&bytes[..], false).unwrap(), blob, "twice is once");
            blobs.push(blob);
        }
        store.pin(&blobs[2].hash).unwrap();
    }
    fs::write(dir.path().join(BLOB_DIR).join("new-9"), b"cut short").unwrap();
    let store = open(dir.path(), 10 << 20);
    for (blob, bytes) in blobs.iter().zip(&all) {
        assert_eq!(read(&store, *blob).unwrap().as_ref(), Some(bytes));
        assert_eq!(store.whole(&blob.hash), Some(*blob));
    }
    let pinned: Vec<_> = store.list().into_iter().filter(|view| view.is_pinned).collect();
    assert_eq!(pinned, [BlobView { blob: blobs[2], here: 1 << 20, is_pinned: true }]);
    assert!(!dir.path().join(BLOB_DIR).join("new-9").exists());
    // With less room the oldest go, and the pinned one stays.
    drop(store);
    let store = open(dir.path(), (4 << 20) + 77);
    assert!(store.whole(&blobs[2].hash).is_some());
    assert!(store.bytes().0 <= (4 << 20) + 77);
}

#[test]
fn there_is_never_more_than_there_is_room_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 100);
    let old = store.put(&content(60)[..], false).unwrap();
    let new = store.put(&content(61)[..], true).unwrap();
    assert_eq!((store.whole(&old.hash), store.whole(&new.hash)), (None, Some(new)));
    let Err(BlobError::Cache(CacheError::Full { pinned: 61, .. })) = store.put(&content(62)[..], false)
    else {
        panic!("there is no room")
    };
    assert_eq!(fs::read_dir(dir.path().join(BLOB_DIR)).unwrap().count(), 2, "a blob and its pin");
    store.unpin(&new.hash).unwrap();
    store.remove(&new.hash).unwrap();
    assert!(matches!(store.remove(&new.hash), Err(BlobError::Cache(CacheError::Unknown))));
    assert_eq!(fs::read_dir(dir.path().join(BLOB_DIR)).unwrap().count(), 0);
}

#[test]
fn a_fetch_that_was_cut_short_goes_on_with_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = content((4 << 20) + 9);
    let outline = Outline::of(&bytes);
    let blob = outline.blob();
    let groups: Vec<_> = bytes.chunks(1 << 20).collect();
    {
        let store = open(dir.path(), 10 << 20);
        assert_eq!(store.begin_fetch(blob).unwrap(), (Groups::none(blob.size), None));
        store.put_outline(outline.clone()).unwrap();
        for group in [1, 4, 2] {
            store.put_group(&blob.hash, group as u64, groups[group]).unwrap();
        }
        assert_eq!(store.group(&blob.hash, 4).unwrap().as_deref(), Some(groups[4]));
        assert_eq!(store.group(&blob.hash, 0).unwrap(), None);
    }
    // A group is not what was written.
    let part =
        OpenOptions::new().write(true).open(dir.path().join(BLOB_DIR).join(format!("{}.part", blob.hash)));
    part.unwrap().write_all_at(b"else", (1 << 20) + 5).unwrap();
    let store = open(dir.path(), 10 << 20);
    let (there, known) = store.begin_fetch(blob).unwrap();
    let has: Vec<_> = (0..5).filter(|group| there.contains(*group)).collect();
    assert_eq!((has, known.as_deref()), (vec![2, 4], Some(&outline)));
    for group in [0, 1, 3] {
        store.put_group(&blob.hash, group as u64, groups[group]).unwrap();
    }
    assert!(store.end_fetch(&blob.hash).unwrap());
    assert_eq!(store.whole(&blob.hash), Some(blob));
    assert_eq!(read(&store, blob).unwrap(), Some(bytes));
    // One that came to nothing leaves nothing.
    let other = BlobRef::of(b"somewhere");
    store.begin_fetch(other).unwrap();
    assert!(!store.end_fetch(&other.hash).unwrap());
    assert_eq!(store.list().len(), 1);
}

#[test]
fn a_file_that_somebody_else_deletes_is_not_said_to_be_here() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 10 << 20);
    let bytes = content((1 << 20) + 7);
    let [read, checked] = [&bytes[..], &bytes[7..]].map(|bytes| store.put(bytes, true).unwrap());
    for blob in [read, checked] {
        fs::remove_file(dir.path().join(BLOB_DIR).join(blob.hash.to_string())).unwrap();
    }
    assert!(matches!(store.group(&read.hash, 1), Err(BlobError::Damaged { .. })));
    assert!(matches!(store.check(&checked), Err(BlobError::Damaged { .. })));
    for blob in [read, checked] {
        assert_eq!((store.whole(&blob.hash), store.held(&[blob.hash])), (None, Vec::new()));
    }
    // It is put back, or got again, as if it had never been here.
    assert_eq!(store.put(&bytes[..], true).unwrap(), read);
    assert_eq!(super::tests::read(&store, read).unwrap(), Some(bytes));
}

#[test]
fn what_is_damaged_on_disk_is_not_given_out() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = content(3 << 20);
    let store = open(dir.path(), 10 << 20);
    let blob = store.put(&bytes[..], false).unwrap();
    let file = dir.path().join(BLOB_DIR).join(blob.hash.to_string());
    OpenOptions::new().write(true).open(file).unwrap().write_all_at(b"else", (1 << 20) + 5).unwrap();
    assert!(store.group(&blob.hash, 0).unwrap().is_some());
    assert!(matches!(store.group(&blob.hash, 1), Err(BlobError::Damaged { .. })));
    assert_eq!((store.whole(&blob.hash), store.group(&blob.hash, 1).unwrap()), (None, None));
    let (there, _) = store.begin_fetch(blob).unwrap();
    assert_eq!((0..3).filter(|group| there.contains(*group)).collect::<Vec<_>>(), [0, 2]);
    store.put_group(&blob.hash, 1, &bytes[1 << 20..2 << 20]).unwrap();
    assert!(store.end_fetch(&blob.hash).unwrap());
    assert_eq!(read(&store, blob).unwrap(), Some(bytes));
}

/// Names and lengths of the packs.
fn packs(dir: &Path) -> Vec<(PathBuf, u64)> {
    let files = fs::read_dir(dir.join(BLOB_DIR)).unwrap().map(Result::unwrap);
    let packs = files.filter(|file| pack::number_of(file.file_name().to_str().unwrap()).is_some());
    packs.map(|file| (file.path(), file.metadata().unwrap().len())).collect()
}

fn small(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = content(length.max(8));
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

#[test]
fn small_outputs_share_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let all: Vec<_> = (0..100).map(|number| small(number, 40 * usize::try_from(number).unwrap())).collect();
    let store = open(dir.path(), 10 << 20);
    let blobs: Vec<_> = all.iter().map(|bytes| store.put_output(bytes).unwrap()).collect();
    assert_eq!(fs::read_dir(dir.path().join(BLOB_DIR)).unwrap().count(), 1);
    store.pin(&blobs[3].hash).unwrap();
    store.remove(&blobs[4].hash).unwrap();
    drop(store);
    for other in ["pack-", "pack-07", "pack-+7", "pack-18446744073709551615"] {
        fs::write(dir.path().join(BLOB_DIR).join(other), b"not ours").unwrap();
    }
    let store = open(dir.path(), 10 << 20);
    for (place, (blob, bytes)) in blobs.iter().zip(&all).enumerate() {
        assert_eq!(store.view(&blob.hash).map(|view| view.is_pinned), (place != 4).then_some(place == 3));
        assert_eq!(read(&store, *blob).unwrap().as_ref(), (place != 4).then_some(bytes));
    }
    // Put by somebody, it has a file of its own, and is in no pack.
    assert_eq!(store.put(&all[5][..], false).unwrap(), blobs[5]);
    let (path, _) = packs(dir.path()).pop().unwrap();
    fs::remove_file(path).unwrap();
    let store = open(dir.path(), 10 << 20);
    let left: Vec<_> = store.list().iter().map(|view| view.blob).collect();
    assert_eq!((left, read(&store, blobs[5]).unwrap().as_ref()), (vec![blobs[5]], Some(&all[5])));
}

#[test]
fn a_pack_that_was_cut_short_has_what_comes_before() {
    let dir = tempfile::tempdir().unwrap();
    let all: Vec<_> = (0..3).map(|number| small(number, 100)).collect();
    let store = open(dir.path(), 10 << 20);
    let blobs: Vec<_> = all.iter().map(|bytes| store.put_output(bytes).unwrap()).collect();
    drop(store);
    let (path, length) = packs(dir.path()).pop().unwrap();
    let whole = fs::read(&path).unwrap();
    for cut in 0..length {
        fs::write(&path, &whole[..usize::try_from(cut).unwrap()]).unwrap();
        let store = open(dir.path(), 10 << 20);
        let there = usize::try_from(cut * 3 / length).unwrap();
        for (place, (blob, bytes)) in blobs.iter().zip(&all).enumerate() {
            assert_eq!(read(&store, *blob).unwrap().as_ref(), (place < there).then_some(bytes), "{cut}");
        }
        // It goes on where the good ones end.
        assert_eq!(store.put_output(&all[2]).unwrap(), blobs[2]);
        drop(store);
        assert_eq!(read(&open(dir.path(), 10 << 20), blobs[2]).unwrap().as_ref(), Some(&all[2]), "{cut}");
    }
}

#[test]
fn whatever_is_changed_in_a_pack_nothing_else_is_given_out() {
    let dir = tempfile::tempdir().unwrap();
    let all: Vec<_> = (0..3).map(|number| small(number, 20)).collect();
    let store = open(dir.path(), 10 << 20);
    let blobs: Vec<_> = all.iter().map(|bytes| store.put_output(bytes).unwrap()).collect();
    drop(store);
    let (path, length) = packs(dir.path()).pop().unwrap();
    let whole = fs::read(&path).unwrap();
    for (place, other) in (0..usize::try_from(length).unwrap()).flat_map(|place| [(place, 0), (place, 0xff)])
    {
        let mut bytes = whole.clone();
        bytes[place] = other;
        fs::write(&path, &bytes).unwrap();
        let store = open(dir.path(), 10 << 20);
        for (blob, bytes) in blobs.iter().zip(&all) {
            if let Ok(Some(found)) = read(&store, *blob) {
                assert_eq!(&found, bytes, "byte {place}");
            }
            // What was damaged can be made again.
            assert_eq!(store.put_output(bytes).unwrap(), *blob);
            assert_eq!(read(&store, *blob).unwrap().as_ref(), Some(bytes), "byte {place}");
        }
    }
}

#[test]
fn packs_are_given_up_when_little_is_left_in_them() {
    use rand_chacha::ChaCha8Rng;
    use rand_core::{Rng, SeedableRng};
    const MAX: u64 = 12 << 20;
    let given = std::env::var("OMNIMESH_SEED").ok().map(|seed| seed.parse().expect("a number"));
    let seed = given.unwrap_or(1);
    println!("seed {seed}; replay: OMNIMESH_SEED={seed} cargo test -p omnimesh-node packs_are_given_up");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path(), MAX);
    let mut known = BTreeMap::new();
    for number in 0..30_000 {
        let choice = rng.next_u64();
        let length = usize::try_from(choice >> 32).unwrap() % 4096;
        let any =
            |store: &BlobStore| store.list().get(length % store.list().len().max(1)).map(|view| view.blob);
        match choice % 10_000 {
            0..8_000 => {
                let bytes = small(number, length);
                known.insert(store.put_output(&bytes).unwrap().hash, bytes);
            }
            8_000..9_990 => {
                // A run of neighbours, so that packs empty at different speeds.
                let gone: Vec<_> = known.keys().skip(length % known.len()).take(2).copied().collect();
                gone.iter().for_each(|hash| drop(store.remove(hash)));
            }
            9_990..9_993 => drop(any(&store).map(|blob| store.pin(&blob.hash))),
            9_993..9_995 => drop(any(&store).map(|blob| store.unpin(&blob.hash))),
            9_995..9_997 => drop(any(&store).map(|blob| store.put(&known[&blob.hash][..], false).unwrap())),
            _ => {
                let before = store.list();
                drop(store);
                store = open(dir.path(), MAX);
                assert_eq!(store.list(), before);
            }
        }
        if number % 1_000 == 0 {
            let list = store.list();
            let there: u64 = list.iter().map(|view| view.blob.size + 35).sum();
            let on_disk: u64 = packs(dir.path()).iter().map(|(_, length)| length).sum();
            assert!(on_disk <= 2 * there + (5 << 20), "{on_disk} bytes for {there}");
            assert!(store.bytes().0 <= MAX);
            for view in &list {
                assert_eq!(read(&store, view.blob).unwrap().as_ref(), known.get(&view.blob.hash));
            }
        }
    }
    let all: Vec<_> = store.list().iter().map(|view| view.blob.hash).collect();
    all.iter().for_each(|hash| store.remove(hash).unwrap());
    assert_eq!(fs::read_dir(dir.path().join(BLOB_DIR)).unwrap().count(), 0);
}

/// Bytes of a file in the store are not what was written any more.
fn damage(dir: &Path, blob: BlobRef, at: u64) {
    let file = dir.join(BLOB_DIR).join(blob.hash.to_string());
    OpenOptions::new().write(true).open(file).unwrap().write_all_at(b"else", at).unwrap();
}

#[test]
fn a_claim_of_another_length_takes_nothing_away() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 40 << 20);
    let (long, short, few) = (content((3 << 20) + 77), content(99), content(33));
    let blobs = [
        (store.put(&long[..], true).unwrap(), &long),
        (store.put(&short[..], false).unwrap(), &short),
        (store.put_output(&few).unwrap(), &few),
    ];
    let refused = |blob: BlobRef| {
        for claimed in [0, 1, blob.size - 1, blob.size + 1, blob.size + (5 << 20)] {
            let expected = BlobError::WrongSize { hash: blob.hash, size: blob.size, claimed };
            assert_eq!(store.begin_fetch(BlobRef { size: claimed, ..blob }), Err(expected));
        }
    };
    for (blob, bytes) in blobs {
        refused(blob);
        assert_eq!(store.whole(&blob.hash), Some(blob));
        assert_eq!(read(&store, blob).unwrap().as_ref(), Some(bytes));
    }
    assert_eq!(store.view(&blobs[0].0.hash).map(|view| view.is_pinned), Some(true));
    // Of what is pinned and damaged, the good groups stay, too.
    let (blob, bytes) = blobs[0];
    damage(dir.path(), blob, (1 << 20) + 5);
    let fresh = open(dir.path(), 40 << 20);
    assert!(matches!(fresh.group(&blob.hash, 1), Err(BlobError::Damaged { .. })));
    assert!(matches!(fresh.begin_fetch(BlobRef { size: 7, ..blob }), Err(BlobError::WrongSize { .. })));
    let (there, _) = fresh.begin_fetch(blob).unwrap();
    assert_eq!((0..4).filter(|group| there.contains(*group)).collect::<Vec<_>>(), [0, 2, 3]);
    fresh.put_group(&blob.hash, 1, &bytes[1 << 20..2 << 20]).unwrap();
    assert!(fresh.end_fetch(&blob.hash).unwrap());
    assert_eq!(fresh.view(&blob.hash).map(|view| view.is_pinned), Some(true));
}

#[test]
fn a_part_of_a_length_that_nobody_keeps_gives_way() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 10 << 20);
    let bytes = content((2 << 20) + 9);
    let blob = BlobRef::of(&bytes);
    let wrong = BlobRef { size: 4 << 20, ..blob };
    store.begin_fetch(wrong).unwrap();
    assert!(matches!(store.begin_fetch(blob), Err(BlobError::WrongSize { .. })), "it is being fetched");
    // What is put is what it is, whoever fetches what; and its pin is not that of the fetch.
    assert_eq!(store.put(&bytes[..], true).unwrap(), blob);
    assert!(store.end_fetch(&blob.hash).unwrap());
    let other = content(9 << 20);
    assert!(matches!(store.put(&other[..], false), Err(BlobError::Cache(CacheError::Full { .. }))));
    assert_eq!(read(&store, blob).unwrap().as_ref(), Some(&bytes));
    // A pinned one that is too short on disk, with nothing good in it, is fetched again and stays pinned.
    let short = store.put(&b"hello"[..], true).unwrap();
    let file = dir.path().join(BLOB_DIR).join(short.hash.to_string());
    OpenOptions::new().write(true).open(file).unwrap().set_len(2).unwrap();
    drop(store);
    let store = open(dir.path(), 10 << 20);
    store.begin_fetch(short).unwrap();
    store.put_group(&short.hash, 0, b"hello").unwrap();
    assert!(store.end_fetch(&short.hash).unwrap());
    let view = BlobView { blob: short, here: 5, is_pinned: true };
    assert_eq!(store.view(&short.hash), Some(view));
    let view = open(dir.path(), 10 << 20).view(&short.hash);
    assert_eq!(view.map(|view| view.is_pinned), Some(true));
}

#[test]
fn a_short_part_does_not_hold_what_was_read_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 10 << 20);
    let bytes = content(2 << 20);
    let blob = store.put(&bytes[..], false).unwrap();
    for (range, is_copied) in [(5..9, true), ((1 << 20) - 1..(1 << 20) + 1, true), (0..1 << 20, false)] {
        let part = store.read(&blob, range.clone()).unwrap().unwrap();
        let place = |at: u64| usize::try_from(at).unwrap();
        assert_eq!(part, bytes[place(range.start)..place(range.end)]);
        // What is copied is its owner's alone, and no longer than it is.
        let room = part.try_into_mut().ok().map(|part| part.capacity());
        assert_eq!(room.is_some_and(|room| room < 1 << 10), is_copied, "{range:?}");
    }
    // Who asks for more than there is gets none of it.
    assert_eq!(store.read(&BlobRef { size: (2 << 20) + 9, ..blob }, (2 << 20) - 1..(2 << 20) + 9), Ok(None));
}
