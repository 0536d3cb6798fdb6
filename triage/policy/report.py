"""The comparison as a page: a table that a manager can read, plots, what it shows and what it does not."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import Any

from triage.analysis.shares import words as share_words
from triage.study.plot_portal import need_matplotlib

ROWS = (
    ("delay_min p50", "Delay of a truck, median (min)", 1),
    ("delay_min p95", "Delay of a truck, 95 % wait no longer (min)", 1),
    ("staffed_delay_min p95", "The same at a site with all that the policy needs (min)", 1),
    ("queue_p95", "Trucks waiting for a picture, 95 % of the time no more", 0),
    ("analysts", "Analysts needed in the busiest hour", 1),
    ("imaging_systems", "Imaging systems needed in the busiest hour", 1),
    ("opening_places", "Places for opening needed", 1),
    ("images_taken", "Pictures taken", 0),
    ("images_viewed", "Pictures that a person looks at", 0),
    ("opened", "Containers opened", 1),
    ("found_share", "Share of contraband found", 3),
    ("found_per_opening", "Finds per opened container", 2),
    ("found_per_analyst_hour", "Finds per hour of looking", 2),
    ("missed_cutoffs", "Missed ships or slots", 1),
    ("storage_box_days", "Box-days held", 1),
    ("cost_per_container", "Cost per container passing, at a site with all it needs (USD)", 2),
)


def html(result: dict[str, Any]) -> str:
    """Return the report of a comparison as one page without anything outside it."""
    policies = result["policies"]
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in policies)
    body = []
    for key, title, digits in ROWS:
        cells = []
        for policy in policies.values():
            value = entry(policy, key)
            spread = (
                "" if value["low"] is None else f"<small>{value['low']:.{digits}f}–{value['high']:.{digits}f}</small>"
            )
            cells.append(f"<td>{value['value']:.{digits}f} {spread}</td>")
        body.append(f"<tr><th scope=row>{escape(title)}</th>{''.join(cells)}</tr>")
    detector = result["detector"]
    return PAGE.format(
        title=escape(result["title"]),
        head=head,
        rows="\n".join(body),
        picture=base64.b64encode(picture(result)).decode(),
        days=f"{result['days']:g}",
        replications=result["replications"],
        containers=f"{next(iter(policies.values()))['containers']['value']:.0f}",
        pod=f"{100 * detector['found_at_that']:.1f}",
        far=f"{100 * detector['false_alarm_share']:.1f}",
        sensitivity=_sensitivity(result),
        own="".join(f"<li>{escape(line)}</li>" for line in own_machine(result.get("scores"))),
        validation="\n".join(f"<li>{escape(line)}</li>" for line in agreements(result["validation"])),
        sources="\n".join(
            f"<tr><th scope=row>{escape(name)}</th><td>{escape(_shown(result['constants'][name]))}</td>"
            f"<td>{escape(source)}</td></tr>"
            for name, source in result["sources"].items()
        ),
    )


def picture(result: dict[str, Any]) -> bytes:
    """Return the plots as a PNG: delay, people, share found and cost, by policy. Raises ConfigError, no matplotlib."""
    need_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    names = list(result["policies"])
    panels = (
        ("delay_min p95", "delay as built, 95 % (min)", True), ("analysts", "analysts needed", False),
        ("found_share", "share of contraband found", False),
        ("cost_per_container", "USD per container, all it needs", False),
    )  # fmt: skip
    for axes, (key, words, logarithmic) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        entries = [entry(result["policies"][n], key) for n in names]
        values = [e["value"] for e in entries]
        spread = None
        if entries[0]["low"] is not None:
            spread = [
                [max(e["value"] - max(e["low"], 0.0), 0.0) for e in entries], [e["high"] - e["value"] for e in entries],
            ]  # fmt: skip
        axes.bar(names, values, yerr=spread, capsize=3, color=["#7a7a7a", *["#1f6fb2"] * (len(names) - 2), "#d98a1f"])
        if logarithmic:
            axes.set_yscale("symlog", linthresh=1)
        axes.set_title(words, fontsize=10)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{result['title']} (simulated)", fontsize=11)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()


def _sensitivity(result: dict[str, Any]) -> str:
    found = []
    for entry in result["sensitivity"]:
        cells = "".join(
            f"<td>{p['found_share']:.2f}; {p['cost_per_container']:.1f}; {p['delay_min_p95']:.0f}</td>"
            for p in entry["policies"].values()
        )
        what = VARIED.get(entry["what"], entry["what"])
        found.append(f"<tr><th scope=row>{escape(what)}: {entry['value']:g}</th>{cells}</tr>")
    return "\n".join(found)


VARIED = {
    "contraband_share": "share of containers with contraband", "drive_through": "drive-through lanes",
    "papers_distance": "how far papers part contraband from the rest (standard deviations)",
    "found_at_that": "share of contraband's pictures that the machine flags",
    "refers_contraband": "share of contraband's pictures that a person sends on",
}  # fmt: skip
"""Assumptions that are varied, in words."""


def _shown(value: Any) -> str:
    """Return a constant as a reader sees it."""
    if isinstance(value, list | tuple):
        return ", ".join(_shown(v) for v in value)
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def entry(policy: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a measure of ROWS, with its interval, of one policy of a result."""
    name, _, part = key.partition(" ")
    found: dict[str, Any] = policy[name][part] if part else policy[name]
    return found


def agreements(told: dict[str, Any]) -> list[str]:
    """Return in words how the simulation agrees with theory and with what was published."""
    found = []
    for name, words in (("mmc", "mean wait of M/M/3, Erlang C"), ("mg1", "mean wait of M/G/1, Pollaczek-Khinchine")):
        one = told[name]
        found.append(f"{words}: theory {one['theory_s']} s, simulated {one['simulated_s']} s "
                     f"({one['low']}–{one['high']})")  # fmt: skip
    for name in ("hong_kong", "primary_cost", "examination"):
        one = told[name]
        rest = ", ".join(f"{k} {v}" for k, v in one.items() if k not in ("published", "agrees"))
        found.append(f"{one['published']}: here {rest}; {'agrees' if one['agrees'] else 'does NOT agree'}")
    return found


def own_machine(told: dict[str, Any] | None) -> list[str]:
    """Return in words what was taken from a site's archive, nothing where nothing was."""
    if told is None:
        return []
    simulated = f", {told['simulated']} of them simulated" if told["simulated"] else ""
    return [
        f"the machine's flags are the site's own: {share_words(told['flagged'])} of {told['pictures']} pictures in "
        f"{told['archive']}{simulated}, hits left out",
        f"it flags {told['found_at_that']:.1%} of contraband: {told['found_at_that_source']}",
    ]


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse; width: 100% }} th, td {{ text-align: right; padding: .3rem .6rem;
border-bottom: 1px solid #ddd }} th[scope=row] {{ text-align: left; font-weight: normal }}
small {{ color: #666; display: block }} img {{ max-width: 100% }} .sources td {{ text-align: left }}
</style>
<h1>{title}</h1>
<p><strong>Simulated.</strong> {containers} containers in {days} days, {replications} replications; every policy meets
the same vehicles. Small figures are 95 % intervals over replications. A: image all, a person on every picture. B: image
the share named by risk on documents, part of it at random, a person on each of these pictures. C: image all quickly, a
person only where the machine flags the picture or the papers are odd.</p>
<img alt="Delay, analysts, share found and cost by policy" src="data:image/png;base64,{picture}">
<table><thead><tr><th scope=col></th>{head}</tr></thead><tbody>
{rows}
</tbody></table>
<h2>What this shows, and what it does not</h2>
<ul>
<li>It shows where lanes, people and places run out, and what waiting costs, under the same traffic.</li>
<li>C misses what the machine misses: it flags {pod} % of contraband pictures where {far} % of clean ones are flagged.
With a better detector C finds more; the rows below say how much.</li>
{own}
<li>What papers tell, how much contraband there is, and what a person sees in a picture are assumptions. If papers tell
nothing, B finds what its share finds at random. No policy's share found is a measurement of a port.</li>
<li>Deterrence, collusion, breakdowns of lanes and the way traffic answers to delay are not in it.</li>
</ul>
<h2>If an assumption is wrong</h2>
<p>Share of contraband found; USD per container; delay that 95 % stay below (min). One simulated day each.</p>
<table><thead><tr><th scope=col></th>{head}</tr></thead><tbody>
{sensitivity}
</tbody></table>
<h2>Held against theory and published figures</h2>
<ul>
{validation}
</ul>
<h2>Every constant, and where it comes from</h2>
<table class="sources"><tbody>
{sources}
</tbody></table>
</html>
"""
