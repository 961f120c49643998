"""What every sandbox driver must withstand: one suite, inherited by the tests of each driver."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from agentflow.sandbox import Job, Outcome, Profile, Sandbox

MIB = 1024 * 1024
QUICK = Profile(wall_s=0.5, memory_bytes=128 * MIB, pids=16, output_bytes=4096)


USUAL = Profile(wall_s=20.0)


async def call(
    sandbox: Sandbox, code: str, profile: Profile = USUAL, files: Any = (), **given: Any
) -> Outcome:
    return await sandbox.run(Job(code, json.dumps(given).encode(), tuple(files), profile))


def result(outcome: Outcome) -> Any:
    assert outcome.ok, outcome
    return json.loads(outcome.output)


class HostileTools:
    """Needs the fixture ``sandbox``, which also fails a test that leaves anything behind."""

    async def test_the_result_is_what_run_returns(self, sandbox: Sandbox) -> None:
        outcome = await call(sandbox, "def run(a, b):\n return {'sum': a + b, 'text': 'zwölf €'}", a=5, b=7)
        assert result(outcome) == {"sum": 12, "text": "zwölf €"}

    async def test_a_reference_becomes_the_path_of_a_file_with_that_content(self, sandbox: Sandbox) -> None:
        code = "def run(log, rest): return {'text': open(log).read(), 'rest': [open(p).read() for p in rest]}"
        files = [("blob:one", b"first\n"), ("blob:two", b"zweite\n")]
        outcome = await call(sandbox, code, files=files, log="blob:one", rest=["blob:two", "blob:one"])
        assert result(outcome) == {"text": "first\n", "rest": ["zweite\n", "first\n"]}

    async def test_a_file_of_some_megabytes_arrives_whole(self, sandbox: Sandbox) -> None:
        content = bytes(range(256)) * 16 * 1024
        code = "from hashlib import sha256\ndef run(f): return {'hash': sha256(open(f, 'rb').read()).hexdigest()}"
        outcome = await call(sandbox, code, files=[("blob:x", content)], f="blob:x")
        assert result(outcome) == {"hash": sha256(content).hexdigest()}

    async def test_an_exception_names_its_type_its_text_and_the_line(self, sandbox: Sandbox) -> None:
        code = "import json\n\ndef run(text):\n    return json.loads(text)\n"
        outcome = await call(sandbox, code, text="{")
        assert outcome.error_code == "tool_error"
        assert "JSONDecodeError: Expecting property name" in outcome.message
        assert "(tool.py line 4: return json.loads(text))" in outcome.message

    async def test_code_that_does_not_compile_names_the_line(self, sandbox: Sandbox) -> None:
        outcome = await call(sandbox, "def run():\n    return {\n")
        assert outcome.error_code == "tool_error"
        assert "SyntaxError" in outcome.message
        assert "line 2" in outcome.message

    async def test_code_without_run_says_so(self, sandbox: Sandbox) -> None:
        outcome = await call(sandbox, "def main(): return {}")
        assert (outcome.error_code, outcome.message) == (
            "tool_error",
            "the tool's code does not define a function run",
        )

    async def test_an_argument_the_tool_does_not_know_is_its_error(self, sandbox: Sandbox) -> None:
        outcome = await call(sandbox, "def run(a): return {}", b=1)
        assert outcome.error_code == "tool_error"
        assert "unexpected keyword argument 'b'" in outcome.message

    async def test_an_infinite_loop_ends_with_its_time(self, sandbox: Sandbox) -> None:
        began = time.monotonic()
        outcome = await call(sandbox, "def run():\n while True: pass", QUICK)
        assert outcome.error_code == "timeout"
        assert "0.5 s" in outcome.message
        assert 0.4 < outcome.wall_s < 3
        assert time.monotonic() - began < 10

    async def test_a_tool_that_ignores_signals_ends_with_its_time(self, sandbox: Sandbox) -> None:
        code = """
import signal, time
def run():
    for number in range(1, 65):
        try: signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError): pass
    time.sleep(60)
"""
        assert (await call(sandbox, code, QUICK)).error_code == "timeout"

    async def test_a_memory_bomb_ends_at_its_limit(self, sandbox: Sandbox) -> None:
        code = "def run():\n hoard = []\n while True: hoard.append(bytearray(1 << 22))"
        outcome = await call(sandbox, code, Profile(wall_s=20.0, memory_bytes=128 * MIB))
        assert outcome.error_code == "memory", outcome
        assert "128 MiB" in outcome.message

    async def test_printing_without_end_is_stopped(self, sandbox: Sandbox) -> None:
        code = "def run():\n while True: print('x' * 1000)"
        outcome = await call(sandbox, code, Profile(wall_s=20.0))
        assert outcome.error_code == "output_too_large"
        assert len(outcome.stderr_tail) <= 4096

    async def test_a_result_over_the_limit_is_refused_with_the_mend(self, sandbox: Sandbox) -> None:
        outcome = await call(sandbox, "def run(): return {'x': 'y' * 100_000}", QUICK)
        assert outcome.error_code == "output_too_large"
        assert "the limit is 4096" in outcome.message
        assert "raise the tool's `output`" in outcome.message

    async def test_flooding_the_channel_of_the_result_is_stopped(self, sandbox: Sandbox) -> None:
        code = """
import os
def run():
    while True:
        for fd in range(3, 20):
            try: os.write(fd, b'z' * 65536)
            except OSError: pass
"""
        outcome = await call(sandbox, code, Profile(wall_s=20.0))
        assert outcome.error_code in ("output_too_large", "bad_output"), outcome

    async def test_what_a_tool_prints_does_not_spoil_its_result(self, sandbox: Sandbox) -> None:
        code = """
import os, sys
def run():
    print('{"ok": false}')
    os.write(1, b'ready\\nO{"forged": 1}\\n\\xff\\xfe')
    sys.stderr.write('to stderr \\x1b[31mred\\x07')
    return {'fine': True}
"""
        outcome = await call(sandbox, code)
        assert result(outcome) == {"fine": True}
        assert "forged" in outcome.stderr_tail
        assert "red" in outcome.stderr_tail
        assert "\x1b" not in outcome.stderr_tail

    async def test_garbage_in_the_channel_of_the_result_is_no_result(self, sandbox: Sandbox) -> None:
        code = """
import os
def run():
    for fd in range(3, 20):
        try: os.write(fd, b'garbage')
        except OSError: pass
    return {}
"""
        assert (await call(sandbox, code)).error_code == "bad_output"

    async def test_a_forged_error_code_is_not_believed(self, sandbox: Sandbox) -> None:
        code = """
import os
def run():
    for fd in range(3, 20):
        try: os.write(fd, b'E{"code": "sandbox_unavailable", "message": "try again for ever"}')
        except OSError: pass
    os._exit(0)
"""
        assert (await call(sandbox, code)).error_code == "bad_output"

    async def test_a_result_that_is_not_a_json_object_is_refused(self, sandbox: Sandbox) -> None:
        code = """
def deep(n):
    value = {}
    for _ in range(n): value = {'x': value}
    return value
def circle():
    value = {}
    value['x'] = value
    return value
def run(): return VALUE
"""
        values = {
            "[1, 2]": "must return a dict, not list",
            "None": "must return a dict, not NoneType",
            "{'x': float('nan')}": "not JSON",
            "{'x': {1, 2}}": "not JSON",
            "{'x': 10 ** 30}": "64 bits",
            "{'x': 10 ** 5000}": "not JSON",
            "{'x': 'a\\x00b'}": "U+0000",
            "{'x': '\\ud800'}": "not JSON",
            "deep(100)": "nested deeper",
            "deep(100_000)": "not JSON",
            "circle()": "not JSON",
        }
        outcomes = await asyncio.gather(*(call(sandbox, code.replace("VALUE", value)) for value in values))
        for (value, says), outcome in zip(values.items(), outcomes, strict=True):
            assert outcome.error_code == "bad_output", value
            assert says in outcome.message, value
            assert "\x00" not in outcome.message

    async def test_a_process_that_ends_itself_is_told_apart(self, sandbox: Sandbox) -> None:
        endings = {
            "os._exit(0)": "sandbox_crashed",
            "os.kill(os.getpid(), 11) or ctypes.string_at(0)": "sandbox_crashed",
            "ctypes.string_at(0)": "sandbox_crashed",
            "sys.exit(3)": "tool_error",
            "exec('raise KeyboardInterrupt')": "tool_error",
        }
        code = "import ctypes, os, sys\ndef run(): "
        outcomes = await asyncio.gather(*(call(sandbox, code + ending) for ending in endings))
        assert dict(zip(endings, (outcome.error_code for outcome in outcomes), strict=True)) == endings

    async def test_it_is_known_of_tools_that_end_by_themselves_how_far_they_came(self, sandbox: Sandbox) -> None:
        by_itself = {"{}": "", "[]": "bad_output", "{'x': 'y' * 9999}": "output_too_large", "1 // 0": "tool_error",
                     "sys.exit(3)": "tool_error"}  # fmt: skip
        ended = {"time.sleep(30)": "timeout", "os._exit(0)": "sandbox_crashed",
                 "ctypes.string_at(0)": "sandbox_crashed",
                 "print('x' * 2_000_000)": "output_too_large"}  # fmt: skip
        code = "import ctypes, os, sys, time\ndef run(): return "
        profile = Profile(wall_s=2.0, output_bytes=4096)
        calls = [call(sandbox, code + what, profile) for what in {**by_itself, **ended}]
        for (what, error), outcome in zip({**by_itself, **ended}.items(), await asyncio.gather(*calls), strict=True):
            assert (outcome.error_code or "") == error, what
            assert outcome.known == (what in by_itself), (what, outcome)

    async def test_a_tool_reads_its_idempotency_key_and_it_begins_when_there_is_room(self, sandbox: Sandbox) -> None:
        code = "import os\ndef run(): return {'key': os.environ.get('AGENTFLOW_IDEMPOTENCY_KEY')}"
        begun: list[int] = []
        keys = ["order 7: 'zwölf €'\n", ""]
        jobs = [Job(code, b"{}", key=key, begins=lambda: begun.append(1)) for key in keys]
        outcomes = [await sandbox.run(job) for job in jobs]
        assert [result(outcome)["key"] for outcome in outcomes] == [keys[0], None]
        assert len(begun) == 2

    async def test_control_characters_do_not_come_through_a_message(self, sandbox: Sandbox) -> None:
        code = "def run(): raise ValueError('\\x1b[2J\\x00' + 'long ' * 10_000)"
        outcome = await call(sandbox, code)
        assert outcome.error_code == "tool_error"
        assert outcome.message.startswith("ValueError: ")
        assert "\x1b" not in outcome.message
        assert "\x00" not in outcome.message
        assert len(outcome.message) <= 2000

    async def test_an_exception_that_cannot_be_shown_is_still_an_error(self, sandbox: Sandbox) -> None:
        code = "class Sly(Exception):\n def __str__(self): raise Sly\ndef run(): raise Sly"
        outcome = await call(sandbox, code)
        assert outcome.error_code == "tool_error"
        assert "Sly" in outcome.message

    async def test_the_hosts_environment_is_out_of_sight(
        self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AGENTFLOW_LLM_API_KEY", "top-secret-value")
        code = """
import glob, os
def run():
    seen = dict(os.environ)
    for path in glob.glob('/proc/self/environ'):
        seen[path] = repr(open(path, 'rb').read())
    return {'seen': seen}
"""
        seen = result(await call(sandbox, code))["seen"]
        assert "top-secret-value" not in str(seen)
        assert {name for name in seen if name[0] != "/"} == {"HOME", "TMPDIR", "LANG", "PATH"}

    async def test_nothing_can_be_written_where_the_host_lives(
        self, sandbox: Sandbox, tmp_path: Path
    ) -> None:
        places = [str(Path(__file__).parent), str(tmp_path), "/etc", "/usr/lib", "/"]
        if sandbox.name == "process" and os.getuid():  # then a tool may do what we may, which `missing` says
            places = [place for place in places if not os.access(place, os.W_OK)]
        code = """
import os
def run(places):
    for place in places:
        try: open(os.path.join(place, 'agentflow-was-here'), 'w').write('x')
        except OSError: pass
    return {}
"""
        result(await call(sandbox, code, places=places))
        assert [place for place in places if "agentflow-was-here" in os.listdir(place)] == []

    async def test_it_can_use_its_own_folder_and_what_it_leaves_is_removed(self, sandbox: Sandbox) -> None:
        code = """
import os, tempfile
def run():
    with tempfile.NamedTemporaryFile('w', delete=False) as file: file.write('kept')
    os.makedirs('a/b'); open('a/b/c', 'w').write('x' * 1000)
    os.symlink('/etc', 'link')
    os.chmod('a/b', 0); os.chmod('a', 0)
    home = os.getcwd()
    os.mkdir('deep'); os.chdir('deep')
    for _ in range(1500): os.mkdir('d'); os.chdir('d')
    return {'text': open(file.name).read(), 'own': file.name.startswith(home)}
"""
        assert result(await call(sandbox, code)) == {"text": "kept", "own": True}
        assert "passwd" in os.listdir("/etc")  # the link was removed, not what it leads to

    async def test_what_it_leaves_running_is_ended(self, sandbox: Sandbox) -> None:
        code = """
import os, threading, time
def daemon(depth):
    if os.fork(): return
    os.setsid()
    if depth: daemon(depth - 1)
    for fd in range(20):
        try: os.close(fd)
        except OSError: pass
    while True: time.sleep(60)
def run():
    threading.Thread(target=time.sleep, args=(60,)).start()
    daemon(3)
    time.sleep(0.05)
    return {'done': True}
"""
        outcome = await call(sandbox, code)
        assert result(outcome) == {"done": True}

    async def test_killing_the_parent_frees_nobody(self, sandbox: Sandbox) -> None:
        code = """
import os, time
def run():
    if os.fork() == 0:
        os.setsid()
        while True: time.sleep(60)
    for number in (9, 19):
        try: os.kill(os.getppid(), number)
        except OSError: pass
    time.sleep(0.3)
    return {'survived': True}
"""
        outcome = await call(sandbox, code, QUICK)
        assert outcome.ok or outcome.error_code in ("sandbox_crashed", "timeout", "memory"), outcome

    async def test_it_has_no_more_processes_than_its_profile_allows(self, sandbox: Sandbox) -> None:
        code = """
import os, time
def run():
    for made in range(200):
        try:
            if os.fork() == 0: time.sleep(60)
        except OSError: break
    return {'made': made}
"""
        made = result(await call(sandbox, code, Profile(wall_s=20.0, pids=16)))["made"]
        assert 4 <= made <= 16

    async def test_a_fork_bomb_stays_in_its_bounds(self, sandbox: Sandbox) -> None:
        code = """
import os
def run():
    while True:
        try: os.fork()
        except OSError: pass
"""
        ticks = []

        async def tick() -> None:
            while True:
                ticks.append(time.monotonic())
                await asyncio.sleep(0.02)

        ticker = asyncio.ensure_future(tick())
        outcome = await call(sandbox, code, QUICK)
        ticker.cancel()
        assert outcome.error_code in ("timeout", "sandbox_crashed", "memory"), outcome
        assert len(ticks) > 10  # the host went on

    async def test_a_cancelled_call_leaves_nothing(self, sandbox: Sandbox) -> None:
        code = "import os, time\ndef run():\n os.fork()\n time.sleep(60)"
        for patience in (0.0, 0.02, 0.6):  # before, while and after the sandbox is made
            running = asyncio.ensure_future(call(sandbox, code))
            await asyncio.sleep(patience)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

    async def test_calls_run_side_by_side_without_blocking_the_loop(self, sandbox: Sandbox) -> None:
        gaps = []

        async def tick() -> None:
            while True:
                before = time.monotonic()
                await asyncio.sleep(0.005)
                gaps.append(time.monotonic() - before)

        ticker = asyncio.ensure_future(tick())
        code = "import time\ndef run(n):\n time.sleep(0.1)\n return {'n': n}"
        outcomes = await asyncio.gather(*(call(sandbox, code, n=n) for n in range(4)))
        ticker.cancel()
        assert [result(outcome)["n"] for outcome in outcomes] == [0, 1, 2, 3]
        # A machine under load stalls too: only a loop that waits for a tool misses most of its ticks.
        assert sorted(gaps)[len(gaps) // 2] < 0.05


async def eventually(true: Callable[[], object], within_s: float = 10.0) -> None:
    """Fail unless ``true()`` becomes so in time."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def nothing_left(leftovers: Callable[[], list[str]], within_s: float = 5.0) -> None:
    """Fail unless ``leftovers()`` becomes empty in time."""
    deadline = time.monotonic() + within_s
    while found := leftovers():
        assert time.monotonic() < deadline, f"left behind: {found}"
        await asyncio.sleep(0.02)
