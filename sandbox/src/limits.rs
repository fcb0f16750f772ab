//! Every bound of the crate, with its reason.

use std::time::Duration;

/// Wall time of a cell when the profile names none: a tool call that takes longer is stuck more
/// often than busy.
pub const DEFAULT_WALL_TIME: Duration = Duration::from_mins(1);
/// Longest wall time: a day, so that a forgotten cell ends some time, whoever forgot it.
pub const MAX_WALL_TIME: Duration = Duration::from_hours(24);

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
/// Cells of one launcher at a time: each holds four descriptors in the host.
pub const MAX_CELLS: usize = 4096;
/// New zygotes in a row without one started cell: past this something kills them, and a loop helps
/// nobody.
pub const MAX_RESTARTS: u32 = 5;
/// How long a new zygote may take until it says hello: loading a large binary from a cold disk
/// takes seconds.
pub const HELLO_WAIT: Duration = Duration::from_secs(20);

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
