"""A warm interpreter: imports modules once, then forks into prepared cells.

It is started by the zygote as `python3 -I -B - MODULE...` with this text as standard input, sees
nothing but what cells see, and never runs a program itself. For each cell that asks it forks twice:
the first fork enters the cell's namespaces, the second one is born inside, becomes a child of the
cell's first process, gives up everything that a program of that cell doesn't have, proves that it is
gone, and waits for its order. All of that happens before anybody wants to run anything.

Every fork has the interpreter's address-space layout and its secret of string hashes in common.
"""

import atexit
import ctypes
import gc
import importlib
import importlib.machinery
import io
import os
import resource
import signal
import socket
import struct
import sys
import threading
import time
import types

DOOR, OWN_PID_NAMESPACE = 3, 4
# What the interpreter is sent by a cell's first process: see `linux/joint.rs`.
TICKET = struct.Struct("<IHHIIIIII")
TICKET_MAGIC, ORDER_MAGIC, VERSION = 0x5950464E, 0x524F464E, 2
# An order, as `plan/encode.rs` writes it, behind the header of a request.
REQUEST_HEADER, ORDER, ENTRY = 16, struct.Struct("<IHHQ"), struct.Struct("<BBII")
DIRECTORY, ARGUMENT, VARIABLE = 6, 8, 9
RULES, FILTER, ALONE, TCP, SCOPES = 1, 2, 4, 8, 16
LIMIT = struct.Struct("<IQ")
MAX_TICKET, MAX_PASSED = 128 << 10, 64
# What a fork answers: kind, step, error number, process id.
ANSWER = struct.Struct("<HHiI")
JOINED, FAILED = 1, 2
# Numbers of `step.rs`.
PARENT_DEATH, SET_IDS, START_SESSION, FORBID_PRIVILEGES, EMPTY_BOUNDING_SET = 4, 9, 23, 25, 26
LOCK_SECURE_BITS, DROP_CAPABILITIES, VERIFY_CAPABILITIES, VERIFY_PRIVILEGES = 27, 28, 29, 30
LIMIT_RESOURCE, PLACE_STREAMS, CLOSE_DESCRIPTORS, ENTER_DIRECTORY = 32, 24, 33, 34
VERIFY_IDS, ENTER_RULES, VERIFY_RULES, LOAD_FILTER, ENTER_GROUP, JOIN_CELL = 42, 45, 46, 47, 49, 51
# From the kernel's headers.
PR_SET_PDEATHSIG, PR_GET_PDEATHSIG, PR_GET_DUMPABLE, PR_SET_DUMPABLE = 1, 2, 3, 4
PR_GET_SECCOMP = 21
PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_GET_SECUREBITS, PR_SET_SECUREBITS = 23, 24, 27, 28
PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 38, 39, 47
CAP_AMBIENT_CLEAR_ALL, LOCKED_SECURE_BITS, CAPABILITY_VERSION_3 = 4, 0xEF, 0x20080522
SET_MODE_FILTER, NEW_LISTENER, WAIT_KILLABLE = 1, 8, 32
NEW_NET, NEW_USER, NEW_PID, NEW_NS = 0x40000000, 0x10000000, 0x20000000, 0x00020000
NEW_IPC, NEW_UTS, NEW_CGROUP = 0x08000000, 0x04000000, 0x02000000
EPERM, EACCES, EINVAL, EBADE = 1, 13, 22, 52

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


class SockFprog(ctypes.Structure):
    """The kernel's `sock_fprog`."""

    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def check(returned: int) -> int:
    """Turns C's -1 into an exception."""
    if returned == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return returned


def demand(holds: bool) -> None:
    """What was read back must be what was set."""
    if not holds:
        raise OSError(EBADE, "not as set")


def prctl(option: int, first: int = 0, second: int = 0) -> int:
    unsigned = ctypes.c_ulong
    return check(libc.prctl(option, unsigned(first), unsigned(second), unsigned(0), unsigned(0)))


class Ticket:
    """What a fork needs to come into one cell."""

    def __init__(self, data: bytes, passed: list[int]) -> None:
        magic, version, self.flags, self.id, self.capabilities, self.sys_seccomp, \
            self.sys_landlock, limits, groups = TICKET.unpack_from(data)
        if magic != TICKET_MAGIC or version != VERSION:
            raise OSError(EINVAL, "no ticket")
        end = TICKET.size + limits * LIMIT.size
        self.limits = list(LIMIT.iter_unpack(data[TICKET.size:end]))
        self.filter = data[end:]
        self.cell, self.user, self.pid, self.mnt, self.net, self.ipc, self.uts, self.cgroup = \
            passed[:8]
        rest = passed[8:]
        self.rules = rest.pop(0) if self.flags & RULES else None
        self.groups = rest
        if len(self.groups) != groups or len(self.limits) != limits:
            raise OSError(EINVAL, "an incomplete ticket")


class Joining:
    """One fork on its way into a cell; `step` names what it is about to do."""

    def __init__(self, ticket: Ticket) -> None:
        self.ticket, self.step, self.door = ticket, JOIN_CELL, socket.socket(fileno=ticket.cell)

    def enter_namespaces(self) -> None:
        ticket = self.ticket
        # The network belongs to the nursery: the right to enter it goes with the user namespace.
        for namespace, kind in ((ticket.net, NEW_NET), (ticket.user, NEW_USER),
                                (ticket.ipc, NEW_IPC), (ticket.uts, NEW_UTS),
                                (ticket.cgroup, NEW_CGROUP), (ticket.mnt, NEW_NS)):
            check(libc.setns(namespace, kind))

    def settle(self, parent: int) -> None:
        """Becomes what a program of the cell is. Nothing is held back for later."""
        ticket = self.ticket
        self.step = ENTER_GROUP
        for group in ticket.groups:
            os.write(group, b"0")
        self.step = START_SESSION
        os.setsid()
        demand(os.getsid(0) == os.getpid())
        self.step = SET_IDS
        os.setresgid(ticket.id, ticket.id, ticket.id)
        os.setresuid(ticket.id, ticket.id, ticket.id)
        self.drop_privileges()
        self.step = LIMIT_RESOURCE
        for number, value in ticket.limits:
            signed = value if value < 1 << 63 else resource.RLIM_INFINITY
            resource.setrlimit(number, (signed, signed))
            demand(resource.getrlimit(number) == (signed, signed))
        os.chdir("/")
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if ticket.rules is not None:
            self.enter_rules()
        self.step = CLOSE_DESCRIPTORS
        os.dup2(self.door.fileno(), 3)
        self.door.detach()
        self.door = socket.socket(fileno=3)
        os.closerange(4, 1 << 20)
        # A program that was executed in the cell may be looked at from inside it too.
        prctl(PR_SET_DUMPABLE, 1)
        self.rehearse()
        self.step = PARENT_DEATH
        # By now the cell's first process has taken the parent's place.
        while os.getppid() == parent:
            time.sleep(0.0005)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        tied = ctypes.c_int(0)
        check(libc.prctl(PR_GET_PDEATHSIG, ctypes.byref(tied), *(ctypes.c_ulong(0),) * 3))
        demand(tied.value == signal.SIGKILL and os.getppid() == 1)
        self.verify()
        listener = self.load_filter()
        answer = ANSWER.pack(JOINED, 0, 0, os.getpid())
        if listener is None:
            self.door.sendall(answer)
        else:
            socket.send_fds(self.door, [answer], [listener])
            os.close(listener)

    def rehearse(self) -> None:
        """Does all that an order will ask for, so that the fork has its own copies of the pages that
        this touches before anybody waits for it."""
        self.step = JOIN_CELL
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        entries = ((DIRECTORY, b"/\0"), (VARIABLE, b"HOME=/work\0"), (ARGUMENT, b"python3\0"),
                   (ARGUMENT, b"-I\0"), (ARGUMENT, b"-B\0"), (ARGUMENT, b"-c\0"),
                   (ARGUMENT, b"import sys\nprint(len(sys.argv))\0"))
        order = bytes(REQUEST_HEADER) + ORDER.pack(ORDER_MAGIC, VERSION, 0, 0) + b"".join(
            ENTRY.pack(kind, 0, len(text), 0) + text for kind, text in entries)
        socket.send_fds(ours, [order], [0, 1, 2])
        door, self.door = self.door, theirs
        arguments = self.await_order()
        self.door = door
        ours.detach()
        theirs.detach()
        main = begin(arguments)
        exec(compile(arguments[4], "<string>", "exec", dont_inherit=True), main.__dict__)
        flush()
        flush_files()
        threading.active_count()
        main.__dict__.clear()
        gc.collect()

    def drop_privileges(self) -> None:
        self.step = FORBID_PRIVILEGES
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        self.step = EMPTY_BOUNDING_SET
        for capability in range(self.ticket.capabilities):
            prctl(PR_CAPBSET_DROP, capability)
        self.step = LOCK_SECURE_BITS
        prctl(PR_SET_SECUREBITS, LOCKED_SECURE_BITS)
        self.step = DROP_CAPABILITIES
        prctl(PR_CAP_AMBIENT, CAP_AMBIENT_CLEAR_ALL)
        check(libc.capset(struct.pack("<Ii", CAPABILITY_VERSION_3, 0), bytes(24)))

    def enter_rules(self) -> None:
        """As `linux/landlock.rs` does, and proves."""
        ticket = self.ticket
        self.step = VERIFY_RULES
        outside = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        outside.bind("")
        self.step = ENTER_RULES
        check(libc.syscall(ticket.sys_landlock, ticket.rules, 0))
        self.step = VERIFY_RULES
        if ticket.flags & SCOPES:
            demand(outside.connect_ex(outside.getsockname()) == EPERM)
        outside.close()
        if ticket.flags & TCP:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream:
                demand(stream.connect_ex(("127.0.0.1", 1)) == EACCES)
        try:
            os.close(os.open("/.guard", os.O_RDONLY | os.O_CLOEXEC))
            demand(False)
        except PermissionError as refused:
            demand(refused.errno == EACCES)

    def load_filter(self) -> int | None:
        """Comes last, because a call that it refuses waits until somebody has its listener."""
        self.step = LOAD_FILTER
        if not self.ticket.flags & FILTER:
            return None
        program = SockFprog(len(self.ticket.filter) // 8, self.ticket.filter)
        for flags in (NEW_LISTENER | WAIT_KILLABLE, NEW_LISTENER):
            listener = libc.syscall(self.ticket.sys_seccomp, SET_MODE_FILTER, flags,
                                    ctypes.byref(program))
            if listener >= 0 or ctypes.get_errno() != EINVAL:
                break
        check(listener)
        demand(prctl(PR_GET_SECCOMP) == 2)
        return listener

    def verify(self) -> None:
        """Asks the kernel whether everything is as it was set."""
        ticket = self.ticket
        self.step = VERIFY_IDS
        ids = (ticket.id,) * 3
        demand(os.getresuid() == ids and os.getresgid() == ids)
        demand(not ticket.flags & ALONE or os.getgroups() == [])
        self.step = VERIFY_CAPABILITIES
        held = ctypes.create_string_buffer(b"\1" * 24, 24)
        header = ctypes.create_string_buffer(struct.pack("<Ii", CAPABILITY_VERSION_3, 0), 8)
        check(libc.capget(header, held))
        demand(held.raw == bytes(24) and prctl(PR_GET_SECUREBITS) == LOCKED_SECURE_BITS)
        demand(not any(prctl(PR_CAPBSET_READ, each) for each in range(ticket.capabilities)))
        self.step = VERIFY_PRIVILEGES
        demand(prctl(PR_GET_NO_NEW_PRIVS) == 1 and prctl(PR_GET_DUMPABLE) == 1)

    def await_order(self) -> list[str] | None:
        """Returns the arguments; `None` if nobody wants anything any more."""
        self.step = PLACE_STREAMS
        data, passed, _, _ = socket.recv_fds(self.door, MAX_TICKET, 4)
        if not data:
            return None
        order = data[REQUEST_HEADER:]
        if len(passed) == 4:
            order = os.pread(passed[3], os.fstat(passed[3]).st_size, 0)
        for place in range(3):
            os.dup2(passed[place], place)
        os.closerange(4, 16)
        magic, version, _, _ = ORDER.unpack_from(order)
        demand(magic == ORDER_MAGIC and version == VERSION)
        directory, arguments, environment, at = "/", [], {}, ORDER.size
        while at < len(order):
            kind, _, first, second = ENTRY.unpack_from(order, at)
            at += ENTRY.size + first + second
            # Without the closing NUL.
            text = order[at - first - second:at - second - 1]
            if kind == DIRECTORY:
                directory = text
            elif kind == ARGUMENT:
                arguments.append(os.fsdecode(text))
            elif kind == VARIABLE:
                name, _, value = text.partition(b"=")
                environment[name] = value
        os.environb.clear()
        os.environb.update(environment)
        time.tzset()
        self.step = ENTER_DIRECTORY
        os.chdir(directory)
        return arguments

    def report(self, error: BaseException) -> None:
        number = error.errno if isinstance(error, OSError) and error.errno else EBADE
        try:
            self.door.sendall(ANSWER.pack(FAILED, self.step, number, 0))
        except OSError:
            pass  # Nobody listens, so nobody waits.


def join(ticket: Ticket) -> None:
    """The first fork, born into the cell's process ids; everything else happens in the second."""
    joining = Joining(ticket)
    try:
        joining.enter_namespaces()
        parent = os.getpid()
        if os.fork() != 0:
            os._exit(0)
        joining.settle(parent)
        arguments = joining.await_order()
    except BaseException as error:
        joining.report(error)
        os._exit(1)
    if arguments is None:
        os._exit(0)
    gc.enable()
    run(joining.door, arguments)


def run(door: socket.socket, arguments: list[str]) -> None:
    """Does what `python3 -I -B -c TEXT` or `python3 -I -B FILE` does, up to its exit."""
    main = begin(arguments)
    source = arguments[3:]
    # This tells the cell's first process that the program runs.
    door.close()
    status, interrupted = 1, False
    try:
        if source[0] == "-c":
            code = compile(source[1], "<string>", "exec", dont_inherit=True)
        else:
            main.__file__, main.__cached__ = source[0], None
            main.__loader__ = importlib.machinery.SourceFileLoader("__main__", source[0])
            code = compile(read_script(source[0]), source[0], "exec", dont_inherit=True)
        exec(code, main.__dict__)
        status = 0
    except SystemExit as leaving:
        status = exit_status(leaving.code)
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        # The outermost frame is this function's.
        error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
        sys.excepthook(type(error), error, error.__traceback__)
        del error
    finish(main, status, interrupted)


def begin(arguments: list[str]) -> types.ModuleType:
    """Makes the interpreter look as if it had just started with these arguments."""
    sys.orig_argv[:] = arguments
    reopen_streams()
    main = types.ModuleType("__main__")
    main.__builtins__ = sys.modules["builtins"]
    main.__loader__ = importlib.machinery.BuiltinImporter
    if "__annotations__" in globals():
        main.__annotations__ = {}
    sys.modules["__main__"] = main
    source = arguments[3:]
    sys.argv[:] = ["-c", *source[2:]] if source[0] == "-c" else source
    return main


def read_script(path: str) -> bytes:
    try:
        with open(path, "rb") as script:
            return script.read()
    except OSError as error:
        print(f"{sys.orig_argv[0]}: can't open file {os.path.abspath(path)!r}: "
              f"[Errno {error.errno}] {error.strerror}", file=sys.stderr)
        raise SystemExit(2) from None


def exit_status(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def finish(main: types.ModuleType, status: int, interrupted: bool) -> None:
    """Ends as an interpreter ends, but doesn't take the imported modules apart."""
    threading._shutdown()
    atexit._run_exitfuncs()
    whole = flush()
    flush_files()
    if threading.active_count() == 1:
        # What nobody closed closes itself now.
        main.__dict__.clear()
        gc.collect()
        whole = flush() and whole
    if interrupted:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    # Whoever waits for the streams' ends needn't wait for the memory's.
    os.closerange(0, 3)
    os._exit(status if whole else 120)


def flush_files() -> None:
    """The collector closes files of a cycle in an order that loses what is in their buffers. What was
    there before the fork isn't among the objects."""
    for kinds in ((io.TextIOWrapper,), (io.BufferedWriter, io.BufferedRandom)):
        for each in gc.get_objects():
            if issubclass(type(each), kinds):
                try:
                    each.flush()
                except Exception:
                    pass  # Closed, or nowhere to go, as at any interpreter's end.


def flush() -> bool:
    whole = True
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not getattr(stream, "closed", False):
                stream.flush()
        except Exception:
            whole = whole and stream is not sys.stdout
    return whole


def reopen_streams() -> None:
    """The streams' objects still know what their descriptors were before."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        old = getattr(sys, name)
        binary = open(number, "rb" if number == 0 else "wb", closefd=False)
        binary.raw.name = f"<{name}>"
        stream = io.TextIOWrapper(binary, old.encoding, old.errors, None if number == 0 else "\n",
                                  line_buffering=number == 2 or binary.isatty())
        stream.mode = "r" if number == 0 else "w"
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def serve() -> None:
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    prctl(PR_SET_DUMPABLE, 0)
    for module in sys.argv[1:]:
        try:
            importlib.import_module(module)
        except ImportError:
            pass  # Whoever needs it will hear so from their own import.
    if threading.active_count() != 1:
        os._exit(3)  # A fork would leave the others' locks behind, and can't change its user.
    # Ended forks need nobody who asks how.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    door = socket.socket(fileno=DOOR)
    gc.collect()
    gc.freeze()
    gc.disable()
    door.sendall(b"ready")
    while True:
        data, passed, flags, _ = socket.recv_fds(door, MAX_TICKET, MAX_PASSED)
        if not data:
            os._exit(0)
        try:
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                continue
            ticket = Ticket(data, passed)
            # This says where children are born; the interpreter itself stays where it is.
            check(libc.setns(ticket.pid, NEW_PID))
            if os.fork() == 0:
                door.close()
                join(ticket)
            check(libc.setns(OWN_PID_NAMESPACE, NEW_PID))
        except (OSError, ValueError, struct.error):
            pass  # The cell sees that its socket closes.
        finally:
            for fd in passed:
                os.close(fd)


serve()
