"""Worker processes: starting them, giving them tasks, hearing what came of it, and replacing those that died."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from framp_private.sweep.trial import RunTrial, Task
from framp_private.sweep.worker import Message, work

_WORKER = "framp_private.sweep.worker"
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(eq=False)
class Worker:
    """One process and the task it is at, None if it is idle."""

    process: BaseProcess
    conversation: Connection
    life: Connection
    task: Task | None = None

    def kill(self) -> None:
        """Ends it and what it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid or 0, signal.SIGKILL)
        self.process.kill()
        self.process.join(10)
        self.conversation.close()
        self.life.close()


class Pool:
    """A fixed number of workers. Use it as a context: they are ended at its end."""

    def __init__(self, count: int, run: RunTrial, threads: int, log: Path) -> None:
        self._count, self._run, self._threads, self._log = count, run, threads, log
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload([_WORKER])  # imports, which take seconds, are made once for all workers
        self.workers: list[Worker] = []

    def __enter__(self) -> Pool:
        try:
            for _ in range(self._count):
                self.workers.append(self._start())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.kill()
        self.workers = []

    @property
    def idle(self) -> list[Worker]:
        """Those without a task."""
        return [worker for worker in self.workers if worker.task is None]

    @property
    def tasks(self) -> list[Task]:
        """What is being run."""
        return [worker.task for worker in self.workers if worker.task is not None]

    def give(self, worker: Worker, task: Task) -> None:
        """Hands an idle worker a task; one that died meanwhile is replaced first."""
        try:
            worker.conversation.send(task)
        except OSError:
            worker = self._replace(worker)
            worker.conversation.send(task)
        worker.task = task

    def hear(self, seconds: float) -> Iterator[tuple[Task, Worker, Message]]:
        """What workers said within some seconds; a worker that died says ("died", signal or status)."""
        by_pipe = {worker.conversation: worker for worker in self.workers if worker.task is not None}
        for pipe in wait(list(by_pipe), timeout=seconds):
            worker = by_pipe[pipe]  # type: ignore[index]
            task = worker.task
            if task is None:
                continue
            try:
                message = worker.conversation.recv()
            except (EOFError, OSError):
                worker.process.join(10)
                status = worker.process.exitcode
                self._replace(worker)
                yield task, worker, ("died", status)
                continue
            if message[0] != "spend":
                worker.task = None
            yield task, worker, message

    def _replace(self, worker: Worker) -> Worker:
        worker.kill()
        made = self._start()
        self.workers[self.workers.index(worker)] = made
        return made

    def _start(self) -> Worker:
        ours, theirs = self._context.Pipe()
        listens, speaks = self._context.Pipe(duplex=False)
        arguments = (theirs, listens, self._run, self._threads, str(self._log))
        with _environment(self._threads):
            process = self._context.Process(target=work, args=arguments, daemon=False)
            process.start()
        theirs.close()
        listens.close()
        return Worker(process, ours, speaks)


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """What libraries read when they are first imported, for a process that is started inside."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
