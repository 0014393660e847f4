"""Energy of a run: measured where the processor counts it, estimated otherwise, and said which.

Processors with RAPL count the energy of the whole package in microjoules under
/sys/class/powercap, for all programs together. Where that cannot be read (virtual machines, other
users' rights), only an estimate from time and the size of the machine remains.
"""

from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
CORE_WATTS = 12.0  # a server core under load; laptops need half of it
MEMORY_WATTS = 0.37  # for each GB; both after Lannelongue et al., 2021, doi 10.1002/advs.202100707
GPU_WATTS = 300.0


@dataclass(frozen=True)
class Energy:
    joules: float
    measured: bool
    how: str

    @property
    def kilowatt_hours(self) -> float:
        return self.joules / 3.6e6


class Meter:
    """Joules since it was made, from the processor's own counters.

    The counters wrap around every few minutes to hours, so `read` has to be called more often
    than that. `Meter.find()` gives None where there is no counter that may be read.
    """

    def __init__(self, zones: list[Path]):
        self.zones = zones
        self.joules = 0.0
        self._ranges = [_integer(zone / "max_energy_range_uj") for zone in zones]
        self._last = [_integer(zone / "energy_uj") for zone in zones]

    @classmethod
    def find(cls, root: Path | None = None) -> "Meter | None":
        root = root or POWERCAP
        # intel-rapl:0 is a package; intel-rapl:0:0 is a part of it and would count twice
        zones = sorted(zone for zone in root.glob("intel-rapl:*") if zone.name.count(":") == 1)
        try:
            return cls(zones) if zones else None
        except (OSError, ValueError):
            return None

    def read(self) -> float | None:
        """Joules so far; None where a counter can no longer be read."""
        try:
            now = [_integer(zone / "energy_uj") for zone in self.zones]
        except (OSError, ValueError):
            return None
        for before, after, wrap in zip(self._last, now, self._ranges, strict=True):
            self.joules += ((after - before) if after >= before else after + wrap - before) * 1e-6
        self._last = now
        return self.joules


def _integer(path: Path) -> int:
    return int(path.read_text())


def estimate(seconds: float, cores: int, memory_gb: float = 0.0, gpus: int = 0) -> Energy:
    """What a machine of this size uses under full load in this time."""
    watts = cores * CORE_WATTS + memory_gb * MEMORY_WATTS + gpus * GPU_WATTS
    parts = [f"{CORE_WATTS:g} W for each of {cores} processor cores"]
    if memory_gb:
        parts.append(f"{MEMORY_WATTS:g} W for each of {memory_gb:.0f} GB of memory")
    if gpus:
        parts.append(f"{GPU_WATTS:g} W for each of {gpus} graphics processors")
    how = f"assumes {', '.join(parts)} under full load; the true figure may be half or double"
    return Energy(watts * seconds, False, how)
