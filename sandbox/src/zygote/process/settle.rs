//! From the host's surroundings to a zygote that says hello.

use std::os::fd::AsFd;

use super::{CONTROL_TOKEN, SIGNAL_TOKEN, Zygote};
use crate::{
    linux::{
        Identity,
        sys::{
            self, credentials,
            event::{self, Interest, Poller},
            file, landlock, process, seccomp,
            socket::{self, Wait},
        },
    },
    plan::{RESOURCES, Resource},
    zygote::{
        cells::Cells,
        entry::{CONTROL, Kind},
        interpreters::Interpreters,
        nursery::Nursery,
        pools::Pools,
        protocol::{MAX_REQUEST, Record},
        stock::Stock,
        stranger::Stranger,
    },
};

/// Cuts what ties this process to the host's surroundings.
pub(super) fn settle(kind: Kind) -> sys::Result<Zygote> {
    credentials::set_dumpable(false)?;
    file::close_range(3, u32::MAX)?;
    event::zygote_signals();
    // Already leading a session is as good.
    credentials::start_session().ok();
    file::enter(c"/")?;
    credentials::set_file_mask();
    credentials::leave_keyring()?;
    // Orphans of a minimal cell that has lost its keeper come here.
    credentials::adopt_orphans()?;
    let mut ceilings = [0; RESOURCES];
    for (ceiling, resource) in ceilings.iter_mut().zip(Resource::ALL) {
        *ceiling = credentials::hard_limit(resource)?;
        if resource == Resource::OpenFiles {
            // About a dozen descriptors per cell, its groups' among them; the host's soft limit is for
            // the host.
            credentials::set_limit(resource, *ceiling)?;
        }
    }
    let identity = Identity::of_caller()?;
    let null = file::open(c"/dev/null", libc::O_RDWR | libc::O_CLOEXEC)?;
    // Before the control socket is duplicated into anything, and while the host's files are in sight.
    let nursery = match kind {
        Kind::Minimal => None,
        Kind::Cells => Some(Nursery::enter(identity)),
    };
    let stranger = match identity {
        Identity::Range { first, .. } => Some(Stranger::make(first)?),
        // What it starts has its own id.
        Identity::Own { .. } => None,
    };
    let zygote = Zygote {
        control: file::inherited(CONTROL)?,
        claims: None,
        signals: event::child_signals()?,
        poller: Poller::new()?,
        pidfd: event::own_pidfd()?,
        null,
        nursery,
        pools: Pools::default(),
        interpreters: Interpreters::default(),
        stock: Stock::default(),
        ceilings,
        capabilities: credentials::capability_count(),
        cells: Cells::default(),
        adopts: false,
        untidy: false,
        last_event: 0,
        unrested: 0,
        ruins: Vec::new(),
        room: vec![0; MAX_REQUEST],
        // Zygotes of one machine begin at different places of the range, so that they rarely share
        // an id.
        started: u64::from(process::own_pid().unsigned_abs()).wrapping_mul(ID_STRIDE),
    };
    zygote.poller.add(zygote.control.as_fd(), Interest::Readable, CONTROL_TOKEN)?;
    zygote.poller.add(zygote.signals.as_fd(), Interest::Readable, SIGNAL_TOKEN)?;
    let hello = Record::Hello {
        landlock: landlock::version().unwrap_or_default(),
        filters: seccomp::supported().is_ok(),
        groups: match &zygote.nursery {
            Some(Ok(nursery)) => nursery.missing_controllers(),
            _ => 0,
        },
        own_ids: matches!(&zygote.nursery, Some(Ok(nursery)) if nursery.gives_each_its_own_id()),
        mortal: stranger.as_ref().is_none_or(Stranger::is_mortal),
    };
    let passed: Vec<_> = stranger.iter().flat_map(Stranger::descriptors).collect();
    socket::send(zygote.control.as_fd(), [&hello.encode(), &[]], &passed, Wait::No)?;
    Ok(zygote)
}

/// Odd, so that process ids spread over the whole range.
const ID_STRIDE: u64 = 509;
