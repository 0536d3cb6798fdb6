"""What is asked of image detection, as a table: bar, aim, what was measured, and whether that meets the bar."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class Bar(NamedTuple):
    """One figure that is asked for.

    path : of the figure in a system's part of the report
    percent : a share, told in percent
    at_most : small is good
    """

    name: str
    path: tuple[str, ...]
    bar: float
    aim: float
    percent: bool = True
    at_most: bool = False


SECONDS = Bar("seconds per scan", ("seconds_per_scan",), 1.0, 0.3, percent=False, at_most=True)
BARS = (
    Bar("compact, brick, metal, slab @ 1 FA/image", ("pod_fa1",), 0.60, 0.75),
    Bar("the same @ FAR 5 %", ("pod_far5",), 0.40, 0.55),
    Bar("compact, brick, metal inside cargo @ 1 FA/image", ("pod_in_cargo_fa1",), 0.33, 0.50),
    Bar("the same @ FAR 5 %", ("pod_in_cargo_far5",), 0.14, 0.30),
    Bar("in headspace or empty @ FAR 5 %", ("pod_headspace_far5",), 0.65, 0.85),
    Bar("extra item @ FAR 5 %", ("by_kind", "item"), 0.85, 0.95),
    Bar("false wall @ FAR 5 %", ("by_kind", "slab"), 0.55, 0.75),
    Bar("worst commodity, FA/image", ("worst_commodity_fa",), 5.0, 2.0, percent=False, at_most=True),
    Bar("never trained on: compact @ 1 FA/image", ("unseen_kind_fa1", "compact"), 0.40, 0.55),
    Bar("never trained on: brick", ("unseen_kind_fa1", "brick"), 0.24, 0.45),
    Bar("never trained on: metal", ("unseen_kind_fa1", "metal"), 0.35, 0.55),
    Bar("never trained on: slab", ("unseen_kind_fa1", "slab"), 0.30, 0.55),
    SECONDS,
)
COVER = Bar("uninspectable area covers insertions at T < .03", ("uninspectable_cover",), 0.95, 0.99)
BEATEN = "naive"
"""A share must also beat this system: its interval must lie above that one's."""


class Row(NamedTuple):
    """One line of the table; met is None where nothing was measured."""

    name: str
    bar: str
    aim: str
    measured: dict[str, str]
    met: bool | None
    why: str


def rows(report: Mapping[str, Any], judged: str) -> Iterator[Row]:
    """Yield the table, `judged` being the system that is held to the bars."""
    systems = report["systems"]
    for bar in BARS:
        figures = {name: _at(system, bar.path) for name, system in systems.items()}
        beaten = figures.get(BEATEN) if judged != BEATEN and bar.percent else None
        met, why = verdict(bar, figures.get(judged), beaten)
        yield _row(bar, {name: _told(bar, f) for name, f in figures.items()}, met, why)
    met, why = verdict(COVER, report["uninspectable_cover"], None)
    yield _row(COVER, {judged: _told(COVER, report["uninspectable_cover"])}, met, why)


def verdict(bar: Bar, figure: Mapping[str, Any] | None, beaten: Mapping[str, Any] | None) -> tuple[bool | None, str]:
    """Return whether a figure meets its bar, and why not.

    It is met where the value reaches it, and the interval's lower end lies above the upper end of the one to beat.
    """
    if figure is None or figure["value"] is None:
        return None, "not measured"
    value = figure["value"]
    if value > bar.bar if bar.at_most else value < bar.bar:
        return False, "short of the bar"
    if beaten is not None and not _above(figure["low"], beaten["high"]):
        return False, f"not surely better than {BEATEN}"
    return True, ""


def _above(low: float | None, high: float | None) -> bool:
    return low is not None and high is not None and low > high


def _row(bar: Bar, measured: dict[str, str], met: bool | None, why: str) -> Row:
    sign = "<=" if bar.at_most else ">="
    return Row(bar.name, f"{sign} {_number(bar, bar.bar)}", f"{sign} {_number(bar, bar.aim)}", measured, met, why)


def _at(system: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any] | None:
    found: Any = system
    for name in path:
        found = found[name]
    return found if isinstance(found, Mapping) else None


def _number(bar: Bar, value: float) -> str:
    return f"{100 * value:.0f} %" if bar.percent else f"{value:.2g}"


def _told(bar: Bar, figure: Mapping[str, Any] | None) -> str:
    if figure is None or figure["value"] is None:
        return "-"
    times, form = (100, ".0f") if bar.percent else (1, ".2g")
    value = f"{times * figure['value']:{form}}{' %' if bar.percent else ''}"
    if figure["low"] is None or figure["high"] is None:
        return value
    return f"{value} ({times * figure['low']:{form}}-{times * figure['high']:{form}})"


def _rate(figure: Mapping[str, Any]) -> str:
    return "-" if figure["value"] is None else f"{figure['value']:.2f}"


def in_words(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield what must stand beside the table: what it was measured on, realised rates, checks."""
    details = report["details"]
    simulated = details["simulated_images"]
    yield (
        f"{report['insertions']} insertions into {report['images']} scans ({simulated} of them simulated), "
        f"{details['folds']} folds of commodities; found are insertions, not contraband"
    )
    for name, system in report["systems"].items():
        more = details["systems"][name]
        real = more["realised"]
        yield (
            f"{name} ({more['how']}): realised {_rate(real['fa1'])} and {_rate(real['fa01'])} FA/image for 1 and 0.1, "
            f"{_told(COVER, real['far5'])} of images for 5 %; AUC {_rate(system['auc_image'])}; "
            f"{100 * (more['chance_fa1']['value'] or 0):.1f} % by chance, not counted as found"
        )
    for pair, points in details["paired"].items():
        told = points["fa1"]
        if told["value"] is not None:
            yield (
                f"{pair} @ 1 FA/image: {100 * told['value']:+.0f} % ({100 * told['low']:+.0f} to "
                f"{100 * told['high']:+.0f}); only the first found {told['only_first']}, only the second "
                f"{told['only_second']}"
            )
    judged = details["judgement_seconds"]
    yield f"the whole judgement of a scan takes {_told(SECONDS, judged)} s here"
    for why, where in _unmeasured(report).items():
        yield f"not measured, {why}: {', '.join(where[:6])}{f' and {len(where) - 6} more' if len(where) > 6 else ''}"
    left_out: dict[str, list[str]] = {}
    for entry in details["left_out"]:
        left_out.setdefault(entry["why"], []).append(entry["name"])
    for why, names in left_out.items():
        yield f"left out, {why}: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
    for check in ("placebo", "leak"):
        yield f"{check} check {'passed' if report[f'{check}_ok'] else 'FAILED'}"


def _unmeasured(report: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return by reason the figures of the table that have no value."""
    found: dict[str, list[str]] = {}
    for name, system in report["systems"].items():
        for bar in BARS:
            figure = _at(system, bar.path)
            if figure is not None and figure["value"] is None:
                found.setdefault(figure["why"], []).append(f"{name} {bar.name}")
    return found
