"""Raster files as radiographs: bit for bit, the right way round, and nothing read that is not whole."""

import hashlib
import struct
import subprocess
import sys
import zlib

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner_io.errors import DataError, TruncatedError
from scanner_io.formats import raster
from scanner_io.formats.raster import RasterOptions, decode_raster, read_header, read_raster, sniff

START_NS = 1_769_852_701_250_000_000


def vehicle(rows=60, columns=100, dtype=np.uint16, seed=3):
    """A picture: bright air with noise round a dark box with something denser in it. `(rows, columns)`."""
    rng = np.random.default_rng(seed)
    full = 255 if dtype == np.uint8 else 65535
    image = rng.normal(0.9, 0.004, (rows, columns))
    image[rows // 4 : -2, columns // 8 : -columns // 8] *= 0.3
    image[rows // 2 : -rows // 5, columns // 3 : columns // 2] *= 0.2
    return np.clip(image * full, 0, full).astype(dtype)


def encoded(image, ending, *parameters):
    return cv2.imencode(ending, image, list(parameters))[1].tobytes()


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(columns, rows, bits=16, colour=0, packed=b"", before=b""):
    header = struct.pack(">IIBBBBB", columns, rows, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def tiff(image, order="<", compression=1, per_strip=7, **tags):
    """A TIFF written from the specification: header, strips, directory."""
    rows, columns = image.shape
    bits = image.dtype.itemsize * 8
    stored = image
    if tags.get("predictor") == 2:
        stored = np.diff(image, axis=1, prepend=np.zeros((rows, 1), image.dtype)).astype(image.dtype)
    strips = [stored[i : i + per_strip].astype(f"{order}u{bits // 8}").tobytes() for i in range(0, rows, per_strip)]
    if compression != 1:
        strips = [zlib.compress(s) for s in strips]
    starts = list(np.cumsum([8, *map(len, strips)]))
    entries = {256: columns, 257: rows, 258: bits, 259: compression, 262: 1, 277: 1, 278: per_strip}
    numbers = {"predictor": 317, "sample_format": 339, "photometric": 262, "samples": 277, "bits": 258, "rows": 257}
    entries |= {numbers[k]: v for k, v in tags.items() if k in numbers}
    entries |= {273: starts[:-1], 279: list(map(len, strips))}
    at = int(starts[-1])
    after = at + 2 + 12 * len(entries) + 4
    directory, tail = struct.pack(order + "H", len(entries)), b""
    for tag, value in sorted(entries.items()):
        values = value if isinstance(value, list) else [value]
        directory += struct.pack(order + "HHI", tag, 4, len(values))
        if len(values) == 1:
            directory += struct.pack(order + "I", values[0])
        else:
            directory += struct.pack(order + "I", after + len(tail))
            tail += struct.pack(f"{order}{len(values)}I", *values)
    directory += struct.pack(order + "I", tags.get("next_page", 0))
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "I", at) + b"".join(strips) + directory + tail


def decode(contents, **options):
    return decode_raster(contents, name="drop.img", start_utc_ns=START_NS, options=RasterOptions(**options))


# -- what is in the file comes out ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    "encode",
    [
        lambda a: encoded(a, ".png"),
        lambda a: encoded(a, ".tif", cv2.IMWRITE_TIFF_COMPRESSION, 1),
        lambda a: encoded(a, ".tif", cv2.IMWRITE_TIFF_COMPRESSION, 8),
        tiff,
        lambda a: tiff(a, ">"),
        lambda a: tiff(a, ">", compression=8),
        lambda a: tiff(a, "<", compression=32946, predictor=2),
        lambda a: tiff(a, photometric=0),
    ],
    ids=["png", "cv-tiff", "cv-deflate", "tiff", "big-endian", "big-deflate", "predictor", "white-is-zero"],
)
def test_bit_for_bit(encode, dtype):
    image = vehicle(dtype=dtype)
    scan, provenance = decode(encode(image))
    assert np.array_equal(scan.counts[0], image.T)
    assert scan.counts[0].shape == (100, 60)
    assert scan.counts[0].dtype == np.uint16
    assert scan.counts[0].flags.c_contiguous
    assert np.array_equal(scan.upright(), image)
    assert provenance.header.bits == image.dtype.itemsize * 8
    assert (provenance.header.columns, provenance.header.rows) == (100, 60)


def test_lzw_of_16_bits():
    image = vehicle()
    assert np.array_equal(decode(encoded(image, ".tif", cv2.IMWRITE_TIFF_COMPRESSION, 5))[0].upright(), image)


def test_lzw_of_8_bits_is_refused_because_its_damage_goes_unseen():
    with pytest.raises(DataError, match=r"compression 5.*Deflate"):
        decode(encoded(vehicle(dtype=np.uint8), ".tif", cv2.IMWRITE_TIFF_COMPRESSION, 5))


def test_jpeg_as_opencv_decodes_it():
    contents = encoded(vehicle(dtype=np.uint8), ".jpg")
    scan, _ = decode(contents)
    assert np.array_equal(scan.upright(), cv2.imdecode(np.frombuffer(contents, np.uint8), cv2.IMREAD_GRAYSCALE))


def test_progressive_and_restart_markers():
    image = vehicle(dtype=np.uint8)
    for parameter in (cv2.IMWRITE_JPEG_PROGRESSIVE, cv2.IMWRITE_JPEG_RST_INTERVAL):
        assert decode(encoded(image, ".jpg", parameter, 1))[0].counts[0].shape == (100, 60)


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(["<", ">"]),
    st.sampled_from([1, 8]),
    st.sampled_from([1, 2]),
    st.integers(1, 50),
    st.integers(0, 2**32 - 1),
)
def test_any_tiff(rows, columns, order, compression, predictor, per_strip, seed):
    image = np.random.default_rng(seed).integers(700, 60_000, (rows, columns)).astype(np.uint16)
    contents = tiff(image, order, compression, per_strip, predictor=predictor if compression == 8 else 1)
    if rows * columns > 1 and image.min() == image.max():
        return
    scan, _ = decode(contents, polarity="air_bright", saturation_value=65535)
    assert np.array_equal(scan.upright(), image)


def test_colour_jpeg_of_equal_channels_is_grey():
    grey = vehicle(dtype=np.uint8)
    contents = encoded(np.dstack([grey] * 3), ".jpg", cv2.IMWRITE_JPEG_QUALITY, 95)
    scan, provenance = decode(contents)
    assert provenance.header.samples == 3
    assert np.abs(scan.upright().astype(int) - grey).max() < 25


def test_nearly_equal_channels_give_the_middle_one():
    grey = vehicle(dtype=np.uint8)
    bgr = np.dstack([grey - 3, grey, np.minimum(grey, 250) + 4])
    assert np.array_equal(decode(encoded(bgr, ".png"))[0].upright(), grey)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_real_colour_is_refused(dtype):
    image = np.dstack([vehicle(dtype=dtype)] * 3)
    image[20:40, 20:40, 2] = 0
    with pytest.raises(DataError, match="looks pseudo-coloured"):
        decode(encoded(image, ".png"))


def test_marks_drawn_in_colour_are_flagged():
    image = np.dstack([vehicle(dtype=np.uint8)] * 3)
    assert decode(encoded(image, ".png"))[0].detector.flags == ()
    image[10, 20:60, 2] = 0
    (flag,) = decode(encoded(image, ".png"))[0].detector.flags
    assert flag.code == "radiograph_marked"
    assert not flag.fatal


def test_transparency():
    grey = vehicle(dtype=np.uint8)
    opaque = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    assert np.array_equal(decode(encoded(opaque, ".png"))[0].upright(), grey)
    opaque[0, 0, 3] = 254
    with pytest.raises(DataError, match="transparent"):
        decode(encoded(opaque, ".png"))


def test_time_runs_down_where_rows_are_detector_lines():
    image = vehicle()
    scan, _ = decode(encoded(image.T, ".png"), detector_lines="rows")
    assert np.array_equal(scan.counts[0], image.T)


def test_first_channel_says_which_way_up():
    image = vehicle()
    scan, _ = decode(encoded(image[::-1], ".png"), first_channel="bottom")
    assert scan.detector.first_channel == "bottom"
    assert np.array_equal(scan.upright(), image)


def test_pitches_and_energy_are_passed_on():
    detector = decode(encoded(vehicle(), ".png"), column_pitch_mm=4.0, channel_pitch_mm=5.0, energy="6 MV")[0].detector
    assert (detector.column_pitch_mm, detector.channel_pitch_mm, detector.energies) == (4.0, 5.0, ("6 MV",))


def test_times_are_nominal_and_say_so(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(vehicle(), ".png"))
    options = RasterOptions(line_period_s=0.0033)
    given_times = read_raster(path, options=options, start_utc_ns=START_NS)
    assert given_times.column_utc_ns[0] == START_NS
    assert given_times.column_utc_ns[-1] == START_NS + 99 * 3_300_000
    assert "given, nominal 3.3 ms per line" in given_times.detector.note
    of_file = read_raster(path)
    assert of_file.column_utc_ns[0] == path.stat().st_mtime_ns
    assert "file modification time" in of_file.detector.note


def test_provenance_tells_the_file():
    contents = encoded(vehicle(), ".png")
    scan, provenance = decode(contents)
    assert provenance.sha256 == hashlib.sha256(contents).hexdigest()
    assert provenance.size_bytes == len(contents)
    assert scan.detector.note == provenance.text


# -- which way round, and how bright -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_dark_air_is_found_and_turned_round(dtype):
    image = vehicle(dtype=dtype)
    full = np.iinfo(dtype).max
    found, provenance = decode(encoded(full - image, ".png"))
    assert provenance.polarity == "air_dark"
    assert np.array_equal(found.upright(), image)
    assert "found air_dark, confidence" in found.detector.note
    assert "saturation - value" in found.detector.note


def test_declared_polarity_is_not_questioned():
    image = vehicle()
    scan, provenance = decode(encoded(image, ".png"), polarity="air_dark", saturation_value=65535)
    assert np.array_equal(scan.upright(), 65535 - image)
    assert provenance.polarity_how.startswith("declared")


def test_undecidable_names_the_option():
    cut_out = np.random.default_rng(1).integers(8000, 30_000, (60, 100)).astype(np.uint16)
    with pytest.raises(DataError, match=r"cannot tell which grey is air.*raster option polarity"):
        decode(encoded(cut_out, ".png"))


def test_a_dark_border_alone_is_not_dark_air():
    # cargo fills the picture: dense at the top, lighter below. Turned round, dense cargo would read as air.
    image = np.full((60, 100), 20_000, np.uint16)
    image[:12] = 400
    image[20:50, 20:80] = 50_000
    with pytest.raises(DataError, match="polarity"):
        decode(encoded(image, ".png"))


def test_dark_air_of_unknown_depth_names_the_option():
    image = 4095 - vehicle() // 16
    with pytest.raises(DataError, match="saturation_value"):
        decode(encoded(image, ".png"))
    scan, _ = decode(encoded(image, ".png"), saturation_value=4095)
    assert np.array_equal(scan.upright(), 4095 - image)
    assert scan.detector.saturation_value == 4095


@pytest.mark.parametrize(
    ("image", "saturation", "words"),
    [
        (vehicle(dtype=np.uint8), 255, "full scale of 8 bits"),
        (vehicle(), 65535, "taken, full scale of 16 bits: no clipped pixels"),
        (np.minimum(vehicle(), 58_000), 58_000, "lie exactly there"),
        (np.where(vehicle() > 50_000, 65535, vehicle()), 65535, "full scale"),
    ],
)
def test_saturation_is_found(image, saturation, words):
    detector = decode(encoded(image, ".png"))[0].detector
    assert detector.saturation_value == saturation
    assert words in detector.note


def test_a_declared_saturation_below_the_data_is_refused():
    with pytest.raises(DataError, match="above the declared saturation 4095"):
        decode(encoded(vehicle(), ".png"), saturation_value=4095)


def test_air_is_found_at_the_border():
    scan, provenance = decode(encoded(vehicle(), ".png"))
    detector = scan.detector
    assert detector.state == "display"
    assert abs(float(detector.air[0][0]) - 0.9 * 65535) < 200
    assert not detector.dark[0].any()
    assert "of the border" in provenance.air_how
    assert 0.99 < np.median(scan.counts[0][:5] / detector.air[0]) < 1.01


def test_air_without_a_border_is_called_relative():
    cut_out = np.random.default_rng(1).integers(8000, 30_000, (60, 100)).astype(np.uint16)
    cut_out[30, 50:60] = 60_000
    assert "transmission is relative" in decode(encoded(cut_out, ".png"), polarity="air_bright")[0].detector.note


def test_references_make_16_bits_raw_and_8_bits_not():
    dark, air = tuple(range(60)), tuple(59_000.0 + i for i in range(60))
    raw = decode(encoded(vehicle(), ".png"), dark=dark, air=air)[0].detector
    assert raw.state == "raw"
    assert raw.dark[0].tolist() == list(dark)
    assert raw.air[0].tolist() == list(air)
    assert decode(encoded(vehicle(dtype=np.uint8), ".png"), dark=1.0, air=250.0)[0].detector.state == "display"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dark": (1.0, 2.0), "air": 60_000.0}, "2 values for 60 channels"),
        ({"dark": 70_000.0, "air": 60_000.0}, "not below air in 60 of 60"),
        ({"dark": float("nan"), "air": 60_000.0}, "not finite"),
    ],
)
def test_references_that_do_not_fit(options, words):
    with pytest.raises(DataError, match=words):
        decode(encoded(vehicle(), ".png"), **options)


def test_options_are_checked():
    with pytest.raises(ValueError, match="only one of them"):
        RasterOptions(dark=1.0)
    with pytest.raises(ValueError, match="air_channels"):
        RasterOptions(air_channels=(5, 5))
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"polarity": "guess"}, RasterOptions)
    assert msgspec.convert({"air": 60_000, "dark": [1, 2]}, RasterOptions).dark == (1.0, 2.0)


# -- bad files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif"])
def test_every_cut_is_noticed(ending):
    contents = encoded(vehicle(24, 30, np.uint8), ending, *((259, 1) if ending == ".tif" else ()))
    assert decode(contents, polarity="air_bright")
    for end in range(len(contents) if ending != ".jpg" else len(contents) - 1):
        with pytest.raises(TruncatedError):
            decode(contents[:end], polarity="air_bright")


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif"])
def test_a_file_whose_size_was_set_before_its_bytes_came(ending):
    contents = encoded(vehicle(24, 200, np.uint8), ending)
    for written in (0, 5, len(contents) // 2):
        with pytest.raises(TruncatedError):
            decode(contents[:written] + bytes(len(contents) - written), polarity="air_bright")


def test_jpeg_cut_and_closed_again():
    contents = encoded(vehicle(80, 120, np.uint8), ".jpg")
    with pytest.raises(DataError, match="data end before the image does"):
        decode(contents[: len(contents) // 2] + b"\xff\xd9", polarity="air_bright")


def test_png_flips_are_noticed():
    contents = encoded(vehicle(), ".png")
    for at in range(8, len(contents), 97):
        damaged = bytearray(contents)
        damaged[at] ^= 0x10
        with pytest.raises(DataError):
            decode(bytes(damaged), polarity="air_bright")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_deflated_tiff_flips_are_noticed(dtype):
    image = vehicle(dtype=dtype)
    contents = tiff(image, compression=8)
    for at in range(8, len(contents) - 300, 53):
        damaged = bytearray(contents)
        damaged[at] ^= 0x10
        with pytest.raises(DataError):
            decode(bytes(damaged), polarity="air_bright")


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (b"this is a text that was renamed to .png", "neither PNG nor JPEG nor TIFF"),
        (b"BM" + b"\1" * 200, "neither PNG"),
        (b"II+\0" + bytes(60), "BigTIFF"),
        (png(100, 100, bits=1), "1 bits"),
        (png(100, 100, bits=4, colour=3), "colour type 3"),
        (png(100, 100, before=chunk(b"acTL", bytes(8))), "animated"),
        (png(4000, 4000, packed=zlib.compress(bytes(100))), "claims 4000 x 4000"),
        (png(60, 40, packed=zlib.compress(bytes(100))), "damaged or end early"),
        (png(0, 5), "at least 1 x 1"),
        (tiff(vehicle(), next_page=8), "several pages"),
        (tiff(vehicle(), sample_format=2), "int16"),
        (tiff(vehicle(), bits=32), "uint32"),
        (tiff(vehicle(), rows=6000), "strips of 7 rows for 6000"),
        (tiff(vehicle(), samples=3), "are needed"),
        (encoded(vehicle().astype(np.float32), ".tif"), "float32"),
        (b"\xff\xd8\xff\xd9" + bytes(40), "ends at byte"),
        (b"\xff\xd8\xff\xe0\0\x04ab" + b"not a marker", "damaged at byte 8"),
        (b"\xff\xd8\xff\xc3\0\x0b\x08\0\x10\0\x10\1\1\x11\0\xff\xda\0\2", "SOF3"),
        (b"\xff\xd8\xff\xda\0\2\xff\xd9", "without a frame header"),
    ],
)  # fmt: skip
def test_not_an_image_of_ours(contents, words):
    with pytest.raises(DataError, match=words) as caught:
        decode(contents)
    assert str(caught.value).startswith("drop.img: ")
    assert not isinstance(caught.value, TruncatedError)


@pytest.mark.parametrize(
    "contents",
    [
        png(20_000, 15_000),
        png(4_294_967_295, 4_294_967_295),
        b"\xff\xd8\xff\xc0\0\x0b\x08\xff\xff\xff\xff\1\1\x11\0\xff\xda\0\2\xff\xd9",
        tiff(vehicle(), rows=4_000_000_000),
    ],
)
def test_huge_claims_are_refused_before_decoding(contents, monkeypatch):
    monkeypatch.setattr(raster, "_opencv", lambda _: pytest.fail("was decoded"))
    with pytest.raises(DataError, match="megapixels"):
        decode(contents)


def test_a_larger_limit_may_be_set_and_the_file_size_has_one(tmp_path):
    contents = encoded(vehicle(), ".png")
    with pytest.raises(DataError, match="see the raster option max_pixels"):
        decode(contents, max_pixels=5999)
    assert decode(contents, max_pixels=6000)
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(2_000_000)  # sparse
    with pytest.raises(DataError, match="2000000 bytes"):
        read_raster(path, options=RasterOptions(max_pixels=6000))


def test_more_channels_than_a_detector_has():
    with pytest.raises(DataError, match="more than 65536 channels"):
        decode(png(1, 65_537))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((60, 100), np.uint16), "every pixel has the value 0"),
        (np.full((60, 100), 65535, np.uint16), "every pixel has the value 65535"),
        (np.full((60, 100), 255, np.uint8), "every pixel has the value 255"),
        (np.random.default_rng(0).integers(0, 40, (60, 100)).astype(np.uint16), "all pixels are black"),
        (np.where(np.arange(6000) % 2000 == 7, 60_000, 65535).reshape(60, 100).astype(np.uint16), "saturated"),
    ],
)
def test_nothing_to_see(image, words):
    with pytest.raises(DataError, match=words):
        decode(encoded(image, ".png"), polarity="air_bright")


def test_a_single_pixel_is_an_image():
    scan, _ = decode(encoded(np.array([[7000]], np.uint16), ".png"), polarity="air_bright")
    assert scan.counts[0].tolist() == [[7000]]
    with pytest.raises(DataError, match="no contrast"):
        decode(encoded(np.array([[7000]], np.uint16), ".png"))


@given(st.binary(max_size=300), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*"]))
def test_foreign_bytes_are_only_ever_data_errors(data, magic):
    with pytest.raises(DataError):
        decode(magic + data)


SMALL = [
    encoded(vehicle(16, 20, np.uint8), ".png"),
    encoded(vehicle(16, 20, np.uint8), ".jpg"),
    tiff(vehicle(16, 20), compression=8, predictor=2),
    encoded(vehicle(16, 20), ".tif"),
]


@given(st.sampled_from(SMALL), st.data())
def test_damaged_files_are_images_or_data_errors(contents, data):
    damaged = bytearray(contents)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        image, _ = decode(bytes(damaged), polarity="air_bright", max_pixels=1_000_000)
    except DataError as error:
        assert "drop.img" in str(error)
    else:
        assert 0 < image.columns * image.detector.channels <= 1_000_000
        assert all(c.dtype == np.uint16 and c.max() <= image.detector.saturation_value for c in image.counts)


@pytest.mark.parametrize(
    "contents",
    [
        b"\xff\xd8" + b"\xff" * 3_000_000,
        b"\xff\xd8\xff\xc0\0\x0b\x08\0\x10\0\x10\1\1\x11\0\xff\xda\0\2" + b"\xff" * 3_000_000,
        b"\xff\xd8" + b"\xff\xe0\0\2" * 700_000,
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 0, 0, 0, 0))
        + chunk(b"a", b"") * 250_000,
        b"II*\0\x08\0\0\0\xff\xff" + struct.pack("<HHII", 273, 1, 700_000, 10) * 65_535 + bytes(4),
    ],
    ids=["jpeg header", "jpeg data", "jpeg segments", "png chunks", "tiff tags"],
)
@pytest.mark.timeout(10)
def test_files_made_to_keep_the_reader_busy(contents):
    with pytest.raises(DataError):
        decode(contents)


# -- names, imports, real images -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a b.png", "câmara-é-ü-漢字.png", "a%d;'\"$(x).png", "new\nline.png", "-rf.png"])
def test_any_file_name(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(encoded(vehicle(), ".png"))
    assert read_raster(path).columns == 100


def test_a_name_that_is_no_text(tmp_path):
    path = tmp_path / b"\xe9\xff.png".decode("utf-8", "surrogateescape")
    path.write_bytes(encoded(vehicle(), ".png"))
    assert read_raster(path).columns == 100


@pytest.mark.parametrize("name", ["absent.png", "nul\0.png", "."])
def test_unreadable_paths(tmp_path, name):
    with pytest.raises(DataError, match="cannot be read"):
        read_raster(tmp_path / name)


def test_sniff_and_header():
    image = vehicle(20, 30)
    assert sniff(encoded(image, ".png")[:8]) == "png"
    assert sniff(encoded(image.astype(np.uint8), ".jpg")[:8]) == "jpeg"
    assert sniff(encoded(image, ".tif")[:8]) == sniff(tiff(image, ">")[:8]) == "tiff"
    assert sniff(b"") is sniff(b"text") is None
    header = read_header(encoded(image, ".png"))
    assert (header.format, header.columns, header.rows, header.bits, header.samples) == ("png", 30, 20, 16, 1)


def test_opencv_is_not_loaded_before_a_file_is_read():
    code = "import sys, scanner_io.formats.raster; print('cv2' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_real_customs_images(shared_data):
    marked = []
    for path in sorted((shared_data / "cargo").glob("*.jpg")):
        scan = read_raster(path)
        picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        grey = np.sort(picture, axis=2)[:, :, 1]
        assert np.array_equal(scan.upright(), grey), path.name
        assert scan.detector.state == "display"
        assert "found air_bright" in scan.detector.note, path.name
        assert 250 <= scan.detector.air[0][0] <= 255, path.name
        if scan.detector.flags:
            marked.append(path.name)
    # one has a blue box drawn into it
    assert marked == ["other_4.jpg"]


def test_real_customs_images_turned_round_are_found_or_refused(shared_data):
    found = 0
    for path in sorted((shared_data / "cargo").glob("*.jpg")):
        picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
        try:
            scan, provenance = decode(encoded(255 - picture, ".png"))
        except DataError as error:
            assert "polarity" in str(error)
            continue
        assert provenance.polarity == "air_dark", f"{path.name}: dense cargo would have been taken for air"
        assert np.array_equal(scan.upright(), picture)
        found += 1
    assert found >= 15


def test_real_16_bit_images(shared_data):
    undecided = []
    for path in sorted((shared_data / "xray16" / "flatpanel").glob("*.png")):
        try:
            scan = read_raster(path)
        except DataError:
            undecided.append(path.name)
            scan = read_raster(path, options=RasterOptions(polarity="air_bright"))
        picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
        assert picture.dtype == np.uint16
        assert np.array_equal(scan.upright(), picture), path.name
    # objects that fill the whole panel
    assert undecided == ["FusionPart1-120kV.png", "FusionPart1-180kV.png", "Shift1-1.png"]


def test_real_line_scans(shared_data):
    paths = sorted((shared_data / "xray16" / "linescan").glob("*.tif"))
    assert paths
    for path in paths:
        scan = read_raster(path, options=RasterOptions(detector_lines="rows"))
        assert np.array_equal(scan.counts[0], cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), -1))
        assert scan.detector.channels == 1024
        assert scan.detector.saturation_value == 65535
        assert 65_000 < scan.detector.air[0][0] <= 65535
