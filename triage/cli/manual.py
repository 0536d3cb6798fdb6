"""`scanlane help`: the manual's chapters."""

from __future__ import annotations

import sys

import click


@click.command("help")
@click.argument("topic", required=False, default="")
def manual(topic: str) -> None:
    """Show a chapter of the manual, or which there are.

    \b
    scanlane help
    scanlane help driver
    scanlane help driver > driver.md

    Chapters are plain Markdown. Of a command: scanlane COMMAND --help.
    """  # noqa: D301  (click wants the character itself)
    from scanner_io import manual

    if not topic:
        for name, title in manual.topics().items():
            click.echo(f"{name:<12}{title}")
        click.echo("\nscanlane help TOPIC shows one; scanlane --help lists the commands.")
        return
    text = manual.chapter(topic)
    if sys.stdout.isatty():
        click.echo_via_pager(text)
    else:
        click.echo(text, nl=False)
