//! `neuroflow audit`: whether a log of decisions is as it was written.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::builder::ValueHint;
use clap::{Args, Subcommand};
use neuroflow::actors::{Audited, KeyError, PublicKey, VerifyFailure, verify_files};
use serde::Serialize;

use super::{CliError, FAILURE, SUCCESS, USAGE};

/// Looks at the log of decisions.
#[derive(Args, Debug)]
pub(super) struct AuditCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Verify(Verify),
}

/// Verifies a log offline: its file, and the full ones beside it.
///
/// Finds every changed, missing, added, doubled and moved record, and says which one it is. Without
/// --key, that the log was written by who should have is its own word only. Without a kept
/// signature, a log that was cut at an earlier one looks whole.
#[derive(Args, Debug)]
struct Verify {
    /// The log
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// The public key that it has to be signed with (PEM); a node writes it beside its key
    #[arg(long, value_name = "PUB", value_hint = ValueHint::FilePath)]
    key: Option<PathBuf>,
    /// A signature that was kept: a line of the log, such as FILE.head at some time. FILE.head as it is
    /// now unless it's given
    #[arg(long, value_name = "LINE", value_hint = ValueHint::FilePath)]
    head: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Why a log isn't vouched for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum AuditError {
    /// It's not as it was written.
    #[error(
        "the audit log isn't vouched for; keep its files as they are, and find out who wrote to them"
    )]
    Failure(#[source] VerifyFailure),
    /// It can't be read, and so nothing is known of it.
    #[error("the audit log can't be read, so nothing is known of it; name its file")]
    Unreadable(#[source] VerifyFailure),
    /// There is no key.
    #[error("the public key can't be used; name its PEM file with --key")]
    Key(#[from] KeyError),
}

impl AuditError {
    /// An alarm has a code of its own.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Failure(_) => FAILURE,
            Self::Unreadable(_) | Self::Key(_) => USAGE,
        }
    }
}

impl AuditCommand {
    pub(super) fn run(self, out: &mut dyn Write) -> Result<u8, CliError> {
        let Action::Verify(verify) = self.action;
        let key =
            verify.key.as_deref().map(PublicKey::read).transpose().map_err(AuditError::from)?;
        let audited = verify_files(&verify.file, key, verify.head.as_deref());
        let audited = audited.map_err(|failure| match failure {
            VerifyFailure::Read { .. } => AuditError::Unreadable(failure),
            failure => AuditError::Failure(failure),
        })?;
        let report = VerifyReport::of(&audited);
        if verify.json {
            writeln!(out, "{}", serde_json::to_string_pretty(&report).map_err(io::Error::from)?)?;
        } else {
            report.write(&verify.file, out)?;
        }
        Ok(SUCCESS)
    }
}

/// What is said of a log that is unharmed.
#[derive(Debug, Serialize)]
struct VerifyReport {
    first: u64,
    last: u64,
    signed: u64,
    signed_at_ms: u64,
    head: String,
    key: String,
    key_checked: bool,
    closed: bool,
    held_against: Option<PathBuf>,
    files: Vec<PathBuf>,
}

impl VerifyReport {
    fn of(audited: &Audited) -> Self {
        let verified = &audited.verified;
        Self {
            first: verified.first,
            last: verified.last,
            signed: verified.signed,
            signed_at_ms: verified.signed_at_ms,
            head: verified.head.to_string(),
            key: verified.key.to_string(),
            key_checked: verified.key_checked,
            closed: verified.closed,
            held_against: audited.held_against.clone(),
            files: audited.files.clone(),
        }
    }

    fn write(&self, log: &Path, out: &mut dyn Write) -> io::Result<()> {
        let Self { first, last, signed, .. } = self;
        let (log, files) = (log.display(), self.files.len());
        let word = if files == 1 { "file" } else { "files" };
        writeln!(
            out,
            "{log}: records {first} to {last} in {files} {word} are as they were written"
        )?;
        let (seconds, millis) = (self.signed_at_ms / 1_000, self.signed_at_ms % 1_000);
        let signed_at = format!("{seconds}.{millis:03} of Unix time");
        writeln!(out, "signed up to record {signed}, at {signed_at}, with the key {}", self.key)?;
        if !self.key_checked {
            writeln!(out, "nobody has said that this is the right key; name it with --key")?;
        }
        if *first > 1 {
            writeln!(out, "records before {first} are in files that aren't here")?;
        }
        if last > signed {
            let count = last - signed;
            writeln!(out, "the last {count} aren't signed yet: a change of these can't be told")?;
        }
        if !self.closed {
            writeln!(out, "the node is running, or has ended without a stop")?;
        }
        match &self.held_against {
            Some(head) => {
                writeln!(
                    out,
                    "it reaches the signature in {}; a copy that was kept elsewhere says more",
                    head.display()
                )
            }
            None => writeln!(
                out,
                "no later signature is known, so a cut at record {signed} can't be told"
            ),
        }
    }
}
