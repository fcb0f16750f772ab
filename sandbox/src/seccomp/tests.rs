//! What the levels' filters answer, asked without a kernel.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Deny, Filter, FilterError, FilterOptions, SeccompProfile,
    compile::{compile, learning},
    evaluate::{Call, NATIVE, Program, Verdict},
    names::{self, Meaning},
    profile::{Choice, Test},
    refusal,
};
use crate::{Level, noise::Noise};

const LEVELS: [Level; 3] = [Level::Standard, Level::Strict, Level::Paranoid];
/// Past every call that there is.
const NUMBERS: std::ops::RangeInclusive<u32> = 0..=600;

fn asking(inet: bool) -> FilterOptions {
    FilterOptions { inet, deny: Deny::Notify }
}

fn builtin(level: Level) -> SeccompProfile {
    SeccompProfile::builtin(level).expect("a valid profile")
}

fn filter(level: Level, inet: bool) -> Filter {
    compile(&builtin(level), asking(inet)).expect("a filter")
}

fn number(name: &str) -> u32 {
    match names::meaning(name) {
        Meaning::Number(number) => number,
        other => panic!("{name}: {other:?}"),
    }
}

fn answer(level: Level, inet: bool, name: &str, args: &[u64]) -> Verdict {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    Program::of(&filter(level, inet)).answer(&Call::of(number(name), all))
}

/// What the text says, without libseccomp.
fn expected(profiles: [&SeccompProfile; 2], inet: bool, number: u32, args: &[u64; 6]) -> Verdict {
    for source in profiles {
        let named = source.groups.iter().flat_map(|group| &group.calls);
        let on = |option: Option<Choice>| option.is_none() || inet;
        let mut ruled = source.rules.iter().filter(|rule| on(rule.option));
        if named.into_iter().any(|call| call.number == Some(number))
            || ruled.any(|rule| rule.call.number == Some(number) && rule.holds(args))
        {
            return Verdict::Allow;
        }
    }
    let answered = profiles[0].answers.iter().find(|answer| answer.call.number == Some(number));
    answered.map_or(Verdict::Notify, |answer| Verdict::Errno(answer.errno))
}

/// Arguments that are at and beside every edge that some rule of some level draws.
fn arguments() -> BTreeMap<u32, Vec<[u64; 6]>> {
    let mut edges: BTreeMap<u32, [BTreeSet<u64>; 6]> = BTreeMap::new();
    let keeper = SeccompProfile::keeper().expect("a valid list");
    let profiles: Vec<SeccompProfile> = LEVELS.map(builtin).into_iter().chain([keeper]).collect();
    for rule in profiles.iter().flat_map(|profile| &profile.rules) {
        let Some(number) = rule.call.number else { continue };
        let edges = edges.entry(number).or_default();
        for condition in &rule.when {
            let edges = &mut edges[usize::from(condition.argument)];
            for test in &condition.tests {
                let (value, mask) = match test {
                    Test::Masked { mask, value } => (*value, *mask),
                    Test::Equal(value) | Test::Less(value) | Test::LessOrEqual(value) => {
                        (*value, u64::MAX)
                    }
                };
                let lowest = mask & mask.wrapping_neg();
                let highest = 1 << mask.ilog2();
                edges.extend([value, value ^ lowest, value ^ highest, value | !mask, value + 1]);
                edges.extend([value | 1 << 32, value | 0xFFFF_FFFF_0000_0000]);
            }
        }
    }
    let mut noise = Noise::new(7);
    let mut combined = |edges: &[BTreeSet<u64>; 6]| {
        let mut all = vec![[0; 6]];
        for (argument, values) in edges.iter().enumerate().filter(|(_, set)| !set.is_empty()) {
            let with = |args: &[u64; 6]| {
                let args = *args;
                values.iter().map(move |value| {
                    let mut args = args;
                    args[argument] = *value;
                    args
                })
            };
            all = all.iter().flat_map(with).collect();
        }
        all.push(std::array::from_fn(|_| noise.next()));
        // All of them would take minutes where a rule looks at three arguments.
        let step = all.len().div_ceil(3000).max(1);
        all.into_iter().step_by(step).collect()
    };
    edges.iter().map(|(number, edges)| (*number, combined(edges))).collect()
}

/// Every number with every interesting list of arguments.
fn calls() -> Vec<Call> {
    let arguments = arguments();
    let plain = vec![[0; 6], [u64::MAX; 6]];
    NUMBERS
        .flat_map(|number| {
            let args = arguments.get(&number).unwrap_or(&plain).clone();
            args.into_iter().map(move |args| Call::of(number, args))
        })
        .collect()
}

#[test]
fn filters_answer_what_the_profiles_say() {
    let calls = calls();
    let keeper = SeccompProfile::keeper().expect("a valid list");
    assert!(calls.len() > 4000, "{} calls", calls.len());
    for level in LEVELS {
        for inet in [false, true] {
            let (profile, program) = (builtin(level), Program::of(&filter(level, inet)));
            for call in &calls {
                let expected = expected([&profile, &keeper], inet, call.number, &call.args);
                assert_eq!(program.answer(call), expected, "{level}, inet {inet}: {call:?}");
            }
        }
    }
}

#[test]
fn levels_only_narrow() {
    let calls = calls();
    let allows = |level, inet| {
        let program = Program::of(&filter(level, inet));
        let allowed = calls.iter().map(|call| program.answer(call) == Verdict::Allow);
        allowed.collect::<Vec<bool>>()
    };
    let pairs = [
        ((Level::Paranoid, false), (Level::Strict, false)),
        ((Level::Paranoid, true), (Level::Strict, true)),
        ((Level::Strict, false), (Level::Standard, false)),
        ((Level::Strict, true), (Level::Standard, true)),
        ((Level::Paranoid, false), (Level::Paranoid, true)),
        ((Level::Strict, false), (Level::Strict, true)),
        ((Level::Standard, false), (Level::Standard, true)),
    ];
    for ((narrow, narrow_inet), (wide, wide_inet)) in pairs {
        let (narrower, wider) = (allows(narrow, narrow_inet), allows(wide, wide_inet));
        for ((call, narrower), wider) in calls.iter().zip(&narrower).zip(&wider) {
            assert!(!narrower || *wider, "{narrow} allows {call:?}, {wide} doesn't");
        }
        let count = |allowed: &[bool]| allowed.iter().filter(|allowed| **allowed).count();
        assert!(count(&narrower) <= count(&wider));
    }
}

#[test]
fn other_entries_into_the_kernel_are_killed() {
    const X32: u32 = 0x4000_0000;
    for level in LEVELS {
        let program = Program::of(&filter(level, true));
        for number in NUMBERS {
            let by = |number, arch| program.answer(&Call { number, arch, args: [0; 6] });
            for arch in [0x4000_0003, 0x4000_0028, 0xC000_00B7 ^ 1, 0, NATIVE ^ 1] {
                assert_eq!(by(number, arch), Verdict::KillProcess, "{level}: {number} {arch:#x}");
            }
            if cfg!(target_arch = "x86_64") {
                assert_eq!(by(number | X32, NATIVE), Verdict::KillProcess, "{level}: {number}");
            }
        }
        // What a tracer sets to skip a call.
        assert_ne!(program.answer(&Call::of(u32::MAX, [0; 6])), Verdict::Allow);
    }
}

#[test]
fn the_kernels_wide_doors_are_closed_at_every_level() {
    let closed = "ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp process_madvise \
        keyctl add_key request_key bpf perf_event_open io_uring_setup io_uring_enter \
        io_uring_register userfaultfd open_by_handle_at name_to_handle_at mount umount2 \
        pivot_root chroot unshare setns open_tree move_mount fsopen fsconfig fsmount fspick \
        mount_setattr quotactl quotactl_fd kexec_load init_module finit_module delete_module \
        reboot swapon swapoff syslog acct settimeofday clock_settime adjtimex clock_adjtime \
        sethostname setdomainname setgroups fanotify_init memfd_secret vhangup \
        move_pages migrate_pages lookup_dcookie statmount listmount listns lsm_set_self_attr sync";
    let only_x86 = "iopl ioperm modify_ldt kexec_file_load uselib ustat sysfs";
    let only_x86 = if cfg!(target_arch = "x86_64") { only_x86 } else { "" };
    for name in closed.split_whitespace().chain(only_x86.split_whitespace()) {
        for level in LEVELS {
            let program = Program::of(&filter(level, true));
            for args in [[0; 6], [1; 6], [u64::MAX; 6]] {
                let verdict = program.answer(&Call::of(number(name), args));
                assert_eq!(verdict, Verdict::Notify, "{level}: {name}");
            }
        }
    }
    for level in LEVELS {
        assert_eq!(answer(level, true, "clone3", &[]), Verdict::Errno(38));
        assert_eq!(answer(level, true, "openat2", &[]), Verdict::Errno(38));
    }
}

#[test]
fn huge_pages_are_refused() {
    for level in LEVELS {
        assert_eq!(answer(level, false, "mmap", &[0, 1, 3, 0x22]), Verdict::Allow, "{level}");
        // Of the usual size, and of one that is named.
        for flags in [0x4_0022, 0x5404_0022] {
            assert_eq!(answer(level, false, "mmap", &[0, 1, 3, flags]), Verdict::Notify, "{level}");
        }
        assert_eq!(answer(level, false, "memfd_create", &[0, 5]), Verdict::Notify, "{level}");
    }
    for level in [Level::Standard, Level::Strict] {
        assert_eq!(answer(level, false, "shmget", &[0, 1, 0o1600]), Verdict::Allow, "{level}");
        assert_eq!(answer(level, false, "shmget", &[0, 1, 0o45600]), Verdict::Notify, "{level}");
        assert_eq!(answer(level, false, "memfd_create", &[0, 3]), Verdict::Allow, "{level}");
    }
}

#[test]
fn arguments_decide() {
    let (allow, ask) = (Verdict::Allow, Verdict::Notify);
    let everywhere: &[(&str, &[u64], Verdict)] = &[
        ("clone", &[0x11], allow),
        // A thread of libc's, and a vfork.
        ("clone", &[0x003D_0F00], allow),
        ("clone", &[0x4111], allow),
        ("clone", &[0x1000_0011], ask),
        ("clone", &[0x0002_0011], ask),
        ("clone", &[0x4000_0000], ask),
        ("clone", &[0x80], ask),
        // The kernel doesn't look at the upper half, so neither does the filter.
        ("clone", &[0x1_1000_0011], ask),
        ("ioctl", &[0, 0x5401], allow),
        ("ioctl", &[0, 0x5412], ask),
        ("ioctl", &[0, 0x1_0000_5412], ask),
        ("ioctl", &[0, 0xFFFF_FFFF_0000_5412], ask),
        ("ioctl", &[0, 0x541C], ask),
        ("ioctl", &[0, 0x5423], ask),
        ("ioctl", &[0, 0x541D], ask),
        ("ioctl", &[0, 0x540E], ask),
        ("prctl", &[15], allow),
        ("prctl", &[35], ask),
        ("prctl", &[24], ask),
        ("prctl", &[28], ask),
        ("prctl", &[59], ask),
        ("prctl", &[0x5961_6D61], ask),
        ("prctl", &[47, 1], allow),
        ("prctl", &[47, 2], ask),
        ("personality", &[0xFFFF_FFFF], allow),
        ("personality", &[0], allow),
        ("personality", &[0x0040_0000], ask),
        ("personality", &[0x0004_0000], ask),
        ("prlimit64", &[0], allow),
        ("prlimit64", &[1], ask),
        ("mknodat", &[0, 0, 0o010_644], allow),
        ("mknodat", &[0, 0, 0o020_644], ask),
        ("mknodat", &[0, 0, 0o060_644], ask),
        ("socket", &[16, 3, 0], ask),
        ("socket", &[17, 3, 0], ask),
        ("socket", &[40, 1, 0], ask),
        ("socket", &[38, 5, 0], ask),
        ("socket", &[2, 3, 1], ask),
        ("socket", &[2, 10, 0x300], ask),
        ("socket", &[2, 2, 1], ask),
        ("socket", &[2, 1, 262], ask),
        ("socketpair", &[16, 1], ask),
    ];
    for level in LEVELS {
        for (name, args, verdict) in everywhere {
            assert_eq!(answer(level, true, name, args), *verdict, "{level}: {name} {args:x?}");
        }
    }
    for level in [Level::Standard, Level::Strict] {
        for inet in [false, true] {
            let internet = if inet { allow } else { ask };
            assert_eq!(answer(level, inet, "socket", &[1, 0x80801, 0]), allow);
            assert_eq!(answer(level, inet, "socket", &[2, 0x80801, 6]), internet);
            assert_eq!(answer(level, inet, "socket", &[10, 2, 17]), internet);
        }
        assert_eq!(answer(level, false, "mmap", &[0, 1, 7, 0x22]), allow);
    }
    for level in [Level::Strict, Level::Paranoid] {
        for (name, args, verdict) in [
            ("openat", &[0_u64, 0, 0o2, 0o7777] as &[u64], allow),
            ("openat", &[0, 0, 0o102, 0o644], allow),
            ("openat", &[0, 0, 0o102, 0o4755], ask),
            ("openat", &[0, 0, 0o2020_0002, 0o2755], ask),
            ("open", &[0, 0o101, 0o4755], ask),
            ("creat", &[0, 0o2755], ask),
            ("fchmodat", &[0, 0, 0o4755], ask),
            ("fchmodat2", &[0, 0, 0o2755], ask),
            ("chmod", &[0, 0o1777], allow),
            ("mknodat", &[0, 0, 0o104_755], ask),
            ("setsockopt", &[0, 1, 26], ask),
            ("setsockopt", &[0, 1, 50], ask),
        ] {
            assert_eq!(answer(level, false, name, args), verdict, "{level}: {name} {args:x?}");
        }
    }
    for (name, args, verdict) in [
        ("mmap", &[0_u64, 0, 3] as &[u64], allow),
        ("mmap", &[0, 0, 5], allow),
        ("mmap", &[0, 0, 6], ask),
        ("mmap", &[0, 0, 7], ask),
        ("mprotect", &[0, 0, 1], allow),
        ("mprotect", &[0, 0, 5], ask),
        ("pkey_mprotect", &[0, 0, 5], ask),
        ("shmat", &[0, 0, 0o100_000], ask),
        ("memfd_create", &[], ask),
        ("socket", &[1, 1, 0], ask),
        ("connect", &[], ask),
        ("bind", &[], ask),
        ("socketpair", &[1, 0x80801, 0], allow),
        ("socketpair", &[1, 2, 0], ask),
    ] {
        assert_eq!(answer(Level::Paranoid, true, name, args), verdict, "{name} {args:x?}");
    }
}

#[test]
fn locks_are_taken_and_no_leases() {
    for level in LEVELS {
        for command in [1, 1030, 6, 37, 1031] {
            let verdict = answer(level, false, "fcntl", &[3, command]);
            assert_eq!(verdict, Verdict::Allow, "{level}: {command}");
        }
        // A lease, and what asks for one; notices of a directory; a hint about the file.
        for command in [1024, 0x1_0000_0400, 1025, 1026, 1036] {
            let verdict = answer(level, false, "fcntl", &[3, command]);
            assert_eq!(verdict, Verdict::Notify, "{level}: {command}");
        }
    }
}

/// The cell's first process must not be slowed down by whom it is to end. Threads have numbers too.
#[test]
fn the_first_process_is_out_of_reach_of_scheduling() {
    let scheduling: &[(&str, &[u64], &[u64])] = &[
        ("sched_setaffinity", &[0], &[1]),
        ("sched_setaffinity", &[4_194_303, 8, 9], &[0x1_0000_0001, 8, 9]),
        ("sched_setscheduler", &[3, 5], &[1, 5]),
        ("sched_setparam", &[2], &[0xFFFF_FFFF_0000_0001]),
        ("setpriority", &[0, 0, 19], &[0, 1, 19]),
        ("setpriority", &[0, 17, 19], &[1, 0, 19]),
        ("setpriority", &[0, 17, 19], &[2, 0, 19]),
        ("setpriority", &[0, 17, 19], &[0x1_0000_0000, 0x1_0000_0001, 19]),
        ("sched_setattr", &[5], &[1]),
        ("ioprio_set", &[1, 0, 3], &[1, 1, 3]),
        ("ioprio_set", &[1, 9, 3], &[2, 0, 3]),
        ("ioprio_set", &[1, 9, 3], &[3, 0, 3]),
    ];
    for (name, own, first) in scheduling {
        for level in LEVELS {
            assert_eq!(
                answer(level, true, name, first),
                Verdict::Notify,
                "{level}: {name} {first:x?}"
            );
        }
        let levels = [Level::Standard, Level::Strict].into_iter();
        let only_standard = ["sched_setattr", "ioprio_set"].contains(name);
        for level in levels.take(if only_standard { 1 } else { 2 }) {
            assert_eq!(answer(level, true, name, own), Verdict::Allow, "{level}: {name} {own:x?}");
        }
    }
}

#[test]
fn the_first_process_can_do_its_work_under_every_profile() {
    let small = SeccompProfile::parse("version = 1\nname = \"nothing\"").expect("an empty list");
    for profile in LEVELS.map(builtin).into_iter().chain([small]) {
        let filter = compile(&profile, asking(false)).expect("a filter");
        let program = Program::of(&filter);
        let keeper = SeccompProfile::keeper().expect("a valid list");
        for call in keeper.groups.iter().flat_map(|group| &group.calls) {
            let number = call.number.expect("a call of this machine");
            let verdict = program.answer(&Call::of(number, [u64::MAX; 6]));
            assert_eq!(verdict, Verdict::Allow, "{}: {}", profile.name(), call.name);
        }
        for (name, args) in [
            ("clone", [0x4111, 0, 0, 0, 0, 0]),
            ("prctl", [1, 9, 0, 0, 0, 0]),
            ("prctl", [21, 0, 0, 0, 0, 0]),
            ("fcntl", [0, 2, 1, 0, 0, 0]),
            ("fcntl", [0, 4, 0, 0, 0, 0]),
            ("fcntl", [3, 1030, 3, 0, 0, 0]),
            ("fcntl", [3, 1034, 0, 0, 0, 0]),
            ("ioctl", [5, 0xC050_2100, 0, 0, 0, 0]),
            ("ioctl", [5, 0xFFFF_FFFF_C050_2100, 0, 0, 0, 0]),
            ("ioctl", [5, 0xC018_2101, 0, 0, 0, 0]),
            ("ioctl", [5, 0x4008_2102, 0, 0, 0, 0]),
        ] {
            let verdict = program.answer(&Call::of(number(name), args));
            assert_eq!(verdict, Verdict::Allow, "{}: {name} {args:x?}", profile.name());
        }
    }
    let deaf = "version = 1\nname = \"deaf\"\n[[answer]]\ncall = \"recvmsg\"\nerrno = \"EPERM\"\n\
                why = \"x\"";
    let deaf = SeccompProfile::parse(deaf).expect("a profile");
    let refused = compile(&deaf, asking(false));
    assert!(matches!(refused, Err(FilterError::Needed { call }) if call == "recvmsg"));
}

#[test]
fn no_list_is_widened_for_a_process_that_is_made_ahead() {
    let text = "version = 1\nname = \"nothing\"";
    let small = SeccompProfile::parse(text).expect("an empty list");
    assert!(!small.has_room_ahead());
    let program = Program::of(&compile(&small, asking(true)).expect("a filter"));
    let ahead = [("clone", 0x111), ("sched_yield", 0), ("pipe2", 0), ("brk", 0), ("mmap", 0)];
    for (name, first) in ahead {
        let verdict = program.answer(&Call::of(number(name), [first, 0, 3, 0x22, 0, 0]));
        assert_eq!(verdict, Verdict::Notify, "{name}");
    }
    for level in LEVELS {
        assert!(builtin(level).has_room_ahead(), "{level}");
        for lacking in [" \"sched_yield\",", " \"munmap\",", " \"brk\","] {
            let text = builtin(level).text().replacen(lacking, "", 1);
            let without = SeccompProfile::parse(&text).expect("a list");
            assert!(!without.has_room_ahead(), "{level}: {lacking}");
        }
    }
}

#[test]
fn learning_asks_about_all_but_the_start_and_the_end() {
    let program = Program::of(&learning().expect("a filter"));
    for number in NUMBERS {
        let name = names::name(number);
        let expected = match &*name {
            "execve" | "exit" | "exit_group" | "rt_sigreturn" => Verdict::Allow,
            "clone3" | "openat2" => Verdict::Errno(38),
            _ => Verdict::Notify,
        };
        assert_eq!(program.answer(&Call::of(number, [0; 6])), expected, "{name}");
    }
}

#[test]
fn without_a_listener_calls_fail() {
    let options = FilterOptions { inet: false, deny: Deny::Errno };
    let filter = compile(&builtin(Level::Strict), options).expect("a filter");
    let program = Program::of(&filter);
    assert_eq!(program.answer(&Call::of(number("bpf"), [0; 6])), Verdict::Errno(1));
    assert_eq!(program.answer(&Call::of(number("read"), [0; 6])), Verdict::Allow);
}

#[test]
fn every_kind_of_comparison_means_what_it_says() {
    let mut text = String::from("version = 1\nname = \"kinds\"\n");
    for (call, op, value) in [
        ("dup", "eq", "0x1_0000_0007"),
        ("madvise", "ne", "7"),
        ("sync", "lt", "7"),
        ("syncfs", "le", "0x1_0000_0000"),
        ("flock", "int-eq", "[7, 9]"),
    ] {
        text += &["[[rule]]\ncall = \"", call, "\"\nwhy = \"x\"\n"].concat();
        let (before, after) = ("when = [{ argument = 5, op = \"", " }]\n");
        text += &[before, op, "\", value = ", value, after].concat();
    }
    let profile = SeccompProfile::parse(&text).expect("a profile");
    let program = Program::of(&compile(&profile, asking(false)).expect("a filter"));
    let allows = |name: &str, argument: u64| {
        program.answer(&Call::of(number(name), [0, 0, 0, 0, 0, argument])) == Verdict::Allow
    };
    assert!(allows("dup", 0x1_0000_0007) && !allows("dup", 7));
    for (argument, differs) in [(7, false), (0x1_0000_0007, false), (6, true), (0xF, true)] {
        assert_eq!(allows("madvise", argument), differs, "{argument:#x}");
    }
    assert!(allows("sync", 6) && !allows("sync", 7) && !allows("sync", 0x1_0000_0000));
    assert!(allows("syncfs", 0x1_0000_0000) && allows("syncfs", 0xFFFF_FFFF));
    assert!(!allows("syncfs", 0x1_0000_0001) && !allows("syncfs", 0x2_0000_0000));
    assert!(allows("flock", 7) && allows("flock", 0x5_0000_0009) && !allows("flock", 8));
}

#[test]
fn filters_stay_small() {
    for level in LEVELS {
        for inet in [false, true] {
            let instructions = filter(level, inet).instructions();
            println!("{level}, inet {inet}: {instructions} instructions");
            assert!(instructions < 600, "{level}: {instructions}");
        }
    }
}

#[test]
fn calls_have_names() {
    assert_eq!(names::name(number("mseal")), "mseal");
    assert_eq!(names::name(number("openat")), "openat");
    assert_eq!(names::name(number("file_setattr")), "file_setattr");
    assert_eq!(names::name(999), "syscall_999");
    assert_eq!(names::meaning("syscall_999"), Meaning::Number(999));
    // One call has one name, and nobody writes x32's numbers.
    for name in ["syscall_0", "syscall_0999", "syscall_1073741824", "syscall_-1", "rea\0d", ""] {
        assert_eq!(names::meaning(name), Meaning::Unknown, "{name:?}");
    }
    assert_eq!(names::meaning("socketcall"), Meaning::Elsewhere);
    assert_eq!(names::near("opnat").as_deref(), Some("openat"));
    assert_eq!(names::near("nothing_like_it"), None);
}

#[test]
fn what_is_newer_than_common_isnt_there() {
    let told = |name: &str| refusal(i32::try_from(number(name)).expect("a number"));
    assert_eq!(told("ptrace"), libc::EPERM);
    assert_eq!(told("mount"), libc::EPERM);
    assert_eq!(told("statmount"), libc::ENOSYS);
    assert_eq!(told("socket"), libc::EAFNOSUPPORT);
    assert_eq!(refusal(900), libc::ENOSYS);
    assert_eq!(refusal(-1), libc::EPERM);
}
