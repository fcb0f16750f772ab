//! Every bound of the crate, with its reason.

use std::time::Duration;

/// Wall time of a cell when the profile names none: a tool call that takes longer is stuck more
/// often than busy.
pub const DEFAULT_WALL_TIME: Duration = Duration::from_mins(1);
/// Longest wall time: a day, so that a forgotten cell ends some time, whoever forgot it.
pub const MAX_WALL_TIME: Duration = Duration::from_hours(24);
/// Life of a service's cell: a month, less than the launcher's clock of milliseconds in 32 bits can
/// say. Whoever supervises the service starts it anew.
pub const SERVICE_TIME: Duration = Duration::from_hours(24 * 30);
/// Time that a service gets to end by itself when its input has ended, before its cell is ended.
pub const SERVICE_GRACE: Duration = Duration::from_secs(2);
/// Time for a service's cell to start, unless its caller has less left.
pub const SERVICE_START: Duration = Duration::from_mins(1);

/// Address space per process: enough for an interpreter with a data set, too little to push a small
/// host into swap.
pub const DEFAULT_MEMORY_BYTES: u64 = 1 << 30;
/// Below this the dynamic loader can't map libc, and every program dies with an error that names
/// something else.
pub const MIN_MEMORY_BYTES: u64 = 16 << 20;
/// Largest address space: what a 47 bit machine can map, so that the value is never read as
/// "infinite".
pub const MAX_MEMORY_BYTES: u64 = 1 << 47;

/// Processes and threads at a time: a parallel build fits, a fork bomb stays small.
pub const DEFAULT_PROCESSES: u32 = 64;
/// Most processes of one cell: the default `kernel.pid_max` of small machines is eight times this.
pub const MAX_PROCESSES: u32 = 4096;

/// Open files per process: the usual soft limit is 1024, and tools rarely need a quarter of it.
pub const DEFAULT_OPEN_FILES: u32 = 256;
/// Below this a shell pipeline can't be built.
pub const MIN_OPEN_FILES: u32 = 8;
/// Most open files: programs that close every possible descriptor one by one stay usable.
pub const MAX_OPEN_FILES: u32 = 65_536;

/// Largest file a cell writes: above the working directory's default size, so that the tmpfs speaks
/// first (`ENOSPC`).
pub const DEFAULT_FILE_SIZE_BYTES: u64 = 256 << 20;
/// Largest value for the same: a terabyte is beyond every tmpfs and still far from overflow.
pub const MAX_FILE_SIZE_BYTES: u64 = 1 << 40;

/// Output of a cell, both streams together: several times what a model can read.
pub const DEFAULT_OUTPUT_BYTES: u64 = 8 << 20;
/// Most output: it may be collected in memory by the host.
pub const MAX_OUTPUT_BYTES: u64 = 1 << 30;

/// Size of the working directory: memory of the host, so not generous.
pub const DEFAULT_WORKDIR_BYTES: u64 = 64 << 20;
/// Below one page a tmpfs has no room for a file.
pub const MIN_WORKDIR_BYTES: u64 = 4096;
/// Largest working directory: tmpfs lives in memory, more than this belongs on a disk that is bound
/// in.
pub const MAX_WORKDIR_BYTES: u64 = 64 << 30;
/// Inodes of each writable tmpfs: inodes are kernel memory (about 1 KiB each) that the size limit
/// doesn't count.
pub const WRITABLE_INODES: u64 = 65_536;
/// Size of `/tmp` and `/dev/shm`: scratch space; results belong into the working directory.
pub const SCRATCH_BYTES: u64 = 64 << 20;
/// Size of the root file system: a dozen small files, read-only once the program runs.
pub const ROOT_BYTES: u64 = 1 << 20;
/// Inodes of the root file system: the fixed tree needs about 50, each bind adds up to
/// [`MAX_PATH_DEPTH`].
pub const ROOT_INODES: u64 = 4096;

/// Standard input handed over as a whole: larger inputs are files and belong into a bind.
pub const MAX_STDIN_BYTES: usize = 16 << 20;
/// Arguments of a program: `xargs` sends about 2000 at a time.
pub const MAX_ARGUMENTS: usize = 4096;
/// Variables of the environment.
pub const MAX_VARIABLES: usize = 256;
/// Binds of one profile: each costs about 20 µs at every start and one descriptor while the cell is
/// built.
pub const MAX_BINDS: usize = 32;
/// Directories in a bind's inner path: each is created at every start.
pub const MAX_PATH_DEPTH: usize = 16;
/// Longest path, as the kernel has it (`PATH_MAX`).
pub const MAX_PATH_BYTES: usize = 4096;

/// An encoded plan: arguments and environment of the kernel's own default limit (`ARG_MAX`, 2 MiB)
/// never fit completely; half of it is more than any tool call needs.
pub const MAX_PLAN_BYTES: usize = 1 << 20;
/// A plan up to this size travels inside the datagram; a longer one in a sealed memory file,
/// because a datagram has to fit the socket's send buffer beside others.
pub const INLINE_PLAN_BYTES: usize = 16 << 10;
/// Cells of one launcher at a time: each holds five descriptors in the host.
pub const MAX_CELLS: usize = 4096;
/// New zygotes in a row without one started cell: past this something kills them, and a loop helps
/// nobody.
pub const MAX_RESTARTS: u32 = 5;
/// How long a new zygote may take until it says hello: loading a large binary from a cold disk
/// takes seconds.
pub const HELLO_WAIT: Duration = Duration::from_secs(20);

/// How long a launch may take before its program runs, however much wall time it has: long enough for a
/// bind's source on a disk that has to spin up, or on a network that stumbles.
pub const LAUNCH_WAIT: Duration = Duration::from_mins(1);
/// How long a zygote may be silent when it is to answer: its answers take milliseconds, and seconds on a
/// machine with far too much to do. One that hangs longer, for instance over a path of a file system that
/// is gone, is given up for another.
pub const ANSWER_WAIT: Duration = Duration::from_secs(15);

/// How long the first process of a cell may take to end when it is killed, before everything in the cell is
/// killed one by one: a moment, unless it gets no processor time beside what it should take along. Each
/// further time it is twice as long.
pub const END_WAIT: Duration = Duration::from_millis(50);

/// When a cell is looked at again whose alarm for memory has rung, before anything of it was ended: the kernel
/// rings first, and ends a process within microseconds. Each further time it is twice as long.
pub const ALARM_PAUSE: Duration = Duration::from_millis(2);
/// How often it is looked at, in two seconds all in all. One whose alarm still rings then, and that has all its
/// memory, has nothing that the kernel could end.
pub const ALARM_LOOKS: u32 = 10;

/// How long a zygote may take to end in good order: it kills its cells and removes their groups.
pub const GOODBYE_WAIT: Duration = Duration::from_secs(2);

/// How long the output of a program that has ended is read on while somebody that can't be ended holds its
/// streams open; only on systems where there may be such a one. What was written before is there at once.
pub const STRAY_OUTPUT_WAIT: Duration = Duration::from_millis(200);
/// How often a process group is killed at a time: a process that forks meanwhile leaves a child behind on
/// some systems, and hardly three times in a row unless it means to.
pub const GROUP_KILLS: u32 = 3;

/// Bytes of one piece of output: half a pipe, so that the writer goes on while the reader handles
/// the piece.
pub const CHUNK_BYTES: usize = 32 << 10;

/// First host id for cells of a privileged launcher: the last block of the range that systemd
/// leaves to containers (524288 to 1879048191), so no account of the host owns it.
pub const FIRST_CELL_ID: u32 = 0x6FFF_0000;
/// How many host ids cells take turns on: neighbours in time never share one.
pub const CELL_IDS: u32 = 0x8000;
/// The one user and group id inside a cell: not 0, so that nothing mistakes the cell for a root
/// shell.
pub const INNER_ID: u32 = 1000;

/// Cells that the sandbox actor runs at once; past it a request is refused as busy. Each is a few
/// processes and half a MiB, and a machine is out of processor time long before.
pub const LIVE_CELLS: usize = 256;
/// Requests that wait for a cell: at a second each, the last one waits for some seconds, and whoever
/// asked gives up about then.
pub const WAITING_CELLS: usize = 1024;

/// Processor time of a cell, in thousandths of a core: one core, so that a tool call that spins
/// leaves the rest of the host alone.
pub const DEFAULT_CPU_MILLI: u32 = 1000;
/// Below this a program doesn't get through its own start within seconds.
pub const MIN_CPU_MILLI: u32 = 10;
/// More cores than any machine has.
pub const MAX_CPU_MILLI: u32 = 1_024_000;
/// The shortest processor time that a process can be limited to (`RLIMIT_CPU` counts seconds).
pub const LEAST_CPU_TIME: Duration = Duration::from_secs(1);
/// The kernel's default weight.
pub const DEFAULT_CPU_WEIGHT: u32 = 100;
/// The kernel's largest weight.
pub const MAX_CPU_WEIGHT: u32 = 10_000;
/// Below this a disk serves not even one page at a time.
pub const MIN_IO_BYTES: u64 = 4096;
/// Below this a program can't write a handful of files.
pub const MIN_INODES: u64 = 16;
/// Inodes are kernel memory: this many are 4 GiB.
pub const MAX_INODES: u64 = 4 << 20;

/// Where a cell finds its egress proxy, on its own loopback device: the usual port of proxies.
pub const EGRESS_PORT: u16 = 3128;

/// Network namespaces that wait for the next cell: each saves half a millisecond of a start and
/// costs 180 KiB of kernel memory.
pub const STOCKED_NETWORKS: usize = 4;
/// Network namespaces that are kept when cells have left them: enough for a burst of cells at once.
pub const IDLE_NETWORKS: usize = 64;
/// Copies of the plain root that wait for the next cell; each saves the time of copying some fifteen
/// mounts, which take 6 KiB.
pub const STOCKED_ROOTS: usize = 4;
/// Groups that wait for the next cell; each saves the time of a `mkdir` per hierarchy.
pub const STOCKED_GROUPS: usize = 4;
/// Groups of ended cells that wait for the next one; more than end at once on a few processors. Each is a few
/// KiB of kernel memory and a dozen descriptors.
pub const USED_GROUPS: usize = 8;
/// First processes of the sort that was asked for last that wait for their plan; each saves half of a
/// start's time. Cells that are started in a burst find as many.
pub const STOCKED_SEEDLINGS: usize = 3;
/// Such processes of all sorts together: each takes 160 KiB, and as much in the kernel.
pub const MOST_SEEDLINGS: usize = 6;
/// Roots with mount points of their own that are kept: hosts have a handful of profiles with binds.
pub const MAX_TEMPLATES: usize = 16;

/// Groups that wait for a quiet moment to be removed in: each is a few KiB of kernel memory, and
/// removing a batch at once costs no more than one by one.
pub const MOST_DYING_GROUPS: usize = 32;
/// Mount tables of ended cells that wait for a quiet moment: some twenty mounts each.
pub const MOST_RUINS: usize = 16;

/// Pools of one launcher: one per profile that is worth keeping warm.
pub const MAX_POOLS: usize = 16;
/// Waiting cells of one pool: each holds up to 350 KiB.
pub const MAX_POOL: u16 = 256;
/// Waiting cells in a row that may die before anybody asks for one: then something is wrong with the
/// profile or the host, and the next launch will say what.
pub const MAX_STILLBORN: u16 = 3;
/// How long a pool that has grown stays so without a claim: longer than the pauses of an agent that
/// thinks between two tool calls.
pub const POOL_PATIENCE: Duration = Duration::from_secs(10);

/// How long a pool that isn't half empty lets a claimed cell begin before it makes the next one: most
/// programs of a tool call are loaded by then, and on a machine with few processors the two would be
/// in each other's way.
pub const REFILL_PAUSE: Duration = Duration::from_millis(5);

/// Prepared cells that are left when the zygote is woken by a claim at once, rather than when the host
/// has time: the next burst would find none.
pub const FEW_OFFERS: usize = 1;

/// How long after the end of the last cell the zygote begins to fill its stocks: the host has heard
/// of the end by then, and may have asked for the next cell.
pub const REST_PAUSE: Duration = Duration::from_millis(1);
/// Cells that may be started one after the other before the zygote takes the time to fill its stocks:
/// as many as those hold.
pub const MOST_UNRESTED: u32 = 4;

/// Kinds of refused system calls that one report names: more than any level refuses.
pub const MAX_DENIALS: usize = 512;

// seccomp

/// Bytes of a system call profile's text: ten times the longest that comes with the crate.
pub const MAX_SECCOMP_PROFILE_BYTES: usize = 256 << 10;
/// Groups and rules of one profile: the widest built-in one has about 50.
pub const MAX_SECCOMP_ENTRIES: usize = 512;
/// Values that one condition is compared with: the longest list of `ioctl` requests has about 40.
pub const MAX_SECCOMP_VALUES: usize = 128;
/// Alternatives for the arguments of all calls together, each condition's values multiplied: every
/// one is about eight instructions, and the kernel takes 4096.
pub const MAX_SECCOMP_ALTERNATIVES: usize = 512;
/// Instructions of a filter, as the kernel has it (`BPF_MAXINSNS`).
pub const MAX_FILTER_INSTRUCTIONS: usize = 4096;
/// System calls are numbered below this: the newest kernels stop before 500, and numbers of the x32
/// interface begin at a billion.
pub const MAX_SYSTEM_CALL: u32 = 1024;
/// Compiled filters that are kept in memory: three levels with and without sockets, and room for
/// profiles of a host's own.
pub const MAX_CACHED_FILTERS: usize = 32;

// Warm interpreters.

/// How long a cell waits for an interpreter's fork: one is made in milliseconds, and a burst of cells
/// waits for as many forks as it has cells.
pub const JOIN_WAIT: Duration = Duration::from_secs(10);
/// Modules that one interpreter imports ahead.
pub const MAX_PRELOADED: usize = 64;
/// The longest name of such a module.
pub const MAX_MODULE_NAME: usize = 128;
/// Interpreters with different modules; each holds some 20 MiB.
pub const MAX_INTERPRETERS: usize = 4;
/// Starts of an interpreter in a row without one fork that came into its cell.
pub const MAX_INTERPRETER_STARTS: u32 = 6;
/// Pause before an interpreter starts again; it doubles each time.
pub const INTERPRETER_PAUSE: Duration = Duration::from_millis(50);

// Control groups.

/// Control groups at a time: those of all cells, as many again that wait for their removal, and a
/// stock.
pub const MAX_GROUPS: usize = 2 * MAX_CELLS + 64;
/// Groups removed in one go: each takes up to half a millisecond, and a request may be waiting.
pub const TIDY_BATCH: usize = 8;
/// How deep groups below a cell's own are looked for: cells can't make any, except trusted ones
/// with the host's rights.
pub const GROUP_DEPTH: usize = 4;
/// Rounds of killing where the kernel can't kill a group as a whole; with forks forbidden the first
/// is enough.
pub const KILL_ROUNDS: usize = 100;
/// Attempts to remove a group whose processes were killed: a tenth of a second together, far more
/// than the dead need to leave.
pub const CLEAR_ATTEMPTS: usize = 100;
/// Pause between those.
pub const CLEAR_PAUSE: Duration = Duration::from_millis(1);
/// Longest control file that is read: a list of every process id of a large machine.
pub const CONTROL_FILE_BYTES: usize = 1 << 20;
/// Block devices that get a limit: a limit is one write for each, and machines with more disks
/// don't run cells on them.
pub const MAX_LIMITED_DEVICES: usize = 16;

// Egress.

/// Rules of one allow-list: each request looks at all of them, and nobody reviews a longer list.
pub const MAX_EGRESS_RULES: usize = 256;
/// Entries of each kind in one rule (ports, methods, path prefixes, private ranges, headers, trust
/// roots): more belong into rules of their own.
pub const MAX_RULE_ENTRIES: usize = 32;
/// Longest path prefix of a rule: longer ones name a document, not a part of an interface.
pub const MAX_PATH_PREFIX_BYTES: usize = 1024;
/// Longest secret: signed tokens with many claims come to about 4 KiB, and servers refuse headers
/// beyond 8 KiB.
pub const MAX_SECRET_BYTES: usize = 8 << 10;
/// Connections that a cell's proxy serves at a time: an installer's parallel downloads fit. Further
/// ones wait in the listener's queue.
pub const DEFAULT_EGRESS_CONCURRENT: u32 = 32;
/// Most connections at a time: each holds two descriptors in the host.
pub const MAX_EGRESS_CONCURRENT: u32 = 1024;
/// Connections in a cell's life: a crawl fits, a loop that dials for ever doesn't.
pub const DEFAULT_EGRESS_CONNECTIONS: u64 = 10_000;
/// Most connections in a cell's life: a day of ten per second.
pub const MAX_EGRESS_CONNECTIONS: u64 = 1_000_000;
/// Refusals that a cell gets after that, so that its programs learn why; then the proxy accepts no
/// more, because each refusal costs the host time that no limit of the cell counts.
pub const EGRESS_REFUSALS: u64 = 64;
/// Bytes that leave by one connection: requests are small, and what leaves can't be called back.
pub const DEFAULT_EGRESS_UP_BYTES: u64 = 16 << 20;
/// Bytes that come in by one connection: a large package.
pub const DEFAULT_EGRESS_DOWN_BYTES: u64 = 256 << 20;
/// Bytes that leave a cell in its life.
pub const DEFAULT_EGRESS_CELL_UP_BYTES: u64 = 64 << 20;
/// Bytes that come into a cell in its life: a tree of packages.
pub const DEFAULT_EGRESS_CELL_DOWN_BYTES: u64 = 1 << 30;
/// Largest value for any of the four: far from overflow when they are summed up.
pub const MAX_EGRESS_BYTES: u64 = 1 << 50;
/// Head of a request or response: what widespread servers take.
pub const DEFAULT_EGRESS_HEAD_BYTES: u32 = 16 << 10;
/// Below this the HTTP implementation has no buffer to work with.
pub const MIN_EGRESS_HEAD_BYTES: u32 = 8 << 10;
/// Largest head: the longest request target that the HTTP implementation takes is as long.
pub const MAX_EGRESS_HEAD_BYTES: u32 = 64 << 10;
/// Header lines of a head: browsers send about 20.
pub const EGRESS_HEADERS: usize = 100;
/// How long a head, or the first record of a tunnel, may take: a client on the same machine needs
/// milliseconds.
pub const DEFAULT_EGRESS_HEAD_TIME: Duration = Duration::from_secs(15);
/// How long one name may take to resolve: the usual resolver repeats after five seconds.
pub const DEFAULT_EGRESS_RESOLVE_TIME: Duration = Duration::from_secs(10);
/// How long all attempts to connect, with the TLS handshake, may take together.
pub const DEFAULT_EGRESS_CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long a connection may pass no byte in any direction: models think before they answer.
pub const DEFAULT_EGRESS_IDLE_TIME: Duration = Duration::from_mins(2);
/// How long a connection may last: as long as a long download.
pub const DEFAULT_EGRESS_TOTAL_TIME: Duration = Duration::from_mins(10);
/// Longest value for any of these times: the longest life of a cell.
pub const MAX_EGRESS_TIME: Duration = MAX_WALL_TIME;
/// Addresses of a name that are looked at: a name with more answers has enough of them in these.
pub const EGRESS_ADDRESSES: usize = 8;
/// Cells that look up a name at a time: each such look-up holds a thread of the runtime's blocking pool
/// until the system's resolver gives up, whoever still waits for the answer. A cell has one of these places
/// at most, so that fewer cells with a dead name server don't stop the rest; with the places below they take
/// half of the pool, which has 512 threads.
pub const EGRESS_LOOKUPS: usize = 224;
/// Further look-ups at a time of all cells that have one already. Whoever is first may take them all.
pub const EGRESS_FURTHER_LOOKUPS: usize = 32;
/// Further look-ups at a time of one cell: a client that asks for several hosts at once has three more.
pub const EGRESS_CELL_FURTHER_LOOKUPS: usize = 3;
/// First record of a tunnel: the largest that TLS has (RFC 8446, 5.1), with its header.
pub const EGRESS_HELLO_BYTES: usize = 5 + (16 << 10);
/// Copy buffer of a tunnel, one per direction.
pub const EGRESS_BUFFER_BYTES: usize = 16 << 10;
/// Decisions kept for the report: about 200 KiB at most; later ones are counted only.
pub const EGRESS_DECISIONS: usize = 1024;
/// Bytes of a path that a decision keeps: enough to see what was meant.
pub const EGRESS_PATH_BYTES: usize = 256;
/// How long the proxy waits when the host has no descriptor left for a connection.
pub const EGRESS_ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What is read and thrown away after a refusal, so that the client sees the answer rather than a
/// reset.
pub const EGRESS_LINGER_BYTES: usize = 256 << 10;
/// How long that may take.
pub const EGRESS_LINGER_TIME: Duration = Duration::from_millis(500);

// overlay: what a cell changed in its view of a project
/// Entries of a cell's changes: what the inodes of their tmpfs allow ([`WRITABLE_INODES`]), and as
/// many deletions.
pub const CHANGES_ENTRIES: usize = 131_072;
/// Directories in a path of a cell's changes: each costs the reader one descriptor, and dependency
/// trees of package managers stay below half of it.
pub const CHANGES_DEPTH: usize = 64;
/// Bytes of all paths and link targets of a cell's changes: 500 for each entry. They are in the host's
/// memory, where as many of the longest would take half a GiB.
pub const CHANGES_PATH_BYTES: usize = 64 << 20;
/// Bytes of all changed files together, holes included: applying them writes as much to the disk.
pub const CHANGES_BYTES: u64 = 4 << 30;
/// How far the time of a file's change may lie before the change: a kernel that ticks as seldom as any
/// has its clock for such times stand still for so long. Of what was changed so shortly before a cell
/// began nobody knows whether it was before.
pub const CLOCK_TICK: Duration = Duration::from_millis(10);
/// How many paths the text of a conflict names; the error has them all.
pub const CONFLICTS_NAMED: usize = 8;
/// Entries that applying changes deletes: a tree of dependencies has some 100 000, a disk has more.
pub const DELETIONS: usize = 1 << 20;
/// Directories in a path that is deleted: each costs one descriptor, and the usual soft limit is
/// 1024.
pub const DELETION_DEPTH: usize = 256;
/// Names tried for a file that is written beside its place, before somebody must have taken them all
/// on purpose.
pub const NAMES_TRIED: u32 = 100;

// The escape suite.

/// Wall time of an attack that isn't about time: a machine under load takes a second to load a
/// large debug executable.
pub const PROBE_WALL_TIME: Duration = Duration::from_secs(10);
/// Wall time of an attack on limits: filling everything up takes most of a second, and many times that
/// beside other work. Nothing waits for it unless a limit doesn't hold.
pub const PROBE_TIGHT_WALL_TIME: Duration = Duration::from_secs(20);
/// Wall time of an attack that only this ends.
pub const PROBE_SHORT_WALL_TIME: Duration = Duration::from_millis(600);
/// Memory of a cell that is to run out of it, above what the attacker's own executable takes.
pub const PROBE_MEMORY_BYTES: u64 = 48 << 20;
/// Processes of such a cell.
pub const PROBE_PROCESSES: u32 = 16;
/// Open files of each of its processes.
pub const PROBE_OPEN_FILES: u32 = 32;
/// Its largest file.
pub const PROBE_FILE_BYTES: u64 = 2 << 20;
/// Its output.
pub const PROBE_OUTPUT_BYTES: u64 = 1 << 20;
/// How often processes are looked for that should be gone: two seconds in all.
pub const PROBE_LEFT_LOOKS: u32 = 100;
/// Time between two such looks.
pub const PROBE_LEFT_PAUSE: Duration = Duration::from_millis(20);
/// Cells that are started while what they bind is being swapped: enough to meet both states.
pub const PROBE_SWAPS: u32 = 25;
/// Launches that lose their zygote, or their caller, each a moment later than the one before.
pub const PROBE_LOSSES: u32 = 8;
/// That moment: what a timer can tell apart, and a cell is built in several of them.
pub const PROBE_MOMENT: Duration = Duration::from_millis(1);
