"""Python processes that need not import torch: forks of one that has, whose code ends as a script's does.

What they are in all else: processes with their own pid, signals, session, pipes, threads and `atexit`. They cannot tell
what an import does, or how a command is found; a few tests start interpreters anew for that.
"""

import atexit
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from functools import cache
from types import ModuleType

MODULES = ("neuralmech.attachment", "neuralmech.cli.train", "neuralmech.training.loop", "torch.export", "hydra")


class Forked:
    """A process as `subprocess.Popen` has it, with its output as text, in a session of its own if that is asked for."""

    def __init__(self, code, *words, cwd=None, start_new_session=False, ignored=(), modules=MODULES):
        (out, its_out), (err, its_err) = os.pipe(), os.pipe()
        self.stdout, self.stderr = open(out, encoding="utf-8"), open(err, encoding="utf-8")  # noqa: SIM115, PTH123
        wish = {
            "code": code, "words": words, "cwd": str(cwd or os.getcwd()), "session": start_new_session,  # noqa: PTH109
            "environment": dict(os.environ), "path": sys.path, "ignored": list(map(int, ignored)),
        }  # fmt: skip
        self._server = server(modules)
        self.pid = self._server.fork(wish, [its_out, its_err])
        os.close(its_out)
        os.close(its_err)

    @property
    def returncode(self):
        return self._server.ended.get(self.pid)

    def poll(self):
        self._server.listen(0)
        return self.returncode

    def wait(self, timeout=None):
        end = time.monotonic() + (timeout or 600)
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("python", timeout)
            self._server.listen(0.05)
        return self.returncode

    def communicate(self, timeout=None):
        """What it says until it, and all that has its pipes, has ended."""
        end, said = time.monotonic() + (timeout or 600), {self.stdout: "", self.stderr: ""}
        with selectors.DefaultSelector() as waiting:
            for file in said:
                if not file.closed:
                    waiting.register(file, selectors.EVENT_READ)
            while waiting.get_map():
                if time.monotonic() > end:
                    raise subprocess.TimeoutExpired("python", timeout)
                for key, _ in waiting.select(0.05):
                    said[key.fileobj] += key.fileobj.read()  # to its end
                    waiting.unregister(key.fileobj)
                    key.fileobj.close()
        self.wait(max(end - time.monotonic(), 0.1))
        return said[self.stdout], said[self.stderr]

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def terminate(self):
        self.send_signal(signal.SIGTERM)


def command(*words, **options):
    """``neuralmech`` with some words, as it goes on once its imports are done."""
    return Forked("import sys; from neuralmech.cli import main; main(sys.argv[1:])", *words, **options)


@cache
def server(modules):
    """One for all tests of a process, which ends with it."""
    return _Server(modules)


class _Server:
    def __init__(self, modules):
        self._connection, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ended = {}
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(there.fileno()), *modules], pass_fds=[there.fileno()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        there.close()

        atexit.register(self._end)

    def _end(self):
        self._process.kill()
        self._process.wait()
        self._connection.close()

    def fork(self, wish, pipes):
        socket.send_fds(self._connection, [json.dumps(wish).encode()], pipes)
        while (pid := self._next()) is None:
            pass
        return pid

    def listen(self, seconds):
        """Take note of who ended."""
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._connection, selectors.EVENT_READ)
            while waiting.select(seconds):
                self._next()
                seconds = 0

    def _next(self):
        """The pid of a process that began, None where one ended."""
        message = self._connection.recv(1 << 16)
        assert message, "the server of interpreters is gone"
        pid, code = json.loads(message)
        if code is None:
            self.ended.pop(pid, None)
            return pid
        self.ended[pid] = code
        return None


def _serve(connection):
    """Fork for each wish and say who ended; only a child comes back, with what it is to do."""
    heard, woken = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(heard, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    with selectors.DefaultSelector() as waiting:
        waiting.register(connection, selectors.EVENT_READ)
        waiting.register(heard, selectors.EVENT_READ)
        while True:
            for key, _ in waiting.select():
                if key.fileobj == heard:
                    os.read(heard, 1 << 12)
                    _tell_ends(connection)
                elif (wish := _forked(connection)) is not None:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    os.close(heard)
                    os.close(woken)
                    return wish


def _tell_ends(connection):
    try:
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            connection.send(json.dumps([found[0], os.waitstatus_to_exitcode(found[1])]).encode())
    except ChildProcessError:  # there is none
        return


def _forked(connection):
    message, pipes, *_ = socket.recv_fds(connection, 1 << 20, 2)
    if not message:
        os._exit(0)  # the tests are over
    pid = os.fork()
    if pid:
        for pipe in pipes:
            os.close(pipe)
        connection.send(json.dumps([pid, None]).encode())
        return None
    connection.close()
    wish = json.loads(message)
    for pipe, place in zip(pipes, (1, 2), strict=True):
        os.dup2(pipe, place)
        os.close(pipe)
    if wish["session"]:
        os.setsid()
    os.chdir(wish["cwd"])
    os.environ.clear()
    os.environ.update(wish["environment"])
    sys.argv, sys.path[:] = ["-c", *wish["words"]], wish["path"]
    return wish


if __name__ == "__main__":
    import importlib

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: it ends with the tests
    for name in sys.argv[2:]:
        importlib.import_module(name)
    todo = _serve(socket.socket(fileno=int(sys.argv[1])))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in todo["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    sys.modules["__main__"] = ModuleType("__main__")  # whose names live on until the interpreter ends, as a script's do
    exec(compile(todo["code"], "<string>", "exec"), vars(sys.modules["__main__"]))
