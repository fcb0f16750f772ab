//! An audit log on disk: its files, its lock, its last signature; writing it and reading it back.
//!
//! `audit.log` is written to. When it's full it becomes `audit.log.000001`, and so on. Beside it lie
//! `audit.log.head`, the last signature, by which a cut is found; `audit.log.lock`, held by the node
//! that writes; and, unless it's elsewhere, the key.
//!
//! Long, because who writes these files and who reads them back agree on every one of them, and a third of it is the
//! tests that cut, damage and swap them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::chain::End;
use super::digest::Digest;
use super::key::{PublicKey, SigningKey};
use super::record::Keeping;
use super::verify::{Fault, Verified, Verifier};
use super::{AuditConfig, AuditError, AuditEvent, Unrecorded};
use crate::journal::try_room;
use crate::limits::{AUDIT_FILE_BYTES, AUDIT_LINE_BYTES, AUDIT_LISTINGS, AUDIT_UNSIGNED_RECORDS};
use crate::lock::FileLock;

/// A file whose name is that of the log with something behind it.
pub(super) fn beside(log: &Path, ending: &str) -> PathBuf {
    let mut name = log.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    log.with_file_name(name)
}

/// The full files of a log, oldest first.
fn full_files(log: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let folder = match log.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let prefix = beside(log, "");
    let prefix = prefix.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(&prefix));
        let number = number.filter(|it| it.len() == NUMBER_DIGITS).and_then(|it| it.parse().ok());
        if let Some(number) = number {
            files.push((number, entry.path()));
        }
    }
    files.sort();
    Ok(files)
}

/// Digits of a full file's number.
const NUMBER_DIGITS: usize = 6;

/// What was found wrong with a log, and where.
///
/// ```
/// fn line(failure: &neuroflow_actors::VerifyFailure) -> String {
///     failure.to_string()
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyFailure {
    /// It isn't what was written.
    #[error("{}, line {line}", file.display())]
    Fault {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong.
        #[source]
        fault: Fault,
    },
    /// A file can't be read.
    #[error("{} can't be read", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// A log that is unharmed.
///
/// ```
/// fn files(audited: &neuroflow_actors::Audited) -> usize {
///     audited.files.len()
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Audited {
    /// What it is.
    pub verified: Verified,
    /// Its files, oldest first.
    pub files: Vec<PathBuf>,
    /// The file of the signature that it was held against, if there was one.
    pub held_against: Option<PathBuf>,
}

/// Verifies a log: the file that is named, and the full ones beside it. It's held against the signature
/// in `head` or, without that, in the file that the node keeps beside the log. A node may write it meanwhile: what
/// is verified then is what was there in the beginning, or some more.
///
/// ```
/// use std::path::Path;
/// use neuroflow_actors::verify_files;
/// assert!(verify_files(Path::new("/nowhere/audit.log"), None, None).is_err());
/// ```
///
/// # Errors
/// Says which line of which file isn't as it was written, or can't be read.
pub fn verify_files(
    log: &Path,
    key: Option<PublicKey>,
    head: Option<&Path>,
) -> Result<Audited, VerifyFailure> {
    // Read first: a node that is writing may sign again meanwhile.
    let beside = beside(log, "head");
    let held_against = match head {
        Some(head) => Some(head.to_owned()),
        None => beside.exists().then_some(beside),
    };
    let mut verifier = Verifier::new(key);
    if let Some(head) = &held_against {
        let bytes = fs::read(head).map_err(|source| unreadable(head, source))?;
        let fault = |fault| VerifyFailure::Fault { file: head.clone(), line: 1, fault };
        verifier = verifier.against(&bytes).map_err(fault)?;
    }
    let (full, last) = settled(log).map_err(|source| unreadable(log, source))?;
    let mut files: Vec<PathBuf> = full.into_iter().map(|(_, path)| path).collect();
    for file in &files {
        let read = read_file(file, &mut verifier)?;
        if read.torn_bytes > 0 {
            let (file, line, fault) = (file.clone(), read.lines + 1, Fault::Torn);
            return Err(VerifyFailure::Fault { file, line, fault });
        }
    }
    files.push(log.to_owned());
    let Lines { lines, torn_bytes, .. } = read_lines(log, last, &mut verifier)?;
    // A node that is writing hasn't written all of the last line yet.
    if torn_bytes > 0 && !is_written(log) {
        let (file, line, fault) = (log.to_owned(), lines + 1, Fault::Torn);
        return Err(VerifyFailure::Fault { file, line, fault });
    }
    let verified = verifier.finish();
    let verified =
        verified.map_err(|fault| VerifyFailure::Fault { file: log.into(), line: lines, fault })?;
    Ok(Audited { verified, files, held_against })
}

/// The full files of a log, and the one that follows them. That one is open, so that it stays what it is if it's
/// renamed.
fn settled(log: &Path) -> io::Result<(Vec<(u64, PathBuf)>, File)> {
    for _ in 0..AUDIT_LISTINGS {
        let full = full_files(log)?;
        if let Some(last) = open_behind(log, &full)? {
            return Ok((full, last));
        }
    }
    Err(io::Error::other("it's begun anew again and again"))
}

/// Opens the file that follows these, unless another one has become full meanwhile.
fn open_behind(log: &Path, full: &[(u64, PathBuf)]) -> io::Result<Option<File>> {
    let last = File::open(log);
    if full_files(log)? != full {
        return Ok(None);
    }
    match last {
        // It's about to be made.
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_written(log) => Ok(None),
        last => last.map(Some),
    }
}

/// Whether a node has a log open for writing.
fn is_written(log: &Path) -> bool {
    let lock = File::open(beside(log, "lock"));
    // What is locked here for this moment is released as the file is closed.
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(fs::TryLockError::WouldBlock)))
}

fn unreadable(file: &Path, source: io::Error) -> VerifyFailure {
    VerifyFailure::Read { file: file.to_owned(), source }
}

/// How much of a file was records.
#[derive(Debug, Default)]
struct Lines {
    lines: u64,
    /// Up to the end of the last whole line.
    bytes: u64,
    /// Behind it.
    torn_bytes: u64,
}

fn read_file(file: &Path, verifier: &mut Verifier) -> Result<Lines, VerifyFailure> {
    let opened = File::open(file).map_err(|source| unreadable(file, source))?;
    read_lines(file, opened, verifier)
}

fn read_lines(file: &Path, opened: File, verifier: &mut Verifier) -> Result<Lines, VerifyFailure> {
    let mut reader = BufReader::new(opened);
    let mut read = Lines::default();
    let mut line = Vec::new();
    verifier.begin_file();
    loop {
        line.clear();
        let most = u64::try_from(AUDIT_LINE_BYTES).unwrap_or(u64::MAX).saturating_add(1);
        let mut bounded = io::Read::take(&mut reader, most);
        bounded.read_until(b'\n', &mut line).map_err(|source| unreadable(file, source))?;
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        let failed = |fault| {
            let line = read.lines + 1;
            VerifyFailure::Fault { file: file.to_owned(), line, fault }
        };
        match line.strip_suffix(b"\n") {
            Some(line) => verifier.line(line).map_err(failed)?,
            None if line.is_empty() => return Ok(read),
            None if length >= most => return Err(failed(Fault::NoRecord)),
            None => {
                read.torn_bytes = length;
                return Ok(read);
            }
        }
        read.lines += 1;
        read.bytes += length;
    }
}

/// One event on its way into the log.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) at: u64,
    pub(super) trace: Option<String>,
    pub(super) event: AuditEvent,
}

/// A log that is open for writing.
#[derive(Debug)]
pub(super) struct Writer {
    config: AuditConfig,
    key: SigningKey,
    file: File,
    /// Held until it's dropped.
    _lock: FileLock,
    bytes: u64,
    end: End,
    unsynced: bool,
    /// Once the disk has failed to flush, nobody knows what it has.
    broken: Option<Arc<io::Error>>,
    /// Whether the rest of a failed write is behind `bytes`.
    torn: bool,
}

impl Writer {
    /// Opens the log, checks what is there, and cuts an unfinished line off.
    pub(super) fn open(config: AuditConfig, at: u64) -> Result<Self, AuditError> {
        let path = config.file.clone();
        let refused = |file: &Path, source| AuditError::File { file: file.to_owned(), source };
        let lock_path = beside(&path, "lock");
        let lock = open_private(&lock_path).map_err(|source| refused(&lock_path, source))?;
        let lock = FileLock::take(lock).map_err(|error| match error {
            fs::TryLockError::WouldBlock => AuditError::Taken { file: path.clone() },
            fs::TryLockError::Error(source) => refused(&lock_path, source),
        })?;
        let key = SigningKey::open(&config.key)?;
        let file = open_private(&path).map_err(|source| refused(&path, source))?;
        let (end, read) = take_up(&path, &key)?;
        if read.torn_bytes > 0 {
            file.set_len(read.bytes).map_err(|source| refused(&path, source))?;
        }
        let mut writer = Self {
            config,
            key,
            file,
            _lock: lock,
            bytes: read.bytes,
            end,
            unsynced: false,
            broken: None,
            torn: false,
        };
        let opened = Keeping::Opened { cut_bytes: read.torn_bytes };
        writer.keep(at, &opened).map_err(|source| refused(&path, source))?;
        Ok(writer)
    }

    fn keep(&mut self, at: u64, keeping: &impl Serialize) -> io::Result<()> {
        let (mut end, mut lines) = (self.end.clone(), Vec::new());
        if self.bytes == 0 {
            end.begin_file(at, &self.key, &mut lines)?;
        }
        end.append(at, None, keeping, &mut lines)?;
        self.write(&lines, end)
    }

    /// Records the events; either all of them or none. Gives the number of the first.
    pub(super) fn record(&mut self, entries: &[Entry], lost: u64) -> Result<u64, Unrecorded> {
        self.check()?;
        Ok(self.append(entries, lost)?)
    }

    fn append(&mut self, entries: &[Entry], lost: u64) -> io::Result<u64> {
        let (mut end, mut lines) = (self.end.clone(), Vec::new());
        let at = entries.first().map_or(0, |entry| entry.at);
        if self.bytes == 0 {
            end.begin_file(at, &self.key, &mut lines)?;
        }
        if lost > 0 {
            end.append(at, None, &Keeping::Lost { events: lost }, &mut lines)?;
        }
        let first = end.seq.saturating_add(1);
        for Entry { at, trace, event } in entries {
            end.append(*at, trace.clone(), event, &mut lines)?;
        }
        self.write(&lines, end)?;
        Ok(first)
    }

    /// Looks whether there is room on the disk. What has failed to flush stays as it is.
    pub(super) fn has_room(&self) -> bool {
        self.broken.is_none() && try_room(&beside(&self.config.file, "room")).is_ok()
    }

    /// Whether the next batch of so many must not come before a signature.
    pub(super) fn must_sign_before(&self, records: usize) -> bool {
        let records = u64::try_from(records).unwrap_or(u64::MAX);
        // The beginning of a file and a count of what was lost may come with them.
        self.end.unsigned.saturating_add(records).saturating_add(2) > AUDIT_UNSIGNED_RECORDS
    }

    /// Whether there is something that a signature can vouch for.
    pub(super) fn has_unsigned(&self) -> bool {
        self.end.unsigned > 0 && self.broken.is_none()
    }

    /// Whether there is something that can be put on disk.
    pub(super) fn is_unsynced(&self) -> bool {
        self.unsynced && self.broken.is_none()
    }

    /// Vouches for everything so far; begins the next file if this one is full.
    pub(super) fn sign(&mut self, at: u64) -> Result<(), Unrecorded> {
        self.check()?;
        let mut end = self.end.clone();
        let line = end.sign(at, &self.key).map_err(io::Error::from)?;
        self.write(&line, end)?;
        // The signature beside the log must never be ahead of the log.
        self.sync()?;
        self.keep_head(&line)?;
        if self.bytes >= AUDIT_FILE_BYTES {
            self.next_file()?;
        }
        Ok(())
    }

    fn keep_head(&self, line: &[u8]) -> io::Result<()> {
        let head = beside(&self.config.file, "head");
        let fresh = beside(&self.config.file, "head.part");
        let file = open_private(&fresh)?;
        file.set_len(0)?;
        (&file).write_all(line)?;
        // The new name must not be on the disk before what it names: with an empty head no node starts.
        file.sync_data()?;
        fs::rename(&fresh, &head)
    }

    fn next_file(&mut self) -> io::Result<()> {
        let path = &self.config.file;
        let number = format!("{:0width$}", self.end.file, width = NUMBER_DIGITS);
        let full = beside(path, &number);
        match fs::rename(path, &full) {
            // It was renamed before, and the next one couldn't be opened then.
            Err(error) if error.kind() == io::ErrorKind::NotFound && full.exists() => {}
            renamed => renamed?,
        }
        self.file = open_private(path)?;
        self.bytes = 0;
        Ok(())
    }

    /// Puts what is written on disk.
    pub(super) fn sync(&mut self) -> Result<(), Unrecorded> {
        self.check()?;
        if self.unsynced {
            self.file.sync_data().map_err(|error| {
                // The system says so once: another flush would succeed, whatever became of the records.
                let source = Arc::new(error);
                self.broken = Some(Arc::clone(&source));
                Unrecorded::Broken { source }
            })?;
            self.unsynced = false;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Unrecorded> {
        let failed = self.broken.clone().map(|source| Unrecorded::Broken { source });
        failed.map_or(Ok(()), Err)
    }

    /// From now on it writes there.
    #[cfg(test)]
    pub(super) fn to(&mut self, file: File) -> File {
        std::mem::replace(&mut self.file, file)
    }

    /// Writes lines; if that fails, nothing of them is there.
    fn write(&mut self, lines: &[u8], end: End) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.bytes)?;
            self.torn = false;
        }
        if let Err(error) = self.file.write_all(lines) {
            // What can't be cut off now is cut off before the next record, or by the next start.
            self.torn = self.file.set_len(self.bytes).is_err();
            return Err(error);
        }
        self.bytes += u64::try_from(lines.len()).unwrap_or(u64::MAX);
        self.end = end;
        self.unsynced = true;
        Ok(())
    }
}

/// Reads the log that is there to know where it ends.
fn take_up(path: &Path, key: &SigningKey) -> Result<(End, Lines), AuditError> {
    let refused = |source| AuditError::File { file: path.to_owned(), source };
    let mut verifier = Verifier::new(Some(key.public()));
    let head = beside(path, "head");
    if let Ok(line) = fs::read(&head) {
        let fault = |fault| VerifyFailure::Fault { file: head.clone(), line: 1, fault };
        verifier = verifier.against(&line).map_err(fault)?;
    }
    // A node that was killed between the renaming of a full file and the first record of the next one
    // has left this one empty. The file before it is where the chain goes on then.
    let full = full_files(path).map_err(refused)?;
    if let Some((_, last)) = full.last() {
        let _whole = read_file(last, &mut verifier)?;
    }
    let read = read_file(path, &mut verifier)?;
    let line = read.lines;
    let Some(end) = verifier.end().cloned() else {
        if head.exists() {
            let (file, fault) = (path.to_owned(), Fault::Empty);
            return Err(VerifyFailure::Fault { file, line, fault }.into());
        }
        let id = uuid::Uuid::new_v4();
        return Ok((End::empty(Digest::of(id.as_bytes()).to_string()), read));
    };
    let fault = |fault| VerifyFailure::Fault { file: path.to_owned(), line, fault };
    verifier.finish().map_err(fault)?;
    Ok((end, read))
}

/// Opens for appending; only the owner may read what is made.
fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("audit-{}", uuid::Uuid::new_v4()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn config(&self) -> AuditConfig {
            AuditConfig::new(self.0.join("audit.log"))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _left = fs::remove_dir_all(&self.0);
        }
    }

    fn entries(count: u64) -> Vec<Entry> {
        let entry = |at| Entry { at, trace: None, event: AuditEvent::NodeStopped };
        (0..count).map(entry).collect()
    }

    #[test]
    fn a_log_goes_on_over_restarts_and_files() {
        let folder = Folder::new();
        let config = folder.config();
        let mut writer = Writer::open(config.clone(), 1).unwrap();
        assert_eq!(writer.record(&entries(3), 2).unwrap(), 4);
        writer.sign(2).unwrap();
        writer.next_file().unwrap();
        writer.record(&entries(3), 0).unwrap();
        writer.sign(3).unwrap();
        drop(writer);
        let mut writer = Writer::open(config.clone(), 4).unwrap();
        writer.sign(5).unwrap();
        writer.next_file().unwrap();
        drop(writer);
        // Killed before the first record of the third file.
        let mut writer = Writer::open(config.clone(), 6).unwrap();
        writer.sign(7).unwrap();
        let key = PublicKey::read(&config.key.with_extension("pub")).unwrap();
        let audited = verify_files(&config.file, Some(key), None).unwrap();
        assert_eq!(audited.files.len(), 3);
        assert_eq!((audited.verified.first, audited.verified.last), (1, 17));
        assert!(audited.held_against.is_some());
    }

    #[test]
    fn a_full_file_that_was_renamed_only_is_followed_by_the_next_one_later() {
        let folder = Folder::new();
        let config = folder.config();
        let mut writer = Writer::open(config.clone(), 1).unwrap();
        writer.record(&entries(3), 0).unwrap();
        writer.sign(2).unwrap();
        // As far as it comes while no file can be opened.
        fs::rename(&config.file, beside(&config.file, "000001")).unwrap();
        writer.record(&entries(2), 0).unwrap();
        writer.next_file().unwrap();
        writer.record(&entries(2), 0).unwrap();
        writer.sign(3).unwrap();
        let audited = verify_files(&config.file, None, None).unwrap();
        assert_eq!((audited.files.len(), audited.verified.last), (2, 12));
        // A file that somebody has taken away isn't one of those.
        fs::remove_file(&config.file).unwrap();
        assert_eq!(writer.next_file().unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_log_that_is_written_meanwhile_is_unharmed() {
        let folder = Folder::new();
        let config = folder.config();
        let mut writer = Writer::open(config.clone(), 1).unwrap();
        writer.record(&entries(3), 0).unwrap();
        writer.sign(2).unwrap();
        // One becomes full between the listing and the opening.
        let listed = full_files(&config.file).unwrap();
        writer.next_file().unwrap();
        writer.record(&entries(3), 0).unwrap();
        assert!(open_behind(&config.file, &listed).unwrap().is_none());
        // One becomes full between the opening and the reading.
        let (full, last) = settled(&config.file).unwrap();
        assert_eq!(full.len(), 1);
        writer.sign(3).unwrap();
        writer.next_file().unwrap();
        writer.record(&entries(3), 0).unwrap();
        let mut verifier = Verifier::new(None);
        read_file(&full[0].1, &mut verifier).unwrap();
        read_lines(&config.file, last, &mut verifier).unwrap();
        assert_eq!(verifier.finish().unwrap().last, 11);
        // The last line isn't all there yet.
        open_private(&config.file).unwrap().write_all(b"{\"record\":{\"se").unwrap();
        assert_eq!(verify_files(&config.file, None, None).unwrap().verified.last, 15);
        drop(writer);
        let torn = verify_files(&config.file, None, None).unwrap_err();
        assert!(matches!(torn, VerifyFailure::Fault { fault: Fault::Torn, .. }), "{torn:?}");
        // A file that isn't there is said to be missing, if nobody is about to make it.
        fs::remove_file(&config.file).unwrap();
        let missing = verify_files(&config.file, None, None).unwrap_err();
        assert!(matches!(missing, VerifyFailure::Read { .. }), "{missing:?}");
    }

    #[test]
    fn a_torn_line_is_cut_off_and_what_was_changed_is_not_taken_up() {
        let folder = Folder::new();
        let config = folder.config();
        let mut writer = Writer::open(config.clone(), 1).unwrap();
        writer.record(&entries(3), 0).unwrap();
        writer.sign(2).unwrap();
        drop(writer);
        let whole = fs::read(&config.file).unwrap();
        open_private(&config.file).unwrap().write_all(b"{\"record\":{\"se").unwrap();
        let torn = verify_files(&config.file, None, None).unwrap_err();
        assert!(
            matches!(torn, VerifyFailure::Fault { line: 7, fault: Fault::Torn, .. }),
            "{torn:?}"
        );
        drop(Writer::open(config.clone(), 3).unwrap());
        let text = fs::read_to_string(&config.file).unwrap();
        assert!(text.contains(r#"{"kind":"opened","cut_bytes":14}"#), "{text}");
        verify_files(&config.file, None, None).unwrap();

        // Cut below the signature that is kept beside it.
        let cut = whole.len() - whole.split(|byte| *byte == b'\n').nth_back(1).unwrap().len() - 1;
        fs::write(&config.file, &whole[..cut]).unwrap();
        let refused = Writer::open(config.clone(), 4).unwrap_err();
        assert!(matches!(refused, AuditError::Broken(_)), "{refused:?}");
        fs::write(&config.file, b"").unwrap();
        assert!(matches!(Writer::open(config, 4), Err(AuditError::Broken(_))));
    }

    #[test]
    fn one_node_writes_a_log_and_its_files_are_its_owners() {
        use std::os::unix::fs::PermissionsExt;
        let folder = Folder::new();
        let config = folder.config();
        let writer = Writer::open(config.clone(), 1).unwrap();
        let second = Writer::open(config.clone(), 1).unwrap_err();
        assert!(matches!(second, AuditError::Taken { .. }), "{second:?}");
        for file in [&config.file, &config.key] {
            let mode = fs::metadata(file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", file.display());
        }
        drop(writer);
        fs::set_permissions(&config.key, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = Writer::open(config, 2).unwrap_err();
        assert!(matches!(refused, AuditError::Key(super::super::KeyError::Open { .. })));
    }

    #[test]
    fn a_full_disk_is_told_apart_and_changes_nothing() {
        let folder = Folder::new();
        let mut writer = Writer::open(folder.config(), 1).unwrap();
        writer.sign(1).unwrap();
        let (end, whole) = (writer.end.clone(), writer.to(full_disk()));
        let error = writer.record(&entries(2), 0).unwrap_err();
        assert!(matches!(error, Unrecorded::Full { .. }), "{error:?}");
        assert_eq!(writer.end, end);
        writer.file = whole;
        writer.record(&entries(2), 0).unwrap();
        writer.sign(2).unwrap();
        verify_files(&folder.config().file, None, None).unwrap();
    }

    /// A device that has no room for a byte.
    fn full_disk() -> File {
        OpenOptions::new().append(true).open("/dev/full").unwrap()
    }
}
