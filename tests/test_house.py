"""The plan of the house: who may import whom, and what starting up may load."""

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from hydra_plugins.tune_sweeper._config import STRATEGIES, SweeperConf

ROOT = Path(__file__).parent.parent
PLUGIN = ROOT / "hydra_plugins" / "tune_sweeper"
LAUNCHER = ROOT / "hydra_plugins" / "tune_launcher"
SOURCES = sorted([*ROOT.glob("hydra_plugins/**/*.py"), *ROOT.glob("train/**/*.py")])
KNOWS_HYDRA = {"plugin", "_config", "_sweeper", "_overrides", "_adapters", "_app", "_search"}
KNOWS_HYDRA |= {"_adapter", "_threaded", "_batch", "_task", "_freeze"}
KNOWS_HYDRA |= {"_plan", "_folder", "_sweep", "_python"}  # they pass its objects on
LAUNCHER_KNOWS_HYDRA = {"plugin", "_config", "_pool_launcher", "_launcher", "_ray", "_job"}
LAUNCHER_KNOWS_HYDRA |= {"_sources"}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[str]:
    """Absolute names of the modules that a file imports, also inside functions."""
    package = module_of(path).rpartition(".")[0] if path.stem != "__init__" else module_of(path)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1])
            head = (
                node.module or "" if not node.level else f"{base}.{node.module or ''}".rstrip(".")
            )
            yield head
            yield from (f"{head}.{alias.name}" for alias in node.names)


def ours(path: Path) -> set[str]:
    """Modules of this repository that a file imports."""
    known = {module_of(p) for p in SOURCES}
    return {name for name in imports_of(path) if name in known} - {module_of(path)}


def files(folder: str) -> list[Path]:
    return sorted((PLUGIN / folder).glob("*.py"))


def test_halves_do_not_know_each_other() -> None:
    """The trainer and the plugins meet only through Hydra."""
    for path in SOURCES:
        others = "hydra_plugins" if path.is_relative_to(ROOT / "train") else "train"

        assert not [n for n in imports_of(path) if n.split(".")[0] == others], path


def test_launcher_and_sweeper_do_not_know_each_other() -> None:
    """They meet in Hydra's types: either works without the other."""
    for folder, other in ((PLUGIN, LAUNCHER), (LAUNCHER, PLUGIN)):
        for path in folder.rglob("*.py"):
            assert not [n for n in imports_of(path) if n.startswith(module_of(other))], path


@pytest.mark.parametrize("path", sorted(LAUNCHER.glob("*.py")), ids=lambda p: p.stem)
def test_workers_know_no_hydra(path: Path) -> None:
    """Processes, slots and their protocol could run any jobs."""
    heads = {name.split(".")[0] for name in imports_of(path)}

    assert path.stem in LAUNCHER_KNOWS_HYDRA or not heads & {"hydra", "omegaconf"}


@pytest.mark.parametrize("path", files("search"), ids=lambda p: p.stem)
def test_search_knows_only_itself(path: Path) -> None:
    """Strategies know no loop, no record, no Hydra."""
    prefix = "hydra_plugins.tune_sweeper"

    assert all(name.startswith(f"{prefix}.search") for name in ours(path))
    assert not [n for n in imports_of(path) if n.split(".")[0] in ("hydra", "omegaconf", "torch")]


@pytest.mark.parametrize("path", files("run"), ids=lambda p: p.stem)
def test_run_knows_no_strategy(path: Path) -> None:
    """The loop and the record know proposals and observations, and nobody who makes them."""
    prefix = "hydra_plugins.tune_sweeper"
    allowed = {f"{prefix}.search._trial", f"{prefix}.search._space"}
    others = {n for n in ours(path) if not n.startswith(f"{prefix}.run")}

    assert others <= allowed
    assert not [n for n in imports_of(path) if n.split(".")[0] in ("hydra", "omegaconf", "torch")]


@pytest.mark.parametrize("path", files("show"), ids=lambda p: p.stem)
def test_show_reads_records_only(path: Path) -> None:
    """What is shown is read from records; nothing is started or decided."""
    prefix = "hydra_plugins.tune_sweeper"

    assert all(
        n.startswith((f"{prefix}.show", f"{prefix}.run", f"{prefix}.search")) for n in ours(path)
    )
    assert f"{prefix}.run._loop" not in ours(path)
    assert not [n for n in imports_of(path) if n.split(".")[0] in ("hydra", "omegaconf", "torch")]


@pytest.mark.parametrize("path", sorted(PLUGIN.glob("*.py")), ids=lambda p: p.stem)
def test_hydra_is_known_by_few(path: Path) -> None:
    """Hydra and omegaconf stay in the files that are made to know them."""
    heads = {name.split(".")[0] for name in imports_of(path)}

    assert path.stem in KNOWS_HYDRA or not heads & {"hydra", "omegaconf"}


def test_imports_have_no_cycle() -> None:
    """Not even a lazy one."""
    graph = {module_of(p): ours(p) for p in SOURCES}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for other in graph[name]:
                visit(other, (*path, name))
            done.add(name)

    for module in graph:
        visit(module, ())


def test_public_modules_are_doors() -> None:
    """Hydra imports every module without an underscore, in every program of the environment."""
    modules = [*PLUGIN.rglob("*.py"), *LAUNCHER.rglob("*.py")]
    public = [p for p in modules if not p.stem.startswith("_")]

    assert sorted(p.stem for p in public) == ["api", "plugin", "plugin"]
    for path in [p for p in modules if p.stem == "__init__"]:
        assert path.read_text() == ""
    assert not (ROOT / "hydra_plugins" / "__init__.py").exists()


@pytest.mark.parametrize("conf", STRATEGIES, ids=lambda conf: conf.name)
def test_defaults_are_those_of_the_config(conf: type[SweeperConf]) -> None:
    """A strategy made by itself, as benchmarks do, is the one that users get."""
    typed = conf()
    module, _, name = typed.strategy.partition(":")
    parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    own = {field.name for field in fields(conf)} - {field.name for field in fields(SweeperConf)}

    for key in own & {k for k, p in parameters.items() if p.default is not p.empty}:
        default, expected = parameters[key].default, getattr(typed, key)
        assert (list(default) if isinstance(expected, list) else default) == expected, key


HEAVY = ["numpy", "scipy", "torch", "torchvision", "pytorch_lightning", "tensorboard", "ray"]


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("-sc", "query=lr"), ("-m", "hydra/sweeper=bayes", "lrr=interval(1,2)")],
    ids=["help", "completion", "sweep"],
)
def test_startup_loads_nothing_heavy(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """--help, TAB completion and the first steps of a sweep import no torch, numpy or scipy."""
    probe = (
        "import sys, runpy; sys.argv = ['train.py', *sys.argv[1:]]\n"
        "import atexit\n"
        f"atexit.register(lambda: print('LOADED', [m for m in {HEAVY} if m in sys.modules]))\n"
        f"runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, *arguments], cwd=tmp_path, capture_output=True, text=True
    )

    assert "LOADED []" in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]


def functions() -> list[int]:
    """Lengths of all functions, in lines."""
    lengths = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lengths.append((node.end_lineno or node.lineno) - node.lineno + 1)
    return sorted(lengths)


def test_functions_fit_a_glance() -> None:
    """Median at most 8 lines, nine of ten under 30."""
    lengths = functions()

    assert lengths[len(lengths) // 2] <= 8
    assert lengths[len(lengths) * 9 // 10] < 30
