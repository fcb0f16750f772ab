//! The journal in a directory: segments that are appended to, and an index of them in memory.
//!
//! Everything here blocks on the disk. One thread at a time commits; reads go beside it. How a directory is
//! opened is in `opening.rs`.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, TryLockError};

use neuroflow_kernel::{Clock, MessageId};

use super::catalog::{Catalog, Chain};
use super::codec::{self, CALLED, Head, MORE, Position, RecordKind};
use super::condition::{Condition, try_room};
use super::heading::SEGMENT_HEADER;
use super::index::Known;
use super::pace::Pace;
use super::reserve::Reserve;
use super::segment::Segment;
use super::snapshot::{self, Covers};
use super::store::check;
use super::{Append, AppendError, ReadError, TaskLog};
use crate::lock::FileLock;

/// A journal in a directory.
#[derive(Debug)]
pub(super) struct Embedded {
    pub(super) folder: PathBuf,
    pub(super) sync: bool,
    pub(super) segment_bytes: u64,
    pub(super) catalog: RwLock<Catalog>,
    pub(super) segments: RwLock<BTreeMap<u32, Arc<Segment>>>,
    pub(super) writer: Mutex<Writer>,
    pub(super) pace: Pace,
    pub(super) condition: Condition,
    pub(super) reserve: Reserve,
    /// Shared by whoever works on it on a thread of its own.
    pub(super) work: Arc<tokio::sync::RwLock<()>>,
    /// Held while the journal is open, and released by the system when the process ends.
    pub(super) _lock: FileLock,
}

/// The end of the log.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) segment: Arc<Segment>,
    end: u64,
    /// Once the disk has failed to flush, nobody knows what it has.
    broken: Option<Arc<io::Error>>,
    buffer: Vec<u8>,
}

impl Writer {
    /// Goes on behind this offset.
    pub(super) fn at(segment: Arc<Segment>, end: u64) -> Self {
        Self { segment, end, broken: None, buffer: Vec::new() }
    }
}

/// What an append becomes part of.
struct Standing {
    entries: u64,
    known: Option<Known<Chain>>,
}

impl Embedded {
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn catalog(&self) -> RwLockReadGuard<'_, Catalog> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn segment(&self, number: u32) -> Option<Arc<Segment>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }

    /// Appends all that fit, in order, with one write and one flush.
    pub(super) fn commit(&self, batch: &[Append], clock: &Clock) -> Vec<Result<(), AppendError>> {
        self.counted(self.commit_with(self.writer(), batch, clock))
    }

    /// The same, unless another one would have to be waited for.
    pub(super) fn try_commit(
        &self,
        batch: &[Append],
        clock: &Clock,
    ) -> Option<Vec<Result<(), AppendError>>> {
        let writer = match self.writer.try_lock() {
            Ok(writer) => writer,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(self.counted(self.commit_with(writer, batch, clock)))
    }

    fn counted(&self, answers: Vec<Result<(), AppendError>>) -> Vec<Result<(), AppendError>> {
        for refused in answers.iter().filter_map(|answer| answer.as_ref().err()) {
            self.condition.refuse(refused.code(), 1);
        }
        answers
    }

    fn commit_with(
        &self,
        mut writer: MutexGuard<'_, Writer>,
        batch: &[Append],
        clock: &Clock,
    ) -> Vec<Result<(), AppendError>> {
        let begun = clock.now();
        if let Err(error) = self.make_room(&mut writer) {
            return vec![Err(error); batch.len()];
        }
        let mut standing: HashMap<(&str, &str), Standing> = HashMap::new();
        let mut answers = Vec::with_capacity(batch.len());
        let mut buffer = std::mem::take(&mut writer.buffer);
        buffer.clear();
        for append in batch {
            let head = &append.head;
            let task = (head.agent.as_str(), head.task.as_str());
            let stands = standing.entry(task).or_insert_with(|| {
                let known = self.catalog().index.get(task.0, task.1).cloned();
                Standing { entries: known.as_ref().map_or(0, |known| known.entries), known }
            });
            let (expected, found) = (head.entries, stands.entries);
            let known = expected == found;
            let fits = check(append).and_then(|()| {
                known.then_some(()).ok_or(AppendError::Conflict { expected, found })
            });
            if fits.is_ok() {
                add(&mut buffer, append, stands, &writer);
            }
            answers.push(fits);
        }
        let written = self.write(&mut writer, &buffer);
        buffer.shrink_to(BUFFER_KEPT);
        writer.buffer = buffer;
        match written {
            Ok(()) => {
                let mut catalog = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
                for ((agent, task), stands) in standing {
                    if let Some(known) = stands.known {
                        catalog.put(agent, task, known);
                    }
                }
            }
            Err(error) => {
                for answer in answers.iter_mut().filter(|answer| answer.is_ok()) {
                    *answer = Err(error.clone());
                }
            }
        }
        self.pace.took(clock.now().since(begun));
        answers
    }

    /// Removes tasks: marks them in the log, so that they stay removed. Says how many there were.
    pub(super) fn remove(&self, tasks: &[(String, String)]) -> Result<usize, AppendError> {
        self.mark_removed(&mut self.writer(), tasks, usize::MAX)
    }

    /// The same for those of them whose marks have no more than about `most` bytes.
    pub(super) fn mark_removed(
        &self,
        writer: &mut Writer,
        tasks: &[(String, String)],
        most: usize,
    ) -> Result<usize, AppendError> {
        self.make_room(writer)?;
        let (mut buffer, mut marked) = (Vec::new(), Vec::new());
        {
            let catalog = self.catalog();
            for (agent, task) in tasks {
                if buffer.len() >= most {
                    break;
                }
                let Some(known) = catalog.index.get(agent, task) else { continue };
                let head = Head {
                    kind: RecordKind::Removed,
                    flags: 0,
                    state: known.state,
                    message: MessageId::from(0),
                    version: 0,
                    number: known.entries,
                    generation: known.generation,
                    at_ms: known.at_ms,
                    previous: known.place.last,
                    agent,
                    task,
                    context: "",
                    caller: "",
                    key: "",
                };
                codec::write(&mut buffer, writer.segment.salt, &head, &[]);
                marked.push((agent, task));
            }
        }
        self.write(writer, &buffer)?;
        let mut catalog = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        Ok(marked.into_iter().filter(|(agent, task)| catalog.remove(agent, task)).count())
    }

    /// Begins another segment if this one is as long as it may be.
    pub(super) fn make_room(&self, writer: &mut Writer) -> Result<(), AppendError> {
        if let Some(source) = &writer.broken {
            let error = AppendError::Broken { source: Arc::clone(source) };
            return Err(self.fallen(error));
        }
        if writer.end < self.segment_bytes {
            return Ok(());
        }
        let number = writer.segment.number + 1;
        let segment = Segment::create(&self.folder, number, self.sync).map_err(refused);
        let segment = Arc::new(segment.map_err(|error| self.fallen(error))?);
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        segments.insert(number, Arc::clone(&segment));
        writer.segment = segment;
        writer.end = SEGMENT_HEADER as u64;
        Ok(())
    }

    /// Writes behind the end. What can't be written leaves no trace.
    pub(super) fn write(&self, writer: &mut Writer, bytes: &[u8]) -> Result<(), AppendError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.put(writer, bytes).map_err(|error| self.fallen(error))?;
        self.condition.took();
        Ok(())
    }

    fn fallen(&self, error: AppendError) -> AppendError {
        if let Some(trouble) = error.trouble() {
            self.condition.fell(trouble, &error);
        }
        error
    }

    /// Looks whether there is room again. What has failed to flush stays as it is.
    pub(super) fn probe(&self) {
        let is_broken = self.writer().broken.is_some();
        if !is_broken && try_room(&self.folder.join("room")).is_ok() {
            self.condition.took();
        }
    }

    fn put(&self, writer: &mut Writer, bytes: &[u8]) -> Result<(), AppendError> {
        if let Err(error) = writer.segment.write(bytes, writer.end) {
            let cut = writer.segment.cut(writer.end).and_then(|()| writer.segment.sync());
            return Err(match cut {
                Ok(()) => refused(error),
                Err(_uncut) => unflushed(error, writer),
            });
        }
        if self.sync
            && let Err(error) = writer.segment.sync()
        {
            // The system says so once: another flush would succeed, whatever became of the bytes.
            if let Err(error) = writer.segment.cut(writer.end) {
                tracing::error!(error = &error as &dyn std::error::Error, "the journal isn't cut");
            }
            return Err(unflushed(error, writer));
        }
        writer.end += bytes.len() as u64;
        Ok(())
    }

    /// A place right behind the end, `written` bytes further on.
    pub(super) fn place(writer: &Writer, written: usize, len: u32) -> Position {
        let offset = writer.end + written as u64;
        // A segment is far below 4 GiB: `make_room` sees to it, and appends are bounded.
        let offset = u32::try_from(offset).unwrap_or(u32::MAX);
        Position { segment: writer.segment.number, offset, len }
    }

    /// Writes the index, so that the next start reads less.
    pub(super) fn snapshot(&self) -> io::Result<()> {
        let bytes = {
            let writer = self.writer();
            let covers = Covers { segment: writer.segment.number, offset: writer.end };
            // Without the writer's lock an append could be in the index and behind the place that
            // it covers.
            snapshot::encode(&self.catalog().index, covers)
        };
        snapshot::write(&self.folder, &bytes)
    }

    /// A task's log; none if there is no such task.
    pub(super) fn read(&self, agent: &str, task: &str) -> Result<Option<TaskLog>, ReadError> {
        let mut before: Option<Chain> = None;
        loop {
            let (head, chain) = {
                let catalog = self.catalog();
                let Some(known) = catalog.index.get(agent, task) else { return Ok(None) };
                let Some(head) = catalog.index.head(agent, task) else { return Ok(None) };
                (head, known.place.clone())
            };
            let log = super::reclaim::read_chain(self, head, &chain)?;
            // A task that is moved while it's read isn't damaged.
            if log.damage.is_empty() || before.as_ref() == Some(&chain) {
                return Ok(Some(log));
            }
            before = Some(chain);
        }
    }
}

/// A commit's buffer is kept for the next one up to this many bytes.
const BUFFER_KEPT: usize = 1024 * 1024;

fn add(buffer: &mut Vec<u8>, append: &Append, stands: &mut Standing, writer: &Writer) {
    let head = &append.head;
    let mut known = stands.known.take().unwrap_or_else(|| Known {
        context: head.context.as_str().into(),
        caller: head.caller.as_deref().map(Into::into),
        state: head.state,
        at_ms: head.changed_ms,
        generation: 0,
        entries: 0,
        bytes: 0,
        place: Chain::default(),
    });
    let last = append.entries.len();
    for (at, entry) in append.entries.iter().enumerate() {
        let first = known.entries == 0;
        let called = if first && head.caller.is_some() { CALLED } else { 0 };
        let record = Head {
            kind: RecordKind::Entry(entry.kind),
            flags: (if at + 1 < last { MORE } else { 0 }) | called,
            state: head.state,
            message: entry.parcel.message(),
            version: entry.parcel.version(),
            number: known.entries + 1,
            generation: head.generation,
            at_ms: head.changed_ms,
            previous: known.place.last,
            agent: &head.agent,
            task: &head.task,
            context: if first { &head.context } else { "" },
            caller: if first { head.caller.as_deref().unwrap_or_default() } else { "" },
            key: &entry.key,
        };
        let written = buffer.len();
        let len = codec::write(buffer, writer.segment.salt, &record, entry.parcel.as_bytes());
        known.place.add(Embedded::place(writer, written, len));
        known.entries += 1;
        known.bytes += u64::from(len);
    }
    known.state = head.state;
    known.at_ms = head.changed_ms;
    known.generation = head.generation;
    stands.entries = known.entries;
    stands.known = Some(known);
}

/// What a write means that has failed and left nothing.
pub(super) fn refused(error: io::Error) -> AppendError {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let source = Arc::new(error);
    if full { AppendError::DiskFull { source } } else { AppendError::Io { source } }
}

/// What a write means that has failed and couldn't be taken back for certain: it's the last one.
fn unflushed(error: io::Error, writer: &mut Writer) -> AppendError {
    let source = Arc::new(error);
    writer.broken = Some(Arc::clone(&source));
    AppendError::Unflushed { source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::SEGMENT_BYTES;

    #[test]
    fn a_disk_that_has_failed_to_flush_stays_in_trouble_and_a_full_one_does_not() {
        let folder = std::env::temp_dir().join(format!("trouble-{}", uuid::Uuid::new_v4()));
        let (journal, _) = Embedded::open(&folder, false, SEGMENT_BYTES).unwrap();
        let full = refused(io::ErrorKind::StorageFull.into());
        journal.fallen(full);
        assert_eq!(journal.condition.trouble(), Some("disk_full"));
        journal.probe();
        assert_eq!(journal.condition.trouble(), None, "there is room");
        journal.writer().broken = Some(Arc::new(io::Error::other("flush")));
        journal.remove(&[("echo".to_owned(), "t".to_owned())]).unwrap_err();
        journal.probe();
        assert_eq!(journal.condition.trouble(), Some("broken"));
        drop(journal);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_write_that_left_nothing_can_be_tried_again() {
        let without_descriptors = refused(io::Error::other("too many open files"));
        assert!(matches!(without_descriptors, AppendError::Io { .. }));
        let full = refused(io::ErrorKind::StorageFull.into());
        assert!(matches!(full, AppendError::DiskFull { .. }));
        for error in [without_descriptors, full] {
            assert!(error.is_retryable() && !error.is_unknown(), "{error}");
        }
    }
}
