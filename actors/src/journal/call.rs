//! Tool calls in a task's log: what was asked, and what came of it. Clients are told of neither.

use neuroflow_kernel::WireMessage;
use ring::digest::{SHA256, digest};
use rkyv::{Archive, Serialize};

/// A tool call that was begun, as the journal keeps it.
///
/// ```
/// use neuroflow_actors::{CallRecord, RecordedJson};
/// let arguments = RecordedJson::of("{}", 100);
/// assert_eq!(CallRecord { tool: "look".into(), arguments, at_ms: 0 }.tool, "look");
/// ```
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct CallRecord {
    /// The tool.
    pub tool: String,
    /// What it was given.
    pub arguments: RecordedJson,
    /// When, in milliseconds of Unix time.
    pub at_ms: u64,
}

impl WireMessage for CallRecord {
    const NAME: &'static str = "neuroflow.journal.call";
    const VERSION: u16 = 1;
}

/// The end of a tool call, as the journal keeps it.
///
/// ```
/// use neuroflow_actors::{CallEnd, OutcomeRecord, RecordedJson};
/// let end = CallEnd::Done(RecordedJson::of("42", 100));
/// assert_ne!(OutcomeRecord { end: end.clone(), at_ms: 0 }, OutcomeRecord { end, at_ms: 1 });
/// ```
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub struct OutcomeRecord {
    /// What came of it.
    pub end: CallEnd,
    /// When, in milliseconds of Unix time.
    pub at_ms: u64,
}

impl WireMessage for OutcomeRecord {
    const NAME: &'static str = "neuroflow.journal.outcome";
    const VERSION: u16 = 1;
}

/// What came of a tool call.
///
/// ```
/// use neuroflow_actors::CallEnd;
/// let end = CallEnd::Failed { code: "busy".into(), message: "too many calls".into() };
/// assert!(!matches!(end, CallEnd::Done(_)));
/// ```
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub enum CallEnd {
    /// It has a result.
    Done(RecordedJson),
    /// It has none.
    Failed {
        /// A stable word.
        code: String,
        /// For people.
        message: String,
    },
}

/// A JSON value in the journal, or what is left of a large one there.
///
/// ```
/// use neuroflow_actors::RecordedJson;
/// assert_eq!(RecordedJson::of("[1]", 3), RecordedJson::Whole("[1]".into()));
/// assert!(matches!(RecordedJson::of("[1]", 2), RecordedJson::Digest { bytes: 3, .. }));
/// ```
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
pub enum RecordedJson {
    /// All of it.
    Whole(String),
    /// What it's known again by.
    Digest {
        /// How long it was.
        bytes: u64,
        /// Of its bytes.
        sha256: [u8; 32],
    },
}

impl RecordedJson {
    /// All of a value, if it has no more than `most` bytes.
    pub fn of(json: &str, most: usize) -> Self {
        if json.len() <= most {
            return Self::Whole(json.to_owned());
        }
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest(&SHA256, json.as_bytes()).as_ref());
        Self::Digest { bytes: json.len() as u64, sha256 }
    }
}
