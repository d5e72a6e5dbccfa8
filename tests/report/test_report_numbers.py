"""Numbers in words, and gates found in metrics."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.report.gates import collect_gates, summarise
from pipeline.report.numbers import duration, percent, quantity, setting, share_of_limit, with_error

_PLAIN = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹−", "-0123456789-")


def read_back(text: str) -> float:
    plain = text.translate(_PLAIN).replace("\N{NO-BREAK SPACE}", "").replace(",", "")
    mantissa, _, power = plain.partition("×")
    if not power and plain.startswith("10") and text[2:3] in "⁻⁰¹²³⁴⁵⁶⁷⁸⁹" and len(text) > 2:
        mantissa, power = "1", plain
    return float(mantissa) * 10.0 ** int(power[2:] or 0) if power else float(mantissa)


@settings(deadline=None)
@given(st.floats(-1e200, 1e200).filter(lambda x: x == 0 or abs(x) > 1e-200), st.integers(2, 6))
def test_a_quantity_reads_back_to_its_digits(x, digits):
    assert read_back(quantity(x, digits)) == pytest.approx(x, rel=0.51 * 10.0 ** (1 - digits))


@settings(deadline=None)
@given(st.integers(1, 99), st.integers(-12, 12))
def test_a_setting_keeps_the_digits_it_was_given(mantissa, exponent):
    x = float(f"{mantissa}e{exponent}")
    assert read_back(setting(x)) == pytest.approx(x, rel=1e-14)
    assert len(setting(x)) < 14


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (0.0, "0"),
        (1437, "1,437"),
        (3195.6, "3,196"),
        (1e-6, "10⁻⁶"),
        (-0.5, "−0.500"),
        (math.nan, "not a number"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (None, "–"),
        (True, "–"),
        ("3", "–"),
        (999999.0, "10⁶"),
    ],
)
def test_quantities_by_example(x, text):
    assert quantity(x) == text


def test_units_by_example():
    plain = str.maketrans("\N{NO-BREAK SPACE}", " ")
    times = {
        0.0: "0 s",
        0.25: "0.250 s",
        12.34: "12.3 s",
        100: "1 min 40 s",
        3600: "1 h 00 min",
        90061: "1 d 1 h",
    }
    for seconds, text in times.items():
        assert duration(float(seconds)).translate(plain) == text
    assert duration(math.nan) == duration(None) == "–"
    assert percent(0.98611, 2).translate(plain) == "98.61 %"
    assert percent(math.nan) == "–"
    assert share_of_limit(0.12).translate(plain) == "12 %"
    assert share_of_limit(1e-9).translate(plain) == "< 0.01 %"
    assert share_of_limit(40.0).translate(plain) == "40.0 ×"
    assert with_error(1.2338, 0.0351).translate(plain) == "1.234 ± 0.035"
    assert with_error(1.5, None) == "1.50"


def gate(value, passed=True, limit=30.0):
    return {"value": value, "limit": limit, "passed": passed}


def test_gates_are_found_at_any_depth_with_their_stage_subject_and_name():
    metrics = {
        "gram": {"ntk": {"trace": 1.0, "gates": {"symmetry": gate(0.0)}}},
        "solve": {"ridges": [{"ridge": 1e-6, "gates": {"factor": gate(0.1)}}, {"ridge": 0.1, "gates": {}}]},
        "predict": {"accuracy": 0.9, "notes": ["text", None, 3]},
    }
    found = [(row.stage, row.subject, row.name, row.value, row.passed) for row in collect_gates(metrics)]
    assert found == [("gram", "ntk", "symmetry", 0.0, True), ("solve", "ridge 10⁻⁶", "factor", 0.1, True)]


@pytest.mark.parametrize("passed", [None, 0, "", False])
def test_a_gate_that_does_not_say_that_it_passed_has_not(passed):
    assert not collect_gates({"solve": {"gates": {"factor": gate(0.1, passed)}}})[0].passed


def test_a_summary_lists_all_failures_and_the_nearest_of_those_that_passed():
    ridges = [
        {"ridge": r, "gates": {"factor": gate(v, ok)}} for r, v, ok in ((1, 3.0, True), (2, 99.0, False))
    ]
    ridges += [
        {"ridge": 3, "gates": {"factor": gate(6.0)}},
        {"ridge": 4, "gates": {"factor": gate(None, False)}},
    ]
    rows = summarise(collect_gates({"solve": {"ridges": ridges}}))
    assert [(row.subject, row.share, row.passed) for row in rows] == [
        ("ridge 2", pytest.approx(3.3), False),
        ("ridge 4", None, False),
        ("ridge 3 (worst of 2)", pytest.approx(0.2), True),
    ]
