"""The Storage SCP: what is sent is what is given, nothing is lost before it is stored, and bad peers leave nothing."""

import contextlib
import datetime
import importlib.util
import io
import shutil
import socket
import struct
import subprocess
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import psutil
import pydicom
import pynetdicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGExtended12Bit,
    MRImageStorage,
    generate_uid,
)
from pynetdicom import AE

from drivers import dicom_store
from drivers.dicom_store import Config, DicomStore
from scanner_io.errors import ConfigError, DataError, LinkLost
from scanner_io.formats import dicom_image, dicos
from scanner_io.formats.dicom_object import DicomAsk
from scanner_io.formats.raster import RasterOptions
from scanner_io.model import LineBlock, Rejected, ScanEnd, ScanStart
from scanner_io.storage import StorageError
from tests.contract import DriverContract, Rig, check_order
from tests.drivers.test_file_drop import names, picture, read_all
from tests.scanner_io.test_dicos import result, scan

SAMPLES = Path(pydicom.__file__).parent / "data" / "test_files"
BRIGHT = RasterOptions(polarity="air_bright")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom", "ignore::ResourceWarning")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def dx(values=None, *, syntax=ExplicitVRLittleEndian, **elements):
    """Return a DX image of uint16 values, (rows, columns)."""
    values = picture() if values is None else values
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.SOPClassUID = d.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForProcessing
    d.SOPInstanceUID = d.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    d.file_meta.TransferSyntaxUID = syntax
    d.StudyInstanceUID, d.SeriesInstanceUID = generate_uid(), generate_uid()
    d.Modality, d.PatientID, d.Manufacturer = "DX", "CSQU3054383", "Acme"
    d.AcquisitionDateTime, d.TimezoneOffsetFromUTC = "20260131094501.250", "-0300"
    d.Rows, d.Columns = values.shape
    d.SamplesPerPixel, d.PhotometricInterpretation, d.PixelRepresentation = 1, "MONOCHROME2", 0
    d.BitsAllocated = d.BitsStored = 8 * values.itemsize
    d.HighBit = d.BitsStored - 1
    d.ImagerPixelSpacing = [4.0, 5.0]
    d.PixelData = values.tobytes()
    for name, value in elements.items():
        setattr(d, name, value)
    return d


def send(port, *datasets, title="SCANLANE", calling="TEST", tls=None):
    """Send by pynetdicom's storescu machinery; return the statuses, None where the association was refused."""
    ae = AE(ae_title=calling)
    for d in datasets:
        ae.add_requested_context(d.SOPClassUID, d.file_meta.TransferSyntaxUID)
    if not datasets:
        ae.add_requested_context(pynetdicom.sop_class.Verification)
    assoc = ae.associate("127.0.0.1", port, ae_title=title, tls_args=None if tls is None else (tls, None))
    try:
        if not assoc.is_established:
            return None
        if not datasets:
            return [assoc.send_c_echo().Status]
        return [getattr(assoc.send_c_store(d), "Status", None) for d in datasets]
    finally:
        if assoc.is_established:
            assoc.release()
        if assoc.is_alive():
            assoc.join(5)
        if (raw := getattr(assoc.dul.socket, "socket", None)) is not None:
            raw.close()  # pynetdicom's client leaves it open where the greeting fails


class DicomRig(Rig):
    driver = "dicom_store"
    expects = (ScanStart, LineBlock, ScanEnd)

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.number = folder, free_port(), 0

    @property
    def config(self) -> Config:
        return Config(port=self.port, spool_dir=str(self.folder / "spool"), study_wait_s=0.05)

    def play(self) -> None:
        self.number += 1
        assert send(self.port, dx(picture(self.number))) == [0]


class TestDicomStore(DriverContract):
    driver = "dicom_store"

    @pytest.fixture
    def rig(self, tmp_path):
        return DicomRig(tmp_path)


@pytest.fixture
def opened(tmp_path):
    made = []

    def build(**options):
        values = {"port": free_port(), "spool_dir": str(tmp_path / "spool"), "study_wait_s": 0.1} | options
        source = DicomStore(Config(**values))
        made.append(source)
        source.open()
        source.port = values["port"]
        return source

    yield build
    for source in made:
        source.close()


def image_of(events):
    return np.concatenate([e.counts[-1] for e in events if isinstance(e, LineBlock)]).T


def test_an_image_is_given_as_it_was_sent_with_what_it_says(opened, tmp_path):
    source = opened()
    assert send(source.port) == [0], "C-ECHO"
    assert send(source.port, dx()) == [0]
    events = read_all(source, quiet_s=0.4)
    check_order(events)
    start = events[0]
    assert np.array_equal(image_of(events), picture())
    assert start.utc_ns == 1_769_863_501_250_000_000
    assert start.sidecar.containers[0].text == "CSQU3054383" and start.sidecar.software == "Acme"
    assert (start.detector.channel_pitch_mm, start.detector.column_pitch_mm) == (4.0, 5.0)
    spool = tmp_path / "spool"
    assert len(list(spool.glob("*.dcm"))) == 1
    source.acknowledge(start.source_ref)
    assert list(spool.glob("*.dcm")) == [] and len(names(spool / "done")) == 1


def test_what_is_not_stored_is_offered_again_and_what_is_sent_twice_is_once(opened):
    source = opened()
    image = dx()
    assert send(source.port, image, image) == [0, 0]
    first = read_all(source, quiet_s=0.4)
    assert sum(isinstance(e, ScanStart) for e in first) == 1
    source.close()
    again = opened(spool_dir=source._config.spool_dir)
    second = read_all(again, quiet_s=0.4)
    assert second[0].source_ref == first[0].source_ref
    again.acknowledge(second[0].source_ref)
    assert send(again.port, image) == [0]
    assert read_all(again, quiet_s=0.3) == []


def test_a_disk_that_refuses_is_told_to_the_sender(opened, monkeypatch):
    def refuse(*_, **__):
        raise StorageError("no space left")

    source = opened()
    monkeypatch.setattr(dicom_store, "write_durable", refuse)
    assert send(source.port, dx()) == [0xA700]
    assert read_all(source, quiet_s=0.2) == []


def test_our_own_dicos_export_comes_back_with_both_energies_and_the_report(opened):
    source = opened(study_wait_s=2.0)  # a machine with much else to do sends the three parts slowly
    sent = scan()
    exported = [o.dataset for o in dicos.objects_of(sent, result("ALARM"))]
    assert send(source.port, *exported) == [0, 0, 0]
    events = []
    while not any(isinstance(e, ScanEnd) for e in events):
        event = source.read(10.0)
        assert event is not None
        events.append(event)
    (start,) = [e for e in events if isinstance(e, ScanStart)]
    assert start.detector.energies == ("4MV", "6MV")
    for energy in (0, 1):
        got = np.concatenate([e.counts[energy] for e in events if isinstance(e, LineBlock)]).T
        assert np.array_equal(got, sent.radiograph.upright(energy))
    assert start.sidecar.dialect == "dicos" and "vendor_suspicion" in [q.code for q in start.quality]
    assert start.sidecar.detections[0].kind == "TDR" and len(start.sidecar.detections) > 1
    assert start.sidecar.containers[0].text == "CSQU3054383"


def test_a_study_that_does_not_fit_into_memory_is_given_in_parts(opened, monkeypatch):
    monkeypatch.setattr(dicom_store, "MOST_BYTES", 3 * picture().nbytes)
    source = opened(study_wait_s=60.0)
    images = [dx(picture(n)) for n in range(8)]
    for image in images:
        image.StudyInstanceUID = images[0].StudyInstanceUID
    assert send(source.port, *images) == [0] * 8
    events = read_all(source, quiet_s=1.0)
    given = [e.sidecar.scan_id for e in events if isinstance(e, ScanStart)]
    assert given and sum(s.size for s in source._studies.values()) <= 3 * picture().nbytes


def test_a_study_of_which_more_comes_again_and_again_is_given_in_the_end(opened, monkeypatch):
    monkeypatch.setattr(dicom_store, "MOST_WAITS", 1)
    source = opened(study_wait_s=1.0)
    first = dx(picture(0))
    events, deadline_s, number = [], time.monotonic() + 10, 0
    while not any(isinstance(e, ScanEnd) for e in events) and time.monotonic() < deadline_s:
        number += 1
        more = dx(picture(number))
        more.StudyInstanceUID = first.StudyInstanceUID
        assert send(source.port, more) == [0]
        event = source.read(0.2)
        events += [] if event is None else [event]
    assert isinstance(events[0], ScanStart)


def test_a_report_without_its_image_is_told(opened):
    source = opened()
    report = dicos.objects_of(scan(), result("ALARM"))[-1].dataset
    assert send(source.port, report) == [0]
    (event,) = read_all(source, quiet_s=0.4)
    assert isinstance(event, Rejected) and "decision ALARM" in event.reason


def sample_files():
    return sorted(p.name for p in SAMPLES.glob("*.dcm"))


SYNTAXES = [  # one sample of every transfer syntax that decodes here, all grey
    "MR_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "image_dfl.dcm", "MR_small_RLE.dcm",
    "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "JPEGLSNearLossless_08.dcm", "693_J2KI.dcm",
    "JPEG2000.dcm", "examples_overlay.dcm", "J2K_pixelrep_mismatch.dcm", "CT_small.dcm",
]  # fmt: skip


def expected_counts(dataset):
    pixels = dataset.pixel_array.astype(np.int64)
    return pixels + (1 << (dataset.BitsAllocated - 1)) * dataset.PixelRepresentation


def grey_samples():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [pydicom.dcmread(SAMPLES / name) for name in SYNTAXES]


def test_pixels_of_every_transfer_syntax_are_pydicom_s(opened):
    samples = grey_samples()
    classes = tuple({str(d.SOPClassUID) for d in samples})
    source = opened(sop_classes=classes, raster=BRIGHT, study_wait_s=0.0)
    lossy = {"JPEGLSNearLossless_08.dcm", "693_J2KI.dcm", "JPEG2000.dcm"}
    for name, dataset in zip(SYNTAXES, samples, strict=True):
        assert send(source.port, dataset) == [0], name
        events = read_all(source, quiet_s=0.25)
        assert isinstance(events[0], ScanStart), (name, events[0])
        assert np.array_equal(image_of(events), expected_counts(dataset)), name
        assert ("image_lossy" in [q.code for q in events[0].detector.flags]) == (name in lossy), name


@pytest.mark.skipif(not Path("/usr/bin/storescu").is_file(), reason="dcmtk is not installed")
def test_dcmtk_s_storescu_is_understood(opened):
    source = opened(sop_classes=(str(MRImageStorage),), raster=BRIGHT, study_wait_s=0.0)
    address = ["-aec", "SCANLANE", "127.0.0.1", str(source.port)]
    proposals = {
        "MR_small.dcm": "-x=", "MR_small_implicit.dcm": "-xi", "MR_small_bigendian.dcm": "-xb",
        "MR_small_RLE.dcm": "-xr", "MR_small_jp2klossless.dcm": "-xv", "MR_small_jpeg_ls_lossless.dcm": "-xt",
    }  # fmt: skip
    for name, option in proposals.items():
        told = subprocess.run(
            ["/usr/bin/storescu", option, *address, SAMPLES / name], capture_output=True, text=True, timeout=20
        )
        assert told.returncode == 0, told.stderr
        events = read_all(source, quiet_s=0.25)
        assert np.array_equal(image_of(events), expected_counts(pydicom.dcmread(SAMPLES / name))), name


ENCODERS = {
    # transfer syntax: dcmtk's own encoder, bits, counts may change
    "JPEGLosslessSV1": (("dcmcjpeg", "+e1"), 16, False), "JPEGLossless": (("dcmcjpeg", "+el"), 16, False),
    "JPEGBaseline8Bit": (("dcmcjpeg", "+eb"), 8, True), "JPEGLSLossless": (("dcmcjpls", "+el"), 16, False),
    "JPEGLSNearLossless": (("dcmcjpls", "+en"), 16, True),
}  # fmt: skip


@pytest.mark.skipif(not Path("/usr/bin/dcmcjpls").is_file(), reason="dcmtk is not installed")
@pytest.mark.parametrize("syntax", ENCODERS)
def test_what_an_independent_encoder_made_is_read(syntax, tmp_path):
    (program, option), bits, lossy = ENCODERS[syntax]
    values = picture() if bits == 16 else (picture() >> 8).astype(np.uint8)
    dx(values).save_as(tmp_path / "plain.dcm", enforce_file_format=True)
    words = [f"/usr/bin/{program}", option, tmp_path / "plain.dcm", tmp_path / "packed.dcm"]
    told = subprocess.run(words, capture_output=True, text=True, timeout=20)
    assert told.returncode == 0, told.stderr
    packed = pydicom.dcmread(tmp_path / "packed.dcm")
    assert packed.file_meta.TransferSyntaxUID == getattr(pydicom.uid, syntax)
    ask = DicomAsk(options=BRIGHT, received_utc_ns=1)
    image = dicom_image.read_dicom((tmp_path / "packed.dcm").read_bytes(), syntax, ask).radiograph
    wanted = packed.pixel_array if lossy else values
    assert np.array_equal(image.upright(0), wanted)
    assert ("image_lossy" in [q.code for q in image.detector.flags]) == lossy


def bomb():
    d = dx(syntax=DeflatedExplicitVRLittleEndian, Rows=60_000, Columns=60_000)
    d.PixelData = bytes(1 << 20)
    return d


BAD = {
    "truncated": (lambda: dx(PixelData=picture().tobytes()[:-100]), "pixel data of"),
    "bomb": (bomb, "megapixels"),
    "1 bit": (lambda: dx(np.zeros((40, 80), np.uint8), BitsAllocated=1, BitsStored=1, HighBit=0), "1-bit pixels"),
    "32 bits": (lambda: dx(np.ones((40, 80), np.uint32)), "32-bit pixels"),
    "frames": (lambda: dx(NumberOfFrames=3), "3 frames"),
    "colour": (lambda: dx(PhotometricInterpretation="PALETTE COLOR"), "PALETTE COLOR"),
    "no pixels": (lambda: dx(PixelData=None), "pixel data"),
}


def test_bad_images_are_named_kept_and_do_not_stop_the_next(opened, tmp_path):
    source = opened(study_wait_s=0.0)
    for name, (make, words) in BAD.items():
        assert send(source.port, make()) == [0], name
        (event,) = read_all(source, quiet_s=0.4)
        assert isinstance(event, Rejected) and words in event.reason, (name, event)
        source.acknowledge(event.source_ref)
    quarantine = tmp_path / "spool" / "quarantine"
    assert len(list(quarantine.glob("*.dcm"))) == len(list(quarantine.glob("*.reason.txt"))) == len(BAD)
    assert send(source.port, dx()) == [0]
    assert isinstance(read_all(source, quiet_s=0.3)[0], ScanStart)


@contextlib.contextmanager
def without_12_bit_decoder():
    """Take the extra's decoder away, if it is installed."""
    decoder = get_decoder(JPEGExtended12Bit)
    there = decoder._available.pop("pylibjpeg", None)
    try:
        yield
    finally:
        if there is not None:
            decoder._available["pylibjpeg"] = there


def read_sample(name):
    ask = DicomAsk(options=BRIGHT, received_utc_ns=1)
    return dicom_image.read_dicom((SAMPLES / name).read_bytes(), name, ask)


def test_lossy_jpeg_of_12_bits_is_refused_with_the_remedy():
    with without_12_bit_decoder(), pytest.raises(DataError, match=r"12 bits: .* lossless JPEG, or .* `dicom12`"):
        read_sample("JPGExtended.dcm")


@pytest.mark.skipif(importlib.util.find_spec("libjpeg") is None, reason="the extra dicom12 is not installed")
def test_lossy_jpeg_of_12_bits_is_read_with_the_extra():
    image = read_sample("JPGExtended.dcm").radiograph
    assert np.array_equal(image.upright(0), pydicom.dcmread(SAMPLES / "JPGExtended.dcm").pixel_array)
    assert "image_lossy" in [q.code for q in image.detector.flags] and image.detector.saturation_value == 4095
    with pytest.raises(DataError, match="cannot be decoded"):  # a sample whose markers are wrong
        read_sample("JPEG-lossy.dcm")


def test_bits_below_the_allocated_signs_and_grey_scales(opened):
    source = opened(study_wait_s=0.0)
    twelve = (picture() >> 4).astype(np.uint16)
    for elements, counts, saturation in (
        ({"BitsStored": 12, "HighBit": 11, "PixelData": (twelve | 0xF000).tobytes()}, twelve, 4095),
        ({"BitsStored": 12, "HighBit": 11, "PixelData": (4095 - twelve).tobytes(),
          "PhotometricInterpretation": "MONOCHROME1", "PixelIntensityRelationshipSign": -1}, twelve, 4095),
        ({"RescaleSlope": "2", "RescaleIntercept": "-100", "PixelIntensityRelationshipSign": 1}, picture(), 65535),
    ):  # fmt: skip
        assert send(source.port, dx(**elements)) == [0]
        events = read_all(source, quiet_s=0.3)
        assert np.array_equal(image_of(events), counts)
        assert events[0].detector.saturation_value == saturation


# -- who may send, and what bad peers leave ------------------------------------------------------------------------


def test_only_named_peers_and_known_classes(opened):
    source = opened(peers=("SCANNER",))
    assert send(source.port, dx()) is None
    assert send(source.port, dx(), calling="SCANNER", title="OTHER") is None
    assert send(source.port, dx(), calling="SCANNER") == [0]
    strange = dx()
    strange.SOPClassUID = strange.file_meta.MediaStorageSOPClassUID = MRImageStorage
    assert send(source.port, strange, calling="SCANNER") is None


def certificates(folder):
    """Make an authority and a certificate of it for 127.0.0.1."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    def make(name, issuer, signer, key, authority):
        begin = datetime.datetime(2020, 1, 1)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(begin).not_valid_after(begin + datetime.timedelta(days=36_500))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .sign(signer, hashes.SHA256())
        )  # fmt: skip

    root, leaf = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    pem = serialization.Encoding.PEM
    (folder / "ca.pem").write_bytes(make("authority", "authority", root, root, True).public_bytes(pem))
    (folder / "cert.pem").write_bytes(make("lane", "authority", root, leaf, False).public_bytes(pem))
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(leaf.private_bytes(pem, *plain))


def test_tls_and_nobody_without_a_certificate(opened, tmp_path):
    import ssl

    certificates(tmp_path)
    files = {
        "certificate": str(tmp_path / "cert.pem"),
        "key": str(tmp_path / "key.pem"),
        "ca": str(tmp_path / "ca.pem"),
    }
    source = opened(tls=dicom_store.Tls(**files))
    context = ssl.create_default_context(cafile=files["ca"])
    context.check_hostname = False
    context.load_cert_chain(files["certificate"], files["key"])
    assert send(source.port, dx(), tls=context) == [0]
    stranger = ssl.create_default_context(cafile=files["ca"])
    stranger.check_hostname = False
    assert send(source.port, dx(), tls=stranger) is None
    with socket.create_connection(("127.0.0.1", source.port)):  # says nothing, and holds up nobody
        assert send(source.port, dx(picture(2)), tls=context) == [0]
    assert send(source.port, dx()) is None
    with pytest.raises(ConfigError, match="tls"):
        opened(tls=dicom_store.Tls(**(files | {"key": str(tmp_path / "absent")})))


def test_a_port_that_is_taken(opened):
    source = opened()
    with pytest.raises(LinkLost, match="another program"):
        opened(port=source.port, spool_dir=source._config.spool_dir)


def associate_request():
    """Return a whole A-ASSOCIATE-RQ for C-STORE of DX, as bytes."""
    from pynetdicom.pdu import A_ASSOCIATE_RQ
    from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
    from pynetdicom.presentation import build_context

    ask = A_ASSOCIATE()
    ask.application_context_name = "1.2.840.10008.3.1.1.1"
    ask.calling_ae_title, ask.called_ae_title = "TEST", "SCANLANE"
    length, who = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received, who.implementation_class_uid = 16_382, "1.2.3"
    ask.user_information = [length, who]
    context = build_context(DigitalXRayImageStorageForProcessing, ExplicitVRLittleEndian)
    context.context_id = 1
    ask.presentation_context_definition_list = [context]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(ask)
    return pdu.encode()


def held():
    process = psutil.Process()
    return threading.active_count(), process.num_fds()


def settled(base, limit_s=15.0):
    deadline_s = time.monotonic() + limit_s
    while any(now > before + 1 for now, before in zip(held(), base, strict=True)) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    return held()


def test_floods_and_aborted_transfers_leave_nothing(opened, request, tmp_path):
    rounds = 10_000 if request.config.getoption("--soak") else 60
    source = opened(handshake_s=0.5, silence_s=1.0)
    request_bytes = associate_request()
    assert send(source.port, dx()) == [0]
    assert isinstance(read_all(source, quiet_s=0.4)[0], ScanStart)
    base = held()
    for number in range(rounds):
        with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", source.port), 5) as peer:
            kind = number % 4
            if kind == 0:  # nothing at all
                continue
            if kind == 1:  # half a request
                peer.sendall(request_bytes[:40])
                continue
            if kind == 2:  # a length that nobody has room for
                peer.sendall(struct.pack(">BBL", 4, 0, 0xFFFF_FFF0) + bytes(100))
                continue
            peer.sendall(request_bytes)  # an association, a transfer that breaks off
            peer.settimeout(5)
            if peer.recv(65_536)[:1] == b"\2":
                peer.sendall(struct.pack(">BBLLBB", 4, 0, 5000, 4996, 1, 0) + bytes(100))
        if number % 200 == 199:
            settled(base)
    after = settled(base)
    assert all(now <= before + 1 for now, before in zip(after, base, strict=True)), (base, after)
    assert send(source.port, dx(picture(5))) == [0], "the next honest sender is served"
    assert len(list((tmp_path / "spool").glob("*"))) == 4, "two images, done, quarantine: no half file"


def test_more_than_is_taken_is_cut_off(opened):
    source = opened(max_object_mb=1)
    assert send(source.port, dx(np.random.default_rng(1).integers(0, 60_000, (1000, 1000), dtype=np.uint16))) == [None]
    assert read_all(source, quiet_s=0.3) == []
    assert send(source.port, dx()) == [0]


def test_many_senders_at_once_are_all_served(opened):
    source = opened(associations=20, study_wait_s=0.0)
    told = []
    senders = [
        threading.Thread(target=lambda n=n: told.append(send(source.port, dx(picture(n, columns=100, rows=60)))))
        for n in range(8)
    ]
    for thread in senders:
        thread.start()
    for thread in senders:
        thread.join(20)
    assert told == [[0]] * 8
    assert sum(isinstance(e, ScanStart) for e in read_all(source, quiet_s=0.8)) == 8


def test_big_endian_and_implicit_of_our_own(opened):
    source = opened(study_wait_s=0.0)
    for syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian):
        values = picture(3)
        stored = values.byteswap() if syntax == ExplicitVRBigEndian else values
        d = dx(values, syntax=syntax, PixelData=stored.tobytes())
        file = io.BytesIO()
        d.save_as(file, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
        assert send(source.port, d) == [0]
        assert np.array_equal(image_of(read_all(source, quiet_s=0.3)), values)


def test_the_folder_is_taken_away(opened, tmp_path):
    source = opened()
    shutil.rmtree(tmp_path / "spool")
    assert send(source.port, dx()) == [0xA700]
