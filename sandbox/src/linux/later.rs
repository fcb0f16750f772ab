//! A cell that was made ahead: how it comes by its order, and by its program.
//!
//! There are three ways. Mostly the program's process is there as well ([`super::ahead`]). A filter that
//! leaves no room for that has the first process wait, and start the program as in every other cell. And
//! the program may be the fork of an interpreter, to which the order is handed on.
//!
//! The zygote may not know yet that such a cell has begun, so its first process counts the wall time too.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::{
    At, Failure, ahead,
    build::Built,
    child::{Clock, LOST, Launch, OVERDUE, accompany, begin, keep_from, keep_only, send},
    joint::Guest,
    payload::Payload,
    sys::{
        event, file,
        socket::{self, Wait},
    },
    warden::Warden,
};
use crate::{
    errno::Errno,
    plan::Order,
    step::Step,
    zygote::protocol::{MAX_REQUEST, Record, Request},
};

/// Waits for the order, carries it out, and stays until the program has ended.
pub(super) fn carry_out(
    launch: &mut Launch<'_>,
    built: Built,
    clock: &mut Clock,
) -> Result<i32, Failure> {
    let Launch { plan, stack, report, ceilings, .. } = launch;
    let report = report.as_fd();
    let Built { listener, guest, lifeline } = built;
    if let Some(guest) = guest {
        // Nobody but the guest will ever be asked about, and it has a listener of its own.
        drop(listener);
        return receive_guest(&guest, report, clock);
    }
    stack.warm_up();
    let Some((end, held)) = lifeline else {
        let Some(mut arrival) = Arrival::wait(report)? else { return Ok(unused(report)) };
        clock.skip();
        let streams = arrival.take_streams()?;
        let payload = Payload::new(plan, arrival.order()?, *ceilings);
        return begin(&payload, streams, stack, report, listener, clock);
    };
    let signals = event::child_signals().at(Step::ResetSignals)?;
    let timer = event::timer().at(Step::StartProcess)?;
    keep_only([
        Some(report),
        Some(end.as_fd()),
        Some(held.as_fd()),
        Some(signals.as_fd()),
        Some(timer.as_fd()),
        listener.as_ref().map(AsFd::as_fd),
    ])?;
    let begun = ahead::start(plan, *ceilings, stack, report, (end, held), timer.as_fd())?;
    drop(timer);
    let Some(begun) = begun else { return Ok(unused(report)) };
    clock.began(begun.at);
    let warden = || Warden::new(begun.pid, signals, listener, false).until(begun.at, begun.wall);
    accompany(begun.pid, warden, report, clock.stages())
}

/// Waits for the guest and then for its order, hands that over, and stays until the guest has ended.
fn receive_guest(guest: &Guest, report: BorrowedFd<'_>, clock: &mut Clock) -> Result<i32, Failure> {
    let signals = event::child_signals().at(Step::ResetSignals)?;
    let arrived = guest.arrive()?;
    let listener = arrived.listener.as_ref().map(AsFd::as_fd);
    keep_from(0, [Some(report), Some(guest.socket.as_fd()), Some(signals.as_fd()), listener])?;
    send(report, Record::Joined);
    let ready =
        event::wait_for_either(report, Some(guest.socket.as_fd()), -1).at(Step::ReadPlan)?;
    if let (_, true) = ready {
        // It died while it waited.
        return Ok(unused(report));
    }
    let Some(arrival) = Arrival::wait(report)? else { return Ok(unused(report)) };
    clock.skip();
    let order = arrival.order()?;
    let mut warden = Warden::new(arrived.pid, signals, arrived.listener, false)
        .until(event::now(), order.wall_nanoseconds);
    guest.order(&arrival.datagram, &arrival.copies())?;
    // Only the program may hold its streams, or they would not end with it.
    drop(arrival);
    if !warden.attend(guest.socket.as_fd(), report).at(Step::JoinCell)? {
        return Ok(OVERDUE);
    }
    guest.began()?;
    clock.finish();
    send(report, Record::Started { stages: clock.stages() });
    Ok(warden.watch(report))
}

/// Says that nothing has run, nor will.
fn unused(report: BorrowedFd<'_>) -> i32 {
    send(report, Record::Unused);
    LOST
}

/// An order, as it came from the host.
#[derive(Debug)]
pub(super) struct Arrival {
    datagram: Vec<u8>,
    /// What was too long for a datagram.
    long: Option<Vec<u8>>,
    passed: [Option<OwnedFd>; socket::MAX_PASSED],
}

impl Arrival {
    /// `None` when the host has let go of a cell that it never used.
    pub(super) fn wait(report: BorrowedFd<'_>) -> Result<Option<Self>, Failure> {
        let mut datagram = vec![0; MAX_REQUEST];
        let passed = loop {
            match socket::receive(report, &mut datagram, Wait::Yes) {
                Ok(received) if received.length == 0 => return Ok(None),
                Ok(received) => {
                    datagram.truncate(received.length);
                    break received.passed;
                }
                Err(errno) if errno.raw() == libc::EINTR => {}
                Err(errno) if errno.raw() == libc::ECONNRESET => return Ok(None),
                Err(errno) => return Err(errno).at(Step::ReadPlan),
            }
        };
        let mut arrival = Self { datagram, long: None, passed };
        if let Some(Request::RunFromFile { length }) = Request::parse(&arrival.datagram) {
            let file = arrival.passed.get(FILE).and_then(Option::as_ref);
            let file = file.ok_or(Errno::from_raw(libc::EBADF)).at(Step::ReadPlan)?;
            let mut long = vec![0; length];
            file::read_sealed(file.as_fd(), &mut long).at(Step::ReadPlan)?;
            arrival.long = Some(long);
        }
        Ok(Some(arrival))
    }

    pub(super) fn order(&self) -> Result<Order<'_>, Failure> {
        let order = match (&self.long, Request::parse(&self.datagram)) {
            (Some(long), _) => Order::parse(long),
            (None, Some(Request::Run { order })) => Order::parse(order),
            _ => None,
        };
        order.ok_or(Errno::from_raw(libc::EINVAL)).at(Step::ReadPlan)
    }

    /// The program's, once.
    pub(super) fn take_streams(&mut self) -> Result<[OwnedFd; 3], Failure> {
        let [input, output, error, ..] = &mut self.passed;
        match [input.take(), output.take(), error.take()] {
            [Some(input), Some(output), Some(error)] => Ok([input, output, error]),
            _ => Err(Errno::from_raw(libc::EBADF)).at(Step::ReadPlan),
        }
    }

    /// Everything that came beside it.
    fn copies(&self) -> Vec<BorrowedFd<'_>> {
        self.passed.iter().flatten().map(AsFd::as_fd).collect()
    }
}

/// The place of an order's file, after the three streams.
const FILE: usize = 3;
