"""What this machine is good at, measured: the precision that pays, and a patient allocator."""

import ctypes
import platform
import sys
import time
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

# what control groups allow, of version 2 and 1
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
WORTH = 1.3  # bfloat16 must beat float32 by this much to be worth its rounding


@cache
def matmul_rate(dtype: torch.dtype, device: str = "cpu", n: int = 1024) -> float:
    """Floating point operations a second of an (n, n) matrix product: the best of several."""
    return _rates([dtype], device, n, turns=6)[dtype]


@cache
def bf16_pays(device: str = "cpu") -> bool:
    """Whether bfloat16 products are clearly faster here than float32 ones. Takes about 0.1 s.

    The two take turns, many and short, so that programs beside this one slow down both alike.
    """
    state = torch.random.get_rng_state()  # measuring must not change what the caller draws next
    n = 512 if device == "cpu" else 4096  # about a millisecond of work on either
    rates = _rates([torch.bfloat16, torch.float32], device, n, turns=40)
    torch.random.set_rng_state(state)
    return rates[torch.bfloat16] > WORTH * rates[torch.float32]


def _rates(dtypes: list[torch.dtype], device: str, n: int, turns: int) -> dict[torch.dtype, float]:
    pairs = {t: [torch.randn(n, n, device=device).to(t) for _ in range(2)] for t in dtypes}
    best = dict.fromkeys(dtypes, float("inf"))
    for _ in range(turns):  # the first ones load kernels
        for dtype, (a, b) in pairs.items():
            _wait(device)
            start = time.perf_counter()
            a @ b
            _wait(device)
            best[dtype] = min(best[dtype], time.perf_counter() - start)
    return {dtype: 2 * n**3 / seconds for dtype, seconds in best.items()}


def choose_precision(wanted: str, device: str) -> str:
    """`auto`, `bf16` or `fp32` as asked for -> `bf16` or `fp32`."""
    if wanted not in ("auto", "bf16", "fp32"):
        raise ValueError(f"precision is {wanted!r}; it can be auto, bf16 or fp32")
    return ("bf16" if bf16_pays(device) else "fp32") if wanted == "auto" else wanted


def product_dtype(x: Tensor) -> torch.dtype:
    """What a matrix product casts x to: half precision under autocast, but for float64."""
    device = x.device.type
    if x.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return x.dtype
    return torch.get_autocast_dtype(device)


@cache
def keep_freed_memory() -> bool:
    """Tell glibc to keep freed blocks instead of giving them back to the kernel after each step.

    Every step frees and allocates the same blocks; each time the kernel hands out fresh zeroed
    pages, which costs a page fault per 4 KiB. Returns whether the setting was accepted; other
    C libraries have no such setting.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD in malloc.h
    mallopt = ctypes.CDLL(None).mallopt
    # Versions of glibc before 2.35 refuse thresholds above half of a heap, 32 MiB.
    accepted = mallopt(mmap_threshold, 1 << 30) or mallopt(mmap_threshold, 1 << 25)
    return bool(accepted) and bool(mallopt(trim_threshold, (1 << 31) - 1))


def give_back_memory() -> bool:
    """Free blocks go back to the kernel, once: what only a trial needed is not kept."""
    if platform.libc_ver()[0] != "glibc":
        return False
    return bool(ctypes.CDLL(None).malloc_trim(0))


def peak_memory() -> int:
    """The most memory that this process ever held, in bytes.

    Linux counts in getrusage what the process that started this one held, too; its own record of
    the address space does not.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return psutil.Process().memory_info().peak_wset
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def container_limit() -> int:
    """Bytes of memory that this container may use, or 0 where nothing says so."""
    for path in LIMITS:
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdigit() else 0
    return 0


def free_memory() -> int:
    """Bytes that this process may still take: of the machine's, and of its container's."""
    import psutil

    free = psutil.virtual_memory().available
    limit = container_limit()
    return min(free, max(0, limit - psutil.Process().memory_info().rss)) if limit else free


def channels_last(module: nn.Module) -> bool:
    """Lay out convolution weights as the fast kernels read them; says whether there were any.

    Patch embeddings are convolutions in name only (kernel equal to stride): they do not count.
    """
    found = any(
        isinstance(part, nn.Conv2d) and part.kernel_size != part.stride for part in module.modules()
    )
    if found:
        module.to(memory_format=torch.channels_last)
    return found


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that an allocation failed, on any device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in text or "not enough memory" in text or "std::bad_alloc" in text
    )


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
