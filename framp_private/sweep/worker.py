"""A worker process: it gets tasks, runs them one after the other, and ends when whoever started it ends.

Two pipes lead to it: one for tasks and answers, and one that nothing is ever sent through, whose other end closes when
the parent dies, however it dies.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
import warnings
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import torch

from framp_private.sweep.disk import disk_is_full
from framp_private.sweep.trial import RunTrial, Task

Message = tuple[str, Any]
"""From a worker: ("spend", plan), ("done", row), ("failed", why), ("full", why), ("exhausted", why) or
("taken", why); to it: a task, and as the answer to "spend" one of the last two, or None."""


class Refused(Exception):
    """The parent does not let a trial spend; holds the message that says so."""


def work(conversation: Connection, life: Connection, run: RunTrial, threads: int, log: str) -> NoReturn:
    """The body of a worker; returns never."""
    os.setsid()  # so that an interrupt from the keyboard reaches the parent alone, which decides
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_die_with_parent, args=(life,), daemon=True).start()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    for stream in (1, 2):
        os.dup2(file, stream)
    warnings.filterwarnings("ignore", category=FutureWarning)
    torch.set_num_threads(threads)
    while True:
        try:
            task: Task = conversation.recv()
        except EOFError:
            sys.exit(0)
        conversation.send(_outcome(task, run, conversation))


def _outcome(task: Task, run: RunTrial, conversation: Connection) -> Message:
    def spend(plan: dict[str, Any]) -> None:
        conversation.send(("spend", plan))
        refused: Message | None = conversation.recv()
        if refused is not None:
            raise Refused(*refused)

    try:
        return "done", run(task, spend)
    except Refused as error:
        return str(error.args[0]), error.args[1]
    except (Exception, SystemExit) as error:
        kind = "full" if disk_is_full(error) else "failed"
        return kind, f"{type(error).__name__}: {error}\n\n{traceback.format_exc()}"


def _die_with_parent(life: Connection) -> NoReturn:
    with suppress(EOFError, OSError):
        life.recv_bytes()
    os.killpg(0, signal.SIGKILL)  # what this process started dies with it
    os._exit(1)
