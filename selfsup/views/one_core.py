"""Many small tensor operations on a CPU, one after another and each on one core.

A view is some fifty operations of ten to fifty microseconds. Sharing each of them among the cores
makes all cores wait for the slowest fifty times, on a busy machine thirty times as long in all; and
two Python threads with half of the samples each take twice the processor time, because they hand
the interpreter to each other around every operation. One core makes views faster than the encoder
of the same machine can use them; and no sum depends on the number of cores.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")

_lock = threading.Lock()
_workers: dict[int, ThreadPoolExecutor] = {}  # by process: a forked one has no threads yet


def on_one_core(work: Callable[[], T]) -> T:
    """What `work` returns, called where torch uses one core. Other threads keep theirs."""
    with _lock:
        worker = _workers.get(os.getpid())
        if worker is None:
            worker = _workers[os.getpid()] = _single_core_thread()
    return worker.submit(work).result()


def _single_core_thread() -> ThreadPoolExecutor:
    worker = ThreadPoolExecutor(1, "views")
    cores = torch.get_num_threads()
    worker.submit(torch.get_num_threads).result()  # torch sets a thread's number when first asked
    worker.submit(torch.set_num_threads, 1).result()
    # That holds for the thread that said it, and for threads yet to come; undo the latter.
    torch.set_num_threads(cores)
    return worker
