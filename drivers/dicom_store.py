"""A DICOM Storage SCP: scanners and viewers send their images, and each study becomes one passage or several.

An object that is received is on the disk, in `spool_dir`, before its sender is told "success"; what cannot be written
is refused with "out of resources", and the sender keeps it. It stays there until its scan is stored, and is offered
again after a crash. Pixels are decoded in the sandbox. Objects of one study that come within `study_wait_s` of each
other are one passage: two images of different energy become one radiograph, a DICOS threat report goes to the image
beside it as the vendor's own detections.

pynetdicom serves every association in a thread of its own and limits neither the length of what a peer announces nor of
what it sends, and greets TLS peers one after the other: all that is done here, at the socket.

Needs the extra `dicom`. Source: DICOM PS3.4 annex B (storage), A.5 (verification), PS3.7 annex C (status), PS3.8.
"""

from __future__ import annotations

import contextlib
import hashlib
import queue
import socket
import ssl
import threading
import time
from collections import deque
from pathlib import Path
from socketserver import BaseServer
from typing import Annotated, Any, Literal

import msgspec
from pydicom.uid import AllTransferSyntaxes
from pynetdicom import AE, evt
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    Verification,
    register_uid,
    uid_to_service_class,
)
from pynetdicom.transport import ThreadedAssociationServer

from scanner_io import disk
from scanner_io.capture import Tap, no_tap
from scanner_io.channel import Channel
from scanner_io.errors import ConfigError, DataError, LinkLost, StorageError
from scanner_io.foreign import DICOM, ForeignFiles
from scanner_io.formats.dicom_object import STORED, DicomObject
from scanner_io.formats.dicom_study import DicomPassage, passages
from scanner_io.formats.passage_files import passage_flags
from scanner_io.formats.raster import RasterOptions
from scanner_io.model import (
    DeviceInfo,
    Event,
    Health,
    Kind,
    LineBlock,
    Quality,
    Rejected,
    ScanEnd,
    ScanStart,
)
from scanner_io.storage import make_folder, move_aside, write_durable
from scanner_io.vendor_record import Sidecar

BLOCK_COLUMNS = 256
PDU_BYTES = 256 << 10
"""Longest protocol unit that peers are asked for; they are refused at four times of it."""
MOST_STUDIES = 8
"""Studies held decoded; the oldest is given when one more begins."""
MOST_BYTES = 1 << 30
"""Of pixels held decoded, in all studies; when there are more the oldest study is given, in parts if it must be."""
MOST_WAITS = 30
"""A study is given at the latest after so many times `study_wait_s`, however steadily more of it comes."""
CLOSE_S = 1.5
_SUCCESS, _NO_ROOM = 0x0000, 0xA700

Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]


class Tls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Files (PEM). ca : of those who may connect; every peer must show a certificate that it has signed."""

    certificate: str
    key: str
    ca: str


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where to listen, for whom, and how images are read.

    host, port : of this machine alone unless another address is given, which without `tls` anybody can send to
    ae_title : of this application; peers : titles that may call, none: any; they are names, not proof
    spool_dir : folder for what was received and is not stored yet; done and quarantine lie in it
    sop_classes : further classes (UIDs) that are taken, beside DX, CR, CT, secondary capture and DICOS
    study_wait_s : a study of which nothing has come for so long is taken as it is; what comes later, or does not fit
        into memory beside the rest of it, is a passage of its own
    keep_done : received files are kept in `done`; else they are removed once their scan is stored
    associations : at once; handshake_s : within this a connection must ask for an association; silence_s : likewise
        the next word of one
    max_object_mb : longest object taken
    utc_offset_h : hours by which times without a zone are ahead of UTC; without it the time of receipt is taken
    """

    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)]
    spool_dir: str
    host: str = "127.0.0.1"
    ae_title: Annotated[str, msgspec.Meta(min_length=1, max_length=16)] = "SCANLANE"
    peers: tuple[str, ...] = ()
    tls: Tls | None = None
    sop_classes: tuple[str, ...] = ()
    study_wait_s: Seconds = 2.0
    keep_done: bool = True
    associations: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 10
    handshake_s: Annotated[float, msgspec.Meta(gt=0, le=600)] = 10.0
    silence_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 60.0
    max_object_mb: Annotated[int, msgspec.Meta(ge=1, le=2048)] = 512
    utc_offset_h: Annotated[float, msgspec.Meta(ge=-24, le=24)] | None = None
    vendor: str = "unknown"
    sandbox: Literal["auto", "require"] = "auto"
    raster: RasterOptions = RasterOptions()

    def __post_init__(self) -> None:
        """Check what one field cannot tell alone. Raises ValueError."""
        if not self.spool_dir:
            raise ValueError("spool_dir: empty, expected a folder")


def kinds(config: Config) -> tuple[Kind, ...]:
    """Return what this driver gives."""
    return ("radiograph",)


def connect(config: Config, channel: Channel | None = None) -> DicomStore:
    """Return the driver, not opened. It has no channel."""
    return DicomStore(config)


class _Study(msgspec.Struct):
    """Objects of one study, until when more are waited for, and until when at the latest."""

    due_s: float
    latest_s: float = 0.0
    size: int = 0
    """Bytes of pixels."""
    objects: dict[str, DicomObject] = {}
    errors: dict[str, str] = {}


class _Guarded:
    """A connection whose peer may neither announce nor send more than is taken: `recv` in the place of pynetdicom's."""

    def __init__(self, connection: Any, limit: int) -> None:
        self._recv, self._limit = connection.recv, limit
        self.received = 0

    def recv(self, nr_bytes: int) -> Any:
        """Return so many bytes. Raises OSError, upon which the connection is closed."""
        self.received += nr_bytes
        if nr_bytes > 4 * PDU_BYTES or self.received > self._limit:
            raise OSError(f"{nr_bytes} bytes announced, {self.received} in all: more than is taken")
        return self._recv(nr_bytes)


class _Server(ThreadedAssociationServer):
    """Accepts connections; each is greeted in its own thread, so that one that is silent holds up nobody."""

    daemon_threads = True
    tls: ssl.SSLContext | None = None
    greet_s = 10.0
    most = 40

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.greeted: set[socket.socket] = set()
        super().__init__(*args, **kwargs)

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Return a connection. Raises OSError where there are too many, which the server passes over."""
        assert self.socket is not None
        connection, address = self.socket.accept()
        if len(self.greeted) + len(self.active_associations) >= self.most:
            connection.close()
            raise OSError("too many connections")
        self.greeted.add(connection)
        return connection, address

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Greet a peer and begin its association, or close its connection."""
        made = request
        try:
            if self.tls is not None:
                request.settimeout(self.greet_s)
                made = self.tls.wrap_socket(request, server_side=True)
            made.settimeout(self.ae.network_timeout)
            self.finish_request(made, client_address)
        except (OSError, ValueError):  # a stranger, or one that has gone
            made.close()
            request.close()
        finally:
            self.greeted.discard(request)

    def shutdown(self) -> None:
        """Stop accepting, and cut those that are being greeted."""
        BaseServer.shutdown(self)
        self.server_close()
        for connection in list(self.greeted):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class DicomStore:
    """The driver of a Storage SCP."""

    pausable = True

    def __init__(self, config: Config) -> None:
        self._config = config
        self.tap: Tap = no_tap
        self._spool = Path(config.spool_dir)
        self._done, self._quarantine = self._spool / "done", self._spool / "quarantine"
        self._arrived: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._open = False
        self._server: _Server | None = None
        self._acceptor = threading.Thread()
        self._connections: dict[Any, _Guarded] = {}
        self._storing = threading.Lock()
        self._readers: ForeignFiles | None = None
        self._studies: dict[str, _Study] = {}
        self._ready: deque[Event] = deque()
        self._offered: dict[str, dict[str, str]] = {}
        self._current = ""

    # ----------------------------------------------------------------------------------------------------------
    # The driver's contract

    def open(self) -> DeviceInfo:
        """Make the spool, begin to listen, and queue what was received before.

        Raises LinkLost if the port or the folder cannot be used, ConfigError for certificates that cannot.
        """
        self.close()
        config = self._config
        context = None if config.tls is None else _tls(config.tls)
        try:
            for folder in (self._spool, self._done, self._quarantine):
                make_folder(folder)
            waiting = sorted(p.name for p in self._spool.glob("*.dcm"))
        except OSError as error:
            raise LinkLost(f"dicom_store: spool_dir {self._spool} cannot be used ({error})") from error
        self._arrived = queue.SimpleQueue()
        self._abandon()
        taken = {name for files in self._offered.values() for name in files}
        for name in waiting:
            if name not in taken:
                self._arrived.put(name)
        self._readers = ForeignFiles(require=config.sandbox == "require")
        if config.sandbox == "require":
            self._readers.confinement(DICOM)
        ae = _application(config)
        handlers: list[Any] = [
            (evt.EVT_C_STORE, self._store), (evt.EVT_CONN_OPEN, self._connected), (evt.EVT_CONN_CLOSE, self._parted),
        ]  # fmt: skip
        try:
            server: Any = ae.make_server((config.host, config.port), evt_handlers=handlers, server_class=_Server)
        except OSError as error:
            raise LinkLost(
                f"dicom_store {config.host}:{config.port}: cannot listen ({error}); is another program on this port?"
            ) from error
        server.tls, server.greet_s, server.most = context, config.handshake_s, 4 * config.associations
        self._acceptor = threading.Thread(target=server.serve_forever, args=(0.1,), name="dicom_store", daemon=True)
        self._acceptor.start()
        self._server, self._open = server, True
        return DeviceInfo(
            vendor=config.vendor, model="DICOM storage", kinds=kinds(config),
            address=f"{config.ae_title}@{config.host}:{config.port}", note="TLS" if config.tls else "not encrypted",
        )  # fmt: skip

    def read(self, timeout_s: float) -> Event | None:
        """Return the next event. Raises LinkLost when not open."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            if not self._open:
                raise LinkLost(f"dicom_store {self._config.host}:{self._config.port}: not open")
            if self._ready:
                return self._next()
            now_s = time.monotonic()
            due = min(self._studies.items(), key=lambda item: item[1].due_s, default=None)
            many = len(self._studies) > MOST_STUDIES or sum(s.size for s in self._studies.values()) > MOST_BYTES
            if due is not None and (due[1].due_s <= now_s or many):
                self._give(self._studies.pop(due[0]))
                continue
            until_s = deadline_s if due is None else min(deadline_s, due[1].due_s)
            try:
                name = self._arrived.get(timeout=max(0.0, until_s - now_s))
            except queue.Empty:
                if time.monotonic() >= deadline_s:
                    return None
                continue
            if name is not None:
                self._look_at(name)

    def _next(self) -> Event:
        event = self._ready.popleft()
        if isinstance(event, ScanEnd | Rejected) and event.source_ref == self._current:
            self._current = ""
        elif isinstance(event, ScanStart):
            self._current = event.source_ref
        return event

    def acknowledge(self, source_ref: str) -> None:
        """Put the files of a scan away; a name that is not known, or not fully read yet, does nothing."""
        if source_ref == self._current:
            return
        for name, reason in self._offered.pop(source_ref, {}).items():
            self._put_away(name, reason)

    def close(self) -> None:
        """Stop listening and part with all peers. May be called by any thread, any time, twice."""
        self._open = False
        self._arrived.put(None)
        server, self._server = self._server, None
        if server is not None:
            deadline_s = time.monotonic() + CLOSE_S
            server.shutdown()
            self._acceptor.join()
            for association in [*server.active_associations, *self._connections]:
                _hang_up(association)
            for association in server.active_associations:
                association.join(max(0.0, deadline_s - time.monotonic()))
            self._connections.clear()
        if self._readers is not None:
            self._readers.close()

    def _abandon(self) -> None:
        """Forget what was not handed out whole: it lies in the spool and is offered again."""
        self._offered.pop(self._current, None)
        handed = {e.source_ref for e in self._ready if isinstance(e, ScanStart | Rejected)}
        for ref in handed:
            self._offered.pop(ref, None)
        self._current = ""
        self._ready.clear()
        self._studies.clear()

    # ----------------------------------------------------------------------------------------------------------
    # In the threads of associations

    def _connected(self, event: evt.Event) -> None:
        connection: Any = event.assoc.dul.socket
        guard = _Guarded(connection, self._config.max_object_mb << 20)
        connection.recv = guard.recv
        self._connections[event.assoc] = guard

    def _parted(self, event: evt.Event) -> None:
        self._connections.pop(event.assoc, None)

    def _store(self, event: evt.Event) -> int:
        """Write a received object to the spool; its sender may forget it only then."""
        guard = self._connections.get(event.assoc)
        if guard is not None:
            guard.received = 0
        contents = event.encoded_dataset()
        name = f"{hashlib.sha256(contents).hexdigest()[:32]}.dcm"
        with self._storing:
            if any((folder / name).exists() for folder in (self._spool, self._done, self._quarantine)):
                return _SUCCESS  # sent again, because the sender did not hear of our success
            try:
                write_durable(self._spool / name, contents)
            except StorageError:
                return _NO_ROOM
        self.tap("object", self._config.ae_title, contents)
        self._arrived.put(name)
        return _SUCCESS

    # ----------------------------------------------------------------------------------------------------------
    # In the thread that reads

    def _look_at(self, name: str) -> None:
        """Decode a received object and put it to its study."""
        assert self._readers is not None
        now_s, wait_s = time.monotonic(), self._config.study_wait_s
        try:
            path = self._spool / name
            received_utc_ns, contents = path.stat().st_mtime_ns, path.read_bytes()
            found = self._readers.dicom(
                contents, name=name, received_utc_ns=received_utc_ns, options=self._config.raster,
                utc_offset_h=self._config.utc_offset_h,
            )  # fmt: skip
        except DataError as error:
            self._studies[f"\0{name}"] = _Study(due_s=0.0, errors={name: str(error)})
            return
        except OSError as error:
            self._studies[f"\0{name}"] = _Study(due_s=0.0, errors={name: f"{name}: cannot be read ({error})"})
            return
        begun = _Study(due_s=now_s, latest_s=now_s + MOST_WAITS * wait_s)
        study = self._studies.setdefault(found.study or found.instance, begun)
        study.due_s = min(now_s + wait_s, study.latest_s)
        study.objects[name] = found
        if found.radiograph is not None:
            study.size += sum(c.nbytes for c in found.radiograph.counts)

    def _give(self, study: _Study) -> None:
        """Make the events of a study."""
        for name, reason in study.errors.items():
            self._reject({name: reason}, reason, self._received_utc_ns(name), None)
        images = {n: o for n, o in study.objects.items() if o.radiograph is not None}
        reports = {n: o for n, o in study.objects.items() if o.radiograph is None}
        if not images:
            for name, report in reports.items():
                words = "; ".join(report.sidecar.suspicions) or "a threat report that is clear"
                reason = f"{words}: of study {report.study}, but no image of it came with it"
                self._reject({name: ""}, reason, report.start_utc_ns, report.sidecar)
            return
        for passage in passages(images, reports):
            self._give_passage(passage)

    def _give_passage(self, passage: DicomPassage) -> None:
        shown, radiograph = passage.shown, passage.radiograph
        ref = f"{shown.instance}@{shown.sha256[:16]}"
        times = radiograph.column_utc_ns
        self._ready.append(
            ScanStart(
                source_ref=ref,
                utc_ns=int(times[0]),
                detector=radiograph.detector,
                source=passage.name,
                source_sha256=shown.sha256,
                quality=passage.quality,
                sidecar=passage.sidecar,
            )
        )
        for first in range(0, radiograph.columns, BLOCK_COLUMNS):
            part = slice(first, first + BLOCK_COLUMNS)
            counts = tuple(c[part] for c in radiograph.counts)
            self._ready.append(LineBlock(source_ref=ref, first_column=first, counts=counts, column_utc_ns=times[part]))
        self._ready.append(ScanEnd(source_ref=ref, utc_ns=int(times[-1])))
        self._offered[ref] = dict.fromkeys(passage.files, "")

    def _reject(self, files: dict[str, str], reason: str, utc_ns: int, told: Sidecar | None) -> None:
        name = next(iter(files))
        ref = f"{name}@rejected"
        flags: tuple[Quality, ...] = () if told is None else passage_flags(told, ())
        self._ready.append(
            Rejected(source_ref=ref, utc_ns=utc_ns, reason=reason, source=name, sidecar=told, quality=flags)
        )
        self._offered[ref] = files

    def _received_utc_ns(self, name: str) -> int:
        try:
            return (self._spool / name).stat().st_mtime_ns
        except OSError:
            return time.time_ns()

    def _put_away(self, name: str, reason: str) -> None:
        try:
            if reason:
                move_aside(self._spool / name, self._quarantine, reason)
            elif self._config.keep_done:
                disk.io().rename(self._spool / name, self._done / name)
            else:
                disk.io().unlink(self._spool / name)
        except (
            OSError,
            StorageError,
        ) as error:  # it is offered again after the next start, and known by its scan's name then
            text = f"{name}: stored, but cannot be put away ({error})"
            self._ready.append(Health(utc_ns=time.time_ns(), component="dicom_store", state="degraded", text=text))


def _application(config: Config) -> AE:
    ae = AE(ae_title=config.ae_title)
    ae.maximum_associations = config.associations
    ae.maximum_pdu_size = PDU_BYTES
    ae.acse_timeout = config.handshake_s
    ae.network_timeout = ae.dimse_timeout = config.silence_s
    if config.peers:
        ae.require_calling_aet = list(config.peers)
        ae.require_called_aet = True
    ae.add_supported_context(Verification)
    for uid in (*STORED.values(), *config.sop_classes):
        if not issubclass(uid_to_service_class(uid), StorageServiceClass):
            register_uid(uid, f"Stored_{uid.replace('.', '_')}", StorageServiceClass)
        ae.add_supported_context(uid, list(AllTransferSyntaxes))
    return ae


def _tls(files: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(files.certificate, files.key)
        context.load_verify_locations(files.ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError([f"dicom_store tls: {files.certificate}, {files.key}, {files.ca}: {error}"]) from error
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _hang_up(association: Any) -> None:
    """Cut a connection; the threads of its association then end by themselves."""
    connection = association.dul.socket
    raw = None if connection is None else connection.socket
    if raw is not None:
        with contextlib.suppress(OSError):
            raw.shutdown(socket.SHUT_RDWR)
