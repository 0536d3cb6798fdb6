"""Whether two images are of the same container with the same load in it: what recognition asks of them.

The very same counts, or pixels of the last energy, are the same image, whatever file they came in. Two images that were
made, or written, in different ways are held against each other as containers: brought to one grid and registered, they
must agree by LEAST_FIT, and nothing may stand out against the unrest of the difference. What cannot be compared is
never taken for the same.
"""

from __future__ import annotations

import hashlib

import msgspec
import numpy as np

from scanner_io.model import Radiograph

from .cells import Array, Cells
from .changed import LEAST_FIT, NOTE, changed, fit_of
from .earlier import earlier_cargo
from .image_profile import ImageProfile


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """What came of comparing. same : None where it cannot be told; fit : correlation of the containers, if it was made

    words : why, for a person
    """

    same: bool | None
    fit: float | None = None
    words: str


def content_sha256(radiograph: Radiograph) -> str:
    """Return the hash of an image's counts as a scanner delivered them, energy by energy, with their shape."""
    digest = hashlib.sha256()
    for energy, counts in zip(radiograph.detector.energies, radiograph.counts, strict=True):
        digest.update(f"{energy} {counts.shape} {counts.dtype.str};".encode())
        digest.update(np.ascontiguousarray(counts).tobytes())
    return digest.hexdigest()


def _picture(radiograph: Radiograph) -> Array:
    """Return the image of the last energy, upright: a row per channel, the highest first."""
    counts = radiograph.counts[-1]
    return counts.T[::-1] if radiograph.detector.first_channel == "bottom" else counts.T


def compared(there: Radiograph | None, here: Radiograph | None, p: ImageProfile, *, one_scan: bool) -> Compared:
    """Return whether the image that was received shows what the image here shows.

    one_scan : both are said to be of one and the same scan: then only the same counts are the same image
    """
    if there is None or here is None:
        return Compared(same=None, words=f"there is no image {'in the package' if there is None else 'here'}")
    hashes = content_sha256(there), content_sha256(here)
    if hashes[0] == hashes[1]:
        return Compared(same=True, words=f"the very same counts, sha256 {hashes[0][:12]}")
    if np.array_equal(_picture(there), _picture(here)):
        return Compared(same=True, words="the very same picture, pixel by pixel")
    if one_scan and there.detector.energies == here.detector.energies:
        words = f"the counts of one and the same scan differ: sha256 {hashes[0][:12]} there, {hashes[1][:12]} here"
        return Compared(same=False, words=words)
    old, new = earlier_cargo(there, p), earlier_cargo(here, p)
    for cargo, where in ((old, "received"), (new, "here")):
        if cargo is None:
            return Compared(same=None, words=f"the image {where} does not show one whole container")
    assert old is not None and new is not None
    before, now = Cells(old), Cells(new)
    fit = fit_of(now, before)
    agree = f"the containers agree by {fit:.2f}"
    if fit < LEAST_FIT:
        return Compared(same=False, fit=fit, words=f"{agree}, one load by {LEAST_FIT:g} or more")
    told = [one for one in changed(now, before) or () if one.score >= NOTE]
    if told:
        worst = max(told, key=lambda one: one.score)
        return Compared(same=False, fit=fit, words=f"{agree}, and in {len(told)} places they do not: {worst.words}")
    return Compared(same=True, fit=fit, words=f"{agree}, and nothing stands out in the difference")
