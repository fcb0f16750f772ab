//! Datagrams with descriptors beside them.

#![expect(unsafe_code, reason = "system calls and the ancillary data macros; see each block")]

use std::{
    mem::{self, MaybeUninit},
    net::Ipv4Addr,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use super::{
    Result, check,
    file::{borrow, own},
    last,
};
use crate::errno::Errno;

/// The most descriptors that travel with one datagram: three streams, the report, the plan.
pub(crate) const MAX_PASSED: usize = 5;
/// The most that are sent with one: what an interpreter needs to fork into a cell. Only it receives
/// so many.
pub(crate) const MAX_SENT: usize = 32;

/// Two connected sockets that keep the borders of messages.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: `ends` has room for the two descriptors that the kernel writes.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) })?;
    Ok((own(ends[0]), own(ends[1])))
}

/// A datagram socket with an abstract name that the kernel chose.
pub(crate) fn abstract_one() -> Result<OwnedFd> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
    // SAFETY: takes integers only.
    let socket = own(check(unsafe { libc::socket(libc::AF_UNIX, kind, 0) })?);
    let family = family(libc::AF_UNIX);
    let length = u32_of(size_of::<libc::sa_family_t>());
    // SAFETY: an address of its family alone, which is as long as announced, asks for a name.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const family).cast(), length) })?;
    Ok(socket)
}

/// Connects a socket with a name to that name.
pub(crate) fn connect_to_itself(socket: BorrowedFd<'_>) -> Result<()> {
    let mut name = MaybeUninit::<libc::sockaddr_un>::zeroed();
    let mut length = u32_of(size_of::<libc::sockaddr_un>());
    // SAFETY: the name has the length that is announced, and the kernel writes both.
    check(unsafe {
        libc::getsockname(socket.as_raw_fd(), name.as_mut_ptr().cast(), &raw mut length)
    })?;
    // SAFETY: the kernel reads as much as it has written before.
    check(unsafe { libc::connect(socket.as_raw_fd(), name.as_ptr().cast(), length) })?;
    Ok(())
}

/// A socket for TCP, neither bound nor connected.
pub(crate) fn tcp() -> Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes integers only.
    Ok(own(check(unsafe { libc::socket(libc::AF_INET, kind, 0) })?))
}

/// Binds to a port of the loopback address; 0 leaves the choice to the kernel.
pub(crate) fn bind_local(socket: BorrowedFd<'_>, port: u16) -> Result<()> {
    let (address, length) = local(port);
    // SAFETY: the address is live and as long as announced; the kernel reads it.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(())
}

/// Connects to a port of the loopback address, without waiting for an answer.
pub(crate) fn connect_local(socket: BorrowedFd<'_>, port: u16) -> Result<()> {
    let (address, length) = local(port);
    // SAFETY: the address is live and as long as announced; the kernel reads it.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(())
}

fn local(port: u16) -> (libc::sockaddr_in, libc::socklen_t) {
    let address = libc::sockaddr_in {
        sin_family: family(libc::AF_INET),
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(Ipv4Addr::LOCALHOST).to_be() },
        sin_zero: [0; 8],
    };
    (address, u32_of(size_of::<libc::sockaddr_in>()))
}

fn family(number: libc::c_int) -> libc::sa_family_t {
    libc::sa_family_t::try_from(number).unwrap_or_default()
}

/// Whether the descriptor is a socket of our kind.
pub(crate) fn is_ours(fd: RawFd) -> bool {
    let mut kind: libc::c_int = 0;
    let mut length = SIZE_OF_INT;
    // SAFETY: `kind` has the `length` bytes that are announced; a descriptor that is no socket is
    // an error.
    let asked = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_TYPE,
            (&raw mut kind).cast(),
            &raw mut length,
        )
    };
    asked == 0 && kind == libc::SOCK_SEQPACKET
}

/// Whether a call may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    Yes,
    No,
}

/// Sends the parts as one datagram, with copies of the descriptors. Never raises `SIGPIPE`.
pub(crate) fn send<const PARTS: usize>(
    socket: BorrowedFd<'_>,
    parts: [&[u8]; PARTS],
    passed: &[BorrowedFd<'_>],
    wait: Wait,
) -> Result<()> {
    if passed.len() > MAX_SENT {
        return Err(Errno::from_raw(libc::E2BIG));
    }
    let mut vectors = parts
        .map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() });
    let mut ancillary = Ancillary::empty();
    let mut message = header(&mut vectors);
    if !passed.is_empty() {
        let bytes = passed.len() * mem::size_of::<FdBytes>();
        message.msg_control = ancillary.0.as_mut_ptr().cast();
        // SAFETY: computes a size from a number.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(u32_of(bytes)) } as usize;
        // SAFETY: the control buffer is aligned for and larger than one header, so the result is
        // its start.
        let first = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        // SAFETY: computes a size from a number.
        let length = unsafe { libc::CMSG_LEN(u32_of(bytes)) } as usize;
        let value = libc::cmsghdr {
            cmsg_len: length,
            cmsg_level: libc::SOL_SOCKET,
            cmsg_type: libc::SCM_RIGHTS,
        };
        // SAFETY: `first` points to the start of our aligned buffer, which has room for the header.
        unsafe { first.write(value) };
        // SAFETY: `first` is a valid header within the buffer.
        let data = unsafe { libc::CMSG_DATA(first) }.cast::<FdBytes>();
        for (index, fd) in passed.iter().enumerate() {
            // SAFETY: index < MAX_SENT, and the buffer has room for that many descriptors after
            // the header.
            let slot = unsafe { data.add(index) };
            // SAFETY: the slot is inside the buffer, and bytes need no alignment.
            unsafe { slot.write(fd.as_raw_fd().to_ne_bytes()) };
        }
    }
    let flags = libc::MSG_NOSIGNAL | if wait == Wait::No { libc::MSG_DONTWAIT } else { 0 };
    // SAFETY: header, vectors and control buffer are live and describe live memory, which the
    // kernel only reads.
    check(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) })?;
    Ok(())
}

/// One datagram.
#[derive(Debug)]
pub(crate) struct Received<const PASSED: usize = MAX_PASSED> {
    /// How many bytes came; 0 says that the other side is gone, because nobody sends empty
    /// datagrams.
    pub(crate) length: usize,
    pub(crate) passed: [Option<OwnedFd>; PASSED],
}

impl Default for Received {
    fn default() -> Self {
        Self { length: 0, passed: [const { None }; MAX_PASSED] }
    }
}

/// Receives one datagram. One that is cut short, or comes with too many descriptors, is an error
/// (`EMSGSIZE`).
pub(crate) fn receive(socket: BorrowedFd<'_>, into: &mut [u8], wait: Wait) -> Result<Received> {
    receive_with(socket, into, wait)
}

/// As [`receive`], with up to `PASSED` descriptors, which are [`MAX_SENT`] at most.
pub(crate) fn receive_with<const PASSED: usize>(
    socket: BorrowedFd<'_>,
    into: &mut [u8],
    wait: Wait,
) -> Result<Received<PASSED>> {
    const { assert!(PASSED <= MAX_SENT, "the ancillary data have room for them") };
    let mut vectors = [libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() }];
    let mut ancillary = Ancillary::empty();
    let mut message = header(&mut vectors);
    message.msg_control = ancillary.0.as_mut_ptr().cast();
    // SAFETY: computes a size from a number.
    message.msg_controllen =
        unsafe { libc::CMSG_SPACE(u32_of(PASSED * mem::size_of::<FdBytes>())) } as usize;
    let flags = libc::MSG_CMSG_CLOEXEC | if wait == Wait::No { libc::MSG_DONTWAIT } else { 0 };
    // SAFETY: header, vectors and control buffer are live and ours alone, with their true sizes.
    let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let length = usize::try_from(count).map_err(|_negative| last())?;
    let received = Received { length, passed: take_passed(&message) };
    if message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        return Err(Errno::from_raw(libc::EMSGSIZE));
    }
    Ok(received)
}

/// Takes over all descriptors of a received message, also of one that is refused, so that none
/// leaks.
fn take_passed<const PASSED: usize>(message: &libc::msghdr) -> [Option<OwnedFd>; PASSED] {
    let mut passed = [const { None }; PASSED];
    let mut next = 0;
    // SAFETY: the kernel has filled the control buffer and set its length.
    let mut current = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !current.is_null() {
        // SAFETY: a header that the macros return lies completely inside the buffer.
        let head = unsafe { current.read() };
        if head.cmsg_level == libc::SOL_SOCKET && head.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: computes a size from a number.
            let empty = unsafe { libc::CMSG_LEN(0) } as usize;
            // SAFETY: `current` is a valid header within the buffer.
            let data = unsafe { libc::CMSG_DATA(current) }.cast::<FdBytes>();
            for index in 0..head.cmsg_len.saturating_sub(empty) / mem::size_of::<FdBytes>() {
                // SAFETY: the kernel wrote as many descriptors as the header's length says.
                let slot = unsafe { data.add(index) };
                // SAFETY: the slot is inside the buffer, and bytes need no alignment.
                let fd = own(RawFd::from_ne_bytes(unsafe { slot.read() }));
                // What is received has room for exactly PASSED; `fd` is closed here if that should
                // change.
                if let Some(place) = passed.get_mut(next) {
                    *place = Some(fd);
                }
                next += 1;
            }
        }
        // SAFETY: `current` is a valid header within the message's buffer.
        current = unsafe { libc::CMSG_NXTHDR(message, current) };
    }
    passed
}

/// Says that nothing more will come, whoever else holds a copy of the descriptor.
pub(crate) fn hang_up(socket: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes integers only.
    check(unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) })?;
    Ok(())
}

/// Takes nothing more than what is there, whoever else holds a copy of the descriptor: who sends more
/// is told so.
pub(crate) fn refuse_more(socket: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes integers only.
    check(unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RD) })?;
    Ok(())
}

/// Switches the loopback device of the calling process's network namespace on.
pub(crate) fn raise_loopback() -> Result<()> {
    // SAFETY: makes a descriptor.
    let socket = own(check(unsafe {
        libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0)
    })?);
    let mut request = LoopbackRequest { name: [0; libc::IFNAMSIZ], flags: IFF_UP, rest: [0; 22] };
    request.name[..2].copy_from_slice(b"lo");
    // SAFETY: the struct has the size and layout of `ifreq`, of which the call reads name and
    // flags.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) })?;
    Ok(())
}

/// A socket that listens on the loopback device of the calling process's network namespace.
pub(crate) fn listen_on_loopback(port: u16) -> Result<OwnedFd> {
    let socket = tcp()?;
    bind_local(borrow(&socket), port)?;
    // SAFETY: takes integers only.
    check(unsafe { libc::listen(socket.as_raw_fd(), WAITING_CONNECTIONS) })?;
    Ok(socket)
}

/// `ifreq` with the union's member for flags.
#[repr(C)]
struct LoopbackRequest {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    rest: [u8; 22],
}

/// Room for one header and [`MAX_SENT`] descriptors, aligned for the header.
#[repr(C, align(8))]
struct Ancillary([u8; ANCILLARY]);

impl Ancillary {
    const fn empty() -> Self {
        Self([0; ANCILLARY])
    }
}

/// A descriptor as it stands in ancillary data.
type FdBytes = [u8; mem::size_of::<RawFd>()];

/// Connections that wait for the proxy; past them the kernel lets the next one try again.
const WAITING_CONNECTIONS: libc::c_int = 64;
/// The kernel's flag in the type of the struct's member.
const IFF_UP: libc::c_short = 1;

/// 16 bytes of header and 32 descriptors of 4 bytes.
const ANCILLARY: usize = 144;
const SIZE_OF_INT: libc::socklen_t = 4;

fn header(vectors: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: all fields are integers and pointers, for which zero is valid.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = vectors.as_mut_ptr();
    message.msg_iovlen = vectors.len();
    message
}

fn u32_of(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn descriptors_arrive_with_their_datagram() {
        let (left, right) = pair().unwrap();
        let passed = [left.as_fd(); MAX_PASSED];
        send(left.as_fd(), [b"ab", b"c"], &passed, Wait::No).unwrap();
        let mut buffer = [0; 8];
        let received = receive(right.as_fd(), &mut buffer, Wait::No).unwrap();
        assert_eq!(&buffer[..received.length], b"abc");
        assert!(received.passed.iter().all(Option::is_some));
    }

    #[test]
    fn a_cut_datagram_is_an_error() {
        let (left, right) = pair().unwrap();
        send(left.as_fd(), [b"abc", b""], &[left.as_fd()], Wait::No).unwrap();
        let refused = receive(right.as_fd(), &mut [0; 2], Wait::No).unwrap_err();
        assert_eq!(refused.raw(), libc::EMSGSIZE);
    }

    #[test]
    fn what_was_sent_before_more_was_refused_arrives() {
        let (left, right) = pair().unwrap();
        send(left.as_fd(), [b"ab", b""], &[], Wait::No).unwrap();
        refuse_more(right.as_fd()).unwrap();
        let refused = send(left.as_fd(), [b"c", b""], &[], Wait::No).unwrap_err();
        assert_eq!(refused.raw(), libc::EPIPE);
        let mut buffer = [0; 8];
        assert_eq!(receive(right.as_fd(), &mut buffer, Wait::Yes).unwrap().length, 2);
        assert_eq!(receive(right.as_fd(), &mut buffer, Wait::Yes).unwrap().length, 0);
        send(right.as_fd(), [b"d", b""], &[], Wait::No).unwrap();
        assert_eq!(receive(left.as_fd(), &mut buffer, Wait::Yes).unwrap().length, 1);
    }

    #[test]
    fn a_closed_peer_reads_as_empty() {
        let (left, right) = pair().unwrap();
        drop(left);
        assert_eq!(receive(right.as_fd(), &mut [0; 2], Wait::No).unwrap().length, 0);
        assert_eq!(send(right.as_fd(), [b"x", b""], &[], Wait::No).unwrap_err().raw(), libc::EPIPE);
    }
}
