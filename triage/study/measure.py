"""What every benchmark needs: ratios of contestants that ran side by side, and the machine they ran on.

Ratios count, not milliseconds: all contestants run interleaved in one process, after a warm-up, so that the load of the
machine meets them alike.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Contestant = Callable[[], object]


def timed(run: Contestant) -> float:
    """Return the seconds that `run` takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def ratio(over: list[float], under: list[float], digits: int = 3) -> dict[str, float]:
    """Return median, min and max of over / under, round by round."""
    each = [a / b for a, b in zip(over, under, strict=False)]
    return {
        "median": round(statistics.median(each), digits),
        "min": round(min(each), digits),
        "max": round(max(each), digits),
    }


def peak_rss_mb() -> float:
    """Return the peak memory of this process, all contestants together, in MiB."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024 if sys.platform != "darwin" else 1024 * 1024), 1)


def machine(load_before: tuple[float, float, float]) -> dict[str, Any]:
    """Return what the figures were measured on; a load of more than the benchmark's own makes them worthless."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    import llvmlite.binding

    return {
        "cpu": cpu,
        "compiled_for": llvmlite.binding.get_host_cpu_name(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "load_before": [round(x, 2) for x in load_before],
        "load_after": [round(x, 2) for x in os.getloadavg()],
    }


def versions() -> dict[str, str]:
    """Return the versions of everything that takes part."""
    from importlib.metadata import PackageNotFoundError, version

    import cv2
    import h5py
    import llvmlite
    import numba
    import numpy as np
    import scipy

    extras = {}
    for name in ("scikit-image",):
        try:
            extras[name] = version(name)
        except PackageNotFoundError:
            extras[name] = "not installed"
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "llvmlite": llvmlite.__version__,
        "opencv": cv2.__version__,
        "scipy": scipy.__version__,
        "h5py": h5py.__version__,
        "hdf5": h5py.version.hdf5_version,
        **{name: version(name) for name in ("hdf5plugin", "pyzmq")},
        **extras,
    }
