//! Small contents, many in a file: a file of its own for each costs more than what is in it.
//!
//! ```text
//!   blobs/pack-N   record ‖ record ‖ …
//!   record         is it there? (1 or 2) ‖ length u16 ‖ hash (32) ‖ content
//! ```
//!
//! Records are added at the end of the last pack; one that goes is marked in its place. A pack that is half empty is
//! given up, and what is left of it added again. So packs take at most twice what is in them, and one pack more.
//!
//! Nothing is synced. A record that a crash cut short ends its pack; what is not what its hash says is the reader's to
//! notice.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use omnimesh_protocol::Hash;
use omnimesh_protocol::compute::wire::CONTENT_BYTES_MAX;

/// What a pack's name begins with.
const PREFIX: &str = "pack-";
/// A pack that is as long takes no more. Default: guess; what is moved at once when half of it has gone.
const PACK_BYTES: u64 = 4 << 20;
const HEADER_BYTES: usize = 1 + 2 + 32;
const THERE: u8 = 1;
const GONE: u8 = 2;

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pack: u64,
    at: u64,
    length: u16,
}

impl Place {
    /// Bytes of content.
    pub(super) fn size(self) -> u64 {
        u64::from(self.length)
    }

    fn record_bytes(self) -> u64 {
        HEADER_BYTES as u64 + self.size()
    }
}

/// Whether content of this length goes into a pack.
pub(super) fn is_small(length: usize) -> bool {
    length <= CONTENT_BYTES_MAX
}

/// All packs of a directory.
#[derive(Debug)]
pub(super) struct Packs {
    dir: PathBuf,
    packs: BTreeMap<u64, Pack>,
    /// The last one, open.
    last: Option<(u64, File)>,
    /// Those to be given up.
    sparse: Vec<u64>,
}

#[derive(Debug, Default)]
struct Pack {
    end: u64,
    /// Bytes of records that are there.
    there: u64,
}

impl Pack {
    fn is_sparse(&self) -> bool {
        self.there.saturating_mul(2) <= self.end
    }
}

/// A record as it was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) hash: Hash,
    pub(super) place: Place,
    /// When its pack was written last.
    pub(super) modified: SystemTime,
}

/// The number of a pack, by the name of its file.
pub(super) fn number_of(name: &str) -> Option<u64> {
    // Others, such as `pack-07`, are not ours.
    let number: u32 = name.strip_prefix(PREFIX)?.parse().ok()?;
    (name == format!("{PREFIX}{number}")).then_some(number.into())
}

impl Packs {
    pub(super) fn new(dir: &Path) -> Self {
        Packs { dir: dir.into(), packs: BTreeMap::new(), last: None, sparse: Vec::new() }
    }

    /// Takes a pack in that was found, and says what is in it, in the order in which it came. What a crash cut short
    /// is cut off.
    ///
    /// # Errors
    /// If it cannot be read or cut.
    pub(super) fn load(&mut self, number: u64) -> io::Result<Vec<Found>> {
        let path = self.path(number);
        let modified = path.metadata()?.modified()?;
        let bytes = fs::read(&path)?;
        let mut found = Vec::new();
        let end = records(&bytes, number, |hash, place| found.push(Found { hash, place, modified }));
        if end < bytes.len() as u64 {
            OpenOptions::new().write(true).open(&path)?.set_len(end)?;
        }
        let there = found.iter().map(|found| found.place.record_bytes()).sum();
        let pack = Pack { end, there };
        if pack.is_sparse() {
            self.sparse.push(number);
        }
        self.packs.insert(number, pack);
        if there == 0 {
            self.give_up(number)?;
        }
        Ok(found)
    }

    /// Adds a record. It is for the caller that its content has this hash, and is small.
    ///
    /// # Errors
    /// If the disk fails; nothing is added then.
    pub(super) fn add(&mut self, hash: &Hash, content: &[u8]) -> io::Result<Place> {
        let number = match self.packs.last_key_value() {
            Some((number, pack)) if pack.end < PACK_BYTES => *number,
            Some((number, pack)) => {
                if pack.is_sparse() {
                    self.sparse.push(*number);
                }
                number + 1
            }
            None => 0,
        };
        if self.last.as_ref().is_none_or(|(last, _)| *last != number) {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .read(true)
                .open(self.path(number))?;
            self.last = Some((number, file));
        }
        let pack = self.packs.entry(number).or_default();
        let length = u16::try_from(content.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let place = Place { pack: number, at: pack.end, length };
        let mut record = Vec::with_capacity(HEADER_BYTES + content.len());
        record.push(THERE);
        record.extend_from_slice(&length.to_le_bytes());
        record.extend_from_slice(hash.as_bytes());
        record.extend_from_slice(content);
        if let Some((_, file)) = &self.last {
            file.write_all_at(&record, place.at)?;
        }
        pack.end += record.len() as u64;
        pack.there += record.len() as u64;
        Ok(place)
    }

    /// The content of a record. Whether it is what it should be is for the caller to see.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn read(&self, place: Place) -> io::Result<Bytes> {
        let mut bytes = vec![0; usize::from(place.length)];
        let at = place.at + HEADER_BYTES as u64;
        match &self.last {
            Some((number, file)) if *number == place.pack => file.read_exact_at(&mut bytes, at)?,
            _ => File::open(self.path(place.pack))?.read_exact_at(&mut bytes, at)?,
        }
        Ok(bytes.into())
    }

    /// Marks a record as gone.
    ///
    /// # Errors
    /// If the disk fails; then the record is back after a restart.
    pub(super) fn remove(&mut self, place: Place) -> io::Result<()> {
        let Some(pack) = self.packs.get_mut(&place.pack) else { return Ok(()) };
        pack.there = pack.there.saturating_sub(place.record_bytes());
        if pack.there == 0 {
            return self.give_up(place.pack);
        }
        if pack.is_sparse() {
            self.sparse.push(place.pack);
        }
        match &self.last {
            Some((number, file)) if *number == place.pack => file.write_all_at(&[GONE], place.at),
            _ => OpenOptions::new().write(true).open(self.path(place.pack))?.write_all_at(&[GONE], place.at),
        }
    }

    /// Moves what is left of packs that are half empty, and says where it is now.
    ///
    /// # Errors
    /// If the disk fails; what was not moved is where it was.
    pub(super) fn tidy(&mut self) -> io::Result<Vec<(Hash, Place)>> {
        let mut moved = Vec::new();
        while let Some(number) = self.sparse.pop() {
            // The last one still fills; it is looked at again when the next one begins.
            if self.packs.contains_key(&number)
                && self.packs.last_key_value().is_some_and(|(last, _)| *last != number)
            {
                self.move_all(number, &mut moved)?;
            }
        }
        Ok(moved)
    }

    /// Adds what is left of a pack again, and gives it up.
    fn move_all(&mut self, number: u64, moved: &mut Vec<(Hash, Place)>) -> io::Result<()> {
        let bytes = fs::read(self.path(number))?;
        let mut left = Vec::new();
        records(&bytes, number, |hash, place| left.push((hash, place)));
        for (hash, place) in left {
            let begin = usize::try_from(place.at).unwrap_or(usize::MAX).saturating_add(HEADER_BYTES);
            let content = bytes.get(begin..).and_then(|bytes| bytes.get(..usize::from(place.length)));
            moved.push((hash, self.add(&hash, content.unwrap_or_default())?));
        }
        self.give_up(number)
    }

    fn give_up(&mut self, number: u64) -> io::Result<()> {
        self.last.take_if(|(last, _)| *last == number);
        self.packs.remove(&number);
        match fs::remove_file(self.path(number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{PREFIX}{number}"))
    }
}

/// Goes through the records that are there, and says where the last good one ends, there or gone.
fn records(bytes: &[u8], pack: u64, mut each: impl FnMut(Hash, Place)) -> u64 {
    let mut rest = bytes;
    let mut at = 0;
    while let Some((hash, length, is_there, behind)) = split_record(rest) {
        let place = Place { pack, at, length };
        if is_there {
            each(hash, place);
        }
        at += place.record_bytes();
        rest = behind;
    }
    at
}

fn split_record(bytes: &[u8]) -> Option<(Hash, u16, bool, &[u8])> {
    let (&[mark, low, high], rest) = bytes.split_first_chunk()?;
    let (hash, rest) = rest.split_first_chunk::<32>()?;
    let length = u16::from_le_bytes([low, high]);
    let behind = rest.get(usize::from(length)..)?;
    let is_sound = matches!(mark, THERE | GONE) && is_small(length.into());
    is_sound.then_some((Hash::from_bytes(*hash), length, mark == THERE, behind))
}
