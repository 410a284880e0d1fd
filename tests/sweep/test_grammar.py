"""What is typed reaches the job and the record, with its type."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from apps import APP, Run, values_of

from hydra_plugins.tune_sweeper.run import _record

GRID = "hydra/sweeper=grid"


def seen(tmp_path: Path, sweep: str = "grid-1") -> list[dict[str, Any]]:
    """The configs that the jobs of a sweep saw, in order."""
    folders = [f for f in (tmp_path / "outputs" / sweep).iterdir() if f.name.isdecimal()]
    return [
        json.loads((f / "seen.json").read_text())
        for f in sorted(folders, key=lambda f: int(f.name))
    ]


@pytest.mark.parametrize(
    ("override", "key", "values"),
    [
        ("x=0.1,2,1e-3", "x", [0.1, 2, 0.001]),
        ("text='a,b',c", "text", ["a,b", "c"]),
        ("text=choice('x y','it\\'s',\"q\")", "text", ["x y", "it's", "q"]),
        ("nothing=null,1", "nothing", [None, 1]),
        ("flag=true,false", "flag", [True, False]),
        ("deep.er=1,2", "deep.er", [1, 2]),
        ("items=[1,2],[3]", "items", [[1, 2], [3]]),
        ("deep={er:1},{er:2}", "deep", [{"er": 1}, {"er": 2}]),
        ("y=range(0,6,2)", "y", [0, 2, 4]),
        ("x=range(0.0,0.3,0.1)", "x", [0.0, 0.1, 0.2]),
        ("+new=1,2", "new", [1, 2]),
        ("++x=1,2", "x", [1, 2]),
        ("text=yes,'yes'", "text", None),
        ("text='1','true','null'", "text", ["1", "true", "null"]),
    ],
)
def test_choice_survives_the_way(
    run: Run, tmp_path: Path, override: str, key: str, values: list[Any] | None
) -> None:
    """Commas inside values, None, booleans, nested keys: to the job and into the record."""
    if values is None:  # quoted or not, the text is the same: that is one value twice
        assert "twice" in run(APP, "-m", GRID, override, check=False).stderr
        return
    run(APP, "-m", GRID, override)
    found = seen(tmp_path)
    for part in key.split("."):
        found = [config[part] for config in found]  # type: ignore[misc]

    assert found == values
    assert [v[key] for v in values_of(tmp_path / "outputs" / "grid-1")] == values


def test_glob_becomes_the_options_of_the_group(run: Run, tmp_path: Path) -> None:
    """model=glob(*) is a choice of all models."""
    run(APP, "-m", GRID, "model=glob(*)")

    assert [c["model"]["name"] for c in seen(tmp_path)] == ["big", "small"]


@pytest.mark.parametrize(
    ("override", "kind"),
    [
        ("y=interval(1,64)", int),  # the present value is an integer, and so are the bounds
        ("y=interval(1.0,64.0)", float),
        ("x=interval(1,64)", float),  # the present value is a float
        ("zero=interval(0,1e-2)", float),  # `weight_decay: 0` must not make an integer
        ("x=int(interval(1,64))", int),
        ("x=tag(log,int(interval(1,64)))", int),
        ("x=tag(int,interval(1,64))", int),
        ("y=tag(float,interval(1,64))", float),
        ("x=tag(int,log,interval(1,64))", int),
    ],
)
def test_interval_infers_the_type(run: Run, tmp_path: Path, override: str, kind: type) -> None:
    """An integer key never gets 198.66, a float key is never rounded."""
    name = override.partition("=")[0]
    run(APP, "-m", "hydra/sweeper=random", "hydra.sweeper.n_trials=4", override)
    recorded = [v[name] for v in values_of(tmp_path / "outputs" / "random-1")]

    assert {type(c[name]) for c in seen(tmp_path, "random-1")} == {kind}
    assert {type(v) for v in recorded} == {kind}


def test_step_tag_keeps_to_its_raster(run: Run, tmp_path: Path) -> None:
    """tag(step:8, ...) proposes low, low + 8, ..."""
    run(APP, "-m", "hydra/sweeper=random", "y=tag(step:8,interval(16,64))")

    assert {v["y"] for v in values_of(tmp_path / "outputs" / "random-1")} <= set(range(16, 65, 8))


def test_key_of_some_choices_is_set_only_there(run: Run, tmp_path: Path) -> None:
    """model.width exists for one model; the other's jobs do not get it."""
    run(APP, "-m", GRID, "model=small,big", "model.width=10,20")
    values = values_of(tmp_path / "outputs" / "grid-1")

    assert values == [
        {"model": "small"},
        {"model": "big", "model.width": 10},
        {"model": "big", "model.width": 20},
    ]


def test_declared_condition_and_where_hold(run: Run, tmp_path: Path) -> None:
    """hydra.sweeper.conditions and hydra.sweeper.where shape what is proposed."""
    run(
        APP,
        "-m",
        GRID,
        "flag=true,false",
        "x=0.1,0.2",
        "y=1,2",
        "hydra.sweeper.conditions={x: {flag: [true]}}",
        "hydra.sweeper.where='x * y < 0.3 and deep.er == 0.5'",
    )

    assert values_of(tmp_path / "outputs" / "grid-1") == [
        {"flag": True, "x": 0.1, "y": 1},
        {"flag": True, "x": 0.1, "y": 2},
        {"flag": True, "x": 0.2, "y": 1},
        {"flag": False, "y": 1},
        {"flag": False, "y": 2},
    ]


def test_space_in_yaml_equals_the_typed_one(run: Run, tmp_path: Path) -> None:
    """hydra.sweeper.params takes the grammar as text, or lists."""
    sweep = tmp_path / "conf" / "sweep"
    sweep.mkdir(parents=True)
    params = {"x": "interval(0.0, 1.0)", "y": [1, 2], "text": "a,b"}
    body = {"defaults": [{"override /hydra/sweeper": "random"}]}
    body["hydra"] = {"sweeper": {"params": params, "seed": 1, "n_trials": 5}}  # type: ignore[assignment]
    (sweep / "mine.yaml").write_text(
        "# @package _global_\n" + yaml.safe_dump(body, sort_keys=False)
    )
    run(APP, "--config-dir", "conf", "-m", "+sweep=mine")
    typed = ("x=interval(0.0,1.0)", "y=1,2", "text=a,b")
    settings = ("hydra/sweeper=random", "hydra.sweeper.seed=1", "hydra.sweeper.n_trials=5")
    run(APP, "-m", *settings, *typed, "hydra.sweep.dir=typed")

    assert values_of(tmp_path / "outputs" / "random-1") == values_of(tmp_path / "typed")


def test_natural_scale_comes_from_knobs(run: Run, tmp_path: Path) -> None:
    """An app says in knobs.yaml that a key lives on a log scale; a tag wins over it."""
    conf = tmp_path / "conf"
    conf.mkdir()
    (conf / "knobs.yaml").write_text("x: {type: float, scale: log, range: '(0, 10]'}\n")
    settings = ("--config-dir", "conf", "-m", "hydra/sweeper=random", "hydra.sweeper.n_trials=2")
    natural = run(APP, *settings, "x=interval(1e-4,1e-1)")
    tagged = run(APP, *settings, "x=tag(linear,interval(1e-4,1e-1))")

    assert "x in [0.0001, 0.1], log" in natural.stdout
    assert "x in [0.0001, 0.1]\n" in tagged.stdout


def test_record_describes_the_space(run: Run, tmp_path: Path) -> None:
    """Seed, versions, settings and space stand in the header."""
    run(APP, "-m", "hydra/sweeper=random", "hydra.sweeper.n_trials=1", "x=interval(0.0,1.0)")
    header = _record.read(tmp_path / "outputs" / "random-1").header

    assert header["space"]["parameters"]["x"]["high"] == 1.0
    assert isinstance(header["seed"], int)
    assert {"python", "hydra-core", "hydra-tune"} <= set(header["versions"])


def test_prior_tag_is_tried_first(run: Run, tmp_path: Path) -> None:
    """What the user believes in, of numbers and of choices."""
    run(
        APP,
        "-m",
        "hydra/sweeper=bayes",
        "hydra.sweeper.n_trials=2",
        "x=tag(prior:0.125,interval(0.1,0.9))",
        "text=tag(prior:b,choice(a,b,c))",
    )
    values = values_of(tmp_path / "outputs" / "bayes-1")

    assert {"x": 0.125, "text": "b"} in values


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("x=tag(prior:7,interval(0.1,0.9))", "prior=7 must lie between 0.1 and 0.9"),
        ("x=tag(prior:low,interval(0.1,0.9))", "'prior:low' needs a number"),
        ("text=tag(prior:d,choice(a,b,c))", "'prior:d' names none of the choices"),
        ("x=tag(prior:0.2,prior:0.3,interval(0.1,0.9))", "exclude each other"),
    ],
)
def test_wrong_prior_is_refused(run: Run, override: str, told: str) -> None:
    """In one sentence, before anything runs."""
    assert told in run(APP, "-m", "hydra/sweeper=bayes", override, check=False).stderr
