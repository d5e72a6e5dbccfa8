"""Reading run.yaml and cluster.yaml: what is accepted comes back equal, what is wrong is named with its remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.config import yaml
from pipeline.config.load import RESOLVED, load_cluster, load_run, validate
from pipeline.config.model import RunConfig
from pipeline.config.sizes import human_bytes, human_seconds, parse_bytes
from pipeline.config.template import write_template
from pipeline.data_files import split_location
from pipeline.errors import InputError

GOOD = """
data:
  train: {source: digits}
  split: {test: 0.2, seed: 0}
kernel:
  architecture:
    - Dense: {out_dim: 512, W_std: 1.5}
    - Relu
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "run.yaml"
    file.write_text(text)
    return file


def refusal(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        load_run(written(folder, text), overrides)
    return str(caught.value)


def test_round_trip(tmp_path: Path) -> None:
    config = load_run(written(tmp_path, GOOD + "solve: {ridge: [1e-6, 1.0e-3]}\n"))
    assert config.solve.ridge == (1e-6, 1e-3)
    content = json.loads(config.model_dump_json()) | {RESOLVED: {"versions": {}}}
    assert load_run(written(tmp_path, yaml.write(content, "a header"))) == config


def test_template_is_a_valid_run(tmp_path: Path) -> None:
    write_template(tmp_path / "first.yaml")
    config = load_run(tmp_path / "first.yaml")
    assert config.out == "runs/first"
    with pytest.raises(InputError, match="exists"):
        write_template(tmp_path / "first.yaml")
    # What it spells out are the defaults, so that a person sees them and nothing else.
    assert config.solve.ridge == RunConfig.model_fields["solve"].default.ridge
    assert config.spectrum == RunConfig.model_fields["spectrum"].default


def test_overrides_are_yaml(tmp_path: Path) -> None:
    config = load_run(written(tmp_path, GOOD), ["gram.tile=128", "solve.ridge=[1e-2]", "kernel.get=both"])
    assert (config.gram.tile, config.solve.ridge, config.kernel.get) == (128, (1e-2,), ("ntk", "nngp"))


@pytest.mark.parametrize("text", ["gram.tile", "=3", "gram..tile=3", "data.train.source.x=3"])
def test_bad_overrides(tmp_path: Path, text: str) -> None:
    assert "--set" in refusal(tmp_path, GOOD, text) or "source" in refusal(tmp_path, GOOD, text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (GOOD + "gram: {tle: 4}\n", ["gram.tle: unknown key", "did you mean `tile`"]),
        (GOOD.replace("train:", "trian:"), ["data.trian: unknown key", "data.train: missing"]),
        (GOOD + "gram: {tile: big}\n", ["gram.tile: must be a whole number or 'auto', got 'big'"]),
        (GOOD + "gram: {tile: 0}\n", ["gram.tile", ">= 1"]),
        (GOOD + "gram: {tile: true}\n", ["gram.tile"]),
        (GOOD + "gram: {tile: '64'}\n", ["gram.tile"]),
        (GOOD + "solve: {ridge: [-1e-6]}\n", ["solve.ridge.0: must be >= 0, got -1e-06"]),
        (GOOD + "solve: {ridge: []}\n", ["solve.ridge", "at least one"]),
        (GOOD + "solve: {kernel: nngp}\n", ["solve.kernel is nngp"]),
        (GOOD + "gram: {tile: 4}\ngram: {tile: 5}\n", ['duplicate key "gram"', ":10:1"]),
        (GOOD + "out: !!python/object/apply:os.system [ls]\n", ["tag"]),
        (GOOD + "out: 2020-01-01\n", ["not a plain value"]),
        (GOOD + "out: [\n", ["not YAML"]),
        ("- 1\n", ["expected a mapping"]),
        ("", ["expected a mapping", "nothing"]),
        ("data: {train: {x: a.npy}}\nkernel: {architecture: [Relu]}\n", ["needs `train.y`"]),
        ("data: {train: {source: digits}}\nkernel: {}\n", ["needs either `architecture` or `function`"]),
        ("data: {train: {}}\nkernel: {architecture: Relu}\n", ["needs either `x`", "`source`"]),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, wanted: list[str]) -> None:
    message = refusal(tmp_path, text)
    for part in wanted:
        assert part in message
    assert "run.yaml" in message


def test_alias_bomb_is_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    assert "aliases" in refusal(tmp_path, "\n".join(lines))


def test_plain_aliases_are_fine(tmp_path: Path) -> None:
    text = GOOD.replace("- Relu", "- &act Relu\n    - Dense: {out_dim: 1}\n    - *act")
    assert load_run(written(tmp_path, text)).kernel.architecture is not None


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_run(tmp_path / "absent.yaml")


def test_data_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    text = "data: {train: {x: sub/x.npy, y: y.csv#label}, task: regression}\nkernel: {architecture: Relu}\n"
    train = load_run(written(tmp_path, text)).data.train
    assert train.x == str(tmp_path / "sub/x.npy")
    assert train.y == str(tmp_path / "y.csv#label")


def test_clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NTK_CLUSTER_FILE", raising=False)
    assert load_cluster("local", tmp_path).kind == "local"
    (tmp_path / "cluster.yaml").write_text("big: {kind: local, workers: 3, memory: 2 GB}\n")
    assert load_cluster("big", tmp_path).memory == "2 GB"
    with pytest.raises(InputError, match="did you mean `local`"):
        load_cluster("locl", tmp_path)
    for bad in (
        "x: {kind: lokal}",
        "x: {kind: local, memory: much}",
        "x: {kind: local, wrkers: 2}",
        "x: {workers: 0, kind: local}",
    ):
        (tmp_path / "cluster.yaml").write_text(bad + "\n")
        with pytest.raises(InputError, match=r"cluster\.yaml"):
            load_cluster("x", tmp_path)


def test_shipped_cluster_file_is_valid() -> None:
    assert load_cluster("local", Path(__file__).parent.parent.parent).kind == "local"


def test_json_schema_knows_every_field() -> None:
    schema = RunConfig.model_json_schema()
    assert set(schema["properties"]) == set(RunConfig.model_fields)
    assert "description" in json.dumps(schema)
    assert (
        validate(RunConfig, {"data": {"source": "digits"}, "kernel": {"architecture": "Relu"}}, "x").predicts
        is False
    )


def test_sizes() -> None:
    assert [parse_bytes(t) for t in ("512 MB", "2GiB", "1.5 gb", "10", "8e9")] == [
        512_000_000, 2 * 2**30, 1_500_000_000, 10, 8_000_000_000,
    ]  # fmt: skip
    for bad in ("", "much", "-1 GB", "5 parsecs", "0", "nan", "1e400"):
        with pytest.raises(ValueError, match="size"):
            parse_bytes(bad)
    assert human_bytes(1_540_000_000) == "1.54 GB"
    assert human_seconds(200) == "3 min 20 s"
    assert human_seconds(3600 * 26.5) == "1 d 2 h"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("x: {kind: local, wrokers: 2}", ["x.wrokers: unknown key", "did you mean `workers`"]),
        ("local: {wrokers: 2}", ["local.wrokers: unknown key"]),
        ("x: {workers: 0}", ["x.workers", ">= 1"]),
        ("x: {kind: lokal}", ["x"]),
    ],
)
def test_cluster_errors_name_the_entry(tmp_path: Path, text: str, wanted: list[str]) -> None:
    (tmp_path / "cluster.yaml").write_text(text + "\n")
    with pytest.raises(InputError) as caught:
        load_cluster("x", tmp_path)
    for part in wanted:
        assert part in str(caught.value)


def test_held_out_choice_needs_something_held_out(tmp_path: Path) -> None:
    text = GOOD.replace("  split: {test: 0.2, seed: 0}\n", "") + "solve: {select: held_out}\n"
    assert "nothing is held out" in refusal(tmp_path, text)


def test_folders_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "a#b"
    folder.mkdir()
    text = "data: {train: {x: x.npz#k}, task: none}\nkernel: {architecture: Relu}\n"
    assert load_run(written(folder, text)).data.train.x == str(folder / "x.npz#k")
    assert split_location(str(folder / "x.npz#k")) == (str(folder / "x.npz"), "k")
