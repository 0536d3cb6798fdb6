"""What a scan looks like in a terminal: the radiograph in half blocks, the portal profile as a sparkline."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from scanner_io.model import Declaration, PortalRecord, Radiograph, Scan, TriageResult
from scanner_io.vendor_record import in_words

BARS = "▁▂▃▄▅▆▇█"
SHADES = "█▓▒░ "
"""From opaque to air, for terminals and files without colour."""
STYLES = {"ALARM": "bold white on red3", "UNUSABLE": "bold black on orange3", "REVIEW": "bold black on yellow3",
          "CLEAR": "bold white on dark_green"}  # fmt: skip


def outcome(name: str) -> Text:
    """Return an outcome as a coloured word; the word itself says it too."""
    return Text(f" {name} ", style=STYLES.get(name, ""))


def thumbnail(radiograph: Radiograph, width: int, height: int, *, colour: bool = True) -> Text:
    """Return the radiograph upright: two grey pixels to a character cell, or one of five shades without colour."""
    image = radiograph.upright().astype(np.float32)
    rows, columns = image.shape
    wide = min(width, columns)
    tall = max(2, min(height * 2, round(wide * rows / columns)))
    tall += tall % 2
    small = _reduced(image, tall, wide)
    low, high = float(small.min()), float(np.percentile(small, 99))
    grey = (np.clip((small - low) / max(high - low, 1.0), 0, 1) ** 0.6 * 255).astype(int)
    text = Text()
    if not colour:
        for upper, lower in zip(grey[0::2], grey[1::2], strict=True):
            text.append("".join(SHADES[min(4, v * 5 // 256)] for v in (upper + lower) // 2) + "\n")
        return text
    for y in range(0, tall, 2):
        for top, bottom in zip(grey[y], grey[y + 1], strict=True):
            text.append("▀", style=f"rgb({top},{top},{top}) on rgb({bottom},{bottom},{bottom})")
        text.append("\n")
    return text


def _reduced(image: npt.NDArray[Any], rows: int, columns: int) -> npt.NDArray[np.float32]:
    """Return block minima: a thin dark thing stays visible, however small the picture."""
    rows, columns = min(rows, image.shape[0]), min(columns, image.shape[1])
    y = np.linspace(0, image.shape[0], rows + 1).astype(int)[:-1]
    x = np.linspace(0, image.shape[1], columns + 1).astype(int)[:-1]
    mean = np.add.reduceat(np.add.reduceat(image, y, 0), x, 1)
    cells = np.outer(np.diff(np.append(y, image.shape[0])), np.diff(np.append(x, image.shape[1])))
    lowest = np.minimum.reduceat(np.minimum.reduceat(image, y, 0), x, 1)
    reduced: npt.NDArray[np.float32] = (mean / cells + lowest) / 2
    if rows % 2:
        reduced = np.vstack([reduced, reduced[-1:]])
    return reduced


def sparkline(values: npt.NDArray[Any], marks: npt.NDArray[np.bool_] | None = None) -> Text:
    """Return a series as bars from its lowest to its highest value; marked ones in red."""
    if values.size == 0:
        return Text("-")
    low, span = float(values.min()), max(float(values.max() - values.min()), 1.0)
    text = Text()
    for i, value in enumerate(values):
        bar = BARS[min(7, int((float(value) - low) / span * 8))]
        text.append(bar, style="red" if marks is not None and marks[i] else "cyan")
    return text


def portal_lines(record: PortalRecord, width: int) -> list[Text]:
    """Return the gamma and neutron profiles with their backgrounds."""
    lines = []
    for name, counts, alarm, background, interval_s in (
        ("gamma", record.gamma, record.gamma_alarm, record.gamma_background, record.gamma_interval_s),
        ("neutron", record.neutron, record.neutron_alarm, record.neutron_background, record.neutron_interval_s),
    ):
        if counts.shape[0] == 0:
            continue
        rate = counts.sum(axis=1) / interval_s
        behind = f"background {background.sum():.0f}/s" if background is not None else "background unknown"
        alarmed = int(alarm.sum())
        words = f" {rate.min():.0f}-{rate.max():.0f}/s, {behind}" + (f", {alarmed} in alarm" if alarmed else "")
        lines.append(Text(f"{name:8}") + sparkline(rate[:width], alarm) + Text(words, style="dim"))
    return lines


MARKS = {"agrees": ("=", "green"), "differs": ("≠", "bold red"), "open": ("?", "dim")}
LABELS = {"join": "found by", "load": "load", "goods": "goods", "weight": "weight", "radiation": "radiation"}


def declared_table(scan: Scan, result: TriageResult, declaration: Declaration | None) -> Table | None:
    """Return what was declared beside what was seen, as the console shows it; None where there is nothing of both."""
    from triage.console.views import declared_view

    table = Table("", "declared", "seen", "", box=None, padding=(0, 1), header_style="dim")
    for line in declared_view(scan, result, declaration):
        if line["declared"] or line["seen"]:
            mark, style = MARKS[line["state"]]
            table.add_row(
                Text(LABELS[line["label"]], style="dim"), Text(line["declared"]), Text(line["seen"]),
                Text(f"{mark} {line['text']}".rstrip(), style=style),
            )  # fmt: skip
    return table if table.row_count else None


def scan_panel(
    result: TriageResult, *, scan: Scan | None, simulated: bool, width: int, colour: bool = True,
    declaration: Declaration | None = None,
) -> Panel:  # fmt: skip
    """Return one scan as a panel: outcome, reasons, picture, portal, papers, findings.

    declaration : one that came after the recording was written; none: the recording's own
    """
    parts: list[Any] = []
    inner = max(30, width - 6)
    if scan is not None and scan.radiograph is not None:
        parts.append(thumbnail(scan.radiograph, min(inner, 110), 18, colour=colour))
    if scan is not None and scan.portal is not None:
        parts += portal_lines(scan.portal, inner - 50)
    d = declaration or (None if scan is None else scan.declaration)
    if d is not None:
        empty = "declared empty" if d.declared_empty else d.goods or "goods not named"
        parts.append(Text(f"declared {' '.join(d.container_numbers)}  {empty}  HS {' '.join(d.hs_codes) or '-'}"))
    if scan is not None and (against := declared_table(scan, result, d)) is not None:
        parts.append(against)
    if scan is not None and scan.sidecar is not None:
        parts += [Text(line, style="dim") for line in in_words(scan.sidecar)]
        parts += [Text(f"attached {a.name}, {a.size_bytes} bytes ({a.role})", style="dim") for a in scan.attachments]
    events = () if scan is None else scan.lane_events
    if speeds := [e.speed_mm_s for e in events if e.speed_mm_s is not None]:
        parts.append(Text(f"speed {min(speeds):.0f} to {max(speeds):.0f} mm/s, {len(speeds)} readings", style="dim"))
    for event in (e for e in events if e.kind != "speed"):
        weight = "" if event.weight_kg is None else f"{event.weight_kg:.0f} kg"
        sure = "" if event.confidence is None else f" ({event.confidence} %)"
        parts.append(Text(f"{event.kind} {event.device} {event.text}{weight}{event.state}{sure}", style="dim"))
    table = Table(box=None, show_header=False, padding=(0, 1))
    for finding in result.findings:
        table.add_row(Text(finding.tier), Text(finding.kind), Text(finding.reason))
    for flag in result.quality:
        table.add_row(Text("quality"), Text(flag.code), Text(flag.reason))
    if table.row_count:
        parts.append(table)
    if not parts:
        parts.append(Text("; ".join(result.reasons)))
    title = Text(f"{'SIMULATED  ' if simulated else ''}{result.scan_id}  ") + outcome(result.outcome)
    title.append(f"  load {result.load}")
    return Panel(Group(*parts), title=title, title_align="left", width=min(width, 130))
