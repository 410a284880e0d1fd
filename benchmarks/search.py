"""Our Bayesian search beside its peers: the same tasks, seeds and budget, one trial at a time.

    uv run --group peers python benchmarks/search.py HARNESS_DIR [--seeds 0-4] [--batch 1]

HARNESS_DIR holds `harness.py` and `tasks.py`: 16 tasks (analytic functions, noisy ones, BBOB, small
trainings on digits) and the peers behind one interface. With --stored, files with results of peers
that ran before, only ours is run. Regret is relative to that of random search after 15 trials, and
ranks are among the methods of the table.
"""

import argparse
import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PEERS = ("random", "tpe", "ngopt", "optuna_gp")
PACKAGES = ("numpy", "scipy", "optuna", "nevergrad", "scikit-learn", "ioh", "coco-experiment")


def main() -> None:
    """Runs what is missing in the raw results, and writes the table."""
    args = _arguments()
    methods = ["ours", *args.methods.split(",")]
    _run(args, "ours" if args.stored else ",".join(methods))
    result = {
        "date": str(date.today()),
        "command": " ".join(["benchmarks/search.py", *(Path(a).name for a in sys.argv[1:])]),
        "commit": args.commit,
        "machine": platform.machine(),
        "versions": _versions(),
        "batch": args.batch,
        "groups": _tables(args.harness, [args.raw, *args.stored], methods, args),
    }
    args.out.write_text(json.dumps(result, indent=2) + "\n")
    print(_markdown(result["groups"]["ALL"]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("harness", type=Path)
    parser.add_argument("--methods", default=",".join(PEERS))
    parser.add_argument("--seeds", default="0-4")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--commit", default=_commit(), help="of ours, when its results are stored")
    parser.add_argument("--raw", type=Path, default=Path("search-raw.jsonl"))
    parser.add_argument("--stored", type=Path, nargs="*", default=[])
    parser.add_argument("--out", type=Path, default=RESULTS / "search.json")
    return parser.parse_args()


def _commit() -> str:
    command = ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def _run(args: argparse.Namespace, methods: str) -> None:
    """The harness skips what the raw file holds already."""
    command = [sys.executable, str(args.harness / "harness.py"), "run", "--methods", methods]
    command += ["--plugin", f"{HERE / 'adapter.py'}:Bayes:ours", "--out", str(args.raw)]
    command += ["--tasks", "core", "--seeds", args.seeds, "--batch", str(args.batch)]
    subprocess.run(command, check=True)


def _tables(
    folder: Path, files: Sequence[Path], methods: Sequence[str], args: argparse.Namespace
) -> dict[str, Any]:
    """Mean rank, relative regret and CPU seconds per trial, of all tasks and of each group."""
    sys.path.insert(0, str(folder))
    import harness
    import tasks

    rows = harness.load([str(f) for f in files])
    seeds = harness.parse_seeds(args.seeds)
    groups = {"ALL": tasks.CORE, "analytic": tasks.ANALYTIC, "noisy": tasks.NOISY}
    groups |= {"bbob": tasks.BBOB, "hpo": tasks.HPO}
    found = {}
    for name, of_group in groups.items():
        table, cells = harness.table(rows, list(methods), seeds, args.batch, of_group)
        found[name] = {"n": len(cells), "methods": table}
    return json.loads(json.dumps(found, default=float))  # type: ignore[no-any-return]


def _markdown(group: dict[str, Any]) -> str:
    """README's table."""
    lines = [f"| {group['n']} runs | 15 trials | 30 | 60 | rank at 60 | CPU s a trial |"]
    lines += ["|---|---|---|---|---|---|"]
    best_first = sorted(group["methods"].items(), key=lambda item: item[1]["rank60"])
    for name, row in best_first:
        regrets = " | ".join(f"{row[f'nr{n}']:.2f}" for n in (15, 30, 60))
        lines.append(f"| {name} | {regrets} | {row['rank60']:.2f} | {row['cpu']:.3f} |")
    return "\n".join(lines)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
