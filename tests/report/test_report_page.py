"""The page: self-contained, escaped, reproducible, and complete for whatever is there."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from pipeline.report import GramImage, ReportData, TimelineEntry, render
from pipeline.report.data import Modes

NASTY = "<script>alert('$x_1$')</script> & \"quoted\""


class Page(HTMLParser):
    """Tags, ids, references and visible text of a document."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.text = ""
        self.feed(text)
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "xlink:href", "srcset", "action", "data"):
                self.references.append(value or "")

    def handle_data(self, data):
        self.text += data


def sample(**changes) -> ReportData:
    rng = np.random.default_rng(0)
    n, classes = 120, 3
    eigenvalues = np.concatenate([50.0 * np.arange(1, n - 9.0) ** -1.5, rng.normal(0, 1e-9, 10)])
    good = {"value": 0.5, "limit": 30.0, "passed": True}
    ridges = (1e-6, 1e-4, 1e-2)
    metrics = {
        "gram": {"tiles": 10, "seconds": 1.0},
        "solve": {
            "kernel": "ntk",
            "ridges": [
                {
                    "ridge": r,
                    "lambda": 4 * r,
                    "loo_rmse": 0.1 + r,
                    "loo_accuracy": 0.97 - r,
                    "log_determinant": -7.0,
                }
                | {"gates": {"factor": good, "solve": good}}
                for r in ridges
            ],
            "chosen": {"ridge": 1e-4, "by": "loo"},
        },
        "predict": {
            "ridges": [{"ridge": r, "rmse": 0.2, "accuracy": 0.96} for r in ridges],
            "accuracy": 0.9625,
        },
        "spectrum": {
            "ntk": {
                "lambda_max": 50.0,
                "lambda_min": float(eigenvalues.min()),
                "condition_number": 2e9,
                "condition_number_resolved": False,
                "noise_floor": 2e-8,
                "power_law": {
                    "exponent": 1.5,
                    "straight": True,
                    "standard_error": 0.01,
                    "first": 1,
                    "last": n - 10,
                    "r2": 0.999,
                },
                "effective_dimension": [{"ridge": r, "value": 40.0} for r in ridges],
                "max_learning_rate": 0.04,
                "gates": {"eigenpairs": good},
            }
        },
    }
    image = rng.standard_normal((64, 64))
    data = ReportData(
        title="Digits",
        subtitle="some inputs",
        task="classification",
        rows=n,
        test_rows=30,
        class_names=("cat", "dog", "owl"),
        metrics=metrics,
        eigenvalues={"ntk": np.sort(eigenvalues)[::-1]},
        label_power={"ntk": rng.random((n, classes)) / np.arange(1, n + 1)[:, None]},
        gram_image={"ntk": GramImage(image + image.T, n, (40, 80), ("cat", "dog", "owl"))},
        timeline=[TimelineEntry(f"node:{w}", t + 0.1 * w, 0.8, "gram") for w in (9, 10) for t in range(20)],
        wall_seconds=135.0,
        provenance={"host": "node", "versions": {"jax": "0.12.0"}},
        run_yaml="data: {source: digits}\n",
    )
    return replace(data, **changes)


@pytest.fixture(scope="module")
def html() -> str:
    return render(sample())


def test_nothing_is_fetched_from_anywhere(html):
    page = Page(html)
    assert not {"script", "link", "iframe", "object", "img", "a"} & set(page.tags)
    assert page.references
    assert all(reference.startswith(("#", "data:image/png;base64,")) for reference in page.references)
    assert "@import" not in html and "@font-face" not in html
    assert not re.search(r"url\((?!#)", html)
    assert "default-src 'none'" in html


def test_ids_are_unique_and_every_reference_has_its_target(html):
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    local = {reference[1:] for reference in page.references if reference.startswith("#")}
    assert local | set(re.findall(r"url\(#([^)]+)\)", html)) <= set(page.ids)


def test_every_figure_says_in_words_what_it_shows(html):
    labels = re.findall(r'<svg viewBox="[^"]+" role="img" aria-label="([^"]+)"', html)
    assert len(labels) == html.count("<svg ") == html.count("<figcaption>") == 5
    assert all(len(label) > 40 for label in labels)


def test_colours_follow_the_scheme_of_the_page(html):
    assert "prefers-color-scheme: dark" in html
    assert "#0102" not in html
    assert html.count("var(--series-1)") > 5


def test_the_figures_a_reader_looks_for_are_there(html):
    text = Page(html).text.replace("\N{NO-BREAK SPACE}", " ")
    for expected in (
        "96.25 %",
        "10⁻⁴",
        "chosen",
        "2 min 15 s",
        "≥ 2.00 × 10⁹",
        "1.500 ± 0.010",
        "jax",
        "0.12.0",
    ):
        assert expected in text
    assert "All 7 numerical gates passed" in text
    assert "noise floor n ε λ₁" in text
    assert "40 chunks by 2 workers" in text


def test_equal_data_give_equal_text(html):
    assert render(sample()) == html


def test_a_failed_gate_is_announced_first_and_listed_by_itself():
    metrics = sample().metrics | {
        "predict": {"gates": {"lost": {"value": None, "limit": 1.0, "passed": False}}}
    }
    page = Page(render(sample(metrics=metrics, gram_image={}, label_power={}, timeline=[])))
    assert "1 of 8 numerical gates failed" in page.text
    assert page.text.index("lost") < page.text.index("eigenpairs")
    assert "not finite" in page.text


def test_what_people_and_files_supply_is_escaped_everywhere():
    data = sample(
        title=NASTY,
        subtitle=NASTY,
        class_names=(NASTY,) * 3,
        run_yaml=NASTY,
        provenance={NASTY: NASTY},
        timeline=[TimelineEntry(NASTY, 0.0, 1.0, NASTY)],
        gram_image={NASTY: GramImage(np.eye(3), 3, (1, 2), (NASTY,) * 3)},
        label_power={NASTY: np.ones((5, 3)) * [[1, 2, 3]]},
        metrics={"solve": {"gates": {NASTY: {"value": 1.0, "limit": 2.0, "passed": True}}}},
    )
    html = render(data)
    assert "<script" not in html
    assert "script" not in Page(html).tags
    assert Page(html).text.count("<script>alert('$x_1$')</script> & \"quoted\"") >= 10


def test_a_bare_title_is_a_page():
    page = Page(render(ReportData(title="Nothing yet")))
    assert "Nothing yet" in page.text
    assert not {"figure", "table", "details", "dl"} & set(page.tags)


@pytest.mark.parametrize(
    "missing",
    [
        {"task": "none", "label_power": {}, "class_names": ()},
        {"eigenvalues": {}, "label_power": {}},
        {"metrics": {}},
        {"metrics": {"solve": {"ridges": [{"ridge": 0.0, "loo_rmse": 0.1}]}}},
        {"task": "regression", "metrics": {"predict": {"r2": 0.9, "rmse": 0.1}}, "class_names": ()},
        {"eigenvalues": {"ntk": -np.ones(4)}, "gram_image": {"ntk": GramImage(np.full((4, 4), np.nan), 4)}},
        {
            "timeline": [TimelineEntry("w", 5.0, 0.0, "gram")],
            "rows": None,
            "test_rows": None,
            "wall_seconds": None,
        },
    ],
    ids=[
        "no task",
        "no spectrum",
        "no metrics",
        "one zero ridge",
        "regression",
        "nothing drawable",
        "instant",
    ],
)
def test_what_is_missing_is_left_out(missing):
    assert "Digits" in Page(render(sample(**missing))).text


def test_a_density_is_drawn_with_its_error_bars():
    counts = {
        "threshold": [1e-3, 0.1, 1.0, 10.0],
        "larger": [110.0, 30.0, 4.0, 0.0],
        "half_width": [4.0, 2.0, 1.0, 0.1],
    }
    page = render(ReportData(title="t", metrics={"spectrum": {"ntk": {"lambda_max": 9.0, "counts": counts}}}))
    assert "Spectral density" in page
    assert "half width at most 25 %" in page


@pytest.mark.parametrize("classes", [(), ("a", "b", "c")])
def test_modes_are_points_or_images(classes):
    rng = np.random.default_rng(0)
    target = rng.integers(0, 3, 40) if classes else rng.standard_normal(40)
    points = render(
        ReportData(title="t", class_names=classes, modes={"ntk": Modes(rng.standard_normal((40, 5)), target)})
    )
    assert "coloured by class" in points if classes else "coloured by target" in points
    modes = Modes(rng.standard_normal((40, 5)), None, rng.standard_normal((5, 6, 4)))
    assert "The image that each leading eigenvector" in render(ReportData(title="t", modes={"ntk": modes}))
