"""What the runs say: medians and ratios as Markdown, JSON and a picture, and which claims of docs/performance.md hold."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.measure import Result
from bench.workloads import OTELCOL, OURS, ROTEL, WORKLOADS

_NAMES = {OURS: "otel-sidecar", OTELCOL: "otelcol", ROTEL: "rotel"}
_COLORS = {OURS: "#1b7f5c", OTELCOL: "#8a8f98", ROTEL: "#c8a15a"}
_PLOTTED = ("default-512", "default-64", "redact-512", "pass-512", "pass-64", "json-512", "logs-512", "metrics-400")


class Figures:
    """Medians by workload and program."""

    def __init__(self, results: Iterable[Result]) -> None:
        self._runs: dict[tuple[str, str], list[Result]] = {}
        for result in results:
            self._runs.setdefault((result.workload, result.program), []).append(result)

    def get(self, workload: str, program: str = OURS, what: str = "cpu_us") -> float | None:
        """The median of a figure; None when it was not measured."""
        runs = self._runs.get((workload, program))
        return median(getattr(run, what) for run in runs) if runs else None

    def ratio(self, workload: str, program: str) -> float | None:
        """How many times the CPU of ours a program needs."""
        ours, theirs = self.get(workload), self.get(workload, program)
        return theirs / ours if ours and theirs else None


def markdown(data: dict[str, Any], wrong: Iterable[str] = ()) -> str:
    """The tables of what `results.json` holds."""
    figures = Figures(Result(**run) for run in data["runs"])
    goals = [claim for claim in claims(figures, data) if claim.met is not None]
    parts = [f"CPU microseconds per span, log record or data point; {data['machine']}.", table(figures)]
    parts += [claims_table(goals)] if goals else []
    return "\n\n".join([*parts, *(f"WRONG: {line}" for line in wrong)])


@dataclass(frozen=True, slots=True)
class Claim:
    """A goal and what was measured; `met` is None when it was not measured."""

    text: str
    goal: str
    found: str
    met: bool | None


def claims(figures: Figures, extra: dict[str, Any]) -> list[Claim]:
    """Every goal. `extra`: what the parts other than the workloads found."""
    made: list[Claim] = []

    def claim(text: str, value: float | None, sign: str, goal: float, unit: str = "") -> None:
        met = None if value is None else value >= goal if sign == ">=" else value <= goal
        found = "not measured" if value is None else f"{value:,.1f}{unit}" if value < 1000 else f"{value:,.0f}{unit}"
        made.append(Claim(text, f"{sign} {goal:,g}{unit}", found, met))

    def times(text: str, workload: str, peer: str, goal: float) -> None:
        claim(f"{text}: less CPU than {_NAMES[peer]}", figures.ratio(workload, peer), ">=", goal, "x")

    times("default, 512 spans, full load", "default-512", OTELCOL, 15)
    times("default, 512 spans, 5,000 spans/s", "default-512-paced", OTELCOL, 8)
    times("default, 64 spans", "default-64", OTELCOL, 6)
    times("pass-through, 512 spans", "pass-512", OTELCOL, 4)
    times("pass-through, 512 spans", "pass-512", ROTEL, 5)
    times("pass-through, 64 spans", "pass-64", OTELCOL, 1)
    for work in ("pass", "default"):
        ratio = figures.ratio(f"{work}-1", OTELCOL)
        claim(f"{work}, 1 span: CPU as a multiple of otelcol's", 1 / ratio if ratio else None, "<=", 1.5, "x")
    times("everything kept, 10 % personal data", "redact-512", OTELCOL, 20)
    claim("sustained on one core, spans/s", figures.get("sustained", what="rate"), ">=", 149_000)
    claim("sustained: p99 of the answer", figures.get("sustained", what="p99"), "<=", 50, " ms")
    claim("sustained: memory", figures.get("sustained", what="rss_peak"), "<=", 200, " MiB")
    claim("5,000 spans/s for a minute: memory", figures.get("steady", what="rss_peak"), "<=", 120, " MiB")
    claim("idle: memory", figures.get("default-512", what="rss_idle"), "<=", 80, " MiB")
    claim("longest stall with 20 requests of 64 MiB", extra.get("stall_ms"), "<=", 100, " ms")
    claim("cost per span, 1 to 8,192 a request, max / min", spread(per_span(figures)), "<=", 2, "x")
    claim("cost per KB, 0.1 to 100 KB a span, largest / proportional", spread_bytes(per_kilobyte(figures, extra)), "<=", 2, "x")
    claim("JSON in as a multiple of protobuf in", _quotient(figures, "json-512", "http-512"), "<=", 3, "x")
    claim("gzip in as a multiple of plain", _quotient(figures, "http-gzip-512", "http-512"), "<=", 1.5, "x")
    claim("requests with the result of the plain reference", extra.get("oracle_requests"), ">=", extra.get("oracle_goal", 10_000))
    return made


def _quotient(figures: Figures, one: str, other: str) -> float | None:
    above, below = figures.get(one), figures.get(other)
    return above / below if above and below else None


def per_span(figures: Figures) -> dict[int, float]:
    """CPU per further span, by spans a request: the fixed cost of a call is that of a request of one span."""
    first = figures.get("default-1")
    sizes = {size: figures.get(f"default-{size}") for size in (64, 512, 8192)}
    return {size: (cost * size - first) / (size - 1) for size, cost in sizes.items() if cost and first}


def spread(costs: dict[int, float]) -> float | None:
    """The largest as a multiple of the smallest."""
    return max(costs.values()) / min(costs.values()) if len(costs) > 1 else None


_SIZED = ("default-no attributes", "default-512", "default-100 x 50 B", "default-10 x 1 KB", "default-20 x 5 KB")


def per_kilobyte(figures: Figures, extra: dict[str, Any]) -> list[tuple[float, float]]:
    """(kilobytes a span, CPU us per span), smallest span first."""
    sizes = extra.get("span_bytes", {})
    return sorted((sizes[name] / 1e3, cost) for name in _SIZED if name in sizes and (cost := figures.get(name)))


def spread_bytes(costs: Sequence[tuple[float, float]]) -> float | None:
    """The cost per KB as a multiple of that of the next smaller spans, at worst: 1 is in proportion, less is cheaper."""
    worst = [(b[1] / b[0]) / (a[1] / a[0]) for a, b in itertools.pairwise(costs)]
    return max(worst) if worst else None


def table(figures: Figures, *, of: Callable[[str], bool] = lambda _: True) -> str:
    """One row a workload: CPU per item of each program, ratios, memory and latency of ours and otelcol."""
    heads = ("otel-sidecar", "otelcol", "rotel", "otelcol / ours", "rotel / ours", "MiB ours / otelcol", "p99 ms ours / otelcol")
    lines = ["| workload | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
    for workload in filter(lambda w: of(w.name) and figures.get(w.name), WORKLOADS):
        name = workload.name
        cells = [_number(figures.get(name, program)) for program in (OURS, OTELCOL, ROTEL)]
        cells += [_number(figures.ratio(name, program), "x") for program in (OTELCOL, ROTEL)]
        cells += [
            " / ".join(_number(figures.get(name, program, what)) for program in (OURS, OTELCOL)) for what in ("rss_peak", "p99")
        ]
        lines.append(f"| {workload.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _number(value: float | None, unit: str = "") -> str:
    if value is None:
        return "–"
    return f"{value:.2f}{unit}" if value < 10 else f"{value:.1f}{unit}" if value < 100 else f"{value:,.0f}{unit}"


def claims_table(made: Iterable[Claim]) -> str:
    """One row a goal."""
    marks = {True: "met", False: "**missed**", None: "–"}
    rows = [f"| {claim.text} | {claim.goal} | {claim.found} | {marks[claim.met]} |" for claim in made]
    return "\n".join(["| goal | wanted | measured | |", "|---|---:|---:|---|", *rows])


@dataclass(frozen=True, slots=True)
class Bars:
    """What one program needs for each workload that is drawn, the lowest row first; 0 where it was not measured."""

    program: str
    offset: float
    values: list[float]
    labels: list[str]


def bars(figures: Figures) -> tuple[list[str], list[Bars]]:
    """The titles of the rows from the lowest up, and the bars of each program, the uppermost first."""
    rows = [workload for name in reversed(_PLOTTED) for workload in WORKLOADS if workload.name == name and figures.get(name)]
    drawn = []
    for offset, program in ((0.27, OURS), (0.0, OTELCOL), (-0.27, ROTEL)):
        values = [figures.get(workload.name, program) for workload in rows]
        labels = [_number(value) if value else "" for value in values]
        drawn.append(Bars(program, offset, [value or 0.0 for value in values], labels))
    return [workload.title for workload in rows], drawn


def plot(figures: Figures, path: Path) -> None:
    """Bars of CPU per item beside each other, as SVG or PNG by the suffix. Only drawing: `make test` has no matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "otel-sidecar"
    from matplotlib import pyplot

    titles, drawn = bars(figures)
    figure, axes = pyplot.subplots(figsize=(9, 0.75 * len(titles) + 1.2))
    for each in drawn:
        places = [row + each.offset for row in range(len(titles))]
        shown = axes.barh(places, each.values, 0.25, label=_NAMES[each.program], color=_COLORS[each.program])
        axes.bar_label(shown, labels=each.labels, padding=3, fontsize=8)
    axes.set_yticks(range(len(titles)), titles)
    axes.set_xlabel("CPU microseconds per span, record or point (less is better)")
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)
