//! How the fork of a warm interpreter becomes the program of a cell. The first process sends the
//! interpreter all that a fork needs to come in, hears when it is there and locked up, and later
//! hands the order over to it.
//!
//! The fork comes in as a child of the first process, because its own parent was born inside too and
//! has ended. It takes the same groups, rules, limits and filter as an executed program gets, and
//! reads them back, before it hears what it shall run; see `python/bootstrap.py`.

use std::{
    ffi::CStr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use super::{
    At, Failure, landlock,
    sys::{
        Result as SysResult, credentials, event, file,
        landlock::RESTRICT_NUMBER,
        seccomp,
        socket::{self, MAX_PASSED, Received, Wait},
    },
};
use crate::{
    errno::Errno,
    limits,
    plan::{INHERIT, Plan, RESOURCES, Resource},
    step::Step,
    zygote::wire::Reader,
};

/// Where an interpreter listens, and what a fork of it needs of the zygote.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Invitation<'a> {
    pub(crate) door: BorrowedFd<'a>,
    /// Files of the cell's groups, to enter by writing to them.
    pub(crate) groups: &'a [BorrowedFd<'a>],
}

/// What the first process takes along from where the zygote's `/proc` is in sight.
#[derive(Debug)]
pub(super) struct Ticket {
    ours: OwnedFd,
    theirs: OwnedFd,
    namespaces: [Option<OwnedFd>; NAMESPACES.len()],
}

/// What all forks are told.
#[derive(Debug)]
pub(super) struct Terms<'a> {
    pub(super) plan: &'a Plan<'a>,
    pub(super) ceilings: [u64; RESOURCES],
    pub(super) capabilities: u64,
    /// Whether there must be no supplementary groups.
    pub(super) alone: bool,
}

impl Ticket {
    /// Opens the calling process's namespaces. All of them must be the cell's own by now.
    pub(super) fn open() -> Result<Self, Failure> {
        let (ours, theirs) = socket::pair().at(Step::JoinCell)?;
        let mut namespaces = [const { None }; NAMESPACES.len()];
        for (namespace, path) in namespaces.iter_mut().zip(NAMESPACES) {
            let flags = libc::O_RDONLY | libc::O_CLOEXEC;
            *namespace = Some(file::open(path, flags).at(Step::JoinCell)?);
        }
        Ok(Self { ours, theirs, namespaces })
    }

    /// Asks the interpreter for a fork.
    pub(super) fn redeem(
        self,
        invitation: Invitation<'_>,
        terms: &Terms<'_>,
        rules: Option<&OwnedFd>,
    ) -> Result<Guest, Failure> {
        let passed: Vec<BorrowedFd<'_>> = [&self.theirs]
            .into_iter()
            .chain(self.namespaces.iter().flatten())
            .chain(rules)
            .map(AsFd::as_fd)
            .chain(invitation.groups.iter().copied())
            .collect();
        let head = head(terms, rules.is_some(), invitation.groups.len());
        let filter = terms.plan.filter().unwrap_or_default();
        socket::send(invitation.door, [&head, filter], &passed, Wait::Yes).at(Step::JoinCell)?;
        Ok(Guest { socket: self.ours })
    }
}

fn head(terms: &Terms<'_>, rules: bool, groups: usize) -> Vec<u8> {
    let short = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let wanted = Resource::ALL.into_iter().zip(terms.plan.resources).zip(terms.ceilings);
    let limits: Vec<(u32, u64)> = wanted
        .filter(|((_, wanted), _)| *wanted != INHERIT)
        .map(|((resource, wanted), ceiling)| (credentials::number(resource), wanted.min(ceiling)))
        .collect();
    let filtered = terms.plan.filter().is_some();
    let ground = terms.plan.ground();
    let rows = [
        (rules, RULES),
        (filtered, FILTER),
        (terms.alone, ALONE),
        (landlock::forbids_tcp(ground), TCP),
        (landlock::has_scopes(ground), SCOPES),
    ];
    let flags = rows.into_iter().filter(|(on, _)| *on).fold(0, |all, (_, flag)| all | flag);
    let mut bytes = TICKET_MAGIC.to_le_bytes().to_vec();
    for short in [VERSION, flags] {
        bytes.extend_from_slice(&short.to_le_bytes());
    }
    let words = [
        limits::INNER_ID,
        u32::try_from(terms.capabilities).unwrap_or(u32::MAX),
        seccomp::NUMBER,
        RESTRICT_NUMBER,
        short(limits.len()),
        short(groups),
    ];
    for word in words {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    for (number, value) in limits {
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    bytes
}

/// A fork on its way into the cell, and then in it.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) socket: OwnedFd,
}

/// A fork that is in the cell and waits for its order.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) pid: i32,
    /// Tells of its refused calls.
    pub(super) listener: Option<OwnedFd>,
}

/// What a fork says.
enum Answer {
    Joined {
        pid: i32,
    },
    Failed(Failure),
    /// It has closed its end: it is dead, or it has begun to run its program.
    Closed,
}

impl Guest {
    /// Waits until the fork is in the cell and locked up.
    pub(super) fn arrive(&self) -> Result<Arrived, Failure> {
        let patience = i32::try_from(limits::JOIN_WAIT.as_millis()).unwrap_or(i32::MAX);
        if !event::is_readable(self.socket.as_fd(), patience).at(Step::JoinCell)? {
            return Err(Errno::from_raw(libc::ETIMEDOUT)).at(Step::JoinCell);
        }
        let (answer, passed) = self.hear()?;
        match answer {
            Answer::Joined { pid } => {
                let [listener, ..] = passed;
                Ok(Arrived { pid, listener })
            }
            Answer::Failed(failure) => Err(failure),
            Answer::Closed => Err(Errno::from_raw(libc::ECONNRESET)).at(Step::JoinCell),
        }
    }

    /// Passes the host's request on as it came.
    pub(super) fn order(&self, request: &[u8], passed: &[BorrowedFd<'_>]) -> Result<(), Failure> {
        socket::send(self.socket.as_fd(), [request, &[]], passed, Wait::Yes).at(Step::JoinCell)
    }

    /// What came of the order, once the socket is readable.
    pub(super) fn began(&self) -> Result<(), Failure> {
        match self.hear()? {
            (Answer::Closed, _) => Ok(()),
            (Answer::Failed(failure), _) => Err(failure),
            (Answer::Joined { .. }, _) => Err(NONSENSE).at(Step::JoinCell),
        }
    }

    fn hear(&self) -> Result<(Answer, [Option<OwnedFd>; MAX_PASSED]), Failure> {
        let mut bytes = [0; ANSWER];
        let Received { length, passed } = loop {
            match receive(self.socket.as_fd(), &mut bytes) {
                Err(errno) if errno.raw() == libc::EINTR => {}
                Err(errno) if errno.raw() == libc::ECONNRESET => break Received::default(),
                other => break other.at(Step::JoinCell)?,
            }
        };
        let answer = if length == 0 { Some(Answer::Closed) } else { parse(&bytes) };
        Ok((answer.ok_or(NONSENSE).at(Step::JoinCell)?, passed))
    }
}

fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8; ANSWER]) -> SysResult<Received> {
    socket::receive(socket, bytes, Wait::Yes)
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let mut reader = Reader::new(bytes);
    let (kind, step) = (reader.u16()?, reader.u16()?);
    let (errno, pid) = (reader.u32()?.cast_signed(), reader.u32()?.cast_signed());
    match kind {
        JOINED if pid > 1 => Some(Answer::Joined { pid }),
        FAILED => {
            let (step, errno) = (Step::from_number(step)?, Errno::from_raw(errno));
            Some(Answer::Failed(Failure { step, errno, detail: 0 }))
        }
        _ => None,
    }
}

const NONSENSE: Errno = Errno::from_raw(libc::EBADMSG);
const ANSWER: usize = 12;
const JOINED: u16 = 1;
const FAILED: u16 = 2;
const TICKET_MAGIC: u32 = 0x5950_464E;
const VERSION: u16 = 2;
const RULES: u16 = 1;
const FILTER: u16 = 1 << 1;
const ALONE: u16 = 1 << 2;
const TCP: u16 = 1 << 3;
const SCOPES: u16 = 1 << 4;

/// In the order in which the interpreter expects them.
const NAMESPACES: [&CStr; 7] = [
    c"/proc/self/ns/user",
    c"/proc/self/ns/pid",
    c"/proc/self/ns/mnt",
    c"/proc/self/ns/net",
    c"/proc/self/ns/ipc",
    c"/proc/self/ns/uts",
    c"/proc/self/ns/cgroup",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whatever_they_are() {
        let answer = |words: [u16; 6]| -> Vec<u8> {
            words.iter().flat_map(|word| word.to_le_bytes()).collect()
        };
        assert!(matches!(parse(&answer([1, 0, 0, 0, 7, 0])), Some(Answer::Joined { pid: 7 })));
        // The first process itself, or nobody.
        assert!(parse(&answer([1, 0, 0, 0, 1, 0])).is_none());
        assert!(parse(&answer([1, 0, 0, 0, 0, 0])).is_none());
        let failed = parse(&answer([2, Step::LoadFilter.number(), 22, 0, 0, 0]));
        assert!(matches!(failed, Some(Answer::Failed(Failure { step: Step::LoadFilter, .. }))));
        assert!(parse(&answer([2, 0, 22, 0, 0, 0])).is_none());
        assert!(parse(&answer([3, 0, 0, 0, 7, 0])).is_none());
        assert!(parse(&[1, 0]).is_none());
    }
}
