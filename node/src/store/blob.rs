//! Blobs on disk: content named by its hash, whole or in part.
//!
//! ```text
//!   blobs/HASH           the whole content; was checked before it got this name
//!   blobs/HASH.part      the groups that are there, each in its place
//!   blobs/HASH.outline   size ‖ chaining values of the groups
//!   blobs/HASH.pin       it stays until somebody takes the pin back
//!   blobs/pack-N         small outputs of tasks, many in a file (`pack.rs`)
//!   blobs/new-N          being put; gone after a crash
//! ```
//!
//! Nothing is given out that is not what its name says: every group is checked against the outline when it is read. A
//! blob that turns out damaged loses the damaged group, and can be fetched again.
//!
//! **Bounds.** The directory holds at most so many bytes, outlines aside, and so many blobs; what was used longest ago goes first, what is
//! pinned or being fetched stays. What is fetched in part counts with its whole length.
//!
//! Methods block for the disk.

mod fetch;
mod pack;
mod put;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use omnimesh_protocol::Hash;
use omnimesh_protocol::compute::BlobRef;
use omnimesh_protocol::compute::blob::wire::Held;
use omnimesh_protocol::compute::blob::{
    Cache, CacheError, GROUP_BYTES, Groups, Outline, OutlineBuilder, groups_of,
};
use rayon::prelude::*;

use pack::{Packs, Place};
pub use put::Putting;

/// The directory in the data directory.
pub const BLOB_DIR: &str = "blobs";
/// Blobs that are known at once: each takes some 200 bytes of memory. Default: guess.
const BLOBS_MAX: usize = 1 << 19;
/// Outlines that are kept in memory. Default: guess; the others are read again.
const OUTLINES_KEPT: usize = 64;
/// Groups that are kept in memory, as they were read and checked last: many small tasks read the same one. Default: guess.
const GROUPS_KEPT: usize = 16;

/// Why a blob is not read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// There is no room, or no such blob.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The disk has no room.
    #[error("the disk of the data directory is full")]
    DiskFull,
    /// The disk failed.
    #[error("blobs cannot be read or written in {path}: {error}")]
    Disk {
        /// Where.
        path: String,
        /// Why.
        error: String,
    },
    /// Something on the disk is not what was written. It is forgotten, and can be fetched again.
    #[error("the blob {hash} is damaged on disk; get it again from another node")]
    Damaged {
        /// Which.
        hash: Hash,
    },
    /// What is here under this name has another length, and it is known to be right, or somebody keeps it.
    #[error("the size of the blob {hash} is wrong: {claimed} bytes are claimed, and what is here has {size}")]
    WrongSize {
        /// Which.
        hash: Hash,
        /// How long it is here.
        size: u64,
        /// How long somebody says that it is.
        claimed: u64,
    },
}

/// A blob as it is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobView {
    /// Which.
    pub blob: BlobRef,
    /// How many bytes of it are here.
    pub here: u64,
    /// Whether somebody wants it to stay.
    pub is_pinned: bool,
}

/// The blobs of one node. Share it by reference or `Arc`.
#[derive(Debug)]
pub struct BlobStore {
    dir: PathBuf,
    inner: Mutex<Inner>,
    recent: Mutex<lru::LruCache<(Hash, u64), Bytes>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Inner {
    books: Cache,
    entries: BTreeMap<Hash, Entry>,
    outlines: lru::LruCache<Hash, Arc<Outline>>,
    packs: Packs,
}

#[derive(Debug)]
struct Entry {
    size: u64,
    groups: Groups,
    is_pinned: bool,
    /// How often it is being fetched.
    fetches: u32,
    /// Where it is, if it is whole and has no file of its own.
    packed: Option<Place>,
}

impl Inner {
    fn remove_packed(&mut self, place: Place) {
        if let Err(error) = self.packs.remove(place) {
            tracing::warn!(%error, "a blob could not be deleted; it will be back after a restart");
        }
        self.tidy();
    }

    /// Has half empty packs given up.
    fn tidy(&mut self) {
        let moved = self.packs.tidy().unwrap_or_else(|error| {
            tracing::warn!(%error, "blobs could not be put together; they stay where they are");
            Vec::new()
        });
        for (hash, place) in moved {
            if let Some(packed) = self.entries.get_mut(&hash).and_then(|entry| entry.packed.as_mut()) {
                *packed = place;
            }
        }
    }
}

impl Entry {
    fn new(size: u64, groups: Groups) -> Self {
        Entry { size, groups, is_pinned: false, fetches: 0, packed: None }
    }

    fn is_whole(&self) -> bool {
        self.groups == Groups::All
    }

    fn here(&self) -> u64 {
        if self.is_whole() {
            return self.size;
        }
        let there = (0..groups_of(self.size)).filter(|group| self.groups.contains(*group));
        there.map(|group| length_of(self.size, group)).sum()
    }
}

fn length_of(size: u64, group: u64) -> u64 {
    size.saturating_sub(group.saturating_mul(GROUP_BYTES)).min(GROUP_BYTES)
}

/// Whether more threads would not make it quicker to read them.
pub fn is_little(range: &Range<u64>) -> bool {
    range.end.saturating_sub(range.start) <= GROUP_BYTES
}

/// A part of what was read. What is less than half of it is copied: it would hold all of it in memory.
pub fn part_of(bytes: &Bytes, part: &[u8]) -> Bytes {
    if part.len().saturating_mul(2) < bytes.len() {
        Bytes::copy_from_slice(part)
    } else {
        bytes.slice_ref(part)
    }
}

/// The groups that hold these bytes.
fn groups_in(blob: &BlobRef, range: &Range<u64>) -> Range<u64> {
    let first = range.start / GROUP_BYTES;
    let end = range.end.min(blob.size).div_ceil(GROUP_BYTES).clamp(1, groups_of(blob.size));
    first..end.max(first)
}

impl BlobStore {
    /// Opens the blobs of a data directory, or begins with none. Blobs that are over the bound go, the oldest first.
    ///
    /// # Errors
    /// If the directory cannot be made or read.
    pub fn open(data_dir: &Path, bytes_max: u64) -> Result<Self, BlobError> {
        let dir = data_dir.join(BLOB_DIR);
        let inner = Inner {
            books: Cache::new(bytes_max, BLOBS_MAX),
            entries: BTreeMap::new(),
            outlines: lru::LruCache::new(OUTLINES_KEPT.try_into().expect("not zero")),
            packs: Packs::new(&dir),
        };
        let recent = Mutex::new(lru::LruCache::new(GROUPS_KEPT.try_into().expect("not zero")));
        let store = BlobStore { dir, inner: Mutex::new(inner), recent, next: AtomicU64::new(0) };
        store.load().map_err(|error| store.failed(error))?;
        Ok(store)
    }

    fn load(&self) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let mut inner = self.lock();
        let mut found = Vec::new();
        let mut pins = BTreeSet::<Hash>::new();
        for file in fs::read_dir(&self.dir)? {
            let file = file?;
            let name = file.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.starts_with("new-") {
                fs::remove_file(file.path())?;
            } else if let Ok(hash) = name.parse::<Hash>() {
                let data = file.metadata()?;
                found.push((data.modified()?, hash, Entry::new(data.len(), Groups::All)));
            } else if let Some(hash) = name.strip_suffix(".part").and_then(|name| name.parse().ok()) {
                match self.read_outline_file(&hash) {
                    Some(outline) => {
                        let size = outline.blob().size;
                        found.push((
                            file.metadata()?.modified()?,
                            hash,
                            Entry::new(size, Groups::none(size)),
                        ));
                    }
                    None => fs::remove_file(file.path())?,
                }
            } else if let Some(hash) = name.strip_suffix(".pin").and_then(|name| name.parse().ok()) {
                pins.insert(hash);
            } else if let Some(number) = pack::number_of(name) {
                let packed = inner.packs.load(number)?.into_iter().map(|found| {
                    let entry = Entry::new(found.place.size(), Groups::All);
                    (found.modified, found.hash, Entry { packed: Some(found.place), ..entry })
                });
                found.extend(packed);
            }
        }
        // Stable: those of a pack stay in their order.
        found.sort_by_key(|(modified, hash, entry)| (*modified, entry.packed.is_none().then_some(*hash)));
        for (_, hash, mut entry) in found {
            entry.is_pinned = pins.contains(&hash);
            // What is there twice is pinned once.
            let pins = u32::from(entry.is_pinned && !inner.entries.contains_key(&hash));
            let gone = match inner.books.insert(BlobRef { hash, size: entry.size }, pins) {
                Ok(gone) => gone,
                Err(_) => vec![hash],
            };
            // It is there twice if a crash came in between.
            match (inner.entries.get(&hash).map(Entry::is_whole), entry.packed) {
                (Some(true), Some(place)) => inner.remove_packed(place),
                (Some(true), None) if entry.is_whole() => remove(&self.whole_path(&hash)),
                (Some(true), None) => remove(&self.path(&hash, "part")),
                (there, _) => {
                    if there.is_some() {
                        remove(&self.path(&hash, "part"));
                    }
                    inner.entries.insert(hash, entry);
                }
            }
            self.delete(&mut inner, &gone);
        }
        inner.tidy();
        Ok(())
    }

    /// What is here of these.
    pub fn held(&self, hashes: &[Hash]) -> Vec<Held> {
        let inner = self.lock();
        let held = |hash: &Hash| {
            let entry = inner.entries.get(hash)?;
            let is_some = entry.is_whole() || entry.here() > 0;
            is_some.then(|| Held { hash: *hash, size: entry.size, groups: entry.groups.clone() })
        };
        hashes.iter().filter_map(held).collect()
    }

    /// The size of a blob that is here whole.
    pub fn whole(&self, hash: &Hash) -> Option<BlobRef> {
        let inner = self.lock();
        let entry = inner.entries.get(hash).filter(|entry| entry.is_whole())?;
        Some(BlobRef { hash: *hash, size: entry.size })
    }

    /// Whether these bytes of a blob are here.
    pub fn has(&self, blob: &BlobRef, range: &Range<u64>) -> bool {
        let inner = self.lock();
        let entry = inner.entries.get(&blob.hash).filter(|entry| entry.size == blob.size);
        entry.is_some_and(|entry| groups_in(blob, range).all(|group| entry.groups.contains(group)))
    }

    /// Bytes of a blob; `None` if they are not all here. No more than twice as many are held in memory for them. What is read is checked, if it is much on all threads of the rayon
    /// pool in which it is called.
    ///
    /// # Errors
    /// If the disk fails, or they are not what they should be.
    pub fn read(&self, blob: &BlobRef, range: Range<u64>) -> Result<Option<Bytes>, BlobError> {
        let range = range.start.min(blob.size)..range.end.min(blob.size);
        if range.is_empty() {
            return Ok(Some(Bytes::new()));
        }
        let groups = groups_in(blob, &range);
        let begin = groups.start * GROUP_BYTES;
        let place = |at: u64| usize::try_from(at - begin).unwrap_or(usize::MAX);
        if groups.end - groups.start == 1 {
            let content = self.group(&blob.hash, groups.start)?;
            let part = |content: &Bytes| {
                content.get(place(range.start)..place(range.end)).map(|part| part_of(content, part))
            };
            return Ok(content.as_ref().and_then(part));
        }
        let end = (groups.end * GROUP_BYTES).min(blob.size);
        let mut bytes = vec![0; place(end)];
        let length = place(begin + GROUP_BYTES);
        let fill = |(number, room): (usize, &mut [u8])| -> Result<bool, BlobError> {
            let content = self.group(&blob.hash, groups.start + number as u64)?;
            let Some(content) = content.filter(|content| content.len() == room.len()) else {
                return Ok(false);
            };
            room.copy_from_slice(&content);
            Ok(true)
        };
        let both = |one, other| Ok(one && other);
        let is_whole = match is_little(&range) {
            true => bytes
                .chunks_mut(length)
                .enumerate()
                .map(fill)
                .try_fold(true, |one, other| both(one, other?))?,
            false => bytes.par_chunks_mut(length).enumerate().map(fill).try_reduce(|| true, both)?,
        };
        let bytes = Bytes::from(bytes);
        let part = bytes.get(place(range.start)..place(range.end)).filter(|_| is_whole);
        Ok(part.map(|part| part_of(&bytes, part)))
    }

    /// Checks a whole blob, if it is large on all threads of the rayon pool in which it is called; without holding it in
    /// memory. False if it is not here.
    ///
    /// # Errors
    /// If the disk fails, or it is not what it should be.
    pub fn check(&self, blob: &BlobRef) -> Result<bool, BlobError> {
        if self.whole(&blob.hash) != Some(*blob) {
            return Ok(false);
        }
        if is_little(&(0..blob.size)) {
            return Ok(self.group(&blob.hash, 0)?.is_some());
        }
        let mut hasher = blake3::Hasher::new();
        let read = hasher.update_mmap_rayon(self.whole_path(&blob.hash)).map(drop);
        match read {
            Ok(()) if hasher.finalize().as_bytes() == blob.hash.as_bytes() => Ok(true),
            Ok(()) => {
                self.forget_damaged(&blob.hash);
                Err(BlobError::Damaged { hash: blob.hash })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.missing::<()>(&blob.hash).map(|_| false)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// All blobs of which something is here, by hash.
    pub fn list(&self) -> Vec<BlobView> {
        let inner = self.lock();
        let view = |(hash, entry): (&Hash, &Entry)| BlobView {
            blob: BlobRef { hash: *hash, size: entry.size },
            here: entry.here(),
            is_pinned: entry.is_pinned,
        };
        inner.entries.iter().map(view).collect()
    }

    /// One blob of which something is here.
    pub fn view(&self, hash: &Hash) -> Option<BlobView> {
        let inner = self.lock();
        let entry = inner.entries.get(hash)?;
        let blob = BlobRef { hash: *hash, size: entry.size };
        Some(BlobView { blob, here: entry.here(), is_pinned: entry.is_pinned })
    }

    /// Bytes that count against the bound, and the bound.
    pub fn bytes(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.books.bytes(), inner.books.bytes_max())
    }

    /// Keeps a blob until it is unpinned.
    ///
    /// # Errors
    /// If it is not here, or the disk fails.
    pub fn pin(&self, hash: &Hash) -> Result<(), BlobError> {
        let mut inner = self.lock();
        let entry = inner.entries.get_mut(hash).ok_or(CacheError::Unknown)?;
        if !entry.is_pinned {
            File::create(self.path(hash, "pin")).map_err(|error| self.failed(error))?;
            entry.is_pinned = true;
            inner.books.pin(hash)?;
        }
        Ok(())
    }

    /// Lets a blob go when there is need of room.
    ///
    /// # Errors
    /// If it is not here or not pinned, or the disk fails.
    pub fn unpin(&self, hash: &Hash) -> Result<(), BlobError> {
        let mut inner = self.lock();
        let entry = inner.entries.get_mut(hash).filter(|entry| entry.is_pinned).ok_or(CacheError::Unknown)?;
        fs::remove_file(self.path(hash, "pin")).map_err(|error| self.failed(error))?;
        entry.is_pinned = false;
        Ok(inner.books.unpin(hash)?)
    }

    /// Deletes a blob, pinned or not.
    ///
    /// # Errors
    /// If it is not here.
    pub fn remove(&self, hash: &Hash) -> Result<(), BlobError> {
        let mut inner = self.lock();
        if !inner.entries.contains_key(hash) {
            return Err(CacheError::Unknown.into());
        }
        inner.books.remove(hash);
        self.delete(&mut inner, &[*hash]);
        Ok(())
    }

    /// A group, if it is here.
    ///
    /// # Errors
    /// If the disk fails, or it is not what it should be.
    pub fn group(&self, hash: &Hash, group: u64) -> Result<Option<Bytes>, BlobError> {
        let (size, path) = {
            let mut inner = self.lock();
            let Some(entry) = inner.entries.get(hash).filter(|entry| entry.groups.contains(group)) else {
                return Ok(None);
            };
            let path = if entry.is_whole() { self.whole_path(hash) } else { self.path(hash, "part") };
            let found = (entry.size, path);
            inner.books.touch(hash);
            found
        };
        if group >= groups_of(size) {
            return Ok(None);
        }
        if let Some(bytes) = self.recent().get(&(*hash, group)) {
            return Ok(Some(bytes.clone()));
        }
        let Some(outline) = self.outline(hash)? else { return Ok(None) };
        let read = match self.read_packed(hash) {
            Some(read) => read,
            None => File::open(path).and_then(|file| read_group(&file, size, group)),
        };
        match read {
            Ok(Some(bytes)) if outline.is_group(group, &bytes) => {
                self.recent().put((*hash, group), bytes.clone());
                Ok(Some(bytes))
            }
            Ok(_) => {
                self.forget_damaged(hash);
                Err(BlobError::Damaged { hash: *hash })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.missing(hash),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// What is read of a pack; `None` if the blob is in none.
    fn read_packed(&self, hash: &Hash) -> Option<io::Result<Option<Bytes>>> {
        let inner = self.lock();
        // A pack that goes is changed under the lock only.
        let read = inner.packs.read(inner.entries.get(hash)?.packed?);
        Some(match read {
            Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound) => {
                Ok(None)
            }
            read => read.map(Some),
        })
    }

    /// A file was not there: it went while it was looked for, and then nothing is the matter, or somebody else has deleted
    /// it, and then it must not be said to be here any more.
    fn missing<T>(&self, hash: &Hash) -> Result<Option<T>, BlobError> {
        let is_gone = {
            let inner = self.lock();
            // Its name changes under the lock only.
            inner.entries.get(hash).is_some_and(|entry| match entry.is_whole() {
                true => entry.packed.is_none() && !self.whole_path(hash).exists(),
                false => entry.here() > 0 && !self.path(hash, "part").exists(),
            })
        };
        if !is_gone {
            return Ok(None);
        }
        self.forget_damaged(hash);
        Err(BlobError::Damaged { hash: *hash })
    }

    /// What is damaged is a part from now on; the next fetch looks which groups are good.
    fn forget_damaged(&self, hash: &Hash) {
        let mut inner = self.lock();
        let Some(entry) = inner.entries.get_mut(hash) else { return };
        let packed = entry.packed.take();
        let is_file = entry.is_whole() && packed.is_none();
        let moved = !is_file || fs::rename(self.whole_path(hash), self.path(hash, "part")).is_ok();
        entry.groups = Groups::none(entry.size);
        packed.into_iter().for_each(|place| inner.remove_packed(place));
        tracing::error!(%hash, moved, "a blob is damaged on disk; what is good of it is kept, the rest can be fetched again");
    }

    /// The outline of a blob that is here, or was begun; `None` if there is none.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn outline(&self, hash: &Hash) -> Result<Option<Arc<Outline>>, BlobError> {
        let size = {
            let mut inner = self.lock();
            if let Some(outline) = inner.outlines.get(hash) {
                return Ok(Some(Arc::clone(outline)));
            }
            match inner.entries.get(hash) {
                Some(entry) => entry.size,
                None => return Ok(None),
            }
        };
        let blob = BlobRef { hash: *hash, size };
        // One group needs none: the name of the blob is its hash.
        let found = Outline::new(blob, Vec::new()).ok().or_else(|| self.read_outline_file(hash));
        let found = match found {
            Some(found) if found.blob() == blob => Some(found),
            _ => self.make_outline(hash)?,
        };
        let outline = found.map(Arc::new);
        if let Some(outline) = &outline {
            self.lock().outlines.put(*hash, Arc::clone(outline));
        }
        Ok(outline)
    }

    /// Makes the outline of a whole blob anew.
    fn make_outline(&self, hash: &Hash) -> Result<Option<Outline>, BlobError> {
        let Ok(mut file) = File::open(self.whole_path(hash)) else { return Ok(None) };
        let mut builder = OutlineBuilder::new();
        let mut group = vec![0; usize::try_from(GROUP_BYTES).expect("1 MiB fits")];
        loop {
            let length = read_full(&mut file, &mut group).map_err(|error| self.failed(error))?;
            if length == 0 {
                break;
            }
            builder.push(&group[..length]);
        }
        let outline = builder.finish();
        if outline.blob().hash != *hash {
            // Without an outline nobody can tell which part of it is good.
            let mut inner = self.lock();
            inner.books.remove(hash);
            self.delete(&mut inner, &[*hash]);
            return Err(BlobError::Damaged { hash: *hash });
        }
        self.write_outline(&outline).map_err(|error| self.failed(error))?;
        Ok(Some(outline))
    }

    fn write_outline(&self, outline: &Outline) -> io::Result<()> {
        let blob = outline.blob();
        if groups_of(blob.size) < 2 && !self.lock().entries.contains_key(&blob.hash) {
            return Ok(());
        }
        let path = self.path(&blob.hash, "outline");
        let new = self.dir.join(format!("new-{}", self.next.fetch_add(1, Ordering::Relaxed)));
        let mut bytes = blob.size.to_le_bytes().to_vec();
        bytes.extend(outline.to_bytes());
        fs::write(&new, bytes)?;
        fs::rename(new, path)
    }

    /// An outline that does not give the hash is none.
    fn read_outline_file(&self, hash: &Hash) -> Option<Outline> {
        let bytes = fs::read(self.path(hash, "outline")).ok()?;
        let (size, values) = bytes.split_first_chunk::<8>()?;
        Outline::from_bytes(BlobRef { hash: *hash, size: u64::from_le_bytes(*size) }, values).ok()
    }

    /// Enters a blob whose length is known into the books; what has to go for it goes.
    fn make_room(&self, inner: &mut Inner, blob: BlobRef) -> Result<(), BlobError> {
        if inner.entries.get(&blob.hash).is_some_and(|entry| entry.size != blob.size) {
            // Somebody had told another length, or what was written on disk is damaged.
            return self.replace(inner, blob, 0);
        }
        let gone = inner.books.insert(blob, 0)?;
        self.delete(inner, &gone);
        Ok(())
    }

    /// Gives up what is here for a blob of the same name and another length. Who wanted it to stay wants that still.
    fn replace(&self, inner: &mut Inner, blob: BlobRef, pins: u32) -> Result<(), BlobError> {
        let is_pinned = inner.entries.get(&blob.hash).is_some_and(|entry| entry.is_pinned);
        inner.books.remove(&blob.hash);
        self.delete(inner, &[blob.hash]);
        let gone = inner.books.insert(blob, pins + u32::from(is_pinned))?;
        self.delete(inner, &gone);
        if is_pinned {
            File::create(self.path(&blob.hash, "pin")).map_err(|error| self.failed(error))?;
            let none = Entry::new(blob.size, Groups::none(blob.size));
            inner.entries.insert(blob.hash, Entry { is_pinned, ..none });
        }
        Ok(())
    }

    fn delete(&self, inner: &mut Inner, gone: &[Hash]) {
        for hash in gone {
            inner.outlines.pop(hash);
            match inner.entries.remove(hash) {
                Some(Entry { packed: Some(place), is_pinned, .. }) => {
                    inner.remove_packed(place);
                    if is_pinned {
                        remove(&self.path(hash, "pin"));
                    }
                }
                _ => {
                    remove(&self.whole_path(hash));
                    ["part", "outline", "pin"].iter().for_each(|suffix| remove(&self.path(hash, suffix)));
                }
            }
        }
    }

    fn whole_path(&self, hash: &Hash) -> PathBuf {
        self.dir.join(hash.to_string())
    }

    fn path(&self, hash: &Hash, suffix: &str) -> PathBuf {
        self.dir.join(format!("{hash}.{suffix}"))
    }

    #[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` gives")]
    fn failed(&self, error: io::Error) -> BlobError {
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return BlobError::DiskFull;
        }
        BlobError::Disk { path: self.dir.display().to_string(), error: error.to_string() }
    }

    fn recent(&self) -> MutexGuard<'_, lru::LruCache<(Hash, u64), Bytes>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "a blob's file could not be deleted");
        }
        _ => {}
    }
}

/// Reads until the buffer is full or nothing is left.
fn read_full(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while let Some(room) = buffer.get_mut(length..).filter(|room| !room.is_empty()) {
        match from.read(room) {
            Ok(0) => break,
            Ok(bytes) => length += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// A group as it is on disk; `None` if the file ends before it does.
fn read_group(file: &File, size: u64, group: u64) -> io::Result<Option<Bytes>> {
    let length = length_of(size, group);
    let mut from = file;
    from.seek(SeekFrom::Start(group.saturating_mul(GROUP_BYTES)))?;
    // Into memory that was not zeroed before: that took longer than to read it.
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    from.take(length).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 == length).then(|| bytes.into()))
}
