"""A hub's side of its lanes: takes what their services offer, and brings them what its analysts decide.

The hub is an analyst at every lane's service, by the protocol that analysts speak: the lane leases a scan to it, the
hub fetches it, and tells the lane that it has it only once the recording is on its disk and its row is committed. From
then on its own analysts work with it. The lane's lease is renewed as long as the hub lives, and ends by the hub's
decision. So nothing has to be remembered here: a hub that is killed loses its leases, the lanes offer the same scans
again, to it or to the other one, and what is decided already is answered at once.

    the lane offers a scan that ...      the hub
    is not known                         fetches it, writes it, commits its row, says `received`
    is known, recording at hand          says `received`
    is known, recording elsewhere        fetches it again: the row is this hub's from then on
    is decided                           brings the decision
    has another hash than the one known  takes nothing, and says so: two recordings have one name

Of hubs with one database that cannot read each other's recordings, each offers only what it has itself. One at which
no analyst is takes nothing then, and gives back what it has: where the analysts are, everything is.

Threads: one per lane, which waits for that lane and for the disk; all that knows the outbox is in `step`, called by the
daemon's loop, which `wake` makes turn.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from scanner_io import recording, security, wire
from scanner_io.client import Workstation
from scanner_io.config import Hub, HubLane
from scanner_io.errors import ConfigError, DeliveryError, StorageError
from scanner_io.model import Decision
from scanner_io.storage import make_folder, write_durable

from .keeping import Kept, seen_at_once, seen_by_hash
from .outbox import Item, Outbox, ScanRow
from .sparing import one_line

AT_ONCE = 4
"""Recordings that are fetched at one time, of all lanes together: each is in memory whole."""
TURN_S = 0.1
AGAIN_S = 5.0
"""After so long what went wrong is tried again."""
OWED_S, OWED_TRIES = 10.0, 5
"""A decision on a scan that its lane has taken back is brought when the lane has not offered it again for so long."""
MOST_ENDED = 10_000
EVENTS_BACK = 20_000
"""At the start, so far back in the audit decisions are looked for that were not brought before the hub ended."""
OLD_LANE_S = 60.0
NOBODY_S = 5.0
"""After so long without an analyst a hub that has to stands aside."""
FETCH_S = 120.0
END_S = 2.0
"""A lane's thread that is in the middle of something has so long to end by itself; then its link is cut."""
NO_LEASE = "0" * 32
_LANE = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}\Z")
_SCAN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}\Z")


class Answer(NamedTuple):
    """A decision on its way back to a lane."""

    offer: wire.Offer
    decision: Decision
    statement: bytes
    signature: bytes


class News(NamedTuple):
    """What a lane's thread has to tell. kind : offered, written, failed, answered, unanswered, revoked, alarm, link"""

    kind: str
    feed: Feed
    offer: wire.Offer | None = None
    told: object = None


class Feed(threading.Thread):
    """One lane's service: does what it is told about offers, one after the other."""

    def __init__(
        self, lane: HubLane, hub: Hub, recordings: Path, news: Callable[[News], None], room: threading.Semaphore
    ) -> None:  # fmt: skip
        super().__init__(name=f"from {lane.name}", daemon=True)
        self.lane = lane
        self.down = "not linked yet"
        """Why nothing comes from there, empty while it does."""
        self.open = threading.Event()
        """There is room on the disk."""
        self.aside = threading.Event()
        """Nothing is to be taken from this lane, for the other hub has it."""
        self._hub, self._recordings, self._news, self._room = hub, recordings, news, room
        self._todo: queue.SimpleQueue[tuple[Callable[..., None], tuple[object, ...]]] = queue.SimpleQueue()
        self._ending = threading.Event()
        self._desk: Workstation | None = None

    def run(self) -> None:
        """Stay linked; a lane that is too old for hubs is asked again now and then."""
        while not self._ending.is_set():
            try:
                keys = identity(self._hub, self.lane)
                with Workstation(
                    self.lane.address, self._hub.name, capacity=self._at_once(), identity=keys, hub=True
                ) as desk:  # fmt: skip
                    self._desk = desk
                    while not self._ending.is_set() and not self._too_old(desk):
                        self._turn(desk)
            except ConfigError as error:  # the keys were changed since the start
                self.down = one_line(str(error))
            if not self._ending.is_set():
                self._tell()
                self._ending.wait(OLD_LANE_S)

    def close(self) -> None:
        """End it; what it has on lease goes back."""
        self._ending.set()

    def cut(self) -> None:
        """End what it is waiting for, too."""
        if self._desk is not None:
            self._desk.close()

    # -- told by `FromLanes`, in any thread ---------------------------------------------------------------------------

    def fetch(self, offer: wire.Offer) -> None:
        """Fetch and write the recording: news `written` or `failed`."""
        self._todo.put((self._fetch, (offer,)))

    def has(self, offer: wire.Offer) -> None:
        """Tell the lane that the recording is here for good."""
        self._todo.put((self._has, (offer,)))

    def answer(self, answer: Answer) -> None:
        """Bring the decision: news `answered` or `unanswered`."""
        self._todo.put((self._answer, (answer,)))

    def give_back(self, offer: wire.Offer) -> None:
        """Let the lane offer the scan to the other hub."""
        self._todo.put((self._give_back, (offer,)))

    # -- its own thread -----------------------------------------------------------------------------------------------

    def _turn(self, desk: Workstation) -> None:
        desk.acted()  # whether anybody sits at the hub is the hub's to watch
        at_once = self._at_once()
        if desk.capacity != at_once:
            desk.take(at_once)
        self._look(desk)
        try:
            do, what = self._todo.get_nowait()
        except queue.Empty:
            offer = desk.next_offer(TURN_S)
            if offer is not None:
                self._news(News("offered", self, offer))
            return
        do(desk, *what)

    def _look(self, desk: Workstation) -> None:
        """Hear alarms and leases that have ended, and see whether there is a link."""
        with contextlib.suppress(IndexError):
            while True:
                self._news(News("alarm", self, None, desk.alarms.popleft()))
        with contextlib.suppress(IndexError):
            while True:
                self._news(News("revoked", self, None, desk.revoked.popleft().lease_id))
        try:
            linked = desk.connected(0.0)
            down = "" if linked else f"no answer from {self.lane.address}"
        except DeliveryError as error:
            down = one_line(str(error))
        if down != self.down:
            self.down = down
            self._tell()

    def _at_once(self) -> int:
        return 0 if self.aside.is_set() else self.lane.at_once

    def _too_old(self, desk: Workstation) -> bool:
        if not 0 <= desk.minor < wire.MINOR_HUB:
            return False
        self.down = f"{self.lane.address} speaks minor {desk.minor}, {wire.MINOR_HUB} is needed for a hub; upgrade it"
        return True

    def _tell(self) -> None:
        self._news(News("link", self, None, self.down))

    def _fetch(self, desk: Workstation, offer: wire.Offer) -> None:
        if not self.open.is_set():  # the lane keeps it until there is room
            self.fetch(offer)
            desk.acted()
            self._ending.wait(TURN_S)
            return
        path = place(self._recordings, offer)
        try:
            with self._room:
                data = desk.fetch(offer, FETCH_S, receipt=False)
                make_folder(path.parent, 0o750)
                write_durable(path, data, replace=True)
        except (DeliveryError, StorageError, OSError) as error:
            self._news(News("failed", self, offer, one_line(str(error))))
            desk.release(offer)
            return
        self._news(News("written", self, offer, path))

    def _give_back(self, desk: Workstation, offer: wire.Offer) -> None:
        desk.release(offer)

    def _has(self, desk: Workstation, offer: wire.Offer) -> None:
        desk.has(offer)

    def _answer(self, desk: Workstation, answer: Answer) -> None:
        try:
            decided = desk.relay(answer.offer, answer.decision, answer.statement, answer.signature)
        except DeliveryError as error:
            self._news(News("unanswered", self, answer.offer, one_line(str(error))))
            return
        self._news(News("answered", self, answer.offer, decided))


class FromLanes:
    """All lanes of a hub. For the daemon's loop alone."""

    def __init__(
        self, hub: Hub, recordings: Path, outbox: Outbox, log: Callable[..., None],
        tell: Callable[[wire.Alarm], None], taken: Callable[[ScanRow], None],
    ) -> None:  # fmt: skip
        """Begin to link. tell : spreads an alarm; taken : hears of every scan that is new here"""
        self._outbox, self._log, self._tell_alarm, self._taken = outbox, log, tell, taken
        self._recordings = recordings
        self._came: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._later: list[tuple[float, News]] = []
        self._open: dict[str, tuple[Feed, wire.Offer]] = {}
        """What the lanes have leased to this hub and no decision was taken for: by scan."""
        self._ended: dict[str, tuple[Feed, wire.Offer]] = {}
        """What they had leased and took back before a decision was taken here: by scan."""
        self._owed: dict[str, tuple[float, int]] = {}
        """Scans decided here that no lane has on lease to this hub: when to bring it, and how often that was tried."""
        self._answering: set[str] = set()
        """Leases for which a decision is on its way."""
        self._attended_s = -NOBODY_S
        self._seq = outbox.audit_head()[0]
        self._owed |= dict.fromkeys(outbox.not_brought(EVENTS_BACK), (time.monotonic() + OWED_S, 0))
        self.wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """Descriptor that can be read as soon as `step` has something to do."""
        self._waking = threading.Lock()
        room = threading.Semaphore(AT_ONCE)
        self._feeds = [Feed(lane, hub, recordings, self._hear, room) for lane in hub.lane]
        self._stand_aside(attended=False)
        for feed in self._feeds:
            feed.start()

    def close(self) -> None:
        """End every link."""
        for feed in self._feeds:
            feed.close()
        until_s = time.monotonic() + END_S
        for feed in self._feeds:
            feed.join(max(0.0, until_s - time.monotonic()))
        slow = [feed for feed in self._feeds if feed.is_alive()]
        for feed in slow:
            feed.cut()
        for feed in slow:
            feed.join(END_S)
        with self._waking:
            os.close(self.wake)
            self.wake = -1

    def admit(self, *, is_open: bool) -> None:
        """Let recordings come in, or leave them with the lanes while the disk is full."""
        for feed in self._feeds:
            (feed.open.set if is_open else feed.open.clear)()

    def down(self) -> dict[str, str]:
        """Return of every lane why nothing comes from it, empty if it does."""
        return {f.lane.name: f.down if f.is_alive() else "its thread has ended: restart the hub" for f in self._feeds}

    def _hear(self, news: News) -> None:
        self._came.put(news)
        with self._waking:
            if self.wake >= 0:
                os.eventfd_write(self.wake, 1)

    def step(self, *, attended: bool) -> None:
        """Do what has come up. Raises StorageError after which all that is not done is done at a later turn.

        attended : there is an analyst at this hub
        """
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.wake)
        now_s = time.monotonic()
        waiting, self._later = self._later, []
        for due_s, news in waiting:
            if due_s <= now_s:
                self._came.put(news)
            else:
                self._later.append((due_s, news))
        for _ in range(self._came.qsize()):
            news = self._came.get()
            try:
                self._take(news)
            except StorageError:
                self._later.append((now_s + 1.0, news))
                raise
        self._stand_aside(attended=attended)
        seq, decided = self._outbox.decided_since(self._seq)
        for scan_id in decided:
            if scan_id in self._open:
                self._bring(*self._open[scan_id])
            else:
                self._owed[scan_id] = now_s + OWED_S, 0
        self._seq = seq
        for scan_id in [s for s, (due_s, _) in self._owed.items() if due_s <= now_s]:
            self._bring_late(scan_id, now_s)

    def _stand_aside(self, *, attended: bool) -> None:
        """Leave the lanes to the other hub while nobody is here, if they must be."""
        now_s = time.monotonic()
        if attended or self._outbox.serves_all:
            self._attended_s = now_s
        aside = now_s - self._attended_s >= NOBODY_S
        for feed in self._feeds:
            (feed.aside.set if aside else feed.aside.clear)()
        if aside:
            for feed, offer in self._open.values():
                if offer.lease_id not in self._answering:
                    feed.give_back(offer)
            back = {s: one for s, one in self._open.items() if one[1].lease_id not in self._answering}
            self._has_ended(back)
            self._open = {s: one for s, one in self._open.items() if s not in back}

    def _take(self, news: News) -> None:
        feed, offer = news.feed, news.offer
        lane = feed.lane.name
        match news.kind:
            case "link":
                up = not news.told
                self._log("link" if up else "no_link", level="info" if up else "warning", lane=lane, text=news.told)
                self._outbox.note("link_back" if up else "link_lost", str(news.told), who=lane)
            case "alarm":
                alarm = news.told
                assert isinstance(alarm, wire.Alarm)
                alarm = msgspec.structs.replace(alarm, kind=f"{lane} {alarm.kind}", text=f"{lane}: {alarm.text}")
                self._tell_alarm(alarm)
            case "revoked":
                self._has_ended({s: one for s, one in self._open.items() if one[1].lease_id == news.told})
                for scan_id in [s for s, (_, o) in self._open.items() if o.lease_id == news.told]:
                    del self._open[scan_id]
            case "failed":
                assert offer is not None
                self._open.pop(offer.scan_id, None)
                self._log("not_taken", level="error", lane=lane, scan=offer.scan_id, text=news.told)
            case "offered":
                assert offer is not None
                self._offered(feed, offer)
            case "written":
                assert offer is not None and isinstance(news.told, Path)
                self._written(feed, offer, news.told)
            case "answered":
                assert offer is not None and isinstance(news.told, wire.Decided)
                self._answered(feed, offer, news.told)
            case "unanswered":
                assert offer is not None
                self._answering.discard(offer.lease_id)
                self._log("decision_not_brought", level="warning", lane=lane, scan=offer.scan_id, text=news.told)
                if offer == self._open.get(offer.scan_id, (feed, None))[1]:  # else the lane offers it under a new lease
                    self._later.append((time.monotonic() + AGAIN_S, News("offered", feed, offer)))

    def _has_ended(self, leases: dict[str, tuple[Feed, wire.Offer]]) -> None:
        self._ended |= leases
        while len(self._ended) > MOST_ENDED:
            del self._ended[next(iter(self._ended))]

    def _bring_late(self, scan_id: str, now_s: float) -> None:
        """Bring a decision although the lane has taken the scan back: it keeps it, and says whether it counts.

        Its lane may have decided meanwhile; then it is told here and there that two decisions stand against each other.
        """
        _, tries = self._owed.pop(scan_id)
        item, found = self._known(scan_id), self._outbox.in_force(scan_id)
        if item is None or found is None or scan_id in self._open or not self._outbox.leased_here(scan_id):
            return
        feed, offer = self._ended.get(scan_id, (None, _unleased(item)))
        to = [f for f in self._feeds if not f.down and feed in (None, f)]
        if tries >= OWED_TRIES:
            self._not_applied(item.row.lane, scan_id, "it could not be brought there")
            return
        self._owed[scan_id] = now_s + OWED_S, tries + bool(to)
        for one in to:
            one.answer(Answer(offer, *found))

    def _not_applied(self, lane: str, scan_id: str, reason: str) -> None:
        """Tell everybody that a decision of this hub does not count at the lane."""
        self._log("decision_not_applied_there", level="warning", lane=lane, scan=scan_id, text=reason)
        self._outbox.note("decision_not_applied_there", reason, scan_id, lane)
        text = f"the decision made here on scan {scan_id} does not count at lane {lane}: {reason}; settle it there"
        self._tell_alarm(wire.Alarm(kind="decision not applied", text=text, utc_ns=time.time_ns(), scan_id=scan_id))

    def _known(self, scan_id: str) -> Item | None:
        try:
            return self._outbox.item(scan_id)
        except DeliveryError:
            return None

    def _offered(self, feed: Feed, offer: wire.Offer) -> None:
        """Take a scan on, as far as that is still to be done."""
        times = offer.start_utc_ns, offer.size
        if not _LANE.match(offer.lane) or not _SCAN.match(offer.scan_id) or not all(0 <= n < 1 << 63 for n in times):
            text = one_line(
                f"offers scan {offer.scan_id!r} of lane {offer.lane!r}, begun at {times[0]} ns with {times[1]} bytes, "
                "which can be no names and numbers of files"
            )
            self._log("not_taken", level="error", lane=feed.lane.name, text=text)
            return
        known = self._known(offer.scan_id)
        if known is not None and known.row.sha256 != offer.sha256:
            text = f"its hash is {offer.sha256[:16]}…, that of the scan of this name here {known.row.sha256[:16]}…"
            self._log("not_taken", level="error", lane=feed.lane.name, scan=offer.scan_id, text=text)
            self._outbox.note("not_taken", text, offer.scan_id, feed.lane.name)
            return
        self._open[offer.scan_id] = feed, offer
        if known is not None and known.state == "decided":
            self._bring(feed, offer)
        elif known is not None and self._outbox.serves(known) and not seen_at_once(_kept(known)):
            if known.state == "filed":  # the lane has selected it since
                with self._outbox.store.transaction():
                    self._outbox.wake(offer.scan_id)
                    self._outbox.event("selected", offer.scan_id, feed.lane.name, "the lane offers it")
            feed.has(offer)
        elif known is None and (path := place(self._recordings, offer)).exists() and _is(path, offer):
            self._written(feed, offer, path)  # a hub was killed before it could commit the row
        else:
            feed.fetch(offer)

    def _written(self, feed: Feed, offer: wire.Offer, path: Path) -> None:
        """Commit the row of a recording that is on the disk; only then the lane hears that it is here."""
        row = ScanRow(
            scan_id=offer.scan_id, lane=offer.lane, path=str(path), sha256=offer.sha256, size=offer.size,
            start_utc_ns=offer.start_utc_ns, simulated=offer.simulated, result=offer.result,
            declaration=offer.declaration,
        )  # fmt: skip
        if self._outbox.add(row, asked=True):  # a lane offers what somebody is to look at, also if it is CLEAR
            self._taken(row)
            self._log("scan", lane=row.lane, scan=row.scan_id, outcome=row.result.outcome, simulated=row.simulated)
        else:
            self._outbox.take_over(row.scan_id)
            self._log("scan_again", lane=row.lane, scan=row.scan_id)
        feed.has(offer)

    def _bring(self, feed: Feed, offer: wire.Offer) -> None:
        """Bring a decision to the lane that has the scan."""
        self._owed.pop(offer.scan_id, None)
        found = self._outbox.in_force(offer.scan_id)
        if found is not None and offer.lease_id not in self._answering:
            self._answering.add(offer.lease_id)
            feed.answer(Answer(offer, *found))

    def _answered(self, feed: Feed, offer: wire.Offer, decided: wire.Decided) -> None:
        self._answering.discard(offer.lease_id)
        if self._open.get(offer.scan_id, (feed, offer))[1].lease_id == offer.lease_id:
            self._open.pop(offer.scan_id, None)
        self._owed.pop(offer.scan_id, None)
        self._ended.pop(offer.scan_id, None)
        if not decided.applied:
            self._not_applied(feed.lane.name, offer.scan_id, decided.reason)
            return
        self._log("decision_brought", lane=feed.lane.name, scan=offer.scan_id, text=decided.reason)
        self._outbox.note("decision_brought", decided.reason, offer.scan_id, feed.lane.name)


def _unleased(item: Item) -> wire.Offer:
    """Return a scan as its lane would offer it, under no lease: all that is left to name it by after a restart."""
    row = item.row
    return wire.Offer(
        scan_id=row.scan_id, lane=row.lane, sha256=row.sha256, size=row.size, start_utc_ns=row.start_utc_ns,
        simulated=row.simulated, result=row.result, declaration=row.declaration, lease_id=NO_LEASE, lease_s=0.0,
        attempt=0,
    )  # fmt: skip


def identity(hub: Hub, lane: HubLane) -> security.Identity | None:
    """Return the hub's keys as they are used with one lane's service. Raises ConfigError."""
    if hub.key is None or lane.service is None:
        return None
    service = security.load_public(Path(lane.service)).curve
    return msgspec.structs.replace(security.load_identity(Path(hub.key)), service=service)


def place(recordings: Path, offer: wire.Offer) -> Path:
    """Return where the recording of an offer is kept, as a lane keeps its own."""
    day = datetime.fromtimestamp(offer.start_utc_ns / 1e9, UTC).strftime("%Y%m%d")
    return recordings / offer.lane / day / f"{offer.scan_id}{recording.SUFFIX}"


def _kept(item: Item) -> Kept:
    row = item.row
    return Kept(scan_id=row.scan_id, path=row.path, sha256=row.sha256, size=row.size, state=item.state, damage="")


def _is(path: Path, offer: wire.Offer) -> bool:
    """Tell whether a file is the recording that is offered, by all of it."""
    one = Kept(scan_id=offer.scan_id, path=str(path), sha256=offer.sha256, size=offer.size, state="", damage="")
    return seen_by_hash(one, lambda _: True) == ""
