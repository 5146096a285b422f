//! The audit log on disk: what this node and its operators did; the format is that of
//! [`omnimesh_protocol::observer::audit`].
//!
//! ```text
//! actors ── record ──► bounded queue ──► one thread: append, sync ──► <data-dir>/audit.log          (mode 0600)
//!                                                      then          ──► <data-dir>/audit.log.mark     where it begins and ends
//! ```
//!
//! Nobody waits for the disk: what finds the queue full is counted, and said by the next entry. When the log is opened it is
//! checked. An entry that a crash has cut off is taken away, which the next one says; a log that is damaged otherwise is
//! set aside as `audit.log.damaged-<time>`, and a new one begins by naming it; so also if somebody moves or changes the file
//! while the node runs. Entries older than the retention are dropped when the log is opened and once a day.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use omnimesh_protocol::observer::audit::{self, Action, Chain, Damage, Mark, Summary, Wrong};
use omnimesh_protocol::{Identity, NodeId, Step};

use crate::clock::wall_ms;
use crate::data_dir::{DataDirError, write_atomic};
use crate::words::precise_moment;

/// The file in the data directory.
pub const AUDIT_FILE: &str = "audit.log";
/// What the name of a log's mark ends with.
const MARK_SUFFIX: &str = ".mark";
/// Actions that wait for the disk. Source: guess; a node does a few in an hour.
const QUEUE: usize = 256;
/// Bytes of a log that is read: of longer ones, which no node writes, nothing is said.
const FILE_BYTES_MAX: u64 = 1 << 30;
const DAY_MS: u64 = 86_400_000;

/// A log of a node; cheap to clone. The file is closed when the last clone is dropped.
#[derive(Clone, Debug)]
pub(crate) struct AuditLog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    queue: Mutex<Option<SyncSender<Action>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    lost: Arc<AtomicU64>,
    written: Arc<AtomicU64>,
    /// The last detail of each kind that is written only when it changes.
    last: Mutex<Vec<(String, String)>>,
}

/// How long entries are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retention {
    /// Days; 0 for ever.
    pub(crate) days: u64,
}

impl Retention {
    fn since_ms(self, now_ms: u64) -> u64 {
        if self.days == 0 { 0 } else { now_ms.saturating_sub(self.days.saturating_mul(DAY_MS)) }
    }
}

impl AuditLog {
    /// Opens the log in a data directory, or begins one.
    pub(crate) fn open(dir: &Path, identity: Identity, retention: Retention) -> Result<Self, DataDirError> {
        let path = dir.join(AUDIT_FILE);
        let opened = Opened::read(&path, &identity, retention)?;
        let (queue, actions) = sync_channel(QUEUE);
        let (lost, written) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let last = opened.last.clone();
        let mut writer = Writer {
            path,
            opened,
            identity,
            retention,
            pruned_ms: wall_ms(),
            lost: Arc::clone(&lost),
            written: Arc::clone(&written),
        };
        writer.remark();
        writer.put_mark();
        let writer = thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writer.run(&actions))
            .map_err(|source| DataDirError::Io { action: "write", path: dir.join(AUDIT_FILE), source })?;
        let (queue, writer) = (Mutex::new(Some(queue)), Mutex::new(Some(writer)));
        Ok(AuditLog(Arc::new(Inner { queue, writer, lost, written, last: Mutex::new(last) })))
    }

    /// Writes down what was done, by whom (`node`, or `api`: who holds the token).
    pub(crate) fn record(&self, kind: &str, actor: &str, step: Option<Step>, detail: impl Into<String>) {
        let action = action(kind, actor, step, detail.into());
        let queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.as_ref().is_none_or(|queue| queue.try_send(action).is_err()) {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The same if it is not what the last entry of this kind says.
    pub(crate) fn record_change(&self, kind: &str, step: Option<Step>, detail: String) {
        let mut last = self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last.iter_mut().find(|(of, _)| of == kind);
        match known {
            Some((_, known)) if *known == detail => return,
            Some((_, known)) => known.clone_from(&detail),
            None => last.push((kind.to_owned(), detail.clone())),
        }
        drop(last);
        self.record(kind, "node", step, detail);
    }

    /// Entries written by this process, and actions that found no room.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.0.written.load(Ordering::Relaxed), self.0.lost.load(Ordering::Relaxed))
    }

    /// Writes what waits, and closes the file.
    pub(crate) fn close(&self) {
        drop(self.0.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let writer = self.0.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the writer of the audit log has failed");
        }
    }
}

fn action(kind: &str, actor: &str, step: Option<Step>, detail: String) -> Action {
    Action { time_ms: wall_ms(), step, kind: kind.to_owned(), actor: actor.to_owned(), detail }
}

/// A log as it was found, and goes on.
#[derive(Debug)]
struct Opened {
    file: File,
    /// Bytes of the file.
    length: u64,
    chain: Chain,
    /// The index of the first entry.
    first: u64,
    /// What the first new entry is to say.
    remark: Option<String>,
    last: Last,
}

impl Opened {
    fn read(path: &Path, identity: &Identity, retention: Retention) -> Result<Self, DataDirError> {
        let error = |action| move |source| DataDirError::Io { action, path: path.to_owned(), source };
        let node = identity.id();
        let marked = read_mark(path, &node).map_err(error("read"))?;
        let mark = marked.ok().flatten();
        let mut bytes = read_file(path).map_err(error("read"))?;
        let mut remark = match marked {
            Ok(Some(_)) => None,
            Ok(None) if bytes.is_empty() => None,
            Ok(None) => Some("there was no mark of where the log ends".to_owned()),
            Err(NotSigned) => Some("the mark of where the log ends was changed".to_owned()),
        };
        let (mut last, mut found) = check(&bytes, &node, mark.as_ref());
        if let Err(Damage { from, what: Wrong::CutOff, .. }) = &found {
            let from = *from;
            bytes.truncate(from);
            write_atomic(path, &bytes, 0o600)?;
            remark =
                Some(format!("the last entry was cut off at byte {from}, as by a crash, and taken away"));
            // The mark may know of it already, where a disk has lost what it said that it had.
            let rest = check(&bytes, &node, None).1.ok();
            let without = rest
                .zip(mark)
                .filter(|(rest, mark)| rest.next.checked_add(1) == Some(mark.next))
                .map(|(rest, mark)| Chain::after(&rest).mark(mark.first.min(rest.next)));
            (last, found) = check(&bytes, &node, without.or(mark).as_ref());
        }
        let summary = match found {
            Ok(summary) => summary,
            Err(damage) => {
                remark = Some(set_aside(path, &damage, bytes.is_empty()).map_err(error("set aside"))?);
                bytes.clear();
                last.clear();
                Summary { entries: 0, first: 0, next: 0, head: audit::GENESIS }
            }
        };
        let chain = Chain::after(&summary);
        let (old, dropped) = audit::older(&bytes, retention.since_ms(wall_ms()));
        let first = summary.first.saturating_add(dropped);
        if old > 0 {
            write_mark(path, &chain.mark(first), identity)?;
            write_atomic(path, bytes.get(old..).unwrap_or_default(), 0o600)?;
        }
        let file = open_file(path).map_err(error("open"))?;
        Ok(Opened { file, length: (bytes.len() - old) as u64, chain, first, remark, last })
    }

    /// Whether the file at this path is still this one, and nobody else has written to it.
    fn is_at(&self, path: &Path) -> bool {
        let (Ok(there), Ok(here)) = (fs::metadata(path), self.file.metadata()) else { return false };
        (there.dev(), there.ino(), there.len()) == (here.dev(), here.ino(), self.length)
    }
}

/// Makes room for a new log; what its first entry is to say.
fn set_aside(path: &Path, damage: &Damage, is_empty: bool) -> io::Result<String> {
    if is_empty {
        tracing::error!(%damage, "the audit log is gone");
        return Ok(format!("the log before is gone ({damage})"));
    }
    let aside = PathBuf::from(format!("{}.damaged-{}", path.display(), wall_ms()));
    fs::rename(path, &aside)?;
    tracing::error!(%damage, aside = %aside.display(), "the audit log is damaged and set aside");
    let name = aside.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(format!("the log before was damaged ({damage}) and is set aside as {name}"))
}

type Last = Vec<(String, String)>;

fn check(bytes: &[u8], node: &NodeId, mark: Option<&Mark>) -> (Last, Result<Summary, Damage>) {
    let mut last = Last::new();
    let found = audit::verify(bytes, node, mark, |entry| {
        let Action { kind, detail, .. } = entry.action;
        last.retain(|(of, _)| *of != kind);
        last.push((kind, detail));
    });
    (last, found)
}

/// What lies beside a log is no mark of this node.
#[derive(Clone, Copy, Debug)]
pub struct NotSigned;

/// The mark of a log, which is to be read before the log; none if there is no such file.
///
/// # Errors
/// If there is a file that cannot be read.
pub fn read_mark(log: &Path, node: &NodeId) -> io::Result<Result<Option<Mark>, NotSigned>> {
    let bytes = read_file(&mark_path(log))?;
    if bytes.is_empty() {
        return Ok(Ok(None));
    }
    Ok(Mark::open(&bytes, node).map(Some).ok_or(NotSigned))
}

fn write_mark(log: &Path, mark: &Mark, identity: &Identity) -> Result<(), DataDirError> {
    write_atomic(&mark_path(log), &mark.seal(identity), 0o600)
}

fn mark_path(log: &Path) -> PathBuf {
    let mut path = log.as_os_str().to_owned();
    path.push(MARK_SUFFIX);
    path.into()
}

/// The bytes of a log; none if there is no such file.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    match fs::metadata(path) {
        Ok(found) if found.len() > FILE_BYTES_MAX => Err(io::ErrorKind::FileTooLarge.into()),
        Ok(_) => fs::read(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The time of an entry as RFC 3339 writes it, in UTC.
pub fn time_of(time_ms: u64) -> String {
    precise_moment(time_ms)
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// The thread's own.
struct Writer {
    path: PathBuf,
    opened: Opened,
    identity: Identity,
    retention: Retention,
    pruned_ms: u64,
    lost: Arc<AtomicU64>,
    written: Arc<AtomicU64>,
}

impl Writer {
    fn run(mut self, actions: &Receiver<Action>) {
        let mut told = 0;
        while let Ok(action) = actions.recv() {
            self.write(&action);
            actions.try_iter().for_each(|action| self.write(&action));
            let lost = self.lost.load(Ordering::Relaxed);
            if lost > told {
                let detail = format!("{} actions before this one found no room in the queue", lost - told);
                self.write(&self::action("audit", "node", None, detail));
                told = lost;
            }
            self.put_mark();
            self.prune(wall_ms());
        }
    }

    /// Writes an entry, after what is to be said of the log first.
    fn write(&mut self, action: &Action) {
        if !self.opened.is_at(&self.path) {
            tracing::error!(path = %self.path.display(), "somebody has moved or changed the audit log");
            match Opened::read(&self.path, &self.identity, self.retention) {
                Ok(opened) => self.opened = opened,
                Err(error) => tracing::error!(%error, "cannot open the audit log anew"),
            }
            self.remark();
        }
        self.append(action);
    }

    fn remark(&mut self) {
        if let Some(detail) = self.opened.remark.take() {
            self.append(&action("audit", "node", None, detail));
        }
    }

    fn append(&mut self, action: &Action) {
        let Opened { file, length, chain, .. } = &mut self.opened;
        let mut after = *chain;
        let entry = after.append(&self.identity, action);
        match file.write_all(&entry).and_then(|()| file.sync_data()) {
            Ok(()) => {
                (*chain, *length) = (after, *length + entry.len() as u64);
                self.written.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::error!(%error, kind = action.kind, "cannot write the audit log");
                // A part of an entry would break the chain.
                if let Err(error) = file.set_len(*length) {
                    tracing::error!(%error, "nor take away a part of an entry");
                }
            }
        }
    }

    /// An older mark stands for less; a later one is put when there is something to write again.
    fn put_mark(&self) {
        let Opened { chain, first, .. } = &self.opened;
        if let Err(error) = write_mark(&self.path, &chain.mark(*first), &self.identity) {
            tracing::error!(%error, "cannot mark where the audit log ends");
        }
    }

    fn prune(&mut self, now_ms: u64) {
        if self.retention.days == 0 || now_ms.saturating_sub(self.pruned_ms) < DAY_MS {
            return;
        }
        self.pruned_ms = now_ms;
        match Opened::read(&self.path, &self.identity, self.retention) {
            Ok(opened) => self.opened = opened,
            Err(error) => tracing::error!(%error, "cannot drop old entries of the audit log"),
        }
        self.remark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity::from_seed(&[1; 32])
    }

    fn open(dir: &Path) -> AuditLog {
        AuditLog::open(dir, identity(), Retention { days: 90 }).unwrap()
    }

    fn entries(dir: &Path) -> Vec<(String, String)> {
        let mut entries = Vec::new();
        let bytes = fs::read(dir.join(AUDIT_FILE)).unwrap();
        let mark = read_mark(&dir.join(AUDIT_FILE), &identity().id()).unwrap().unwrap();
        audit::verify(&bytes, &identity().id(), mark.as_ref(), |entry| {
            entries.push((entry.action.kind, entry.action.detail));
        })
        .unwrap();
        entries
    }

    #[test]
    fn it_goes_on_where_it_ended() {
        let dir = tempfile::tempdir().unwrap();
        for run in 0..3 {
            let log = open(dir.path());
            log.record_change("config", None, format!("{}", run / 2));
            log.record("start", "node", Some(Step(run)), format!("run {run}"));
            log.close();
            log.record("late", "node", None, "nobody writes this");
            assert_eq!(log.counts().1, 1);
        }
        let kinds: Vec<String> = entries(dir.path()).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, ["config", "start", "start", "config", "start"]);
    }

    #[test]
    fn what_a_crash_cut_off_is_taken_away_and_damage_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(AUDIT_FILE);
        let log = open(dir.path());
        (0..3).for_each(|n| log.record("lift", "api", None, format!("{n}")));
        log.close();
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
        open(dir.path()).close();
        let found = entries(dir.path());
        assert_eq!(found.len(), 3);
        assert!(found[2].1.contains("cut off"), "{found:?}");

        let mut bytes = fs::read(&path).unwrap();
        bytes[60] ^= 1;
        fs::write(&path, &bytes).unwrap();
        open(dir.path()).close();
        let found = entries(dir.path());
        assert!(found.len() == 1 && found[0].1.contains("set aside as audit.log.damaged-"), "{found:?}");
        let aside = fs::read_dir(dir.path()).unwrap().flatten();
        assert_eq!(aside.filter(|file| fs::read(file.path()).unwrap() == bytes).count(), 1);
    }

    #[test]
    fn old_entries_are_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let mut chain = Chain::default();
        let old = |days: u64| Action {
            time_ms: wall_ms() - days * DAY_MS,
            ..action("lift", "api", None, String::new())
        };
        let file: Vec<u8> =
            [200, 91, 5].iter().flat_map(|days| chain.append(&identity(), &old(*days))).collect();
        fs::write(dir.path().join(AUDIT_FILE), file).unwrap();
        open(dir.path()).close();
        assert_eq!(entries(dir.path()).len(), 2, "the youngest, and that there was no mark");
        let log = AuditLog::open(dir.path(), identity(), Retention { days: 0 }).unwrap();
        log.record("lift", "api", None, "");
        log.close();
        assert_eq!(entries(dir.path()).len(), 3);
    }

    #[test]
    fn what_is_missing_at_an_end_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(AUDIT_FILE);
        let log = open(dir.path());
        (0..3).for_each(|n| log.record("lift", "api", None, format!("{n}")));
        log.close();
        let (whole, mark) = (fs::read(&path).unwrap(), fs::read(mark_path(&path)).unwrap());
        let entry = whole.len() / 3;
        for (left, said) in [
            (
                &whole[entry..],
                "entry 0 at bytes 0 to 0: this entry, or more from here on, was written and is missing",
            ),
            (&whole[..2 * entry], "entry 2 at bytes"),
            (&[], "the log before is gone"),
        ] {
            fs::write(&path, left).unwrap();
            fs::write(mark_path(&path), &mark).unwrap();
            open(dir.path()).close();
            let found = entries(dir.path());
            assert!(found.len() == 1 && found[0].1.contains(said), "{found:?}");
        }
    }

    #[test]
    fn a_log_that_is_moved_or_changed_while_it_is_open_is_missed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, aside) = (dir.path().join(AUDIT_FILE), dir.path().join("aside"));
        let log = open(dir.path());
        let written = |count: u64| {
            while log.counts().0 < count {
                thread::yield_now();
            }
        };
        log.record("lift", "api", None, "first");
        written(1);
        // Its mark is the last thing that is written.
        while !matches!(read_mark(&path, &identity().id()), Ok(Ok(Some(Mark { next: 1, .. })))) {
            thread::yield_now();
        }
        fs::rename(&path, &aside).unwrap();
        log.record("lift", "api", None, "second");
        written(3);
        fs::write(&path, "").unwrap();
        log.record("lift", "api", None, "third");
        log.close();
        let found = entries(dir.path());
        assert!(found.len() == 2 && found[0].1.starts_with("the log before is gone"), "{found:?}");
        assert_eq!(found[1].1, "third");
        let moved = audit::verify(&fs::read(aside).unwrap(), &identity().id(), None, |_| {}).unwrap();
        assert_eq!(moved.entries, 1, "nobody wrote on where it was moved to");
    }
}
