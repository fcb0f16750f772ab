//! Attacks on parts of the kernel that programs rarely need. Where a call would do harm it is given
//! what the kernel refuses only after it has found the caller entitled.

use std::fs;

use super::{In, NULL, Probe, Stop, Trial, call, n, open};
use crate::{
    escape::{
        Class, Sign, Wall,
        catalogue::{Entry, entry},
    },
    level::Layer,
    linux::sys::probe::{
        Argument, Call, Page,
        entry::{by_interrupt, by_x32},
        memory::Mapping,
    },
};

const CAPABILITIES: Wall = Wall::Layer(Layer::NoCapabilities);
const DEVICES: Wall = Wall::Layer(Layer::PrivateDevices);
const IDS: Wall = Wall::Layer(Layer::IdentityMap);
const ROOT: Wall = Wall::Layer(Layer::PrivateRoot);
const PROC: Wall = Wall::Layer(Layer::PrivateProc);
const NO_RIGHT: &[Sign] = &[Sign::Errno(libc::EPERM, CAPABILITIES)];
/// A file that belongs to an id which the cell hasn't got, or isn't in its `/proc` at all.
const FOREIGN: &[Sign] = &[Sign::Errno(libc::EACCES, IDS), Sign::Errno(libc::ENOENT, PROC)];
const FILTER: &[Sign] = &[Sign::Signal(libc::SIGSYS, Wall::Layer(Layer::Seccomp))];

pub(super) const ENTRIES: &[Entry] = &[
    kernel("bpf-map", "Makes a map for programs in the kernel.", NO_RIGHT, bpf).for_root().quick(),
    kernel("io-uring", "Makes a ring, past which no filter of calls can see.", FILTER, io_uring)
        .quick(),
    kernel("userfaultfd", "Takes over the kernel's page faults.", NO_RIGHT, userfaultfd).for_root(),
    kernel("userfaultfd-user", "Takes over page faults of its own.", FILTER, userfaultfd_user),
    kernel("perf-event", "Counts events of its own.", FILTER, perf_event),
    kernel("kexec", "Loads another kernel.", NO_RIGHT, kexec).for_root(),
    kernel("kexec-file", "Loads another kernel from a file.", NO_RIGHT, kexec_file).for_root(),
    kernel("load-module", "Loads a module.", NO_RIGHT, load_module).for_root(),
    kernel("load-module-file", "Loads a module from a file.", NO_RIGHT, load_module_file)
        .for_root(),
    kernel("remove-module", "Removes a module.", NO_RIGHT, remove_module).for_root(),
    kernel("personality", "Turns the randomness of addresses off.", FILTER, personality),
    kernel("interrupt-door", "Calls the kernel with 32 bit numbers.", FILTER, interrupt),
    kernel(
        "interrupt-door-unshare",
        "Makes a user namespace with 32 bit numbers.",
        &[Sign::Errno(libc::ENOSPC, Wall::Layer(Layer::NoNestedNamespaces))],
        interrupt_unshare,
    ),
    kernel("x32-door", "Calls the kernel with x32 numbers.", FILTER, x32),
    kernel("vsock-socket", "Makes a socket to the machine below.", FILTER, vsock),
    kernel("netlink-socket", "Makes a socket to the kernel's network.", FILTER, netlink),
    kernel("packet-socket", "Makes a socket that sees whole packets.", NO_RIGHT, packet).for_root(),
    kernel("raw-socket", "Makes a socket that forges packets.", NO_RIGHT, raw).for_root(),
    kernel("crypto-socket", "Makes a socket to the kernel's ciphers.", FILTER, crypto),
    kernel(
        "kernel-log-device",
        "Opens the kernel's log as a device.",
        &[Sign::Errno(libc::ENOENT, DEVICES)],
        log_device,
    )
    .for_root(),
    kernel("kernel-log", "Reads the kernel's log.", NO_RIGHT, log).for_root(),
    kernel("sysrq", "Opens the kernel's emergency switch for writing.", FOREIGN, sysrq).for_root(),
    kernel("core-pattern", "Opens the name of the program that gets cores.", FOREIGN, core_pattern)
        .for_root()
        .quick(),
    kernel("kernel-switches", "Opens switches of the whole kernel for writing.", FOREIGN, switches)
        .for_root(),
    kernel("kernel-memory", "Opens the kernel's memory.", FOREIGN, kernel_memory).for_root(),
    kernel(
        "release-agent",
        "Opens the name of the program that ends cgroups.",
        &[Sign::Errno(libc::ENOENT, ROOT)],
        release_agent,
    )
    .for_root(),
    kernel("mount-cgroup", "Mounts the cgroup tree.", NO_RIGHT, mount_cgroup).for_root(),
    #[cfg(target_arch = "x86_64")]
    kernel("io-ports", "Takes ports of the machine.", NO_RIGHT, io_ports).for_root(),
    #[cfg(target_arch = "x86_64")]
    kernel("io-privilege", "Takes all ports of the machine.", NO_RIGHT, io_privilege).for_root(),
    #[cfg(target_arch = "x86_64")]
    kernel("descriptor-table", "Reads its table of segments.", FILTER, descriptor_table),
    kernel("accounting", "Switches accounting on.", NO_RIGHT, accounting).for_root(),
    kernel("swap", "Switches swap on.", NO_RIGHT, swap).for_root(),
    kernel("reboot", "Asks for a reboot.", NO_RIGHT, reboot).for_root(),
    kernel("clock", "Sets the clock, to what it is.", NO_RIGHT, clock).for_root(),
    kernel("watch-all-files", "Watches all files of the host.", NO_RIGHT, fanotify).for_root(),
    kernel("writable-code", "Maps memory that can be written and executed.", FILTER, writable_code),
    kernel(
        "program-from-memory",
        "Makes a memory file that can be executed.",
        FILTER,
        program_from_memory,
    ),
    kernel("huge-pages", "Maps pages of the host's pool of huge ones.", FILTER, huge_pages),
    kernel(
        "huge-memory-file",
        "Makes a memory file of the host's huge pages.",
        FILTER,
        huge_memory_file,
    ),
];

const fn kernel(
    name: &'static str,
    about: &'static str,
    signs: &'static [Sign],
    inside: super::Try,
) -> Entry {
    entry(Class::Kernel, name, about, signs, inside)
}

/// A call that was refused for another reason than rights would have been done.
fn entitled<const N: usize>(what: Call, arguments: [Argument<'_>; N]) -> Trial {
    match call(what, arguments) {
        Err(stop) if [libc::EPERM, libc::EACCES, libc::ENOSYS].contains(&stop.errno.raw()) => {
            Err(stop)
        }
        _ => Ok(format!("may call {}", what.name())),
    }
}

fn bpf(_probe: &Probe) -> Trial {
    const MAP_CREATE: i32 = 0;
    const SIZE: i32 = 32;
    // An array of one number, with numbers as keys.
    let mut map = Page::of(&[2, 4, 4, 1]);
    call(Call::Bpf, [n(MAP_CREATE), Argument::Page(&mut map), n(SIZE)])?;
    Ok("made one".to_owned())
}

fn io_uring(_probe: &Probe) -> Trial {
    let mut parameters = Page::of(&[]);
    call(Call::IoUringSetup, [n(1), Argument::Page(&mut parameters)])?;
    Ok("made one".to_owned())
}

fn userfaultfd(_probe: &Probe) -> Trial {
    call(Call::Userfaultfd, [n(libc::O_CLOEXEC)])?;
    Ok("has them".to_owned())
}

fn userfaultfd_user(_probe: &Probe) -> Trial {
    const USER_MODE_ONLY: i32 = 1;
    call(Call::Userfaultfd, [n(libc::O_CLOEXEC | USER_MODE_ONLY)])?;
    Ok("has them".to_owned())
}

fn perf_event(_probe: &Probe) -> Trial {
    const SOFTWARE: u32 = 1;
    const SIZE: u32 = 64;
    const TASK_CLOCK: u32 = 1;
    const NO_KERNEL_NO_HYPERVISOR: u32 = 0x60;
    let mut event =
        Page::of(&[SOFTWARE, SIZE, TASK_CLOCK, 0, 0, 0, 0, 0, 0, 0, NO_KERNEL_NO_HYPERVISOR]);
    call(Call::PerfEventOpen, [Argument::Page(&mut event), n(0), n(-1), n(-1), n(0)])?;
    Ok("counts".to_owned())
}

fn kexec(_probe: &Probe) -> Trial {
    const TOO_MANY_SEGMENTS: i32 = 1000;
    entitled(Call::KexecLoad, [NULL, n(TOO_MANY_SEGMENTS), NULL, n(0)])
}

fn kexec_file(_probe: &Probe) -> Trial {
    const NO_SUCH_FLAGS: i32 = -1;
    entitled(Call::KexecFileLoad, [n(-1), n(-1), n(0), NULL, n(NO_SUCH_FLAGS)])
}

fn load_module(_probe: &Probe) -> Trial {
    entitled(Call::InitModule, [NULL, n(0), Argument::Text(c"")])
}

fn load_module_file(_probe: &Probe) -> Trial {
    entitled(Call::FinitModule, [n(-1), Argument::Text(c""), n(0)])
}

fn remove_module(_probe: &Probe) -> Trial {
    entitled(Call::DeleteModule, [Argument::Text(c"neuroflow_none"), n(libc::O_NONBLOCK)])
}

fn personality(_probe: &Probe) -> Trial {
    call(Call::Personality, [n(libc::ADDR_NO_RANDOMIZE)])?;
    Ok("turned it off".to_owned())
}

fn interrupt(_probe: &Probe) -> Trial {
    const GETPID: u32 = 20;
    by_interrupt(GETPID, 0).within("int 0x80")?;
    Ok("was answered".to_owned())
}

fn interrupt_unshare(_probe: &Probe) -> Trial {
    const UNSHARE: u32 = 310;
    by_interrupt(UNSHARE, libc::CLONE_NEWUSER.cast_unsigned()).within("int 0x80")?;
    Ok("made one".to_owned())
}

fn x32(_probe: &Probe) -> Trial {
    by_x32().within("x32 getpid")?;
    Ok("was answered".to_owned())
}

fn socket(family: i32, kind: i32, protocol: i32) -> Trial {
    call(Call::Socket, [n(family), n(kind | libc::SOCK_CLOEXEC), n(protocol)])?;
    Ok("has one".to_owned())
}

fn vsock(_probe: &Probe) -> Trial {
    socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)
}

fn netlink(_probe: &Probe) -> Trial {
    socket(libc::AF_NETLINK, libc::SOCK_RAW, 0)
}

fn packet(_probe: &Probe) -> Trial {
    /// Every protocol, in network order.
    const ALL: i32 = 0x0300;
    socket(libc::AF_PACKET, libc::SOCK_RAW, ALL)
}

fn raw(_probe: &Probe) -> Trial {
    socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)
}

fn crypto(_probe: &Probe) -> Trial {
    socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0)
}

fn log_device(_probe: &Probe) -> Trial {
    open("/dev/kmsg", libc::O_RDONLY | libc::O_NONBLOCK)?;
    Ok("opened it".to_owned())
}

fn log(_probe: &Probe) -> Trial {
    const READ_ALL: i32 = 3;
    let mut page = Page::of(&[]);
    let length = call(Call::Syslog, [n(READ_ALL), Argument::Page(&mut page), n(4096)])?;
    Ok(format!("read {length} bytes"))
}

fn sysrq(_probe: &Probe) -> Trial {
    open("/proc/sysrq-trigger", libc::O_WRONLY)?;
    Ok("opened it".to_owned())
}

fn core_pattern(_probe: &Probe) -> Trial {
    open("/proc/sys/kernel/core_pattern", libc::O_WRONLY)?;
    Ok("opened it".to_owned())
}

fn switches(_probe: &Probe) -> Trial {
    let mut answer = Stop::new("openat", libc::ENOENT);
    for name in ["kernel/modprobe", "vm/drop_caches", "kernel/panic", "vm/overcommit_memory"] {
        match open(&format!("/proc/sys/{name}"), libc::O_WRONLY) {
            Ok(_) => return Ok(format!("opened {name}")),
            Err(stop) if stop.errno.raw() == libc::ENOENT => {}
            Err(stop) => answer = stop,
        }
    }
    Err(answer)
}

fn kernel_memory(_probe: &Probe) -> Trial {
    open("/proc/kcore", libc::O_RDONLY)?;
    Ok("opened it".to_owned())
}

fn release_agent(_probe: &Probe) -> Trial {
    for entry in fs::read_dir("/sys/fs/cgroup").within("openat")?.flatten() {
        let path = entry.path().join("release_agent");
        if let Some(path) = path.to_str().filter(|_| path.exists()) {
            open(path, libc::O_WRONLY)?;
            return Ok(format!("opened {path}"));
        }
    }
    Err(Stop::new("openat", libc::ENOENT))
}

fn mount_cgroup(probe: &Probe) -> Trial {
    super::mounts::mount(probe, c"cgroup2", c"cgroup2", 0, c"")
}

#[cfg(target_arch = "x86_64")]
fn io_ports(_probe: &Probe) -> Trial {
    /// Writing there has no effect, and nothing is written.
    const UNUSED_PORT: i32 = 0x80;
    call(Call::Ioperm, [n(UNUSED_PORT), n(1), n(1)])?;
    Ok("has one".to_owned())
}

#[cfg(target_arch = "x86_64")]
fn io_privilege(_probe: &Probe) -> Trial {
    call(Call::Iopl, [n(3)])?;
    Ok("has all".to_owned())
}

#[cfg(target_arch = "x86_64")]
fn descriptor_table(_probe: &Probe) -> Trial {
    const READ: i32 = 0;
    let mut page = Page::of(&[]);
    call(Call::ModifyLdt, [n(READ), Argument::Page(&mut page), n(4096)])?;
    Ok("read it".to_owned())
}

fn accounting(_probe: &Probe) -> Trial {
    entitled(Call::Acct, [Argument::Text(c"/neuroflow/none")])
}

fn swap(_probe: &Probe) -> Trial {
    entitled(Call::Swapon, [Argument::Text(c"/neuroflow/none"), n(0)])
}

fn reboot(_probe: &Probe) -> Trial {
    // Without the magic numbers nothing happens.
    entitled(Call::Reboot, [n(0), n(0), n(0), NULL])
}

fn clock(_probe: &Probe) -> Trial {
    const TICK: u32 = 0x4000;
    let mut clock = Page::of(&[0]);
    call(Call::Adjtimex, [Argument::Page(&mut clock)])?;
    if let Some(modes) = clock.0.first_chunk_mut() {
        *modes = TICK.to_ne_bytes();
    }
    call(Call::Adjtimex, [Argument::Page(&mut clock)])?;
    Ok("set it".to_owned())
}

fn fanotify(_probe: &Probe) -> Trial {
    call(Call::FanotifyInit, [n(0), n(libc::O_RDONLY)])?;
    Ok("may watch".to_owned())
}

fn writable_code(_probe: &Probe) -> Trial {
    let all = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    Mapping::new(4096, all).map(|_| "mapped it".to_owned()).or_else(|_refused| {
        // The same in two steps.
        let mut memory = Mapping::new(4096, libc::PROT_READ | libc::PROT_WRITE).within("mmap")?;
        memory.touch();
        memory.protect(libc::PROT_READ | libc::PROT_EXEC).within("mprotect")?;
        Ok("has written what it may execute".to_owned())
    })
}

/// An empty pool says so; whoever hears that could have had pages of a filled one.
fn huge_pages(_probe: &Probe) -> Trial {
    let mapped = Mapping::huge(2 << 20);
    if mapped.as_ref().is_err_and(|errno| errno.raw() == libc::ENOMEM) {
        return Ok("may ask the pool".to_owned());
    }
    mapped.within("mmap")?;
    Ok("mapped them".to_owned())
}

fn huge_memory_file(_probe: &Probe) -> Trial {
    const HUGE: i32 = 4;
    call(Call::MemfdCreate, [Argument::Text(c"huge"), n(HUGE)])?;
    Ok("made one".to_owned())
}

fn program_from_memory(_probe: &Probe) -> Trial {
    const CLOSE_ON_EXEC: i32 = 1;
    call(Call::MemfdCreate, [Argument::Text(c"program"), n(CLOSE_ON_EXEC)])?;
    Ok("made one".to_owned())
}
