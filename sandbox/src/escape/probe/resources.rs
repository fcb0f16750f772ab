//! Attacks on the machine itself: more of it than was granted, for longer than was granted. They
//! run only in cells that are limited; what has no bound of its own here has one in the cell.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::fd::AsRawFd,
};

use super::{
    In, Probe, Stop, Trial, call, n,
    processes::{slowed, to_first_processor},
};
use crate::{
    escape::{
        Class, Limits, Sign, Wall,
        catalogue::{Entry, entry},
    },
    level::Layer,
    linux::sys::{
        probe::{
            self, Call,
            memory::{Mapping, STACK},
        },
        process,
    },
};

const LIMITS: Wall = Wall::Layer(Layer::ResourceLimits);
const CGROUP: Wall = Wall::Layer(Layer::Cgroup);
const ROOT: Wall = Wall::Layer(Layer::PrivateRoot);
const TREE: Wall = Wall::Layer(Layer::ProcessTree);
const TOO_MANY: &[Sign] = &[Sign::Errno(libc::EAGAIN, LIMITS)];
const FULL: &[Sign] = &[Sign::Errno(libc::ENOSPC, ROOT)];
const TIME: &[Sign] = &[Sign::Ended(Wall::WallTime)];
const OUTPUT: &[Sign] = &[Sign::Ended(Wall::OutputLimit)];
const GONE: &[Sign] = &[Sign::Gone(TREE)];

pub(super) const ENTRIES: &[Entry] = &[
    resources("fork-bomb", "Starts processes until it can't.", TOO_MANY, fork_bomb)
        .bomb(Limits::Tight),
    resources("fork-bomb-growing", "Starts processes that do the same.", TIME, growing_bomb)
        .outliving(Limits::Short),
    resources("thread-bomb", "Starts threads until it can't.", TOO_MANY, thread_bomb)
        .bomb(Limits::Tight),
    resources("zombies", "Leaves ended children around until it can't.", TOO_MANY, zombies)
        .bomb(Limits::Tight),
    resources(
        "memory-bomb",
        "Takes memory until it can't.",
        &[Sign::Errno(libc::ENOMEM, LIMITS)],
        memory_bomb,
    )
    .bomb(Limits::Tight),
    resources(
        "memory-bomb-shared-out",
        "Takes memory in many processes, none of which takes too much.",
        &[Sign::Call("wait4", libc::ENOMEM, CGROUP)],
        shared_bomb,
    )
    .bomb(Limits::Tight),
    resources("fill-work", "Fills its working directory.", FULL, fill_work).bomb(Limits::Tight),
    resources("fill-tmp", "Fills its directory for temporary files.", FULL, fill_tmp)
        .bomb(Limits::Tight),
    resources("fill-inodes", "Makes empty files until it can't.", FULL, fill_inodes)
        .bomb(Limits::Tight),
    resources(
        "huge-file",
        "Writes a file that is too large.",
        &[Sign::Signal(libc::SIGXFSZ, LIMITS), Sign::Errno(libc::EFBIG, LIMITS)],
        huge_file,
    )
    .bomb(Limits::Tight),
    resources(
        "descriptors",
        "Opens files until it can't.",
        &[Sign::Errno(libc::EMFILE, LIMITS)],
        descriptors,
    )
    .bomb(Limits::Tight),
    resources(
        "locked-memory",
        "Keeps memory out of swap.",
        &[Sign::Errno(libc::ENOMEM, LIMITS), Sign::Errno(libc::EPERM, LIMITS)],
        locked_memory,
    )
    .bomb(Limits::Tight),
    resources("spin", "Uses the processor for ever.", TIME, spin).outliving(Limits::Short),
    resources("sleep", "Sleeps for ever.", TIME, sleep).outliving(Limits::Short),
    resources("ignore-signals", "Ignores every signal, and sleeps.", TIME, ignore_signals)
        .outliving(Limits::Short),
    resources("stopped", "Stops itself and a child.", TIME, stop_itself).outliving(Limits::Short),
    resources("output-flood", "Writes to standard output for ever.", OUTPUT, output_flood)
        .outliving(Limits::Tight),
    resources("error-flood", "Writes to standard error for ever.", OUTPUT, error_flood)
        .outliving(Limits::Tight),
    resources("huge-write", "Writes very much at once.", OUTPUT, huge_write)
        .outliving(Limits::Tight),
    resources("daemons", "Leaves processes that have cut all ties.", GONE, daemons)
        .outliving(Limits::Tight),
    resources(
        "starve-first-process",
        "Leaves processes that take all processor time from the first one.",
        &[Sign::Gone(TREE), Sign::Ended(Wall::WallTime)],
        starve,
    )
    .outliving(Limits::Short),
    resources("held-pipe", "Leaves a process that holds the output open.", GONE, held_pipe)
        .outliving(Limits::Tight),
];

const fn resources(
    name: &'static str,
    about: &'static str,
    signs: &'static [Sign],
    inside: super::Try,
) -> Entry {
    entry(Class::Resources, name, about, signs, inside)
}

/// More of anything than a tight cell has, and little enough for a machine to bear if one lets it.
const MANY: usize = 512;
const MEBIBYTE: usize = 1 << 20;

fn fork_bomb(probe: &Probe) -> Trial {
    for _ in 0..MANY {
        if probe.alone.fork().within("clone")?.is_none() {
            probe::pause();
        }
    }
    Ok(format!("started {MANY}"))
}

fn growing_bomb(probe: &Probe) -> Trial {
    loop {
        // The cell's limit is met all the time, and goes on being met.
        probe.alone.fork().ok();
    }
}

fn thread_bomb(_probe: &Probe) -> Trial {
    let writable = libc::PROT_READ | libc::PROT_WRITE;
    let stacks = Mapping::new(MANY * STACK, writable).within("mmap")?;
    for index in 0..MANY {
        stacks.start_thread(index).within("clone")?;
    }
    Ok(format!("started {MANY}"))
}

fn zombies(probe: &Probe) -> Trial {
    for _ in 0..MANY {
        if probe.alone.fork().within("clone")?.is_none() {
            process::exit(0);
        }
    }
    Ok(format!("left {MANY}"))
}

fn memory_bomb(_probe: &Probe) -> Trial {
    for _ in 0..MANY {
        let mut memory =
            Mapping::new(MEBIBYTE, libc::PROT_READ | libc::PROT_WRITE).within("mmap")?;
        memory.touch();
    }
    Ok(format!("has {MANY} MiB"))
}

/// Processes and what each takes: together three times the cell's limit, each half of it.
const SHARERS: usize = 6;
const SHARE: usize = 24 * MEBIBYTE;

fn shared_bomb(probe: &Probe) -> Trial {
    let mut children = Vec::new();
    for _ in 0..SHARERS {
        let (heard, said) = io::pipe().within("pipe2")?;
        match probe.alone.fork().within("clone")? {
            Some(child) => children.push((child, heard)),
            None => take_share(said),
        }
    }
    // Each keeps its share until all of them have theirs, however long that takes.
    let has_share = |heard: &mut io::PipeReader| heard.read_exact(&mut [0]).is_ok();
    let all = children.iter_mut().all(|(_, heard)| has_share(heard));
    for (child, _) in children {
        // One that has no share is dead already.
        process::kill(child, libc::SIGKILL).ok();
        probe::wait_for(child).within("wait4")?;
    }
    if !all {
        return Err(Stop::new("wait4", libc::ENOMEM));
    }
    Ok(format!("{SHARERS} processes had 24 MiB each at a time"))
}

/// Takes the memory, says so, and holds it.
fn take_share(mut said: io::PipeWriter) -> ! {
    let Ok(mut memory) = Mapping::new(SHARE, libc::PROT_READ | libc::PROT_WRITE) else {
        process::exit(1)
    };
    memory.touch();
    if said.write_all(&[1]).is_err() {
        process::exit(1)
    }
    probe::pause()
}

/// Fills with files that are small enough for the limit of a file's size.
fn fill(directory: &str) -> Trial {
    let block = vec![1; MEBIBYTE];
    for number in 0..MANY {
        let mut file = File::create(format!("{directory}/fill-{number}")).within("openat")?;
        file.write_all(&block).within("write")?;
    }
    Ok(format!("wrote {MANY} MiB"))
}

fn fill_work(_probe: &Probe) -> Trial {
    fill("/work")
}

fn fill_tmp(_probe: &Probe) -> Trial {
    fill("/tmp")
}

fn fill_inodes(_probe: &Probe) -> Trial {
    const FILES: usize = 200_000;
    for number in 0..FILES {
        File::create(format!("/work/{number}")).within("openat")?;
    }
    Ok(format!("made {FILES}"))
}

fn huge_file(probe: &Probe) -> Trial {
    let path = probe.scratch("huge")?;
    let mut file = File::create(&path).within("openat")?;
    // Gone from the directory, whatever becomes of this process.
    fs::remove_file(&path).within("unlink")?;
    let block = vec![1; MEBIBYTE];
    for _ in 0..16 {
        file.write_all(&block).within("write")?;
    }
    Ok("wrote 16 MiB".to_owned())
}

fn descriptors(_probe: &Probe) -> Trial {
    let mut held = Vec::with_capacity(MANY);
    for _ in 0..MANY {
        held.push(File::open("/dev/null").within("openat")?);
    }
    Ok(format!("has {}", held.len()))
}

fn locked_memory(_probe: &Probe) -> Trial {
    let memory = Mapping::new(MEBIBYTE, libc::PROT_READ | libc::PROT_WRITE).within("mmap")?;
    memory.lock().within("mlock")?;
    Ok("has locked 1 MiB".to_owned())
}

fn spin(_probe: &Probe) -> Trial {
    loop {
        std::hint::spin_loop();
    }
}

fn sleep(_probe: &Probe) -> Trial {
    probe::pause()
}

fn ignore_signals(_probe: &Probe) -> Trial {
    probe::ignore_signals();
    probe::pause()
}

fn stop_itself(probe: &Probe) -> Trial {
    // Whichever goes on after this stops again.
    probe.alone.fork().within("clone")?;
    loop {
        call(Call::Kill, [n(process::own_pid()), n(libc::SIGSTOP)])?;
    }
}

fn flood(mut to: impl Write) -> Trial {
    let block = [b'y'; 4096];
    loop {
        to.write_all(&block).within("write")?;
    }
}

fn output_flood(_probe: &Probe) -> Trial {
    flood(std::io::stdout())
}

fn error_flood(_probe: &Probe) -> Trial {
    flood(std::io::stderr())
}

fn huge_write(_probe: &Probe) -> Trial {
    let memory = Mapping::new(32 * MEBIBYTE, libc::PROT_READ).within("mmap")?;
    std::io::stdout().write_all(memory.bytes()).within("write")?;
    probe::pause()
}

fn daemons(probe: &Probe) -> Trial {
    for _ in 0..3 {
        if probe.alone.fork().within("clone")?.is_none() {
            call(Call::Setsid, []).ok();
            // The one in the middle goes, so that nobody knows the other's parent.
            if probe.alone.fork().is_ok_and(|child| child.is_some()) {
                process::exit(0);
            }
            cut_ties();
            probe::pause();
        }
    }
    Ok("left three".to_owned())
}

fn starve(probe: &Probe) -> Trial {
    let first = probe.first_process()?;
    // Where it's refused, there are the others to end all the same.
    let _refused = (slowed(first), to_first_processor(0));
    for _ in 0..SPINNERS {
        if probe.alone.fork().within("clone")?.is_none() {
            spin(probe).ok();
        }
    }
    Ok(format!("left {SPINNERS}"))
}

/// Fewer than a cell may have, and enough to leave nobody else any time.
const SPINNERS: usize = 12;

fn cut_ties() {
    probe::ignore_signals();
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        for stream in 0..3 {
            probe::place(null.as_raw_fd(), stream).ok();
        }
    }
}

fn held_pipe(probe: &Probe) -> Trial {
    if probe.alone.fork().within("clone")?.is_none() {
        if probe.alone.fork().is_ok_and(|child| child.is_some()) {
            process::exit(0);
        }
        probe::ignore_signals();
        probe::pause();
    }
    Ok("left one".to_owned())
}
