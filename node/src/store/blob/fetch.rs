//! Content that comes from other nodes, group by group.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use omnimesh_protocol::Hash;
use omnimesh_protocol::compute::BlobRef;
use omnimesh_protocol::compute::blob::{GROUP_BYTES, Groups, Outline, groups_of};

use super::{BlobError, BlobStore, Entry, read_group};

impl BlobStore {
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
        self.make_room(&mut inner, blob, 1)?;
        let size = blob.size;
        let entry = inner.entries.entry(blob.hash).or_insert_with(|| Entry::new(size, Groups::none(size)));
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
        if self.whole(hash).is_some() {
            return Ok(());
        }
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
        fs::rename(part, self.whole_path(hash))
    }
}
