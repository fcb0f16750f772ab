//! The journal in a directory: segments that are appended to, and an index of them in memory.
//!
//! Everything here blocks on the disk. One thread at a time commits; reads go beside it.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, TryLockError};

use neuroflow_kernel::{Clock, MessageId};

use super::catalog::{Catalog, Chain};
use super::codec::{
    self, CALLED, FORMAT, Head, MORE, Position, RecordKind, SEGMENT_HEADER, SegmentHeader,
};
use super::index::Known;
use super::pace::Pace;
use super::scan::{Found, Placed, scan};
use super::segment::{Segment, numbers, sync_folder};
use super::snapshot::{self, Covers};
use super::store::{Findings, check};
use super::{Append, AppendError, DamageKind, JournalDamage, OpenError, ReadError, TaskLog};
use crate::limits::SEGMENT_BYTES;

/// A journal in a directory.
#[derive(Debug)]
pub(super) struct Embedded {
    folder: PathBuf,
    sync: bool,
    pub(super) catalog: RwLock<Catalog>,
    pub(super) segments: RwLock<BTreeMap<u32, Arc<Segment>>>,
    pub(super) writer: Mutex<Writer>,
    pub(super) pace: Pace,
    /// Shared by whoever works on it on a thread of its own.
    pub(super) work: Arc<tokio::sync::RwLock<()>>,
    /// Held while the journal is open, and released by the system when the process ends.
    _lock: File,
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

/// What an append becomes part of.
struct Standing {
    entries: u64,
    known: Option<Known<Chain>>,
}

impl Embedded {
    pub(super) fn open(folder: &Path, sync: bool) -> Result<(Self, Findings), OpenError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        // Tasks are nobody else's business.
        let mut private = fs::DirBuilder::new();
        private.recursive(true).mode(0o700).create(folder).map_err(failed(folder))?;
        let lock = lock(folder)?;
        check_format(folder, sync)?;
        let mut found = numbers(folder).map_err(failed(folder))?;
        let mut findings = Findings::default();
        let mut segments = BTreeMap::new();
        // A crash right after the birth of a segment leaves one without a header.
        if let Some(last) = found.last().copied() {
            let segment = Segment::open(folder, last).map_err(failed(folder))?;
            if segment.len().map_err(failed(segment.path()))? < SEGMENT_HEADER as u64 {
                segment.remove().map_err(failed(segment.path()))?;
                found.pop();
            }
        }
        let snapshot = snapshot::read(folder).filter(|(_, covers)| {
            let segment = Segment::open(folder, covers.segment);
            segment.and_then(|segment| segment.len()).is_ok_and(|len| covers.offset <= len)
        });
        findings.from_index = snapshot.is_some();
        let (mut catalog, covers) = snapshot.unzip();
        let mut catalog = catalog.take().unwrap_or_default();
        let mut end = SEGMENT_HEADER as u64;
        for (at, number) in found.iter().copied().enumerate() {
            let segment = Segment::open(folder, number).map_err(failed(folder))?;
            let last = at + 1 == found.len();
            let from = match covers {
                Some(covers) if number < covers.segment => None,
                Some(covers) if number == covers.segment => Some(covers.offset),
                _ => Some(SEGMENT_HEADER as u64),
            };
            end = segment.len().map_err(failed(segment.path()))?;
            let path = segment.path().to_owned();
            check_segment(&segment, &mut findings)?;
            if let Some(from) = from {
                let whole = replay(&segment, from, last, &mut catalog, &mut findings)
                    .map_err(failed(&path))?;
                if last && whole < end {
                    segment.cut(whole).and_then(|()| segment.sync()).map_err(failed(&path))?;
                    end = whole;
                }
            }
            segments.insert(number, Arc::new(segment));
        }
        let current = if let Some((_, segment)) = segments.last_key_value() {
            Arc::clone(segment)
        } else {
            let segment = Segment::create(folder, 1, sync).map_err(failed(folder))?;
            end = SEGMENT_HEADER as u64;
            let segment = Arc::new(segment);
            segments.insert(1, Arc::clone(&segment));
            segment
        };
        let journal = Self {
            folder: folder.to_owned(),
            sync,
            catalog: RwLock::new(catalog),
            segments: RwLock::new(segments),
            writer: Mutex::new(Writer { segment: current, end, broken: None, buffer: Vec::new() }),
            pace: Pace::default(),
            work: Arc::default(),
            _lock: lock,
        };
        Ok((journal, findings))
    }

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
        self.commit_with(self.writer(), batch, clock)
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
        Some(self.commit_with(writer, batch, clock))
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
        let mut writer = self.writer();
        self.make_room(&mut writer)?;
        let mut buffer = Vec::new();
        {
            let catalog = self.catalog();
            for (agent, task) in tasks {
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
                codec::write(&mut buffer, &head, &[]);
            }
        }
        self.write(&mut writer, &buffer)?;
        let mut catalog = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        Ok(tasks.iter().filter(|(agent, task)| catalog.remove(agent, task)).count())
    }

    /// Begins another segment if this one is as long as it may be.
    pub(super) fn make_room(&self, writer: &mut Writer) -> Result<(), AppendError> {
        if let Some(source) = &writer.broken {
            return Err(AppendError::Broken { source: Arc::clone(source) });
        }
        if writer.end < SEGMENT_BYTES {
            return Ok(());
        }
        let number = writer.segment.number + 1;
        let segment = Segment::create(&self.folder, number, self.sync).map_err(refused)?;
        let segment = Arc::new(segment);
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
        let len = codec::write(buffer, &record, entry.parcel.as_bytes());
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
fn refused(error: io::Error) -> AppendError {
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

fn lock(folder: &Path) -> Result<File, OpenError> {
    let path = folder.join(LOCK);
    let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let file = opened.map_err(|source| OpenError::Io { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            Err(OpenError::Locked { place: folder.display().to_string() })
        }
        Err(fs::TryLockError::Error(source)) => Err(OpenError::Io { path, source }),
    }
}

const LOCK: &str = "lock";
const MARKER: &str = "format";
const MARKER_WORDS: &str = "neuroflow journal";

/// Reads the marker of the whole directory, or writes it into an empty one.
fn check_format(folder: &Path, sync: bool) -> Result<(), OpenError> {
    let path = folder.join(MARKER);
    let known = u64::from(FORMAT);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let version = text.trim().strip_prefix(MARKER_WORDS).map(str::trim);
            match version.and_then(|version| version.parse::<u64>().ok()) {
                Some(found) if found == known => Ok(()),
                Some(found) => Err(OpenError::UnknownFormat {
                    place: path.display().to_string(),
                    found,
                    known,
                }),
                None => Err(OpenError::Foreign { path: folder.to_owned() }),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let failed = |source| OpenError::Io { path: folder.to_owned(), source };
            for entry in fs::read_dir(folder).map_err(failed)? {
                let name = entry.map_err(failed)?.file_name();
                if name != LOCK && name != MARKER_NEXT && name != "lost+found" {
                    return Err(OpenError::Foreign { path: folder.to_owned() });
                }
            }
            let next = folder.join(MARKER_NEXT);
            let made = fs::write(&next, format!("{MARKER_WORDS} {FORMAT}\n")).and_then(|()| {
                if sync {
                    File::open(&next)?.sync_all()?;
                }
                fs::rename(&next, &path)?;
                if sync { sync_folder(folder) } else { Ok(()) }
            });
            made.map_err(|source| OpenError::Io { path, source })
        }
        Err(source) => Err(OpenError::Io { path, source }),
    }
}

const MARKER_NEXT: &str = "format.next";

fn check_segment(segment: &Segment, findings: &mut Findings) -> Result<(), OpenError> {
    let place = || segment.path().display().to_string();
    let header = Position { segment: segment.number, offset: 0, len: 32 };
    let failed = |source| OpenError::Io { path: segment.path().to_owned(), source };
    let bytes = match segment.record(header) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Vec::new(),
        bytes => bytes.map_err(failed)?,
    };
    match codec::read_segment_header(&bytes) {
        SegmentHeader::Known { number } if number == segment.number => Ok(()),
        SegmentHeader::Version(found) => {
            let (found, known) = (u64::from(found), u64::from(FORMAT));
            Err(OpenError::UnknownFormat { place: place(), found, known })
        }
        // Its records have checksums of their own.
        SegmentHeader::Known { .. } | SegmentHeader::Damaged | SegmentHeader::Short => {
            findings.add(damage(segment.number, 0, SEGMENT_HEADER, DamageKind::Head));
            Ok(())
        }
    }
}

fn damage(segment: u32, offset: usize, bytes: usize, kind: DamageKind) -> JournalDamage {
    JournalDamage {
        place: format!("segment {segment}"),
        offset: offset as u64,
        bytes: bytes as u64,
        kind,
        agent: None,
        task: None,
        number: None,
        generation: None,
    }
}

/// The damage of a record whose head can be read.
pub(super) fn damage_of(segment: u32, placed: &Placed<'_>, kind: DamageKind) -> JournalDamage {
    let (offset, record) = placed;
    JournalDamage {
        agent: Some(record.head.agent.to_owned()),
        task: Some(record.head.task.to_owned()),
        number: Some(record.head.number),
        generation: Some(record.head.generation),
        ..damage(segment, *offset, record.len, kind)
    }
}

/// Takes a segment's appends into the index. Returns the offset behind the last whole one.
fn replay(
    segment: &Segment,
    from: u64,
    last: bool,
    catalog: &mut Catalog,
    findings: &mut Findings,
) -> io::Result<u64> {
    let bytes = segment.bytes()?;
    let number = segment.number;
    let from = usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len());
    let whole = scan(&bytes, from, last, |found| match found {
        Found::Append(group) => {
            if let Some(missing) = catalog.replay(number, group) {
                findings.add(missing);
            }
            for placed in group.iter().filter(|(_, record)| record.body.is_none()) {
                findings.add(damage_of(number, placed, DamageKind::Content));
            }
        }
        Found::Damage { offset, bytes } => {
            findings.add(damage(number, offset, bytes, DamageKind::Head));
        }
        Found::Torn { offset, bytes, known } => {
            let torn = damage(number, offset, bytes, DamageKind::TornTail);
            findings.add(match known.first() {
                Some(placed) => {
                    let of = damage_of(number, placed, DamageKind::TornTail);
                    JournalDamage { offset: torn.offset, bytes: torn.bytes, ..of }
                }
                None => torn,
            });
        }
    });
    Ok(whole as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

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
