"""`scanlane drivers`: what can be connected."""

from __future__ import annotations

from typing import Any

import click

from scanner_io.errors import ConfigError

from .shared import EXIT_BAD_INPUT, emit, json_option, new_console


@click.group()
def drivers() -> None:
    """What scanlane can speak to."""


@drivers.command("list")
@json_option
def drivers_list(as_json: bool) -> None:
    """List the known drivers with their settings."""
    import msgspec
    from rich.table import Table
    from rich.text import Text

    from scanner_io import driver

    rows: list[dict[str, Any]] = []
    for name, module_name in driver.names().items():
        try:
            module = driver.load(name)
        except ConfigError as error:
            rows.append({"name": name, "module": module_name, "about": "", "settings": {}, "error": str(error)})
            continue
        about = (module.__doc__ or "").strip().splitlines()[0]
        settings = {
            f.name: "required" if f.required else repr(f.default) for f in msgspec.structs.fields(module.Config)
        }
        rows.append({"name": name, "module": module_name, "about": about, "settings": settings, "error": None})
    if as_json:
        for row in rows:
            emit(row)
    else:
        table = Table("driver", "what", "settings", box=None, header_style="bold")
        for row in rows:
            words = ", ".join(k if v == "required" else f"[{k}]" for k, v in row["settings"].items())
            table.add_row(row["name"], Text(row["error"] or row["about"]), Text(words))
        new_console().print(table)
    if any(row["error"] for row in rows):
        raise click.exceptions.Exit(EXIT_BAD_INPUT)
