"""Seconds from the typed line to the first job of a large grid, against Hydra's own sweeper.

    python benchmarks/first_job.py [--n-jobs 500] [--repeats 3]

Both run the app of the tests, in turn; each is killed once its first job is done. Prints a table
and writes benchmarks/results/first_job.json.
"""

import argparse
import datetime
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent
APP = ROOT / "tests" / "app" / "app.py"
RESULTS = ROOT / "benchmarks" / "results" / "first_job.json"


def seconds_to_first_job(sweeper: str, n_jobs: int) -> float:
    """Wall time until the first job left its file."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = [f"hydra/sweeper={sweeper}", "hydra.sweep.dir=here", f"y=range(0,{n_jobs})"]
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, str(APP), "-m", *overrides],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while not (Path(folder) / "here" / "0" / "seen.json").exists():
            if process.poll() is not None:
                raise RuntimeError(f"{sweeper} ended without a job")
            time.sleep(0.005)
        seconds = time.perf_counter() - start
        process.kill()
        process.wait()
    return seconds


def main() -> None:
    """Times both in turn and writes the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--n-jobs", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    found: dict[str, list[float]] = {"grid": [], "basic": []}
    for _ in range(args.repeats):
        for sweeper, seconds in found.items():
            seconds.append(seconds_to_first_job(sweeper, args.n_jobs))
    ratios = [b / g for b, g in zip(found["basic"], found["grid"], strict=True)]
    for sweeper, seconds in found.items():
        print(f"{sweeper:<6} median {statistics.median(seconds):.2f} s  {seconds}")
    print(f"basic / grid: {min(ratios):.1f} to {max(ratios):.1f}")
    report = {
        "command": " ".join(["python", "benchmarks/first_job.py", *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "n_jobs": args.n_jobs,
        "python": platform.python_version(),
        "hydra-core": version("hydra-core"),
        "seconds": found,
        "ratios": ratios,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
