"""What a job costs beside its task: no-op jobs, our sweeper and launcher against Hydra's own.

CPU seconds of the driver and of all its descendants, composing and starting included.
"""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from .measure import APP, N_SLOTS, OURS, Cost, Options, Row, cost, in_turn, ratio, sweep_command

_RAY = ("hydra/launcher=ray", f"+hydra.launcher.ray.init.num_cpus={N_SLOTS}")
_PEERS: dict[str, tuple[str, ...]] = {
    "ours": ("hydra/sweeper=grid", *OURS),
    "basic": (),
    "joblib": ("hydra/launcher=joblib", f"hydra.launcher.n_jobs={N_SLOTS}"),
    "submitit_local": ("hydra/launcher=submitit_local",),
    "ray": _RAY,
}
_N_FEW = 10  # jobs of the launchers that take long: a fresh process each, or a cluster first
_TAKE_LONG = ("submitit_local", "ray")


def rows(options: Options) -> list[Row]:
    """CPU and wall seconds per job, and ours as a share of each peer's."""
    found = in_turn(options.repeats, dict(_measures(options)))
    cpu = {name: [c.cpu_s for c in costs] for name, costs in found.items()}
    wall = {name: [c.wall_s for c in costs] for name, costs in found.items()}
    table = [
        Row(f"{name}, CPU a job", "s", v, "<= 0.13" if name == "ours" else "")
        for name, v in cpu.items()
    ]
    table += [Row(f"{name}, wall a job", "s", v) for name, v in wall.items()]
    others = [name for name in cpu if name != "ours"]
    return table + [
        ratio(f"CPU, ours / {name}", cpu["ours"], cpu[name], "<= 0.5" if name == "joblib" else "")
        for name in others
    ]


def _measures(options: Options) -> list[tuple[str, Callable[[Path], Cost]]]:
    n = 20 if options.is_quick else 100
    names = [name for name in _PEERS if name != "ray" or _has_ray(options)]
    return [(name, partial(_a_job, name, options, n)) for name in names]


def _has_ray(options: Options) -> bool:
    is_here = find_spec("hydra_plugins.hydra_ray_launcher") is not None
    if not is_here and options.ray_python is None:
        print("  Hydra's Ray launcher is left out: give --ray-python")
    return is_here or options.ray_python is not None


def _a_job(name: str, options: Options, n: int, folder: Path) -> Cost:
    n = _N_FEW if name in _TAKE_LONG else n
    other = {"python": options.ray_python} if name == "ray" and options.ray_python else {}
    command = sweep_command(APP, *_PEERS[name], f"y=range(0,{n})", **other)
    whole = cost(command, folder)
    return Cost(whole.wall_s / n, whole.cpu_s / n)
