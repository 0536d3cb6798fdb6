"""What the DICOM objects of one study make together: passages, with their images and what reports tell of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from ..model import Quality, Radiograph
from ..vendor_record import Sidecar
from .dicom_object import DicomObject
from .passage_files import join_energies, passage_flags


class DicomPassage(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One passage of a study.

    name, shown : the object of the highest energy, by which the passage is known
    sidecar : what that tells, with the detections of the study's reports; files : names of all objects of the passage
    """

    name: str
    shown: DicomObject
    radiograph: Radiograph
    sidecar: Sidecar
    quality: tuple[Quality, ...]
    files: tuple[str, ...]


def passages(images: Mapping[str, DicomObject], reports: Mapping[str, DicomObject]) -> Iterator[DicomPassage]:
    """Yield the passages of a study. images, reports : its objects with and without a radiograph, by name.

    Two images of different energy and one size are one passage, else each is one. Reports go with the first.
    """
    for group in _groups(images):
        yield _passage({name: images[name] for name in group}, reports)
        reports = {}


def _passage(images: Mapping[str, DicomObject], reports: Mapping[str, DicomObject]) -> DicomPassage:
    ordered = sorted(images.items(), key=lambda item: _kilovolts(item[1].energy))
    radiographs = {o.energy or "single": o.radiograph for _, o in ordered if o.radiograph is not None}
    radiograph, flags = join_energies(radiographs)
    name, shown = ordered[-1]
    told = shown.sidecar
    for report in reports.values():
        told = msgspec.structs.replace(
            told, detections=told.detections + report.sidecar.detections,
            suspicions=told.suspicions + report.sidecar.suspicions,
        )  # fmt: skip
    return DicomPassage(
        name=name, shown=shown, radiograph=radiograph, sidecar=told, quality=passage_flags(told, ()) + flags,
        files=(*images, *reports),
    )  # fmt: skip


def _groups(images: Mapping[str, DicomObject]) -> list[list[str]]:
    energies = {o.energy for o in images.values()}
    shapes = {o.radiograph.counts[0].shape for o in images.values() if o.radiograph is not None}
    if len(images) == 2 and len(energies) == 2 and "" not in energies and len(shapes) == 1:
        return [list(images)]
    return [[name] for name in images]


def _kilovolts(energy: str) -> float:
    number = energy.removesuffix("MV").removesuffix("kV")
    return float(number) * (1000 if energy.endswith("MV") else 1) if energy else 0.0
