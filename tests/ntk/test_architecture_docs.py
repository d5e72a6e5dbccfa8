"""docs/architectures.md has a row for everything that an architecture can be made of, with its arguments."""

import dataclasses
import re
from pathlib import Path

import pytest

from ntk.stax.layer import REGISTRY
from ntk.zoo import ARCHITECTURES

PAGE = (Path(__file__).parents[2] / "docs" / "architectures.md").read_text(encoding="utf-8")
ROWS = {match[1]: match[0] for match in re.finditer(r"^\| `([\w.]+)` \|.*$", PAGE, re.MULTILINE)}
#: Documented as the arguments of another layer; accepted for old code only.
SAME = {"ConvLocal": "Conv", "ConvTranspose": "Conv"}
IGNORED = {"do_stabilize", "do_clip"}


def test_every_row_is_a_layer_and_every_layer_has_one():
    named = {f"zoo.{name}" for name in ARCHITECTURES}
    assert set(ROWS) == set(REGISTRY) | named | {"serial", "parallel", "repeat"}


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_rows_name_the_arguments(name):
    row = ROWS[SAME.get(name, name)]
    for field in dataclasses.fields(REGISTRY[name]):
        assert field.name in IGNORED or re.search(rf"\b{field.name}\b", row), field.name
