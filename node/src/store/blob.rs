//! Blobs on disk: content named by its hash, whole or in part.
//!
//! ```text
//!   blobs/HASH           the whole content; was checked before it got this name
//!   blobs/HASH.part      the groups that are there, each in its place
//!   blobs/HASH.outline   size ‖ chaining values of the groups
//!   blobs/HASH.pin       it stays until somebody takes the pin back
//!   blobs/new-N          being put; gone after a crash
//! ```
//!
//! Nothing is given out that is not what its name says: every group is checked against the outline when it is read. A
//! blob that turns out damaged loses the damaged group, and can be fetched again.
//!
//! **Bounds.** The directory holds at most so many bytes, outlines aside; what was used longest ago goes first, what is
//! pinned or being fetched stays. What is fetched in part counts with its whole length.
//!
//! Methods block for the disk.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
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

/// The directory in the data directory.
pub const BLOB_DIR: &str = "blobs";
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
}

#[derive(Debug)]
struct Entry {
    size: u64,
    groups: Groups,
    is_pinned: bool,
    /// How often it is being fetched.
    fetches: u32,
}

impl Entry {
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
            books: Cache::new(bytes_max),
            entries: BTreeMap::new(),
            outlines: lru::LruCache::new(OUTLINES_KEPT.try_into().expect("not zero")),
        };
        let recent = Mutex::new(lru::LruCache::new(GROUPS_KEPT.try_into().expect("not zero")));
        let store = BlobStore { dir, inner: Mutex::new(inner), recent, next: AtomicU64::new(0) };
        store.load().map_err(|error| store.failed(error))?;
        Ok(store)
    }

    fn load(&self) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let mut found = Vec::new();
        for file in fs::read_dir(&self.dir)? {
            let file = file?;
            let name = file.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.starts_with("new-") {
                fs::remove_file(file.path())?;
            } else if let Ok(hash) = name.parse::<Hash>() {
                let data = file.metadata()?;
                found.push((data.modified()?, hash, data.len(), Groups::All));
            } else if let Some(hash) = name.strip_suffix(".part").and_then(|name| name.parse().ok()) {
                match self.read_outline_file(&hash) {
                    Some(outline) => {
                        let size = outline.blob().size;
                        found.push((file.metadata()?.modified()?, hash, size, Groups::none(size)));
                    }
                    None => fs::remove_file(file.path())?,
                }
            }
        }
        found.sort_by_key(|(modified, hash, ..)| (*modified, *hash));
        let mut inner = self.lock();
        for (_, hash, size, groups) in found {
            let is_pinned = self.path(&hash, "pin").exists();
            let gone = match inner.books.insert(BlobRef { hash, size }, u32::from(is_pinned)) {
                Ok(gone) => gone,
                Err(_) => vec![hash],
            };
            inner.entries.insert(hash, Entry { size, groups, is_pinned, fetches: 0 });
            self.delete(&mut inner, &gone);
        }
        Ok(())
    }

    /// Takes content in, and keeps it pinned if that is wanted.
    ///
    /// # Errors
    /// If there is no room for it, it cannot be read, or the disk fails. Nothing of it is kept then.
    pub fn put(self: &Arc<Self>, mut content: impl Read, is_pinned: bool) -> Result<BlobRef, BlobError> {
        let mut putting = self.begin_put()?;
        let mut group = vec![0; usize::try_from(GROUP_BYTES).expect("1 MiB fits")];
        loop {
            let length = read_full(&mut content, &mut group).map_err(|error| self.failed(error))?;
            if length == 0 {
                return putting.finish(is_pinned);
            }
            putting.write(&group[..length])?;
        }
    }

    /// Takes the output of a task in. After a power cut it may be gone or damaged, which is noticed; then the task is
    /// done again.
    ///
    /// # Errors
    /// If there is no room for it, or the disk fails.
    pub fn put_output(self: &Arc<Self>, output: &[u8]) -> Result<BlobRef, BlobError> {
        let mut putting = self.begin_put()?;
        putting.is_durable = false;
        putting.write(output)?;
        putting.finish(false)
    }

    /// The same for content that comes bit by bit.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn begin_put(self: &Arc<Self>) -> Result<Putting, BlobError> {
        let path = self.dir.join(format!("new-{}", self.next.fetch_add(1, Ordering::Relaxed)));
        let file = File::create(&path).map_err(|error| self.failed(error))?;
        Ok(Putting {
            store: Arc::clone(self),
            path,
            file,
            outline: OutlineBuilder::new(),
            rest: Vec::new(),
            bytes: 0,
            is_durable: true,
            is_done: false,
        })
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

    /// Bytes of a blob; `None` if they are not all here. What is read is checked, if it is much on all threads of the rayon
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
            return Ok(content.map(|content| content.slice(place(range.start)..place(range.end))));
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
        Ok(is_whole.then(|| Bytes::from(bytes).slice(place(range.start)..place(range.end))))
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
        let read = hasher.update_mmap_rayon(self.dir.join(blob.hash.to_string())).map(drop);
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

    /// Makes room for a blob that is to be fetched, and says which groups of it are here: those that are what they
    /// should be. It stays until [`BlobStore::end_fetch`].
    ///
    /// # Errors
    /// If there is no room, or the disk fails.
    pub fn begin_fetch(&self, blob: BlobRef) -> Result<(Groups, Option<Arc<Outline>>), BlobError> {
        let outline = self.outline(&blob.hash)?.filter(|outline| outline.blob() == blob);
        // What came since the start was checked when it came.
        let is_known = self.lock().entries.get(&blob.hash).is_some_and(|entry| entry.here() > 0);
        let outlined = outline.as_deref().filter(|_| !is_known);
        let there = outlined.map(|outline| self.check_part(outline)).transpose()?;
        let mut inner = self.lock();
        if inner.entries.get(&blob.hash).is_some_and(|entry| entry.size != blob.size) {
            // Somebody had told another length.
            inner.books.remove(&blob.hash);
            self.delete(&mut inner, &[blob.hash]);
        }
        let gone = inner.books.insert(blob, 1)?;
        self.delete(&mut inner, &gone);
        let size = blob.size;
        let entry = inner.entries.entry(blob.hash).or_insert_with(|| Entry {
            size,
            groups: Groups::none(size),
            is_pinned: false,
            fetches: 0,
        });
        entry.fetches += 1;
        if let Some(there) = there
            && !entry.is_whole()
        {
            entry.groups = there;
        }
        Ok((entry.groups.clone(), outline))
    }

    /// The groups of a part that are what they should be.
    fn check_part(&self, outline: &Outline) -> Result<Groups, BlobError> {
        let blob = outline.blob();
        let mut there = Groups::none(blob.size);
        let Ok(file) = File::open(self.path(&blob.hash, "part")) else { return Ok(there) };
        for group in 0..groups_of(blob.size) {
            if let Some(bytes) = read_group(&file, blob.size, group).map_err(|error| self.failed(error))?
                && outline.is_group(group, &bytes)
            {
                there.add(group);
            }
        }
        Ok(there)
    }

    /// Keeps the outline of a blob that is being fetched.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn put_outline(&self, outline: Outline) -> Result<(), BlobError> {
        let hash = outline.blob().hash;
        self.write_outline(&outline).map_err(|error| self.failed(error))?;
        self.lock().outlines.put(hash, Arc::new(outline));
        Ok(())
    }

    /// Keeps a group of a blob that is being fetched; it was checked.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn put_group(&self, hash: &Hash, group: u64, bytes: &[u8]) -> Result<(), BlobError> {
        let path = self.path(hash, "part");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
        file.and_then(|file| file.write_all_at(bytes, group.saturating_mul(GROUP_BYTES)))
            .map_err(|error| self.failed(error))?;
        let mut inner = self.lock();
        if let Some(entry) = inner.entries.get_mut(hash) {
            entry.groups.add(group);
        }
        Ok(())
    }

    /// A fetch is over: if all groups are here, the blob is whole from now on. Says whether it is.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn end_fetch(&self, hash: &Hash) -> Result<bool, BlobError> {
        let mut inner = self.lock();
        let Some(entry) = inner.entries.get_mut(hash) else { return Ok(false) };
        entry.fetches = entry.fetches.saturating_sub(1);
        let is_all = (0..groups_of(entry.size)).all(|group| entry.groups.contains(group));
        let is_new = is_all && !entry.is_whole();
        let is_empty = !is_all && entry.here() == 0 && entry.fetches == 0;
        let done = match is_new {
            true => self.make_whole(hash, entry.size),
            false => Ok(()),
        };
        if done.is_ok() && is_all {
            entry.groups = Groups::All;
        }
        // Its pin was taken when it began.
        inner.books.unpin(hash)?;
        if is_empty {
            inner.books.remove(hash);
            self.delete(&mut inner, &[*hash]);
        }
        done.map_err(|error| self.failed(error))?;
        Ok(is_all)
    }

    fn make_whole(&self, hash: &Hash, size: u64) -> io::Result<()> {
        let part = self.path(hash, "part");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&part)?;
        file.set_len(size)?;
        // Not synced: what a power cut damages is noticed when it is read, and fetched again.
        fs::rename(part, self.dir.join(hash.to_string()))
    }

    /// A group, if it is here.
    ///
    /// # Errors
    /// If the disk fails, or it is not what it should be.
    pub fn group(&self, hash: &Hash, group: u64) -> Result<Option<Bytes>, BlobError> {
        let (size, name) = {
            let mut inner = self.lock();
            let Some(entry) = inner.entries.get(hash).filter(|entry| entry.groups.contains(group)) else {
                return Ok(None);
            };
            let found = (entry.size, if entry.is_whole() { None } else { Some("part") });
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
        let path = name.map_or_else(|| self.dir.join(hash.to_string()), |suffix| self.path(hash, suffix));
        let read = File::open(path).and_then(|file| read_group(&file, size, group));
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

    /// A file was not there: it went while it was looked for, and then nothing is the matter, or somebody else has deleted
    /// it, and then it must not be said to be here any more.
    fn missing<T>(&self, hash: &Hash) -> Result<Option<T>, BlobError> {
        let is_gone = {
            let inner = self.lock();
            // Its name changes under the lock only.
            inner.entries.get(hash).is_some_and(|entry| match entry.is_whole() {
                true => !self.dir.join(hash.to_string()).exists(),
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
        let moved =
            !entry.is_whole() || fs::rename(self.dir.join(hash.to_string()), self.path(hash, "part")).is_ok();
        entry.groups = Groups::none(entry.size);
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
        let Ok(mut file) = File::open(self.dir.join(hash.to_string())) else { return Ok(None) };
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

    fn delete(&self, inner: &mut Inner, gone: &[Hash]) {
        for hash in gone {
            inner.entries.remove(hash);
            inner.outlines.pop(hash);
            let whole = self.dir.join(hash.to_string());
            let beside = ["part", "outline", "pin"].map(|suffix| self.path(hash, suffix));
            for path in std::iter::once(whole).chain(beside) {
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        tracing::warn!(path = %path.display(), %error, "a blob's file could not be deleted");
                    }
                    _ => {}
                }
            }
        }
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

/// Content on its way in. Dropped before its end, nothing of it is kept.
#[derive(Debug)]
pub struct Putting {
    store: Arc<BlobStore>,
    path: PathBuf,
    file: File,
    outline: OutlineBuilder,
    /// Less than a group.
    rest: Vec<u8>,
    bytes: u64,
    is_durable: bool,
    /// It has its name.
    is_done: bool,
}

impl Putting {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// If there are more than there can be room for, or the disk fails.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.bytes += bytes.len() as u64;
        let (max, pinned) = {
            let inner = self.store.lock();
            (inner.books.bytes_max(), inner.books.pinned())
        };
        if self.bytes > max.saturating_sub(pinned) {
            return Err(CacheError::Full { wanted: self.bytes, pinned, max }.into());
        }
        self.file.write_all(bytes).map_err(|error| self.store.failed(error))?;
        let group = usize::try_from(GROUP_BYTES).expect("1 MiB fits");
        let mut bytes = bytes;
        while self.rest.len() + bytes.len() >= group {
            let (now, later) = bytes.split_at(group - self.rest.len());
            if self.rest.is_empty() {
                self.outline.push(now);
            } else {
                self.rest.extend_from_slice(now);
                self.outline.push(&self.rest);
                self.rest.clear();
            }
            bytes = later;
        }
        self.rest.extend_from_slice(bytes);
        Ok(())
    }

    /// That was all: it is a blob from now on, and on disk.
    ///
    /// # Errors
    /// If there is no room for it, or the disk fails.
    pub fn finish(mut self, is_pinned: bool) -> Result<BlobRef, BlobError> {
        let store = Arc::clone(&self.store);
        let mut outline = std::mem::take(&mut self.outline);
        if !self.rest.is_empty() {
            outline.push(&self.rest);
        }
        let outline = outline.finish();
        let blob = outline.blob();
        if self.is_durable {
            self.file.sync_all().map_err(|error| store.failed(error))?;
        }
        store.write_outline(&outline).map_err(|error| store.failed(error))?;
        {
            let mut inner = store.lock();
            let gone = inner.books.insert(blob, 0)?;
            store.delete(&mut inner, &gone);
            fs::rename(&self.path, store.dir.join(blob.hash.to_string()))
                .map_err(|error| store.failed(error))?;
            self.is_done = true;
            let entry = inner.entries.entry(blob.hash);
            let entry = entry.or_insert(Entry { size: 0, groups: Groups::All, is_pinned: false, fetches: 0 });
            (entry.size, entry.groups) = (blob.size, Groups::All);
            inner.outlines.put(blob.hash, Arc::new(outline));
            if self.is_durable {
                File::open(&store.dir).and_then(|dir| dir.sync_all()).map_err(|error| store.failed(error))?;
            }
        }
        if is_pinned {
            store.pin(&blob.hash)?;
        }
        Ok(blob)
    }
}

impl Drop for Putting {
    fn drop(&mut self) {
        if !self.is_done {
            let _ = fs::remove_file(&self.path);
        }
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
    let length = usize::try_from(length_of(size, group)).unwrap_or(0);
    let mut bytes = vec![0; length];
    match file.read_exact_at(&mut bytes, group.saturating_mul(GROUP_BYTES)) {
        Ok(()) => Ok(Some(bytes.into())),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
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
        let part = OpenOptions::new()
            .write(true)
            .open(dir.path().join(BLOB_DIR).join(format!("{}.part", blob.hash)));
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
}
