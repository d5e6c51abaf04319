"""The processes and devices of a training: how they find one another, and how many a CPU has."""

import atexit
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from typing import Any

import jax

from jaxdiff.config import Config, to_json
from jaxdiff.training import distributed

__all__ = ["TogetherFlags", "use_cores"]

# Reads until this process closes the pipe, as it does however it ends.
_LAST_WORD = "import sys; sys.stdin.read() or sys.stderr.write(sys.argv[1])"


@dataclasses.dataclass(frozen=True)
class TogetherFlags:
    """How this process finds the others, where there are any."""

    distributed: bool = False
    """This is one of several processes that a launcher started, of a TPU pod, Slurm or Open MPI:
    all train as one. Without a launcher, the next three flags say who they are."""
    coordinator: str | None = None
    """HOST:PORT of the first of several processes."""
    processes: int | None = None
    """How many they are."""
    process: int | None = None
    """Which one this is, 0 for the first."""
    timeout: float = 60.0
    """Seconds to wait for them, and after which a silent one counts as lost."""

    def join(self, args: Any) -> None:
        """Joins them, if there are any; before JAX looks for devices.

        Args:
            args: all flags, with a configuration; other processes must have the same.
        """
        who = (self.coordinator, self.processes, self.process)
        if not self.distributed and who == (None, None, None):
            return
        distributed.join(*who, timeout=self.timeout)
        _leave_a_last_word()
        flags = {f.name: str(getattr(args, f.name)) for f in dataclasses.fields(args)}
        parts = to_json(args.config).items()
        flags |= {f"{name}.*": json.dumps(part, sort_keys=True) for name, part in parts}
        del flags["together"], flags["config"]
        flags["processes"] = str(self.processes)
        distributed.check_same({f"--{name}": text for name, text in flags.items()})


def _leave_a_last_word() -> None:
    """Where another process is lost JAX aborts this one: someone else must say what to do then."""
    word = (
        f"jaxdiff: process {jax.process_index()} of {jax.process_count()} has ended before its"
        " time, as it does where another one is lost: start all of them again, with --resume,"
        " to go on from the last checkpoint\n"
    )
    command = [sys.executable, "-c", _LAST_WORD, word]
    waiting = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)
    atexit.register(waiting.communicate, ".")


def use_cores(config: Config, processes: int | None = None) -> None:
    """Makes a device of each core, where JAX runs on a CPU and has not begun.

    A batch split over them is computed in less time than by one device that uses all cores. At
    least 16 examples a device; otherwise, and where devices are set by other means, nothing. Of
    several processes each makes its share of the devices.
    """
    part = config.training
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    wanted = (part.devices or part.batch_size // 16) // (processes or 1)
    wanted = min(cores, max(1, wanted))
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_force_host_platform_device_count" in flags or jax.config.jax_num_cpu_devices > 0:
        return
    with contextlib.suppress(RuntimeError):  # too late
        jax.config.update("jax_num_cpu_devices", wanted)
