"""The execution of trials: what it costs, how fast it is, beside other ways to run the same.

    python benchmarks/execution.py [part ...] [--repeats 3] [--quick]
        [--optuna-python peers/optuna/bin/python] [--ray-python peers/ray/bin/python]

Parts: noop, trainings, uneven, grid, journal, slots, steps; without any, all of them. Prints a
table and writes benchmarks/results/execution.json, of which it replaces the parts that it measured.
The peers that our own environment has not, live in environments of their own:

    uv venv peers/optuna && uv pip install --compile-bytecode --python peers/optuna/bin/python
        hydra-optuna-sweeper hydra-joblib-launcher torch torchvision pytorch-lightning
        tensorboard numpy
    uv venv peers/ray && uv pip install --compile-bytecode --python peers/ray/bin/python
        hydra-ray-launcher

Hydra's Ray launcher is measured only where --ray-python names an environment: in two of two tries
on 2 busy cores its cluster ran no job in minutes under this benchmark, though it did when alone.

On a shared machine wall times are noisy: judge by CPU seconds and by ratios, whose two sides were
measured in turn.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trials import grid, journal, noop, slots, steps, trainings, uneven
from trials.measure import ROOT, Options, Row, adopt_orphans

RESULTS = ROOT / "benchmarks" / "results" / "execution.json"
PARTS: dict[str, Callable[[Options], list[Row]]] = {
    "noop": noop.rows,
    "trainings": trainings.rows,
    "uneven": uneven.rows,
    "grid": grid.rows,
    "journal": journal.rows,
    "slots": slots.rows,
    "steps": steps.rows,
}
OURS = ("hydra-core", "omegaconf", "torch", "pytorch-lightning", "numpy", "joblib", "submitit")
THEIRS = ("hydra-core", "optuna", "hydra-optuna-sweeper", "joblib", "torch", "ray")


def main() -> None:
    """Measures the parts, writes each as soon as it is there, and prints the table."""
    args = parse()
    options = Options(args.repeats, args.quick, args.optuna_python, args.ray_python)
    adopt_orphans()
    for name in args.parts or PARTS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        table = PARTS[name](options)
        print("\n".join(lines(name, table)), flush=True)
        if not options.is_quick:
            write(name, {**circumstances(options), "rows": [row.as_json() for row in table]})


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], metavar="part")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="small numbers; writes nothing")
    parser.add_argument("--optuna-python", type=absolute)
    parser.add_argument("--ray-python", type=absolute)
    return parser.parse_args()


def absolute(path: str) -> str:
    """Not resolved: an environment's interpreter is a link."""
    return str(Path(path).absolute())


def lines(name: str, table: Iterable[Row]) -> Iterable[str]:
    """The table of a part."""
    yield f"\n{name:<48}{'min':>9}{'median':>9}{'max':>9}"
    for row in table:
        numbers = "".join(f"{v:9.4g}" for v in (min(row.values), row.median, max(row.values)))
        verdict = {True: "met", False: "MISSED", None: ""}[row.is_met]
        head = f"  {row.what} ({row.unit}, n={len(row.values)})"
        yield f"{head:<48}{numbers}  {row.limit} {verdict}".rstrip()


def circumstances(options: Options) -> dict[str, Any]:
    """What a number means nothing without."""
    peers = {"optuna": options.optuna_python, "ray": options.ray_python}
    return {
        "command": " ".join(["python", "benchmarks/execution.py", *map(shown, sys.argv[1:])]),
        "date": datetime.date.today().isoformat(),
        "commit": git("rev-parse", "--short", "HEAD"),
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "load": [round(load, 1) for load in os.getloadavg()],
        "python": platform.python_version(),
        "versions": {name: version(name) for name in OURS},
        "peers": {name: versions_in(python) for name, python in peers.items() if python},
    }


def shown(argument: str) -> str:
    """An argument without the place where this machine keeps its environments."""
    return (
        f".../{'/'.join(Path(argument).parts[-3:])}" if Path(argument).is_absolute() else argument
    )


def git(*arguments: str) -> str:
    """What git says of this repository."""
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def versions_in(python: str) -> dict[str, str]:
    """The versions that another environment has of what matters."""
    code = "import importlib.metadata as m, json; print(json.dumps({d.metadata['Name']: d.version"
    command = [python, "-c", code + " for d in m.distributions()}))"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {name: found[name] for name in THEIRS if name in found}


def write(name: str, part: dict[str, Any]) -> None:
    """Replaces one part in the file of results."""
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    known[name] = part
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
