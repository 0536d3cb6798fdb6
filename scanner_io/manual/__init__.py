"""The manual's chapters: plain Markdown beside this file, shown by `scanlane help TOPIC`. What they show, tests run."""

from __future__ import annotations

from importlib.resources import files

from ..errors import ConfigError


def topics() -> dict[str, str]:
    """Return the chapters that there are: topic -> title, its first line."""
    names = sorted(f.name.removesuffix(".md") for f in files(__name__).iterdir() if f.name.endswith(".md"))
    return {name: chapter(name).split("\n", 1)[0].lstrip("# ") for name in names}


def chapter(topic: str) -> str:
    """Return the text of a chapter. Raises ConfigError for a topic that there is none of."""
    file = files(__name__).joinpath(f"{topic}.md")
    if not topic.isidentifier() or not file.is_file():
        raise ConfigError([f"help {topic!r}: there is no such chapter; there are {', '.join(topics())}"])
    return file.read_text("utf-8")
