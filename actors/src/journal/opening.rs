//! How a journal in a directory is opened: who may, in which format it is, and what its segments say since the
//! index was written. What is damaged is found here, and kept out of the index.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};

use super::catalog::Catalog;
use super::codec::Position;
use super::condition::Condition;
use super::embedded::{Embedded, Writer};
use super::heading::{
    FORMAT, SEGMENT_HEADER, SegmentHeader, UNSALTED, read_segment_header, recovered_salt,
};
use super::pace::Pace;
use super::reserve::Reserve;
use super::scan::{Found, Placed, scan};
use super::segment::{Segment, numbers, sync_folder};
use super::snapshot;
use super::store::Findings;
use super::{DamageKind, JournalDamage, OpenError};
use crate::lock::FileLock;

impl Embedded {
    pub(super) fn open(
        folder: &Path,
        sync: bool,
        segment_bytes: u64,
    ) -> Result<(Self, Findings), OpenError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        // Tasks are nobody else's business.
        let mut private = fs::DirBuilder::new();
        private.recursive(true).mode(0o700).create(folder).map_err(failed(folder))?;
        let lock = lock(folder)?;
        let format = check_format(folder, sync)?;
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
        let mut is_sound = false;
        let mut unsure = Unsure::new();
        for (at, number) in found.iter().copied().enumerate() {
            let mut segment = Segment::open(folder, number).map_err(failed(folder))?;
            let last = at + 1 == found.len();
            let from = match covers {
                Some(covers) if number < covers.segment => None,
                Some(covers) if number == covers.segment => Some(covers.offset),
                _ => Some(SEGMENT_HEADER as u64),
            };
            end = segment.len().map_err(failed(segment.path()))?;
            let path = segment.path().to_owned();
            is_sound = check_segment(&mut segment, &mut findings)?;
            if let Some(from) = from {
                let found = (&mut findings, &mut unsure);
                let whole =
                    replay(&segment, from, last, &mut catalog, found).map_err(failed(&path))?;
                if last && whole < end {
                    segment.cut(whole).and_then(|()| segment.sync()).map_err(failed(&path))?;
                    end = whole;
                }
            }
            segments.insert(number, Arc::new(segment));
        }
        unsure.into_values().flatten().for_each(|missing| findings.add(missing));
        if let Some(first) = found.first() {
            catalog.forget_before(*first);
        }
        let before = segments.last_key_value();
        let sound = before.filter(|(_, last)| is_sound && !last.salt.is_none());
        let current = if let Some((_, last)) = sound {
            Arc::clone(last)
        } else {
            // What is written from now on has a salt, and a header that says so.
            if format < FORMAT {
                write_format(folder, sync)?;
            }
            let number = before.map_or(1, |(number, _)| number.saturating_add(1));
            let fresh = Segment::create(folder, number, sync).map_err(failed(folder))?;
            let fresh = Arc::new(fresh);
            end = SEGMENT_HEADER as u64;
            segments.insert(number, Arc::clone(&fresh));
            fresh
        };
        let journal = Self {
            folder: folder.to_owned(),
            sync,
            segment_bytes,
            catalog: RwLock::new(catalog),
            segments: RwLock::new(segments),
            writer: Mutex::new(Writer::at(current, end)),
            pace: Pace::default(),
            condition: Condition::new("journal"),
            reserve: Reserve::of(folder),
            work: Arc::default(),
            _lock: lock,
        };
        Ok((journal, findings))
    }
}

fn lock(folder: &Path) -> Result<FileLock, OpenError> {
    let path = folder.join(LOCK);
    let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let file = opened.map_err(|source| OpenError::Io { path: path.clone(), source })?;
    FileLock::take(file).map_err(|error| match error {
        fs::TryLockError::WouldBlock => OpenError::Locked { place: folder.display().to_string() },
        fs::TryLockError::Error(source) => OpenError::Io { path, source },
    })
}

const LOCK: &str = "lock";
const MARKER: &str = "format";
const MARKER_WORDS: &str = "neuroflow journal";

/// Reads the version in the marker of the whole directory, or writes it into an empty one.
fn check_format(folder: &Path, sync: bool) -> Result<u32, OpenError> {
    let path = folder.join(MARKER);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let version = text.trim().strip_prefix(MARKER_WORDS).map(str::trim);
            let known = [UNSALTED, FORMAT];
            match version.and_then(|version| version.parse::<u64>().ok()) {
                Some(found) => {
                    let place = || path.display().to_string();
                    let version = known.into_iter().find(|known| u64::from(*known) == found);
                    version.ok_or_else(|| unknown(place(), found))
                }
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
            write_format(folder, sync)?;
            Ok(FORMAT)
        }
        Err(source) => Err(OpenError::Io { path, source }),
    }
}

fn unknown(place: String, found: u64) -> OpenError {
    OpenError::UnknownFormat { place, found, known: FORMAT.into() }
}

fn write_format(folder: &Path, sync: bool) -> Result<(), OpenError> {
    let (path, next) = (folder.join(MARKER), folder.join(MARKER_NEXT));
    let made = fs::write(&next, format!("{MARKER_WORDS} {FORMAT}\n")).and_then(|()| {
        if sync {
            File::open(&next)?.sync_all()?;
        }
        fs::rename(&next, &path)?;
        if sync { sync_folder(folder) } else { Ok(()) }
    });
    made.map_err(|source| OpenError::Io { path, source })
}

const MARKER_NEXT: &str = "format.next";

/// Reads a segment's header for its salt. Says whether that header is whole.
fn check_segment(segment: &mut Segment, findings: &mut Findings) -> Result<bool, OpenError> {
    let place = segment.path().display().to_string();
    let header = Position { segment: segment.number, offset: 0, len: 32 };
    let path = segment.path().to_owned();
    let failed = |source| OpenError::Io { path, source };
    let bytes = match segment.record(header) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Vec::new()),
        bytes => bytes,
    };
    match bytes.map(|bytes| read_segment_header(&bytes)) {
        Ok(SegmentHeader::Known { number, salt }) => {
            segment.salt = salt;
            if number == segment.number {
                return Ok(true);
            }
        }
        Ok(SegmentHeader::Version(found)) => return Err(unknown(place, found.into())),
        Ok(SegmentHeader::Damaged | SegmentHeader::Short) => {
            segment.salt = recovered_salt(&segment.bytes().map_err(failed)?);
        }
        Err(source) => return Err(failed(source)),
    }
    // Its records have checksums of their own.
    findings.add(damage(segment.number, 0, SEGMENT_HEADER, DamageKind::Head));
    Ok(false)
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

/// What is missing of tasks, by agent and task: nothing of one that was removed later, or copied as a whole. Its first
/// entries lay in a segment that went by that.
type Unsure = BTreeMap<(String, String), Vec<JournalDamage>>;

/// Takes a segment's appends into the index. Returns the offset behind the last whole one.
fn replay(
    segment: &Segment,
    from: u64,
    last: bool,
    catalog: &mut Catalog,
    (findings, unsure): (&mut Findings, &mut Unsure),
) -> io::Result<u64> {
    let bytes = segment.bytes()?;
    let number = segment.number;
    let from = usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len());
    let whole = scan((&bytes, segment.salt), from, last, |found| match found {
        Found::Append(group) => {
            let missing = catalog.replay(number, group);
            if let Some((_, first)) = group.first()
                && (missing.is_some() || !unsure.is_empty())
            {
                let task = (first.head.agent.to_owned(), first.head.task.to_owned());
                if first.head.begins_anew() {
                    unsure.remove(&task);
                }
                if let Some(missing) = missing {
                    unsure.entry(task).or_default().push(missing);
                }
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
