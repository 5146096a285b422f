//! Content on its way in.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use omnimesh_protocol::compute::BlobRef;
use omnimesh_protocol::compute::blob::{CacheError, GROUP_BYTES, Groups, OutlineBuilder};

use super::{BlobError, BlobStore, Entry, pack, read_full, remove};

impl BlobStore {
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
        if pack::is_small(output.len()) {
            return self.put_small(output);
        }
        let mut putting = self.begin_put()?;
        putting.is_durable = false;
        putting.write(output)?;
        putting.finish(false)
    }

    fn put_small(&self, content: &[u8]) -> Result<BlobRef, BlobError> {
        let blob = BlobRef::of(content);
        let mut inner = self.lock();
        self.make_room(&mut inner, blob)?;
        let there = inner.entries.get(&blob.hash).map(Entry::is_whole);
        if there == Some(true) {
            return Ok(blob);
        }
        let place = match inner.packs.add(&blob.hash, content) {
            Ok(place) => place,
            Err(error) => {
                if there.is_none() {
                    inner.books.remove(&blob.hash);
                }
                return Err(self.failed(error));
            }
        };
        if there.is_some() {
            remove(&self.path(&blob.hash, "part"));
        }
        let entry = inner.entries.entry(blob.hash).or_insert_with(|| Entry::new(0, Groups::All));
        (entry.size, entry.groups, entry.packed) = (blob.size, Groups::All, Some(place));
        inner.tidy();
        Ok(blob)
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
            store.make_room(&mut inner, blob)?;
            fs::rename(&self.path, store.whole_path(&blob.hash)).map_err(|error| store.failed(error))?;
            self.is_done = true;
            let entry = inner.entries.entry(blob.hash).or_insert_with(|| Entry::new(0, Groups::All));
            (entry.size, entry.groups) = (blob.size, Groups::All);
            let packed = entry.packed.take();
            packed.into_iter().for_each(|place| inner.remove_packed(place));
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
