"""Grey PNG, JPEG and TIFF images as radiographs: 8 and 16 bits, bit for bit.

Such a file tells neither which end of its grey scale is air nor where its converter saturates. Both are declared in
RasterOptions or found in the image; what was found, how, and how surely stands in `DetectorState.note`. What cannot be
found is a DataError that names the option to set: an image taken the wrong way round shows dense cargo as air.

Sizes come from the header, read here, before any decoder sees the file. A file whose end is missing raises
TruncatedError, so that one still being copied can be told from one that is bad. TIFF strips are decoded here where that
is simple, because OpenCV fills damaged strips of 8-bit files with zeros without a word.

Source: PNG 3rd edition (W3C 2025) sections 5 and 11; ITU-T T.81 annex B; TIFF 6.0 sections 2 to 8 and 14, and its
technical note on Deflate.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, TruncatedError
from ..model import MAX_CHANNELS, MAX_PIXELS, DetectorState, Quality, Radiograph

Format = Literal["png", "jpeg", "tiff", "dicom"]
Polarity = Literal["air_bright", "air_dark"]
Reference = float | tuple[float, ...]

BAND = 0.06
"""Grey values this share of the image's range (0.5 to 99.5 percentile) from its end count as that end."""
TOP_SHARE, SIDE_SHARE = 0.03, 0.02
"""Border looked at for air: the uppermost channels, and the upper half of the first and last columns."""
SAMPLE = 1_000_000
"""Pixels that percentiles are taken from; larger images are thinned."""
COLOUR_STEP, COLOUR_SHARE, MARKS_SHARE = 24, 1e-4, 0.03
"""Channels further apart than this (of 255) are colour, not JPEG noise; more than this share of pixels is too much."""

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_TIFF_MAGICS = (b"II*\0", b"MM\0*")
_BIG_TIFF_MAGICS = (b"II+\0", b"MM\0+")
_JPEG_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
# possessive: a file full of FF must not cost its length squared
_JPEG_HEADER_MARKER = re.compile(rb"\xff++([\x01-\xcf\xd8-\xfe])")
_MOST_PARTS = 200_000
"""Chunks or segments in one file: more are not an image but an attempt to keep the reader busy."""
_TIFF_TAGS = frozenset((256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 339))


class RasterOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a raster file does not say about itself.

    polarity : which end of the grey scale is air; `auto` looks at the border of the image
    saturation_value : largest value the converter can give; default: found, or the full scale of the file's type
    detector_lines : which way one reading of the detector lies in the image: `columns` in the usual upright picture,
        `rows` where time runs down the image
    first_channel : which end of the upright vehicle the first row (with `rows`: the first column) of the image is
    energy : name of the one energy an image holds
    dark, air : counts without beam and with beam in air, one number or one per channel, in counts where large is air;
        with both, 16-bit images are taken as raw counts
    air_channels : half-open range of channels that always see air
    line_period_s : time between detector lines, nominal: rasters carry no times
    max_pixels : larger images are refused before they are decoded
    """

    polarity: Literal["auto", "air_bright", "air_dark"] = "auto"
    saturation_value: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None
    detector_lines: Literal["columns", "rows"] = "columns"
    first_channel: Literal["top", "bottom"] = "top"
    energy: Annotated[str, msgspec.Meta(min_length=1, max_length=32)] = "single"
    column_pitch_mm: Annotated[float, msgspec.Meta(gt=0, lt=1000)] | None = None
    channel_pitch_mm: Annotated[float, msgspec.Meta(gt=0, lt=1000)] | None = None
    dark: Reference | None = None
    air: Reference | None = None
    air_channels: tuple[int, int] | None = None
    line_period_s: Annotated[float, msgspec.Meta(gt=0, le=10)] = 0.0025
    max_pixels: Annotated[int, msgspec.Meta(ge=1, le=MAX_PIXELS)] = 64_000_000

    def __post_init__(self) -> None:
        """Check what one field cannot tell alone. Raises ValueError."""
        if (self.dark is None) != (self.air is None):
            raise ValueError("dark and air: only one of them is given, expected both or neither")
        if self.air_channels is not None and not 0 <= self.air_channels[0] < self.air_channels[1]:
            raise ValueError(f"air_channels: {self.air_channels}, expected a half-open range FIRST < END")


class RasterHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What a file says of its image before it is decoded; `columns` and `rows` are those of the picture."""

    format: Format
    columns: int
    rows: int
    bits: int
    samples: int


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """Where a radiograph came from and how the things its file does not say were settled."""

    header: RasterHeader
    sha256: str
    size_bytes: int
    polarity: Polarity
    polarity_how: str
    saturation_how: str
    air_how: str
    time_how: str

    @property
    def text(self) -> str:
        """The note for people."""
        h = self.header
        return (
            f"{h.bits}-bit {h.format} of {h.columns} x {h.rows} pixels; polarity {self.polarity_how}; saturation "
            f"{self.saturation_how}; air {self.air_how}; times {self.time_how}"
        )


def read_raster(
    path: Path | str, *, options: RasterOptions | None = None, start_utc_ns: int | None = None
) -> Radiograph:
    """Return the radiograph in the image file `path`.

    start_utc_ns : time of the first detector line; default: when the file was last modified

    Raises DataError saying what is wrong with the file or which option is needed; TruncatedError if its end is missing.
    """
    options = options or RasterOptions()
    path = Path(path)
    try:
        with path.open("rb") as file:
            status = path.stat()
            check_size(status.st_size, str(path), options)
            contents = file.read()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise DataError(f"{path}: cannot be read ({error})") from error
    given = start_utc_ns is not None
    start, how = (start_utc_ns, "given") if given else (status.st_mtime_ns, "file modification time")
    return decode_raster(contents, name=str(path), start_utc_ns=start or 0, start_how=how, options=options)[0]


def check_size(size_bytes: int, name: str, options: RasterOptions) -> None:
    """Refuse a file larger than the largest acceptable image could be, before it is read. Raises DataError."""
    limit = 6 * options.max_pixels + (1 << 20)
    if size_bytes > limit:
        raise DataError(f"{name}: {size_bytes} bytes, at most {limit} for {options.max_pixels} pixels; see max_pixels")


def decode_raster(
    contents: bytes,
    *,
    name: str,
    start_utc_ns: int,
    start_how: str = "given",
    options: RasterOptions | None = None,
) -> tuple[Radiograph, Provenance]:
    """Return the radiograph in `contents`, the bytes of one image file, and where its properties came from.

    name : how messages call the file

    Raises DataError saying what is wrong with the file or which option is needed; TruncatedError if its end is missing.
    """
    options = options or RasterOptions()
    try:
        header, values, marks = _pixels(contents, options)
    except TruncatedError as error:
        raise TruncatedError(f"{name}: {error}") from error
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    return radiograph_of(
        values, header, marks=marks, contents=contents, name=name, start_utc_ns=start_utc_ns, start_how=start_how,
        options=options,
    )  # fmt: skip


def radiograph_of(
    values: NDArray[np.uint16],
    header: RasterHeader,
    *,
    marks: float = 0.0,
    contents: bytes,
    name: str,
    start_utc_ns: int,
    start_how: str,
    options: RasterOptions,
) -> tuple[Radiograph, Provenance]:
    """Return the radiograph that stored values are, and how what they do not say was settled. Raises DataError.

    values : (columns, channels) uint16, as stored; marks : share of the pixels that were coloured
    contents : of the file they are from
    """
    try:
        _check_contrast(values)
        polarity, polarity_how = _polarity(values, options)
        saturation, saturation_how = _saturation(values, header.bits, polarity, options)
        counts = np.subtract(np.uint16(saturation), values) if polarity == "air_dark" else values
        _check_exposure(counts, saturation)
        references, air_how = _references(counts, options)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    provenance = Provenance(
        header=header,
        sha256=hashlib.sha256(contents).hexdigest(),
        size_bytes=len(contents),
        polarity=polarity,
        polarity_how=polarity_how,
        saturation_how=saturation_how,
        air_how=air_how,
        time_how=f"{start_how}, nominal {options.line_period_s * 1e3:g} ms per line",
    )
    flags: tuple[Quality, ...] = ()
    if marks:
        reason = (
            f"{100 * marks:.2f} % of the pixels are coloured: marks were drawn into the image and hide what is below"
        )
        flags = (Quality(code="radiograph_marked", reason=reason),)
    detector = _detector(counts.shape[1], header.bits, saturation, references, options, provenance.text, flags)
    lines_ns = np.round(np.arange(counts.shape[0]) * (options.line_period_s * 1e9)).astype(np.int64)
    return Radiograph(detector=detector, counts=(counts,), column_utc_ns=start_utc_ns + lines_ns), provenance


def _detector(
    channels: int,
    bits: int,
    saturation: int,
    references: tuple[NDArray[np.float32], NDArray[np.float32]],
    options: RasterOptions,
    note: str,
    flags: tuple[Quality, ...],
) -> DetectorState:
    return DetectorState(
        energies=(options.energy,),
        channels=channels,
        dark=(references[0],),
        air=(references[1],),
        bad_channels=np.zeros(channels, np.bool_),
        air_channels=options.air_channels,
        saturation_value=saturation,
        state="raw" if bits == 16 and options.air is not None else "display",
        first_channel=options.first_channel,
        column_pitch_mm=options.column_pitch_mm,
        channel_pitch_mm=options.channel_pitch_mm,
        note=note,
        flags=flags,
    )


# --------------------------------------------------------------------------------------------------------------
# What the image tells: polarity, saturation, air


def _border(values: NDArray[np.uint16], options: RasterOptions) -> tuple[NDArray[np.uint16], ...]:
    """Return the uppermost channels, and the upper half of the first and of the last columns: usually air."""
    columns, channels = values.shape
    upright = values if options.first_channel == "top" else values[:, ::-1]
    top, side = max(1, round(channels * TOP_SHARE)), max(1, round(columns * SIDE_SHARE))
    half = max(1, channels // 2)
    return upright[:, :top], upright[:side, :half], upright[-side:, :half]


def _range(values: NDArray[np.uint16]) -> tuple[float, float]:
    step = max(1, int(np.ceil(np.sqrt(values.size / SAMPLE))))
    low, high = np.percentile(values[::step, ::step], (0.5, 99.5))
    return float(low), float(high)


def _polarity(values: NDArray[np.uint16], options: RasterOptions) -> tuple[Polarity, str]:
    """Return which end of the grey scale is air, and how that is known.

    Bright air: at least half of one strip of the border lies at the bright end, and less than a quarter of any strip at
    the dark end. Dark air asks for more (the top and one side, nine tenths each): a picture cut out of dense cargo has
    a dark border too, and turned round by mistake it would look empty. Confidence is the share of the border that
    agrees less the share that contradicts.
    """
    if options.polarity != "auto":
        text = "; counts are saturation - value" if options.polarity == "air_dark" else ""
        return options.polarity, f"declared {options.polarity}{text}"
    low, high = _range(values)
    strips = _border(values, options)
    bright = [float(np.mean(s >= high - BAND * (high - low))) for s in strips]
    dark = [float(np.mean(s <= low + BAND * (high - low))) for s in strips]
    seen = f"border bright {max(bright):.2f}, dark {max(dark):.2f}"
    if high - low < 0.02 * max(255.0, high):
        seen = f"no contrast, values {low:g} to {high:g}"
    elif max(bright) >= 0.5 and max(dark) < 0.25:
        return "air_bright", f"found air_bright, confidence {max(bright) - max(dark):.2f} ({seen})"
    elif min(dark[0], max(dark[1:])) >= 0.9 and max(bright) < 0.25:
        confidence = min(dark[0], max(dark[1:])) - max(bright)
        return "air_dark", f"found air_dark, confidence {confidence:.2f} ({seen}); counts are saturation - value"
    raise DataError(
        f"cannot tell which grey is air ({seen}: the image may be cut out of the cargo); set the raster option "
        "polarity to air_bright or air_dark"
    )


def _saturation(values: NDArray[np.uint16], bits: int, polarity: Polarity, options: RasterOptions) -> tuple[int, str]:
    """Return the largest value the converter can give, and how that is known."""
    largest = int(values.max())
    declared = options.saturation_value
    if declared is not None:
        if largest > declared:
            raise DataError(
                f"largest value {largest} is above the declared saturation {declared}; correct the raster option "
                "saturation_value"
            )
        return declared, f"{declared} declared"
    if bits == 8:
        return 255, "255, full scale of 8 bits"
    clipped = int(np.count_nonzero(values == largest))
    if largest == 65535:
        return 65535, f"65535, full scale, {clipped} pixels at it"
    if largest < 255:  # so dark that what looks clipped is noise
        return 65535, f"65535 taken, full scale of 16 bits: largest value {largest}"
    step = max(1, int(np.ceil(np.sqrt(values.size / SAMPLE))))
    levels = np.bincount(values[::step, ::step].ravel(), minlength=65536)
    # A converter that clips puts a large part of the air on one value; noise spreads unclipped air over hundreds.
    top = int(0.9 * largest)
    peak = top + int(np.argmax(levels[top:]))
    if levels[peak] >= 0.05 * levels.sum():
        return peak, f"{peak} found, {100 * levels[peak] / levels.sum():.0f} % of the pixels lie exactly there"
    if clipped >= max(16, values.size // 10_000):
        return largest, f"{largest} found, {clipped} pixels lie exactly there and none above"
    if polarity == "air_dark" and largest < 32768:
        raise DataError(
            f"air is dark, and the largest value {largest} does not tell the full scale that counts are taken from; "
            "set the raster option saturation_value (4095 for 12 bits)"
        )
    return 65535, f"65535 taken, full scale of 16 bits: no clipped pixels, largest value {largest}"


def _check_contrast(values: NDArray[np.uint16]) -> None:
    """Refuse what is no image. A single pixel is let through, being judged by its size later. Raises DataError."""
    smallest = int(values.min())
    if values.size > 1 and smallest == int(values.max()):
        raise DataError(f"every pixel has the value {smallest}: no image")


def _check_exposure(counts: NDArray[np.uint16], saturation: int) -> None:
    """Refuse what shows nothing. Raises DataError."""
    if counts.size == 1:
        return
    smallest, largest = int(counts.min()), int(counts.max())
    if np.mean(counts >= saturation) >= 0.999:
        raise DataError(f"all pixels are saturated (counts {smallest} to {largest}, saturation {saturation})")
    if largest <= 0.01 * saturation:
        raise DataError(f"all pixels are black (counts {smallest} to {largest} of {saturation}): no beam, or no image")


def _references(
    counts: NDArray[np.uint16], options: RasterOptions
) -> tuple[tuple[NDArray[np.float32], NDArray[np.float32]], str]:
    """Return dark and air, `(channels,) float32` each, and how they are known.

    Without declared references dark is 0 and air one level for all channels, as display images have.
    """
    channels = counts.shape[1]
    if options.dark is not None and options.air is not None:
        dark, air = _per_channel("dark", options.dark, channels), _per_channel("air", options.air, channels)
        if not (dark < air).all():
            raise DataError(f"references: dark is not below air in {int((dark >= air).sum())} of {channels} channels")
        return (dark, air), "declared with dark"
    low, high = _range(counts)
    border = np.concatenate([strip.ravel() for strip in _border(counts, options)])
    bright = border[border >= high - BAND * (high - low)]
    level, how = high, "99.5 percentile of the image, because the border shows none: transmission is relative"
    if bright.size >= 0.25 * border.size:
        level = float(np.median(bright))
        how = f"median of the bright {100 * bright.size / border.size:.0f} % of the border"
    level = max(level, 1.0)
    return (np.zeros(channels, np.float32), np.full(channels, level, np.float32)), f"{level:g} found ({how})"


def _per_channel(name: str, reference: Reference, channels: int) -> NDArray[np.float32]:
    array = np.atleast_1d(np.asarray(reference, np.float32))
    if array.size not in (1, channels):
        raise DataError(
            f"raster option {name}: {array.size} values for {channels} channels, expected one or {channels}"
        )
    if not np.isfinite(array).all():
        raise DataError(f"raster option {name}: not finite everywhere, expected counts")
    return np.ascontiguousarray(np.broadcast_to(array, (channels,)))


# --------------------------------------------------------------------------------------------------------------
# Headers


def sniff(head: bytes) -> Format | None:
    """Return the format that the first 8 bytes of a file name, or None."""
    if head.startswith(_PNG_MAGIC):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    return "tiff" if head[:4] in _TIFF_MAGICS else None


def read_header(contents: bytes) -> RasterHeader:
    """Return what the file says of its image, without decoding it. Raises DataError, TruncatedError."""
    return _open(contents).header


class _Png:
    """Chunks of a PNG, each with its checksum proved."""

    def __init__(self, contents: bytes) -> None:
        self.contents = contents
        if len(contents) < 33:
            raise TruncatedError(f"{len(contents)} bytes, a PNG header has 33")
        length, kind, columns, rows, bits, colour = struct.unpack_from(">I4sIIBB", contents, 8)
        if kind != b"IHDR" or length != 13:
            raise DataError(f"first PNG chunk is {kind!r} of {length} bytes, expected IHDR of 13")
        samples = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}.get(colour)
        if samples is None or (colour == 3 and bits != 8):
            raise DataError(f"PNG colour type {colour} with {bits} bits, expected grey of 8 or 16 bits")
        self.header = RasterHeader(format="png", columns=columns, rows=rows, bits=bits, samples=samples)

    def _chunks(self) -> Iterator[tuple[bytes, int]]:
        """Yield kind and length of every chunk up to IEND."""
        view, at = memoryview(self.contents), 8
        for _ in range(_MOST_PARTS):
            if at + 12 > len(view):
                raise TruncatedError(f"PNG ends at byte {len(view)} without its IEND chunk")
            length, kind = struct.unpack_from(">I4s", view, at)
            end = at + 12 + length
            if end > len(view):
                raise TruncatedError(f"PNG chunk {kind!r} at byte {at} needs {length} bytes, {len(view) - at} are left")
            (checksum,) = struct.unpack_from(">I", view, end - 4)
            if zlib.crc32(view[at + 4 : end - 4]) != checksum:
                raise DataError(f"PNG chunk {kind!r} at byte {at} is damaged (checksum)")
            yield kind, length
            if kind == b"IEND":
                return
            at = end
        raise DataError(f"PNG of more than {_MOST_PARTS} chunks")

    def check(self) -> None:
        """Prove that all chunks up to IEND are there and undamaged. Raises DataError, TruncatedError."""
        packed = 0
        for kind, length in self._chunks():
            if kind == b"acTL":
                raise DataError("animated PNG, expected one image")
            packed += length if kind == b"IDAT" else 0
        h = self.header
        # Deflate reaches 1032 to 1: less than that cannot hold the image, and a decoder need not reserve memory for it.
        if packed * 1032 + 1032 < h.rows * (h.columns * h.bits // 8):
            raise DataError(f"PNG claims {h.columns} x {h.rows} pixels in {packed} bytes of image data")

    def decode(self) -> NDArray[Any]:
        """Return the picture."""
        return _opencv(self.contents)


class _Jpeg:
    """Markers of a JPEG."""

    def __init__(self, contents: bytes) -> None:
        self.contents = contents
        self.scan = 0
        header: RasterHeader | None = None
        for marker, at, length in self._segments():
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                if marker > 0xC2:
                    raise DataError(f"JPEG of kind SOF{marker - 0xC0}, expected baseline or progressive")
                if length < 8:
                    raise DataError(f"JPEG frame header of {length} bytes")
                bits, rows, columns, samples = struct.unpack_from(">BHHB", contents, at + 2)
                header = RasterHeader(format="jpeg", columns=columns, rows=rows, bits=bits, samples=samples)
            if marker == 0xDA:
                self.scan = at + length
        if header is None:
            raise DataError("JPEG without a frame header")
        self.header = header

    def _segments(self) -> Iterator[tuple[int, int, int]]:
        """Yield marker, position of its length field and that length, up to the first scan."""
        at = 2
        for _ in range(_MOST_PARTS):
            found = _JPEG_HEADER_MARKER.match(self.contents, at)
            if found is None:
                if at + 2 > len(self.contents):
                    raise TruncatedError(f"JPEG header ends at byte {at}")
                raise DataError(f"JPEG header is damaged at byte {at}")
            marker, at = found[1][0], found.end()
            if at + 2 > len(self.contents):
                raise TruncatedError(f"JPEG header ends at byte {at}")
            length = int.from_bytes(self.contents[at : at + 2], "big")
            if at + length > len(self.contents):
                raise TruncatedError(f"JPEG segment FF{marker:02X} at byte {at} goes beyond the end of the file")
            if marker == 0xD9 or length < 2:
                raise DataError(f"JPEG ends at byte {at} before its image begins")
            yield marker, at, length
            if marker == 0xDA:
                return
            at += length
        raise DataError(f"JPEG of more than {_MOST_PARTS} segments")

    def check(self) -> None:
        """Prove that the image data end with EOI. Raises DataError, TruncatedError."""
        at = self.scan
        for _ in range(_MOST_PARTS):
            found = _JPEG_MARKER.search(self.contents, at)
            if found is None:
                raise TruncatedError(f"JPEG ends at byte {len(self.contents)} without its end marker")
            at = found.end()
            if found[1][0] == 0xD9:
                break
            at += int.from_bytes(self.contents[at : at + 2], "big")
        else:
            raise DataError(f"JPEG of more than {_MOST_PARTS} segments")
        h = self.header
        # One bit is the least that a block of 8 x 8 pixels takes.
        if (at - self.scan) * 8 < (h.columns // 8) * (h.rows // 8):
            raise DataError(f"JPEG claims {h.columns} x {h.rows} pixels in {at - self.scan} bytes of image data")

    def decode(self) -> NDArray[Any]:
        """Return the picture. Raises DataError where the decoder had to fill in the end."""
        image = _opencv(self.contents)
        corner = image[-((image.shape[0] - 1) % 8 + 1) :, -32:]
        # Where its data end early, the decoder sets the remaining blocks to exactly half scale and reports nothing.
        if image.shape[0] > 8 and corner.shape[1] == 32 and (corner == 128).all():
            raise DataError("JPEG data end before the image does: the decoder filled its last blocks with grey 128")
        return image


class _Tiff:
    """The one directory of a TIFF and its strips."""

    _SIZES: dict[int, str] = {1: "B", 3: "H", 4: "I"}  # noqa: RUF012 -- never changed

    def __init__(self, contents: bytes) -> None:
        self.contents = contents
        self.order = "<" if contents[:2] == b"II" else ">"
        self.tags = self._directory()
        bits = self._tag(258, (1,))
        kind = {1: "uint", 2: "int", 3: "float"}.get(self._tag(339, (1,))[0], "unknown type of ")
        if len(set(bits)) != 1 or kind != "uint" or bits[0] not in (8, 16):
            raise DataError(f"TIFF of {kind}{'/'.join(str(b) for b in sorted(set(bits)))}, expected uint8 or uint16")
        columns, rows = self._tag(256, (0,))[0], self._tag(257, (0,))[0]
        samples = self._tag(277, (1,))[0]
        if self._tag(284, (1,))[0] != 1 or self._tag(266, (1,))[0] != 1:
            raise DataError("TIFF with separate colour planes or reversed bits, expected the plain layout")
        # a palette's single sample stands for colours
        self.palette = self._tag(262, (1,))[0] == 3
        self.header = RasterHeader(format="tiff", columns=columns, rows=rows, bits=bits[0], samples=samples)

    def _directory(self) -> dict[int, tuple[int, ...]]:
        if len(self.contents) < 8:
            raise TruncatedError(f"{len(self.contents)} bytes, a TIFF header has 8")
        (at,) = struct.unpack_from(self.order + "I", self.contents, 4)
        # A writer that has not finished has not yet said where the directory is, or has not written it.
        if at < 8 or at + 2 > len(self.contents):
            raise TruncatedError(f"TIFF directory is to be at byte {at} of {len(self.contents)}")
        (entries,) = struct.unpack_from(self.order + "H", self.contents, at)
        end = at + 2 + 12 * entries
        if entries == 0 or end + 4 > len(self.contents):
            raise TruncatedError(f"TIFF directory of {entries} entries at byte {at} is not whole")
        if struct.unpack_from(self.order + "I", self.contents, end)[0] != 0:
            raise DataError("TIFF of several pages, expected one image")
        tags: dict[int, tuple[int, ...]] = {}
        for place in range(at + 2, end, 12):
            tag, kind, count = struct.unpack_from(self.order + "HHI", self.contents, place)
            if tag in tags:
                raise DataError(f"TIFF tag {tag} stands twice")
            if tag in _TIFF_TAGS and kind in self._SIZES and count:
                tags[tag] = self._values(tag, self._SIZES[kind], count, place + 8)
        return tags

    def _values(self, tag: int, code: str, count: int, at: int) -> tuple[int, ...]:
        size = count * struct.calcsize("=" + code)
        place = at if size <= 4 else struct.unpack_from(self.order + "I", self.contents, at)[0]
        if place + size > len(self.contents):
            raise TruncatedError(f"TIFF tag {tag} with {count} values at byte {place} goes beyond the end of the file")
        return struct.unpack_from(f"{self.order}{count}{code}", self.contents, place)

    def _tag(self, tag: int, default: tuple[int, ...]) -> tuple[int, ...]:
        return self.tags.get(tag, default)

    def check(self) -> None:
        """Prove that all strips or tiles lie within the file. Raises DataError, TruncatedError."""
        starts = self._tag(273, self._tag(324, ()))
        lengths = self._tag(279, self._tag(325, ()))
        if not starts or len(starts) != len(lengths):
            raise DataError(f"TIFF with {len(starts)} strips and {len(lengths)} strip lengths")
        beyond = [i for i, (s, n) in enumerate(zip(starts, lengths, strict=True)) if s + n > len(self.contents)]
        if beyond:
            raise TruncatedError(f"TIFF strip {beyond[0]} of {len(starts)} goes beyond the end of the file")
        if any(s < 8 or n == 0 for s, n in zip(starts, lengths, strict=True)):
            raise TruncatedError("TIFF with strips that have not been written")

    def decode(self) -> NDArray[Any]:
        """Return the picture. Raises DataError where a strip is damaged."""
        compression = self._tag(259, (1,))[0]
        if compression in (1, 8, 32946) and 273 in self.tags and not self.palette:
            return self._strips(deflated=compression != 1)
        if self.header.bits == 16:
            return _opencv(self.contents)
        raise DataError(
            f"8-bit TIFF with compression {compression}, tiles or a palette: damage to it could not be told from "
            "image; write it as strips, uncompressed or Deflate"
        )

    def _strips(self, *, deflated: bool) -> NDArray[Any]:
        h = self.header
        stride = h.columns * h.samples
        image = np.empty((h.rows, stride), f"{self.order}u{h.bits // 8}")
        per_strip = min(self._tag(278, (h.rows,))[0], h.rows)
        if per_strip < 1 or len(self.tags[273]) != -(-h.rows // per_strip):
            raise DataError(f"TIFF with {len(self.tags[273])} strips of {per_strip} rows for {h.rows} rows")
        for i, (start, length) in enumerate(zip(self.tags[273], self.tags[279], strict=True)):
            rows = image[i * per_strip : (i + 1) * per_strip]
            strip = self.contents[start : start + length]
            strip = _inflate(strip, rows.nbytes, i) if deflated else strip
            if len(strip) < rows.nbytes:
                raise DataError(f"TIFF strip {i} holds {len(strip)} bytes, {rows.nbytes} are needed")
            rows[:] = np.frombuffer(strip, image.dtype, rows.size).reshape(rows.shape)
        native = image.astype(image.dtype.newbyteorder("="), copy=False).reshape(h.rows, h.columns, h.samples)
        if self._tag(317, (1,))[0] == 2 and deflated:
            native = np.add.accumulate(native, axis=1, dtype=native.dtype)
        elif self._tag(317, (1,))[0] not in (1, 2):
            raise DataError(f"TIFF with predictor {self.tags[317][0]}, expected none or horizontal differences")
        return native[:, :, 0] if h.samples == 1 else native


def _inflate(strip: bytes, size: int, number: int) -> bytes:
    inflater = zlib.decompressobj()
    try:
        out = inflater.decompress(strip, size)
        # the checksum comes after the last byte and is proved only when it is read
        inflater.decompress(inflater.unconsumed_tail, 1)
    except zlib.error as error:
        raise DataError(f"TIFF strip {number} is damaged ({error})") from error
    if not inflater.eof:
        raise DataError(f"TIFF strip {number} is damaged (it does not end after {size} bytes)")
    return out


def _open(contents: bytes) -> _Png | _Jpeg | _Tiff:
    """Return the opened file. Raises DataError if it is none, TruncatedError if it ends within its header."""
    kind = sniff(contents[:8])
    if kind is None:
        head = contents[:8]
        if len(head) < 8 and any(m.startswith(head) for m in (_PNG_MAGIC, b"\xff\xd8\xff", *_TIFF_MAGICS)):
            raise TruncatedError(f"{len(contents)} bytes")
        if head[:4] in _BIG_TIFF_MAGICS:
            raise DataError("BigTIFF, expected TIFF with 32-bit offsets")
        raise DataError(f"neither PNG nor JPEG nor TIFF: begins with {head!r}")
    if kind == "png":
        return _Png(contents)
    return _Jpeg(contents) if kind == "jpeg" else _Tiff(contents)


# --------------------------------------------------------------------------------------------------------------
# Pixels


def _pixels(contents: bytes, options: RasterOptions) -> tuple[RasterHeader, NDArray[np.uint16], float]:
    """Return the header and the values as stored, `(columns, channels) uint16`. Raises DataError, TruncatedError."""
    try:
        file = _open(contents)
        header = file.header
        check_header(header, options)
        file.check()
    except DataError as error:
        # Copying tools set a file's size first and write its bytes afterwards.
        if isinstance(error, TruncatedError) or contents[-64:].strip(b"\0"):
            raise
        raise TruncatedError(f"{error}; the file ends with zeros, perhaps it is not yet written") from error
    image = file.decode()
    if image.shape[:2] != (header.rows, header.columns) or image.dtype.itemsize * 8 != header.bits:
        raise DataError(f"decoded to {image.shape} {image.dtype}, the header says {header}")
    grey, marks = grey_of(image)
    values = np.ascontiguousarray(grey.T if options.detector_lines == "columns" else grey)
    return header, values.astype(np.uint16, copy=False), marks


def check_header(header: RasterHeader, options: RasterOptions) -> None:
    """Refuse what must not reach a decoder. Raises DataError."""
    size = f"{header.format} of {header.columns} x {header.rows}"
    if header.columns < 1 or header.rows < 1:
        raise DataError(f"{size} pixels, expected at least 1 x 1")
    pixels = header.columns * header.rows
    if pixels > options.max_pixels:
        raise DataError(
            f"{size} = {pixels / 1e6:.0f} megapixels, at most {options.max_pixels / 1e6:g} are accepted; see the "
            "raster option max_pixels"
        )
    depths, samples = ((8,), (1, 3)) if header.format == "jpeg" else ((8, 16), (1, 2, 3, 4))
    if header.bits not in depths or header.samples not in samples:
        raise DataError(
            f"{header.format} with {header.samples} samples of {header.bits} bits, expected grey of "
            f"{' or '.join(map(str, depths))} bits"
        )
    if (header.rows if options.detector_lines == "columns" else header.columns) > MAX_CHANNELS:
        raise DataError(f"{size} pixels: more than {MAX_CHANNELS} channels; see the raster option detector_lines")


def _opencv(contents: bytes) -> NDArray[Any]:
    """Return the picture, `(rows, columns[, samples])`, in the file's own depth. Raises DataError."""
    import cv2  # here, because programs that only receive results must start fast

    try:
        # from memory, so that no file name can trouble a C library
        image = cv2.imdecode(np.frombuffer(contents, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise DataError(f"cannot be decoded ({error})") from error
    if image is None:
        raise DataError("cannot be decoded: its image data are damaged or end early")
    decoded: NDArray[Any] = np.asarray(image)
    return decoded


def grey_of(image: NDArray[Any]) -> tuple[NDArray[Any], float]:
    """Return the one grey channel of a picture and the share of its pixels that are coloured marks.

    Raises DataError if it is coloured as a whole, or transparent.
    """
    if image.ndim == 2:
        return image, 0.0
    full = np.iinfo(image.dtype).max
    if image.shape[2] in (2, 4):
        if (image[:, :, -1] != full).any():
            raise DataError("has transparent pixels, expected a plain grey image")
        image = image[:, :, :-1]
    if image.shape[2] == 1:
        return image[:, :, 0], 0.0
    first = image[:, :, 0]
    if all(np.array_equal(first, image[:, :, i]) for i in range(1, image.shape[2])):
        return first, 0.0
    spread = image.max(axis=2) - image.min(axis=2)
    coloured = spread > COLOUR_STEP * (full // 255)
    share = float(coloured.mean())
    if share > MARKS_SHARE:
        raise DataError(
            f"looks pseudo-coloured: {100 * share:.2f} % of the pixels are not grey, at most {100 * MARKS_SHARE:g} % "
            "may be marks drawn into the image; have the scanner export its grey image"
        )
    # the middle one of three nearly equal channels: no weights, no rounding
    return np.sort(image, axis=2)[:, :, 1], share if share > COLOUR_SHARE else 0.0
