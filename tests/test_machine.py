"""What is measured of the machine is this process's own."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

STATUS = Path("/proc/self/status")


@pytest.mark.skipif(
    not STATUS.exists() or "VmHWM" not in STATUS.read_text(), reason="no record of the peak here"
)
def test_the_peak_is_not_that_of_the_process_which_started_this_one():
    """Linux's getrusage tells the larger one of the two."""
    held = np.ones(1 << 27)  # 1 GiB
    code = "from selfsup.machine import peak_memory; print(peak_memory())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert held.nbytes > int(done.stdout) > 50 << 20
