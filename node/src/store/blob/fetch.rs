//! Content that comes from other nodes, group by group.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use omnimesh_protocol::Hash;
use omnimesh_protocol::compute::BlobRef;
use omnimesh_protocol::compute::blob::{GROUP_BYTES, Groups, Outline, groups_of};

use super::{BlobError, BlobStore, Entry, Inner, read_group};

impl BlobStore {
    /// Makes room for a blob that is to be fetched, and says which groups of it are here: those that are what they
    /// should be. It stays until [`BlobStore::end_fetch`].
    ///
    /// The length may be anybody's claim: for another one nothing is given up but an unpinned part.
    ///
    /// # Errors
    /// If there is no room, the disk fails, or what is here has another length.
    pub fn begin_fetch(&self, blob: BlobRef) -> Result<(Groups, Option<Arc<Outline>>), BlobError> {
        let is_good = self.is_good_otherwise(&blob)?;
        let outline = self.outline(&blob.hash)?.filter(|outline| outline.blob() == blob);
        // What came since the start was checked when it came.
        let is_known = self.lock().entries.get(&blob.hash).is_some_and(|entry| entry.here() > 0);
        let outlined = outline.as_deref().filter(|_| !is_known);
        let there = outlined.map(|outline| self.check_part(outline)).transpose()?;
        let mut inner = self.lock();
        self.make_room_for_claim(&mut inner, blob, is_good)?;
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

    /// Whether something of the blob is here with another length, and is what it should be.
    fn is_good_otherwise(&self, blob: &BlobRef) -> Result<bool, BlobError> {
        let Some(here) = self.view(&blob.hash).filter(|here| here.blob.size != blob.size) else {
            return Ok(false);
        };
        if self.whole(&blob.hash).is_some() {
            // The last group is where it should be in a blob of one length only.
            match self.group(&blob.hash, groups_of(here.blob.size) - 1) {
                Ok(Some(_)) => return Ok(true),
                Ok(None) | Err(BlobError::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        // What was damaged, or is not known since the start, may have good groups.
        let is_known = self.view(&blob.hash).is_some_and(|here| here.here > 0);
        let outline = if is_known { None } else { self.outline(&blob.hash)? };
        let there = outline.map(|outline| self.check_part(&outline)).transpose()?;
        Ok(is_known
            || there.is_some_and(|there| (0..groups_of(here.blob.size)).any(|group| there.contains(group))))
    }

    /// Enters a blob of which somebody says that it has this length, pinned once.
    fn make_room_for_claim(&self, inner: &mut Inner, blob: BlobRef, is_good: bool) -> Result<(), BlobError> {
        if let Some(entry) = inner.entries.get(&blob.hash).filter(|entry| entry.size != blob.size) {
            let stays = entry.is_whole() || entry.fetches > 0 || (entry.is_pinned && is_good);
            if stays {
                let (hash, size, claimed) = (blob.hash, entry.size, blob.size);
                return Err(BlobError::WrongSize { hash, size, claimed });
            }
            return self.replace(inner, blob, 1);
        }
        let gone = inner.books.insert(blob, 1)?;
        self.delete(inner, &gone);
        Ok(())
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
        if entry.fetches == 0 {
            // Replaced while it was fetched: the pins are those of others.
            return Ok(entry.is_whole());
        }
        entry.fetches -= 1;
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
