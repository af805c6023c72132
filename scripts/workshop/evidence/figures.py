"""What is measured, and the figures and goals that follow from it: the contents of results.json."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..mini.files import STYLES
from . import methods
from .frechet import Z95, bootstrap_interval, frechet_distance, wilson_interval
from .measuring import TUNING, Job, collected, jobs, prompts
from .runs import RUNS, LcmLora

Row = dict[str, Any]

REFERENCE = "teacher-25"
SUN = "sun-shipped"
BASELINES = (REFERENCE, "teacher-4", "plain-4", SUN)
LCM = tuple(name for name, run in RUNS.items() if isinstance(run, LcmLora))
EQUAL = ("sun", *LCM, "cfg-only")
"""Trained for equally long."""
NEGATIVE = ("sun", "cfg-only", "nag")
"""Peers that read a negative prompt, without CFG."""
PEERS = (*LCM, "cfg-only", "nag", "dpmpp-4", "dpmpp-8", "unipc-4", "unipc-8")
ABLATIONS = ("sun", "no-norm", "cfg-only", "no-rollouts", "no-cfg-term", "no-extra-positive")
"""The first is whole; CFG distillation alone is the one without MSC and its rollouts."""
STEPS = ("sun-1-step", "sun-2-steps", "sun", "sun-8-steps", "sun-shipped-1", "sun-shipped-2", SUN, "sun-shipped-8")
STRENGTHS = {0.0: "sun-strength-0", 0.5: "sun-strength-0.5", 1.0: SUN, 1.5: "sun-strength-1.5"}
GAIN = (REFERENCE, "plain-4", SUN)


def unique(*groups: Iterable[str]) -> list[str]:
    """List names in the order of their first mention, of methods that have their weights and settings."""
    names = dict.fromkeys(name for group in groups for name in group)
    return [name for name in names if name in methods.FIXED or name in methods.tuned()]


def sets(count: int) -> dict[str, list[Job]]:
    """List all that is drawn, by `method/kind/style`; the most telling first."""
    wanted = [(name, "pairs", "storybook") for name in unique(BASELINES, EQUAL, PEERS, ABLATIONS)]
    wanted += [(name, "open", "storybook") for name in unique(BASELINES, NEGATIVE, STRENGTHS.values())]
    wanted += [(name, "full", "storybook") for name in unique(BASELINES, ["sun", *LCM, "nag"])]
    wanted += [(name, "pairs", style) for style in STYLES[1:] for name in GAIN]
    wanted += [(name, "pairs", "storybook") for name in unique(STEPS)]
    return {f"{name}/{kind}/{style}": jobs(name, kind, count, style) for name, kind, style in wanted}


class Measured:
    """What was drawn, loaded once."""

    def __init__(self, drawn: dict[str, list[Job]]) -> None:
        self.data = {
            key: {name: values.float().numpy().astype(np.float64) for name, values in collected(parts).items()}
            for key, parts in drawn.items()
        }

    def __call__(self, method: str, what: str, kind: str = "pairs", style: str = "storybook") -> Any:
        return self.data[f"{method}/{kind}/{style}"][what]

    def has(self, method: str, kind: str) -> bool:
        return f"{method}/{kind}/storybook" in self.data

    def psnr(self, method: str, kind: str = "pairs", style: str = "storybook") -> Row:
        """Average the likeness to the 25-step picture from the same noise over pictures, dB."""
        return mean(self(method, "psnr", kind, style))

    def psnr_difference(self, a: str, b: str, kind: str = "pairs", style: str = "storybook") -> Row:
        """Compare `a` with `b` picture by picture, dB."""
        return mean(self(a, "psnr", kind, style) - self(b, "psnr", kind, style))

    def gain_kept(self, style: str) -> Row:
        """Compare SUN's gain over 4 steps without CFG on a style with that on the base, %."""
        of_style, of_base = (self(SUN, "psnr", style=s) - self("plain-4", "psnr", style=s) for s in (style, STYLES[0]))
        return bootstrapped(lambda rows: 100 * of_style[rows].mean() / of_base[rows].mean(), len(of_base))

    def distance(self, method: str, kind: str = "pairs") -> Row:
        """Measure the Fréchet distance to what the teacher draws in 25 steps from the same prompts and noise."""
        return bootstrapped(self._distances(method, kind), len(self(method, "features", kind)))

    def distance_difference(self, a: str, b: str) -> Row:
        """Subtract the Fréchet distance of `b` from that of `a`, over the same prompts."""
        of_a, of_b = self._distances(a), self._distances(b)
        return bootstrapped(lambda rows: of_a(rows) - of_b(rows), len(self(a, "features")))

    def noise_floor(self) -> dict[str, Row]:
        """Measure what other noise alone does to the Fréchet distance: `full` repeats its prompts with other noise."""
        drawn, again = self._first_and_second_time(REFERENCE)
        sun, _ = self._first_and_second_time(SUN)
        ways_of_drawing = {"teacher-25, other noise": again, "SUN as shipped, same noise": sun}

        def distance(other: Any) -> Row:
            return bootstrapped(lambda rows: frechet_distance(other[rows], drawn[rows]), len(drawn))

        return {what: distance(other) for what, other in ways_of_drawing.items()}

    def _first_and_second_time(self, method: str) -> tuple[Any, Any]:
        features = self(method, "features", "full")
        count = min(len(set(prompts("full", len(features)).positives)), len(features) // 2)
        return features[:count], features[count : 2 * count]

    def _distances(self, method: str, kind: str = "pairs") -> Callable[[Any], float]:
        features, reference = self(method, "features", kind), self(REFERENCE, "features", kind)
        return lambda rows: frechet_distance(features[rows], reference[rows])

    def share(self, method: str, what: str, kind: str) -> Row:
        """Count how often something holds, in per cent."""
        if what == "both":
            hits = self(method, "subject", kind) * self(method, "colour", kind)
        else:
            hits = self(method, what, kind)
        low, high = wilson_interval(int(hits.sum()), len(hits))
        return interval(100 * hits.mean(), 100 * low, 100 * high)


def tuning_row(name: str, settings: str) -> dict[str, float]:
    """Measure how near a peer comes to the teacher with these settings, on the tuning prompts."""
    tried, reference = (
        collected(jobs(method, "tuning", TUNING, settings=chosen))
        for method, chosen in ((name, settings), (REFERENCE, "null"))
    )
    features, of_teacher = (part["features"].double().numpy() for part in (tried, reference))
    return {
        "psnr": round(float(tried["psnr"].mean()), 2),
        "frechet": round(frechet_distance(features, of_teacher), 2),
    }


def mean(values: Any) -> Row:
    half = Z95 * values.std(ddof=1) / len(values) ** 0.5
    return interval(values.mean(), values.mean() - half, values.mean() + half)


def bootstrapped(statistic: Callable[[Any], float], count: int) -> Row:
    """Take `statistic(rows)` of all `count` rows, with its interval."""
    return interval(statistic(np.arange(count)), *bootstrap_interval(statistic, count))


def interval(value: float, low: float, high: float) -> Row:
    return {"value": round(float(value), 3), "low": round(float(low), 3), "high": round(float(high), 3)}


def results(measured: Measured, count: int, curve: Row) -> Row:
    """Make all tables. `curve` holds earlier points of the shipped adapter's training: their weights are gone."""
    out: Row = {"count": count}
    out["methods"] = {name: method_row(measured, name) for name in unique(BASELINES, EQUAL, PEERS)}
    out["ablations"] = {name: method_row(measured, name) for name in unique(ABLATIONS)}
    out["steps"] = {name: method_row(measured, name) for name in unique(STEPS)}
    out["noise"] = measured.noise_floor()
    out["graded"] = {f"{s:g}": measured.share(name, "stays", "open") for s, name in STRENGTHS.items()}
    out["styles"] = {style: style_row(measured, style) for style in STYLES}
    out["curve"] = curve | {SUN: method_row(measured, SUN)}
    out["goals"] = goals(measured, out)
    return out


def method_row(measured: Measured, name: str) -> Row:
    method = methods.method(name)
    row: Row = {"title": method.title, "evaluations": method.way.evaluations}
    if name in RUNS:
        row["training_steps"] = RUNS[name].steps
    if name != REFERENCE:
        row["psnr"] = measured.psnr(name)
        if name != rival(name):
            row["behind"] = measured.psnr_difference(rival(name), name)
        row["frechet"] = measured.distance(name)
    if measured.has(name, "full"):
        row["both"] = measured.share(name, "both", "full")
        if name != REFERENCE:
            row["psnr_full"] = measured.psnr(name, "full")
            row["frechet_full"] = measured.distance(name, "full")
    if measured.has(name, "open"):
        row["stays"] = measured.share(name, "stays", "open")
    return row


def rival(name: str) -> str:
    """Name what a method is compared with: if it was trained, SUN trained for as long; otherwise the shipped one."""
    return "sun" if name in RUNS else SUN


def style_row(measured: Measured, style: str) -> Row:
    """Measure what SUN gains over 4 steps without CFG, in dB of likeness to the style's own 25 steps."""
    return {
        "plain": measured.psnr("plain-4", style=style),
        "sun": measured.psnr(SUN, style=style),
        "gain": measured.psnr_difference(SUN, "plain-4", style=style),
        "kept": measured.gain_kept(style),
    }


def goals(measured: Measured, out: Row) -> list[Row]:
    """List the goals that were set beforehand with what came out; `met` uses the measured value, not its interval."""
    rows = out["methods"]
    teacher_25, teacher_4, sun = (rows[name] for name in (REFERENCE, "teacher-4", SUN))
    both_4, both_25 = teacher_4["both"]["value"], teacher_25["both"]["value"]
    right, like = "thing and colour right", "likeness to teacher-25"
    found = [
        at_least(f"teacher, 25 steps CFG: {right}", 85, "%", teacher_25["both"]),
        at_least(f"SUN, 4 evaluations: {right}, as the teacher in 4 DDIM steps with CFG", both_4, "%", sun["both"]),
        at_least(f"SUN, 4 evaluations: {right}, as teacher-25 less 3 points", both_25 - 3, "%", sun["both"]),
        *(
            at_least(f"SUN, 4 evaluations: {like}, over 4 {other}, {kind}", bound, "dB",
                     measured.psnr_difference(SUN, name, kind))
            for name, kind, other, bound in (
                ("teacher-4", "pairs", "DDIM steps with CFG", 0), ("teacher-4", "full", "DDIM steps with CFG", 0),
                ("dpmpp-4", "pairs", "DPM++ 2M steps with CFG", 0), ("unipc-4", "pairs", "UniPC steps with CFG", 0),
                ("plain-4", "pairs", "steps without CFG", 4), ("plain-4", "full", "steps without CFG", 4),
            )
        ),
        at_most("a negated colour stays, teacher-25", 5, "%", teacher_25["stays"]),
        at_most("a negated colour stays, SUN", 10, "%", sun["stays"]),
    ]  # fmt: skip
    shares = [share["value"] for share in out["graded"].values()]
    found.append(
        {
            "what": "a negated colour stays, negative strength 0, 0.5, 1, 1.5", "goal": "falls", "unit": "%",
            "found": " > ".join(f"{share:.1f}" for share in shares), "met": shares == sorted(shares, reverse=True),
        }
    )  # fmt: skip
    for name in unique(PEERS):
        what = f"Fréchet distance on pairs of “{methods.method(rival(name)).title}” less “{methods.method(name).title}”"
        found.append(at_most(what, 0, "", measured.distance_difference(rival(name), name)))
    for style in STYLES[1:]:
        found.append(at_least(f"gain over 4 steps without CFG, kept on {style}", 90, "%", out["styles"][style]["kept"]))
    return found


def at_least(what: str, bound: float, unit: str, found: Row) -> Row:
    goal, met = f">= {bound:.4g} {unit}", found["value"] >= bound
    return {"what": what, "goal": goal, "unit": unit, "found": found, "met": met}


def at_most(what: str, bound: float, unit: str, found: Row) -> Row:
    goal, met = f"<= {bound:.4g} {unit}".strip(), found["value"] <= bound
    return {"what": what, "goal": goal, "unit": unit, "found": found, "met": met}
