"""The program inside a sandbox: reads one job, runs the tool, answers once. Standard library, Python >= 3.8.

In mode ``tool`` (containers) this process is the tool's. In mode ``keep UID`` (plain processes) it stays a
keeper and forks the tool: whatever the tool starts stays below the keeper, and is killed by it when the tool
ends or when stdin closes, which is how the host, dead or alive, says that it is over. In mode ``nest`` the keeper
is the first process of namespaces of its own, and leaves the host's files behind before it reads the job.

In (stdin): a line of JSON with sizes and limits, then the code, the input and the files, without separators.
Out (stdout): ``ready`` and a newline when the tool starts; then ``O`` and the result as JSON, or ``E`` and an
error as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys

TYPE_CHECKING = False  # typing takes longer to import than everything else here
if TYPE_CHECKING:
    from typing import Any, NoReturn

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38
SIGKILL = 9
PR_CAPBSET_DROP, CAPABILITIES = 24, 64
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
MESSAGE_LIMIT = 2000
FILE_BYTES = 64 * 1024 * 1024


def main(mode: str, uid: str = "0") -> None:
    if mode == "nest":
        leave_files()
    job = read_job(sys.stdin.buffer)
    if mode in ("keep", "nest"):
        sys.exit(keep(job, int(uid), nested=mode == "nest"))
    run_tool(job)


def read_job(stream: Any) -> dict[str, Any]:
    header = json.loads(stream.readline())
    job: dict[str, Any] = {"limits": header["limits"], "paths": {}, "key": header["key"]}
    job["code"] = stream.read(header["code"]).decode()
    job["input"] = stream.read(header["input"])
    if header["files"]:
        os.mkdir("files")
    for number, (reference, size) in enumerate(header["files"]):
        path = os.path.abspath(os.path.join("files", str(number)))
        with open(path, "wb") as file:
            file.write(stream.read(size))
        os.chmod(path, 0o444)
        job["paths"][reference] = path
    return job


# --- the keeper ---------------------------------------------------------------------------------------------


def leave_files() -> None:
    """Make a root of its own that holds the system's programs, read-only, and the current folder; nothing else of the
    host's files can be reached from there, mounted secrets least of all."""
    here = os.getcwd()
    mount("none", "/", MS_REC | MS_PRIVATE)
    root = os.path.join(here, ".root")
    os.mkdir(root)
    mount("tmpfs", root, MS_NOSUID | MS_NODEV, "tmpfs", "size=1m,mode=755")
    shown = ["/usr", *([] if under(sys.base_prefix, "/usr") else [sys.base_prefix])]
    for path in ("/bin", "/sbin", "/lib", "/lib32", "/lib64"):
        if os.path.islink(path):
            os.symlink(os.readlink(path), root + path)
        elif os.path.isdir(path):
            shown.append(path)
    for path in shown:
        os.makedirs(root + path)
        mount(path, root + path, MS_BIND | MS_REC)
        mount("none", root + path, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)
    os.mkdir(f"{root}/dev")
    for name in ("null", "zero", "urandom", "random"):
        open(f"{root}/dev/{name}", "x").close()
        mount(f"/dev/{name}", f"{root}/dev/{name}", MS_BIND)
    for path in ("/job", "/proc"):
        os.mkdir(root + path)
    mount("proc", f"{root}/proc", MS_NOSUID | MS_NODEV, "proc")
    mount(here, f"{root}/job", MS_BIND)
    os.chdir(root)
    libc("pivot_root", b".", b".")
    libc("umount2", b".", MNT_DETACH)
    os.chdir("/job")
    os.rmdir(".root")
    mount("none", "/", MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)


def under(path: str, folder: str) -> bool:
    return (os.path.realpath(path) + os.sep).startswith(folder + os.sep)


def mount(source: str, target: str, flags: int, kind: str = "none", data: str = "") -> None:
    libc("mount", source.encode(), target.encode(), kind.encode(), flags, data.encode())


def libc(name: str, *given: Any) -> None:
    """Call a function of the C library that answers -1 when it fails."""
    import ctypes

    if name == "pivot_root":  # a system call that has no name there
        name, given = "syscall", (PIVOT_ROOT[os.uname().machine], *given)
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*given) == -1:
        fault = ctypes.get_errno()
        raise OSError(fault, f"{name}: {os.strerror(fault)}")


def keep(job: dict[str, Any], uid: int, nested: bool = False) -> int:
    """Run the tool in a child as user ``uid`` (0: as we are); 0, or 128 + the signal that ended it."""
    import select
    import signal

    prctl(PR_SET_CHILD_SUBREAPER, 1)
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    child = os.fork()
    if child == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(ended)
        os.close(wake)
        os.setsid()
        confine(job["limits"], uid)
        if nested:
            drop_capabilities()
        run_tool(job)
    watch = select.poll()
    watch.register(0, select.POLLIN)
    watch.register(ended, select.POLLIN)
    status = None
    while status is None and not any(fd == 0 for fd, _ in watch.poll()):
        os.read(ended, 64)
        pid, code = os.waitpid(child, os.WNOHANG)
        if pid == child:
            status = code
    sweep(child, uid)
    return 0 if status is None or not os.WIFSIGNALED(status) else 128 + os.WTERMSIG(status)


def sweep(child: int, uid: int) -> None:
    """Kill and collect everything below this process; orphans fall to us, so no child left means all gone."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            return
        if uid:  # the uid is this job's alone: one call kills all that runs as it, however fast it forks
            killer = os.fork()
            if killer == 0:
                try:
                    os.setresuid(uid, uid, uid)
                    os.kill(-1, SIGKILL)
                finally:
                    os._exit(0)
        else:
            with contextlib.suppress(OSError):
                os.killpg(child, SIGKILL)
            for pid in children():
                os.kill(pid, SIGKILL)
        os.waitpid(-1, 0)


def children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def confine(limits: dict[str, int], uid: int) -> None:
    """Give up what a tool has no business with. Runs in the child, before any of the tool's code."""
    import resource

    for name, soft, hard in (
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_AS, limits["memory"], limits["memory"]),
        (resource.RLIMIT_CPU, limits["cpu_s"], limits["cpu_s"] + 1),  # SIGXCPU says why, SIGKILL makes sure
        (resource.RLIMIT_FSIZE, FILE_BYTES, FILE_BYTES),
        (resource.RLIMIT_NOFILE, 256, 256),
        (resource.RLIMIT_NPROC, limits["pids"], limits["pids"]),
    ):
        ours = resource.getrlimit(name)[1]
        if ours != resource.RLIM_INFINITY:
            soft, hard = min(soft, ours), min(hard, ours)
        try:
            resource.setrlimit(name, (soft, hard))
        except (ValueError, OSError):
            if sys.platform == "linux":
                raise
    os.umask(0o077)
    if uid:
        borrow_library()
        for place, _, names in os.walk(os.getcwd()):
            for path in [place, *(os.path.join(place, name) for name in names)]:
                os.chown(path, uid, uid)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        prctl(PR_SET_DUMPABLE, 1)  # else /proc/self, and the borrowed library with it, stays root's
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    prctl(PR_SET_PDEATHSIG, SIGKILL)


def drop_capabilities() -> None:
    """Who is root of a namespace could mount and unmount in it."""
    import ctypes

    for capability in range(CAPABILITIES):
        prctl(PR_CAPBSET_DROP, capability)
    # The header says version 3 and this process; three empty sets of two words follow.
    libc("capset", (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())


def borrow_library() -> None:
    """Keep Python's library importable for a user who may not enter its folder (the ~/.pyenv of root).

    What is world-readable beside it becomes readable with it.
    """
    moved = {}
    for folder in filter(os.path.isdir, sys.path):
        moved[folder] = f"/proc/self/fd/{os.open(folder, os.O_RDONLY | os.O_DIRECTORY)}"
    sys.path[:] = [moved.get(folder, folder) for folder in sys.path]
    sys.path_importer_cache.clear()
    for module in list(sys.modules.values()):
        if getattr(module, "__path__", None):
            for folder, fd in moved.items():
                module.__path__ = [p.replace(folder, fd, 1) for p in module.__path__]


def prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            libc("prctl", option, value, 0, 0, 0)


# --- the tool -----------------------------------------------------------------------------------------------


def run_tool(job: dict[str, Any]) -> NoReturn:
    """Run the tool's code and answer; never returns. What the tool prints goes to stderr."""
    answer = os.dup(1)
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    here = os.getcwd()
    environ = os.environ  # noqa: TID251  the tool's own: it sees nothing of the host's
    environ.clear()
    environ.update(HOME=here, TMPDIR=here, LANG="C.UTF-8", PATH="/usr/local/bin:/usr/bin:/bin")
    if job["key"]:
        environ["AGENTFLOW_IDEMPOTENCY_KEY"] = job["key"]
    # Made now: when the memory is used up there is none to say so with.
    no_memory = error("memory", f"the tool used more than its {job['limits']['memory'] >> 20} MiB of memory")
    write(answer, b"ready\n")
    try:
        reply = call(job)
    except MemoryError:
        reply = no_memory
    except BaseException as fault:
        reply = error("tool_error", describe(fault, job["code"]))
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()
    write(answer, reply)
    os._exit(0)


def call(job: dict[str, Any]) -> bytes:
    scope: dict[str, Any] = {"__name__": "tool"}
    exec(compile(job["code"], "tool.py", "exec"), scope)
    if not callable(scope.get("run")):
        return error("tool_error", "the tool's code does not define a function run")
    result = scope["run"](**place(json.loads(job["input"]), job["paths"]))
    if not isinstance(result, dict):
        return error("bad_output", f"run() must return a dict, not {type(result).__name__}")
    try:
        text = json.dumps(result, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as fault:
        return error("bad_output", f"the result of run() is not JSON: {fault}")
    limit = job["limits"]["output"]
    if len(text) > limit:
        mend = "return less, or raise the tool's `output`"
        return error("output_too_large", f"the result has {len(text)} bytes, the limit is {limit}: {mend}")
    return b"O" + text


def place(value: Any, paths: dict[str, str]) -> Any:
    """The input with references to files replaced by their paths."""
    if isinstance(value, str):
        return paths.get(value, value)
    if isinstance(value, list):
        return [place(item, paths) for item in value]
    if isinstance(value, dict):
        return {key: place(item, paths) for key, item in value.items()}
    return value


def describe(fault: BaseException, code: str) -> str:
    """``ValueError: text (tool.py line 3: source)``, of the innermost line that is the tool's own."""
    line = (fault.lineno or 0) if isinstance(fault, SyntaxError) else 0
    step = fault.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == "tool.py":
            line = step.tb_lineno
        step = step.tb_next
    try:
        text = f"{type(fault).__name__}: {fault}"
    except BaseException:
        text = type(fault).__name__
    lines = code.splitlines()
    if 0 < line <= len(lines):
        text = f"{text[: MESSAGE_LIMIT - 300]} (tool.py line {line}: {lines[line - 1].strip()[:200]})"
    return text


def error(code: str, message: str) -> bytes:
    return b"E" + json.dumps({"code": code, "message": message[:MESSAGE_LIMIT]}).encode()


def write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


if __name__ == "__main__":
    main(*sys.argv[1:])
