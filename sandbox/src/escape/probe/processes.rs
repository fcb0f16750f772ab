//! Attacks on other processes: those of the host, the cell's own first process, and what processes
//! share by name.

use std::fs;

use super::{In, NULL, Probe, Stop, Trial, call, n, open};
use crate::{
    escape::{
        Class, Sign, Wall,
        catalogue::{Entry, entry},
    },
    level::Layer,
    linux::sys::{
        probe::{self, Argument, Call, Page, memory},
        process,
    },
    zygote::entry::PROBE_SUMMONS,
};

const PIDS: Wall = Wall::Layer(Layer::PidNamespace);
const IPC: Wall = Wall::Layer(Layer::IpcNamespace);
const PROC: Wall = Wall::Layer(Layer::PrivateProc);
/// The host's number names nobody.
const NOBODY: &[Sign] = &[Sign::Errno(libc::ESRCH, PIDS)];
/// The first process can't be looked into, and isn't in `/proc`, if there is one.
const GUARDED: &[Sign] = &[
    Sign::Errno(libc::EPERM, Wall::FirstProcess),
    Sign::Errno(libc::EACCES, Wall::FirstProcess),
    Sign::Errno(libc::ENOENT, PROC),
];
/// The key names nothing.
const UNKNOWN_KEY: &[Sign] = &[Sign::Errno(libc::ENOENT, IPC)];
/// Only the filter stands in the way.
const FILTER: &[Sign] = &[Sign::Signal(libc::SIGSYS, Wall::Layer(Layer::Seccomp))];

pub(super) const ENTRIES: &[Entry] = &[
    processes(
        "signal-host-process",
        "Signals a process of the host by its number.",
        NOBODY,
        signal,
    )
    .quick(),
    processes("signal-everybody", "Signals every process there is.", NOBODY, signal_everybody),
    processes(
        "find-host-process",
        "Looks for a process of the host in /proc.",
        &[Sign::Call("readdir", libc::ESRCH, PIDS), Sign::Errno(libc::ESRCH, PROC)],
        find,
    )
    .quick(),
    processes(
        "open-host-process",
        "Opens a process of the host by its number.",
        NOBODY,
        open_process,
    ),
    processes("host-process-limits", "Asks for a host process's limits.", NOBODY, limits),
    processes("renice-host-process", "Sets a host process's priority.", NOBODY, renice),
    processes("ptrace-host-process", "Traces a process of the host.", NOBODY, ptrace_victim),
    processes("ptrace-zygote", "Traces the process that starts all cells.", NOBODY, ptrace_zygote)
        .for_root(),
    processes("ptrace-first-process", "Traces the cell's first process.", GUARDED, ptrace_first)
        .quick(),
    processes("ptrace-sibling", "Traces another process of the cell.", FILTER, ptrace_sibling),
    processes(
        "first-environment",
        "Reads the first process's environment, which may be the host's.",
        GUARDED,
        environment,
    )
    .quick(),
    processes("first-memory-file", "Opens the first process's memory.", GUARDED, memory_file),
    processes("first-descriptors", "Lists the first process's descriptors.", GUARDED, descriptors),
    processes("first-memory-read", "Reads from the first process's memory.", GUARDED, read_memory),
    processes("first-memory-write", "Writes to the first process's memory.", GUARDED, write_memory),
    processes(
        "first-take-descriptor",
        "Takes a descriptor from the first process.",
        GUARDED,
        take_descriptor,
    ),
    processes("first-compare", "Compares own files with the first process's.", GUARDED, compare),
    processes(
        "first-slow-down",
        "Takes processor time from the first process, which is to end the cell.",
        FILTER,
        slow_down,
    )
    .quick(),
    processes("shared-memory", "Gets shared memory of the host by its key.", UNKNOWN_KEY, shared),
    processes("semaphores", "Gets semaphores of the host by their key.", UNKNOWN_KEY, semaphores),
    processes(
        "message-queue",
        "Gets a message queue of the host by its key.",
        UNKNOWN_KEY,
        messages,
    ),
    processes(
        "posix-message-queue",
        "Opens a message queue of the host by its name.",
        UNKNOWN_KEY,
        posix_messages,
    ),
];

const fn processes(
    name: &'static str,
    about: &'static str,
    signs: &'static [Sign],
    inside: super::Try,
) -> Entry {
    entry(Class::Processes, name, about, signs, inside)
}

/// Signal 0 asks whether one could be sent.
const ASK: i32 = 0;

fn signal(probe: &Probe) -> Trial {
    call(Call::Kill, [n(probe.number("victim")?), n(ASK)])?;
    Ok("may signal it".to_owned())
}

fn signal_everybody(_probe: &Probe) -> Trial {
    call(Call::Kill, [n(-1), n(ASK)])?;
    Ok("may signal somebody".to_owned())
}

fn find(probe: &Probe) -> Trial {
    let victim = probe.target("victim")?;
    let mut listed = 0;
    for entry in fs::read_dir("/proc").within("readdir")?.flatten() {
        let name = entry.file_name();
        let is_process = name.to_str().is_some_and(|name| name.parse::<u32>().is_ok());
        listed += u32::from(is_process);
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut arguments = arguments.split(|byte| *byte == 0).skip(1);
        let is_ours = arguments.next() == Some(PROBE_SUMMONS.as_bytes());
        if is_ours && arguments.next() == Some(super::VICTIM.as_bytes()) {
            return Ok(format!("found it as {}, the host has it as {victim}", name.display()));
        }
    }
    // However many there are, the one that the host has isn't among them.
    Err(Stop::new(if listed > 0 { "readdir" } else { "openat" }, libc::ESRCH))
}

fn open_process(probe: &Probe) -> Trial {
    call(Call::PidfdOpen, [n(probe.number("victim")?), n(0)])?;
    Ok("opened it".to_owned())
}

fn limits(probe: &Probe) -> Trial {
    const OPEN_FILES: i32 = 7;
    let mut page = Page::of(&[]);
    let victim = probe.number("victim")?;
    call(Call::Prlimit, [n(victim), n(OPEN_FILES), NULL, Argument::Page(&mut page)])?;
    Ok("knows its limits".to_owned())
}

/// The priority that it has anyway.
fn renice(probe: &Probe) -> Trial {
    const PROCESS: i32 = 0;
    call(Call::Setpriority, [n(PROCESS), n(probe.number("victim")?), n(0)])?;
    Ok("set its priority".to_owned())
}

/// Tracing ends with this process, and stops nobody.
fn seize(pid: i32) -> Result<(), Stop> {
    const SEIZE: i32 = 0x4206;
    call(Call::Ptrace, [n(SEIZE), n(pid), NULL, NULL]).map(drop)
}

fn ptrace_victim(probe: &Probe) -> Trial {
    seize(probe.number("victim")?)?;
    Ok("traces it".to_owned())
}

fn ptrace_zygote(probe: &Probe) -> Trial {
    seize(probe.number("zygote")?)?;
    Ok("traces it".to_owned())
}

fn ptrace_first(probe: &Probe) -> Trial {
    seize(probe.first_process()?)?;
    Ok("traces it".to_owned())
}

fn ptrace_sibling(probe: &Probe) -> Trial {
    let Some(sibling) = probe.alone.fork().within("clone")? else {
        super::may_be_traced();
        probe::pause()
    };
    let Some(tracer) = probe.alone.fork().within("clone")? else {
        process::exit(seize(sibling).map_or_else(|stop| stop.errno.raw(), |()| 0))
    };
    let status = probe::wait_for(tracer).within("wait4")?;
    process::kill(sibling, libc::SIGKILL).ok();
    match process::ending(status) {
        process::Ending::Exited(0) => Ok("traced it".to_owned()),
        process::Ending::Exited(errno) => Err(Stop::new("ptrace", errno)),
        process::Ending::Signalled(signal) => {
            // As this process would have ended.
            process::kill(process::own_pid(), signal).within("kill")?;
            probe::pause()
        }
    }
}

fn environment(probe: &Probe) -> Trial {
    let path = format!("/proc/{}/environ", probe.first_process()?);
    let bytes = fs::read(path).within("openat")?;
    Ok(format!("read {} bytes", bytes.len()))
}

fn memory_file(probe: &Probe) -> Trial {
    open(&format!("/proc/{}/mem", probe.first_process()?), libc::O_RDWR)?;
    Ok("opened it".to_owned())
}

fn descriptors(probe: &Probe) -> Trial {
    let path = format!("/proc/{}/fd", probe.first_process()?);
    let count = fs::read_dir(path).within("openat")?.count();
    Ok(format!("sees {count}"))
}

/// Nothing is at this address; that it's looked up is what counts.
const NOWHERE: usize = 8;

fn reach(pid: i32, write: bool) -> Trial {
    let name = if write { "process_vm_writev" } else { "process_vm_readv" };
    match memory::reach_into(pid, NOWHERE, write) {
        Err(errno) if errno.raw() != libc::EFAULT => Err(Stop { call: name, errno }),
        _ => Ok("reached its memory".to_owned()),
    }
}

fn read_memory(probe: &Probe) -> Trial {
    reach(probe.first_process()?, false)
}

fn write_memory(probe: &Probe) -> Trial {
    reach(probe.first_process()?, true)
}

fn take_descriptor(probe: &Probe) -> Trial {
    let process = call(Call::PidfdOpen, [n(probe.first_process()?), n(0)])?;
    let process = i32::try_from(process).unwrap_or(-1);
    call(Call::PidfdGetfd, [n(process), n(0), n(0)])?;
    Ok("has its standard input".to_owned())
}

fn compare(probe: &Probe) -> Trial {
    const FILES: i32 = 2;
    let own = process::own_pid();
    call(Call::Kcmp, [n(own), n(probe.first_process()?), n(FILES), n(0), n(0)])?;
    Ok("compared them".to_owned())
}

fn slow_down(probe: &Probe) -> Trial {
    let [priority, class, place] = slowed(probe.first_process()?);
    priority.or(class).or(place)?;
    Ok("slowed it down".to_owned())
}

/// Each way to slow a process down, tried.
pub(super) fn slowed(pid: i32) -> [Result<(), Stop>; 3] {
    const PROCESS: i32 = 0;
    const NICEST: i32 = 19;
    const IDLE: i32 = 5;
    [
        call(Call::Setpriority, [n(PROCESS), n(pid), n(NICEST)]),
        call(Call::SchedSetscheduler, [n(pid), n(IDLE), Argument::Bytes(&[0; 4])]),
        to_first_processor(pid),
    ]
    .map(|tried| tried.map(drop))
}

/// Lets a process run there only; 0 is this one.
pub(super) fn to_first_processor(pid: i32) -> Result<i64, Stop> {
    call(Call::SchedSetaffinity, [n(pid), n(8), Argument::Bytes(&1_u64.to_ne_bytes())])
}

fn shared(probe: &Probe) -> Trial {
    call(Call::Shmget, [n(probe.number("shm")?), n(0), n(0)])?;
    Ok("has it".to_owned())
}

fn semaphores(probe: &Probe) -> Trial {
    call(Call::Semget, [n(probe.number("sem")?), n(0), n(0)])?;
    Ok("has them".to_owned())
}

fn messages(probe: &Probe) -> Trial {
    call(Call::Msgget, [n(probe.number("msg")?), n(0)])?;
    Ok("has it".to_owned())
}

fn posix_messages(probe: &Probe) -> Trial {
    let name = super::text(probe.target("mq")?)?;
    let queue = call(Call::MqOpen, [Argument::Text(&name), n(libc::O_RDWR), n(0), NULL])?;
    Ok(format!("has it as {queue}"))
}
