"""The mathematics of the evidence, and that its README shows what was measured; measuring again takes too long."""

import json

import numpy as np
import pytest
import scipy.linalg
from workshop.evidence import report
from workshop.evidence.frechet import bootstrap_interval, frechet_distance, wilson_interval


def features(mean, covariance_root, count=400, seed=0):
    """Make rows whose sample mean and covariance are exactly these."""
    rows = np.random.default_rng(seed).normal(size=(count, len(mean)))
    rows -= rows.mean(0)
    white = np.linalg.qr(rows)[0] * np.sqrt(count - 1)
    return white @ covariance_root + mean


def test_frechet_distance_of_axis_aligned_normals_is_the_closed_form():
    """|m - n|^2 + sum (s - t)^2 for standard deviations s and t along common axes."""
    s, t = np.array([1.0, 2.0, 0.5]), np.array([1.5, 1.0, 0.5])
    m, n = np.array([0.0, 1.0, -1.0]), np.array([2.0, 1.0, 0.0])
    found = frechet_distance(features(m, np.diag(s)), features(n, np.diag(t), seed=1))
    assert found == pytest.approx(((m - n) ** 2).sum() + ((s - t) ** 2).sum(), rel=1e-9)


def test_frechet_distance_of_any_normals_is_that_of_the_matrix_root():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5)), rng.normal(size=(200, 5)) @ rng.normal(size=(5, 5)) + 1
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    root = np.trace(scipy.linalg.sqrtm(cov_a @ cov_b)).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * root
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_a_set_has_no_distance_to_itself_even_with_fewer_rows_than_features():
    rows = np.random.default_rng(3).normal(size=(20, 64))
    assert frechet_distance(rows, rows) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (10, 20, 0.2993, 0.7007), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_interval_is_the_published_one(hits, count, low, high):
    """Values of Newcombe 1998, table I, and of the closed form at both ends, z^2 / (n + z^2)."""
    assert wilson_interval(hits, count) == pytest.approx((low, high), abs=1e-4)


def test_bootstrap_interval_of_a_mean_is_that_of_the_central_limit():
    values = np.random.default_rng(4).normal(size=400)
    low, high = bootstrap_interval(lambda rows: values[rows].mean(), len(values), repeats=2000)
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.07)  # 2000 draws: 1.6 % of standard error
    assert (high + low) / 2 == pytest.approx(values.mean())


def test_the_readme_shows_what_was_measured():
    shown = report.shown(report.README.read_text(encoding="utf-8"))
    assert shown == report.tables(json.loads(report.RESULTS.read_text(encoding="utf-8")))


def test_the_documents_show_what_a_negative_prompt_without_an_adapter_was_measured_to_do():
    ways = json.loads((report.README.parent / "negative.json").read_text(encoding="utf-8"))["ways"]
    readme = report.README.read_text(encoding="utf-8")
    english = report.README.parents[1] / "web" / "docs" / "SUNNegative.md"
    pages = [english, *english.with_suffix("").glob("*.md")]
    at_25 = [f"25 steps, CFG 1, scale {scale}" for scale in (2, 3, 4)]
    for name in ("LCM-LoRA, 4 steps, CFG 1, scale 3", "25 steps, CFG 3", *at_25):
        way = ways[name]
        again, right = (f"{way[what]['value']:g}" for what in ("colour_comes_again", "thing_right"))
        assert f"| {way['evaluations']} | {again} | {right} |" in readme
        for page in pages:
            assert f"| {again} % | {right} % |" in page.read_text(encoding="utf-8"), page


def test_scale_4_at_25_steps_does_what_cfg_does_in_half_the_evaluations():
    ways = json.loads((report.README.parent / "negative.json").read_text(encoding="utf-8"))["ways"]
    half, cfg = ways["25 steps, CFG 1, scale 4"], ways["25 steps, CFG 3"]
    assert 2 * half["evaluations"] == cfg["evaluations"]
    assert half["colour_comes_again"]["value"] <= 3
    assert half["thing_right"]["value"] >= cfg["thing_right"]["value"] - 2


def test_results_are_written_as_tables_between_the_marks(monkeypatch, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n", encoding="utf-8")
    monkeypatch.setattr(report, "README", readme)
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results.json")
    share = {"value": 12.5, "low": 10.0, "high": 15.25}
    method = {"title": "SUN as shipped, 4 steps", "evaluations": 4, "psnr": share, "behind": share, "stays": share}
    results = {
        "goals": [
            {"what": "a negated colour stays", "goal": "<= 10 %", "unit": "%", "found": share, "met": False},
        ],
        "methods": {"sun-shipped": method}, "ablations": {}, "steps": {}, "graded": {"0": share, "0.5": share},
        "noise": {"teacher-25, other noise": share},
        "styles": {"comic": {"plain": share, "sun": share, "gain": share, "kept": share}},
    }  # fmt: skip
    report.write(results)
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert json.loads(report.RESULTS.read_text(encoding="utf-8")) == results
    assert "| a negated colour stays | <= 10 % | 12.50 (10.00 to 15.25) % | **missed** |" in text
    found = "12.50 (10.00 to 15.25)"
    assert f"| SUN as shipped, 4 steps | 4 |  | {found} | {found} |  |  |  |  | {found} |" in text
    assert (
        "| comic | 12.50 (10.00 to 15.25) | 12.50 (10.00 to 15.25) | 12.50 (10.00 to 15.25) | 12.50 (10.00 to 15.25) |"
        in text
    )
