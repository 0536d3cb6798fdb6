"""`scanlane policy`: what selection does to a gate, simulated."""

from __future__ import annotations

from pathlib import Path

import click

from .shared import emit, json_option, new_console, progress_bar, seed_option


@click.group()
def policy() -> None:
    """Ask what scanning all, some or the flagged does to a site: delay, people, cost, and what is found."""


@policy.command("simulate")
@click.argument("scenario")
@click.option("--days", default=1.0, show_default=True, type=click.FloatRange(0.05, 366), help="Days per replication.")
@click.option("--replications", default=10, show_default=True, type=click.IntRange(1, 1000), help="Days drawn anew.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the report (HTML; needs the extra `study`)."
)
@click.option(
    "--set", "changes", multiple=True, metavar="TABLE.NAME=VALUE",
    help="Another value of a constant, as TOML has it: --set lanes.drive_through=3. May be given often.",
)  # fmt: skip
@click.option(
    "--scores", metavar="STATE_DIR|URL",
    help="Take the machine's share of flags, and of finds flagged, from this archive instead of the scenario.",
)  # fmt: skip
@seed_option
@json_option
def simulate_command(
    scenario: str, days: float, replications: int, out: Path | None, changes: tuple[str, ...], scores: str | None,
    seed: int, as_json: bool,
) -> None:  # fmt: skip
    """Compare imaging all, imaging by risk and imaging all with a person on flags, at one site.

    SCENARIO is a TOML file, or one of the shipped ones: small_port, large_hub, land_border. Every constant in it names
    its source; copy a shipped one and put your own figures in, or change single ones by --set. With --scores the
    machine is the site's own: C misses what it misses. The result is simulated and says so.
    """
    from triage.policy import comparison, report
    from triage.policy.scenario import load

    site = load(scenario, changes)
    own = None
    if scores is not None:
        from triage.policy.site_scores import site_scores, with_scores
        from triage.service import store

        site, own = with_scores(site, site_scores(store.named(scores)), scores)
    if out is not None:
        from triage.study.plot_portal import need_matplotlib

        need_matplotlib()
    with progress_bar(comparison.steps(site, replications), "simulating", quiet=as_json) as progress:
        result = comparison.compare(site, days, replications, seed, progress)
    result |= {"set": list(changes), "scores": own}
    if out is not None:
        out.write_text(report.html(result), "utf-8")
    if as_json:
        emit(result)
        return
    console = new_console()
    from rich.table import Table

    table = Table(title=f"{result['title']} (simulated)")
    table.add_column()
    for name in result["policies"]:
        table.add_column(name, justify="right")
    for key, words, digits in report.ROWS:
        table.add_row(words, *(f"{report.entry(p, key)['value']:.{digits}f}" for p in result["policies"].values()))
    console.print(table)
    for line in [*report.agreements(result["validation"]), *report.own_machine(own)]:
        console.print(f"  {line}", markup=False)
    if out is not None:
        console.print(f"report: {out}")
