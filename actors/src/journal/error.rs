//! Why a journal doesn't open, append or read, and what damage it has found.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use neuroflow_kernel::CallError;

use crate::limits::{JOURNAL_APPEND_BYTES, JOURNAL_NAME_BYTES};

/// Why nothing was appended, or that it isn't known.
///
/// ```
/// use neuroflow_actors::AppendError;
/// let error = AppendError::Conflict { expected: 3, found: 4 };
/// assert!(!error.is_retryable());
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The log has another number of entries than its writer knows of.
    #[error("the task has {found} entries, and its writer knows of {expected}")]
    Conflict {
        /// What the writer knows.
        expected: u64,
        /// What there is.
        found: u64,
    },
    /// There is no room on the disk. What is there can be read.
    #[error("the journal's disk is full; make room, or lower journal.retain_bytes")]
    DiskFull {
        /// What the system says.
        #[source]
        source: Arc<io::Error>,
    },
    /// The system refused it, for want of descriptors or of a working disk. Nothing of it is there,
    /// and others may be taken.
    #[error("the journal's disk didn't take it; check it, and the limits of this process")]
    Io {
        /// What the system says.
        #[source]
        source: Arc<io::Error>,
    },
    /// The disk failed while it brought this to safety: whether it's there shows at the next start,
    /// and until then nothing more is appended.
    #[error("the journal's disk failed in a write; check it, and start the node anew")]
    Unflushed {
        /// What the system says.
        #[source]
        source: Arc<io::Error>,
    },
    /// The disk has failed before, and nothing is appended until the node is started anew.
    #[error("the journal's disk has failed; check it, and start the node anew")]
    Broken {
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The database didn't take it, or isn't there.
    #[error("the journal's database didn't take it")]
    Database {
        /// What it says.
        #[source]
        source: Arc<DatabaseError>,
        /// Whether it may be there all the same.
        unknown: bool,
    },
    /// An id, key or group of entries is longer than it may be.
    #[error(
        "{field} has {bytes} bytes; ids and keys may have {JOURNAL_NAME_BYTES}, entries together \
         {JOURNAL_APPEND_BYTES}"
    )]
    TooLarge {
        /// What.
        field: &'static str,
        /// Its bytes.
        bytes: usize,
    },
    /// More waits for the disk than may.
    #[error("the journal has more to do than it may keep waiting")]
    Overloaded,
    /// No answer came in time. It may or may not be there.
    #[error("the journal didn't answer within {after:?}")]
    TimedOut {
        /// The time.
        after: Duration,
    },
    /// There is no journal any more.
    #[error("the journal is closed")]
    Closed {
        /// What became of the call, if that is why.
        #[source]
        source: Option<CallError>,
    },
}

impl AppendError {
    /// A stable word for metrics and protocols.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "conflict",
            Self::DiskFull { .. } => "disk_full",
            Self::Io { .. } => "io",
            Self::Unflushed { .. } => "unflushed",
            Self::Broken { .. } => "broken",
            Self::Database { .. } => "database",
            Self::TooLarge { .. } => "too_large",
            Self::Overloaded => "overloaded",
            Self::TimedOut { .. } => "timed_out",
            Self::Closed { .. } => "closed",
        }
    }

    /// What it says of the journal, if that takes nothing else either.
    pub(super) fn trouble(&self) -> Option<&'static str> {
        match self {
            Self::DiskFull { .. } | Self::Io { .. } | Self::Database { .. } => Some(self.code()),
            Self::Unflushed { .. } | Self::Broken { .. } => Some("broken"),
            _ => None,
        }
    }

    /// Whether the same append may succeed later, and has left nothing behind.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::DiskFull { .. } | Self::Io { .. } | Self::Overloaded)
    }

    /// Whether it may be there all the same: only whoever reads the task later knows.
    pub fn is_unknown(&self) -> bool {
        match self {
            Self::TimedOut { .. } | Self::Closed { .. } | Self::Unflushed { .. } => true,
            Self::Database { unknown, .. } => *unknown,
            _ => false,
        }
    }
}

/// Why something can't be read.
///
/// ```
/// use neuroflow_actors::{JournalDamage, ReadError};
/// fn lost(error: &ReadError) -> Option<&JournalDamage> {
///     match error {
///         ReadError::Corrupt { damage } => Some(&**damage),
///         _ => None,
///     }
/// }
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// What was written isn't what is there.
    #[error("the journal is damaged: {damage}")]
    Corrupt {
        /// What is lost.
        damage: Box<JournalDamage>,
    },
    /// The disk doesn't give it.
    #[error("the journal's disk can't be read")]
    Io {
        /// What the system says.
        #[source]
        source: Arc<io::Error>,
    },
    /// The database doesn't give it, or isn't there.
    #[error("the journal's database can't be read")]
    Database {
        /// What it says.
        #[source]
        source: Arc<DatabaseError>,
    },
    /// The journal's actor doesn't answer.
    #[error("the journal doesn't answer")]
    Server(#[from] CallError),
}

impl From<io::Error> for ReadError {
    fn from(source: io::Error) -> Self {
        Self::Io { source: Arc::new(source) }
    }
}

/// Something that was written and can't be read any more.
///
/// ```
/// use neuroflow_actors::{DamageKind, JournalDamage};
/// let damage = JournalDamage {
///     place: "segment 1".into(), offset: 4_096, bytes: 300, kind: DamageKind::Content,
///     task: Some("t".into()), agent: Some("echo".into()), number: Some(3), generation: Some(2),
/// };
/// assert!(damage.to_string().contains("entry 3 of task t"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalDamage {
    /// The segment or table.
    pub place: String,
    /// Where in it.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
    /// What is wrong.
    pub kind: DamageKind,
    /// Whose it was, as far as that can still be read.
    pub agent: Option<String>,
    /// Which task's it was.
    pub task: Option<String>,
    /// Which entry of the task.
    pub number: Option<u64>,
    /// Which event it was, or followed.
    pub generation: Option<u64>,
}

impl fmt::Display for JournalDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            DamageKind::Head => "an unreadable head",
            DamageKind::Content => "content that doesn't fit its checksum",
            DamageKind::Missing => "nothing of what was written",
            DamageKind::TornTail => "a torn end, which was cut",
        };
        write!(f, "{} has {what} at {} ({} bytes)", self.place, self.offset, self.bytes)?;
        if let (Some(number), Some(task)) = (self.number, &self.task) {
            write!(f, ": entry {number} of task {task}")?;
        }
        if let Some(agent) = &self.agent {
            write!(f, " of agent {agent}")?;
        }
        match self.generation {
            Some(generation) => write!(f, ", at event {generation}"),
            None => Ok(()),
        }
    }
}

/// What is wrong with a place of the journal.
///
/// ```
/// assert_ne!(neuroflow_actors::DamageKind::Head, neuroflow_actors::DamageKind::TornTail);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DamageKind {
    /// The head of an entry: whose it was can't be read.
    Head,
    /// The content of an entry: whose it was is known.
    Content,
    /// An entry isn't where it should be.
    Missing,
    /// The end of the last segment, which a crash has cut short. Nobody was told that it's there.
    TornTail,
}

/// Why a journal doesn't open.
///
/// ```
/// let error = neuroflow_actors::OpenError::Locked { place: "/var/lib/neuroflow/journal".into() };
/// assert!(error.to_string().contains("another node"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it.
    #[error("another node has the journal {place}; stop it, or give this one a journal of its own")]
    Locked {
        /// The directory, or the node's name in the database.
        place: String,
    },
    /// It's of a version that this build doesn't know.
    #[error(
        "{place} has format version {found}, and this build knows version {known}; use the build that wrote it"
    )]
    UnknownFormat {
        /// The file, or the database.
        place: String,
        /// Its version.
        found: u64,
        /// The build's.
        known: u64,
    },
    /// There is none, and it's only to be read.
    #[error("there is no journal in {place}; name another")]
    Absent {
        /// The database.
        place: String,
    },
    /// The directory has something else in it.
    #[error("{} isn't a journal, and isn't empty; name another directory", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// The directory can't be used.
    #[error("the journal {} can't be opened; check its owner, mode and disk", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// This build has no databases.
    #[error(
        "the journal's URL names a PostgreSQL database, and this build doesn't have the feature \
         postgres; build it with that feature, or name a directory (file:///path)"
    )]
    Unsupported,
    /// The database can't be used.
    #[error("the journal's database can't be opened; check journal.url and the server")]
    Database(#[from] DatabaseError),
}

/// What a database says.
///
/// ```
/// use neuroflow_actors::DatabaseError;
/// fn lost(error: &DatabaseError) -> bool {
///     matches!(error, DatabaseError::TimedOut { .. })
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// It refused, or went away.
    #[cfg(feature = "postgres")]
    #[error("the database refused or went away")]
    Sql(#[from] sqlx::Error),
    /// It doesn't answer.
    #[error("the database didn't answer within {after:?}")]
    TimedOut {
        /// The time.
        after: Duration,
    },
    /// It takes no writes: it's a standby, or was made read-only.
    #[error("the database is read-only")]
    ReadOnly,
    /// A row has what this build didn't write.
    #[error("column {column} of table {table} has a value that isn't ours")]
    Row {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
    },
}

/// Why a text doesn't name a journal.
///
/// ```
/// assert!(neuroflow_actors::UrlError::Relative.to_string().contains("file:///"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// The path isn't absolute.
    #[error("the path isn't absolute; write file:///path")]
    Relative,
    /// It's none of the known kinds.
    #[error("it begins with none of file:///, postgres:// and memory")]
    Scheme,
}
