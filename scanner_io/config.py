"""One TOML file -> frozen structs, every problem reported at once.

Each problem names the file, the key path, the value seen and what is expected. A lane's device tables are checked
against the Config of the driver they name, by the same rules.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from . import driver, energy_calibration, lane_profile, security
from .errors import ConfigError
from .model import Kind


class Device(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One device of a lane: the driver's name and the driver's own Config.

    capture : folder for what the device sends, a file for every start of the lane; "" keeps nothing
    """

    driver: str
    config: Any
    capture: str = ""


class Lane(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One lane.

    join_window_s : a radiograph and a portal passage closer than this in time are of the same vehicle
    join_wait_s : how long a finished part waits for the others before the scan is judged without them
    passage_timeout_s : an open part without any event for so long ends as `timed_out`
    expected : kinds a complete passage has; default: what the lane's devices can give
    energy_calibration : TOML file with the lane's wedges, see scanner_io.energy_calibration; none: two energies are
        not read for materials and mass. Relative paths count from the configuration file
    profile : file of `scanlane calibrate` with what is usual on this lane; none: findings have no p-value
    risk : risk profile of `scanlane risk sign`, signed by two, as it is kept under its hash; none: no score is made
    """

    name: Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9_-]{0,31}$")]
    device: tuple[Device, ...]
    join_window_s: Annotated[float, msgspec.Meta(ge=0, le=600)] = 5.0
    join_wait_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 10.0
    passage_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 60.0
    expected: tuple[Kind, ...] | None = None
    energy_calibration: str | None = None
    profile: str | None = None
    risk: str | None = None


class Storage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where and how recordings are kept.

    min_free_mb : intake stops while less space than this is free on the recordings' disk, and goes on when a quarter
        more is; none: 2048, or 5 % of a smaller disk
    warn_free_mb : below this a warning is given; none: twice as much
    reserve_mb : room that is held back in a file, so that decisions can be written on a full disk; at most half of
        min_free_mb
    """

    codec: Literal["bitshuffle-lz4", "gzip", "none"] = "bitshuffle-lz4"
    min_free_mb: Annotated[int, msgspec.Meta(ge=0)] | None = None
    warn_free_mb: Annotated[int, msgspec.Meta(ge=0)] | None = None
    reserve_mb: Annotated[int, msgspec.Meta(ge=0)] = 64


class Dispatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How results go out to the workstations.

    bind : ZeroMQ address; of this machine alone unless there are keys
    keys : folder of `scanlane keys`: connections are encrypted, only the enrolled get in, decisions are signed; none:
        whoever can log in on this machine can be any analyst. Relative paths count from the configuration file
    lease_s : an offered scan belongs to one analyst for so long; renewed while they look at it
    idle_s : a scan goes back when the person who has it has done nothing at their workstation for so long, though the
        program renews it: a page may hang, and a chair may be empty
    heartbeat_s : a workstation silent for three of these is taken as gone and its leases go to others
    max_attempts : a scan offered so often without a decision is held, with an alarm
    escalate_s : a flagged scan that nobody has taken for so long is an alarm; so is every scan that is held, at once
    escalate_again_s : the alarm is told again after so long, then after twice as long each time ...
    escalate_again_max_s : ... up to this
    age_tier_s : a scan lets those of the next more urgent tier pass that come up to so long after it, so that none
        waits for ever behind others that keep coming
    """

    bind: str = "tcp://127.0.0.1:7410"
    keys: str | None = None
    lease_s: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 120.0
    idle_s: Annotated[float, msgspec.Meta(ge=1, le=86400)] = 900.0
    heartbeat_s: Annotated[float, msgspec.Meta(ge=0.1, le=60)] = 2.0
    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 20
    escalate_s: Annotated[float, msgspec.Meta(ge=1, le=86400)] = 180.0
    escalate_again_s: Annotated[float, msgspec.Meta(ge=1, le=86400)] = 300.0
    escalate_again_max_s: Annotated[float, msgspec.Meta(ge=1, le=86400)] = 3600.0
    age_tier_s: Annotated[float, msgspec.Meta(ge=1, le=86400)] = 1800.0


class Audit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happened to every scan, in a chain of hashes in the outbox.

    checkpoints : file in a second place, best on another machine, to which the length of the chain is written every
        few minutes, signed where there are dispatch.keys; without it a chain cut off at its end cannot be told from a
        whole one. Relative paths count from the configuration file
    """

    checkpoints: str | None = None


class Metrics(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a monitoring system may ask: /healthz, /readyz and, for Prometheus, /metrics.

    bind : HOST:PORT; none: nobody is answered. There is no encryption and no key: of this machine alone, or of the
        network of those who operate it. It tells how many scans there are and how devices are, never what is in them
    """

    bind: Annotated[str, msgspec.Meta(pattern=r"^([A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5}$")] | None = None


class Outbox(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where it is kept what analysts owe an answer, and every answer.

    url : of a PostgreSQL database that the services of a site share, `postgresql://USER@HOST/DATABASE`, without a
        password; on another machine it needs `?sslmode=verify-full`; none: a file of SQLite in the state_dir
    password_file : file whose only line is the password; none: ~/.pgpass, or the server asks for none. Relative paths
        count from the configuration file
    hub : name of this service among those that share the database; keep it, its scans and leases are known by it
    recordings_shared : the services find each other's recordings under the same paths, so that each offers all scans,
        and takes over from one that is gone; otherwise each offers its own
    """

    url: str | None = None
    password_file: str | None = None
    hub: Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9_-]{0,31}$")] | None = None
    recordings_shared: bool = False


class Retention(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For how many days a recording is kept at least; none: for ever. Deleted only by `scanlane retention --apply`.

    clear_days, inspect_days, rescan_days : after a decision with this verdict
    filed_days : of scans judged CLEAR, which nobody was asked about
    result_days : after a decision or filing, result and declaration are kept for so long, and at least as long as the
        recording; what is erased then is told by its hash in the audit. Outcome, decisions and audit stay
    said_days : what people said of a scan is kept for so long after a decision or filing, and at least as long as the
        recording: the notes of decisions, opinions and second readings. With a note goes what was signed with it; who
        decided what, and the hash of everything erased, stay
    """

    clear_days: Annotated[int, msgspec.Meta(ge=0)] | None = None
    inspect_days: Annotated[int, msgspec.Meta(ge=0)] | None = None
    rescan_days: Annotated[int, msgspec.Meta(ge=0)] | None = None
    filed_days: Annotated[int, msgspec.Meta(ge=0)] | None = None
    result_days: Annotated[int, msgspec.Meta(ge=0)] | None = None
    said_days: Annotated[int, msgspec.Meta(ge=0)] | None = None


class Cargo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Declarations that come in advance (driver `cargo_feed`), and how passages get theirs.

    match : look for the declaration of every passage that brings none of its own; without one it is flagged
    wrong_join : chance of a wrong declaration that is accepted at every join; what is less sure is "doubtful" and not
        joined
    early_days : a declaration may come so long before its vehicle
    late_days : a scan without a declaration is held against what still comes for so long
    keep_days, most_messages, most_mb : what is kept of the messages; the oldest go first
    """

    match: bool = True
    wrong_join: Annotated[float, msgspec.Meta(gt=0, le=0.05)] = 0.001
    early_days: Annotated[float, msgspec.Meta(gt=0, le=366)] = 30.0
    late_days: Annotated[float, msgspec.Meta(ge=0, le=366)] = 7.0
    keep_days: Annotated[float, msgspec.Meta(ge=1, le=3660)] = 180.0
    most_messages: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 200_000
    most_mb: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 4096


class Selection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is looked at by a person though the machine calls the picture clear: by risk, as room allows, and at random.

    profile : risk profile of `scanlane risk sign`, signed by two, as it is kept under its hash; it may ask of history
    plan : file of `scanlane selection plan`: who is there in which hours, which share is drawn
    seed_file : secret seed of `scanlane selection seed`
    keys : folder of `scanlane keys` in which who signed must be enrolled and not revoked; none: names are taken as
        they are. Relative paths count from the configuration file
    """

    profile: str
    plan: str
    seed_file: str
    keys: str | None = None


class HubLane(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A service of `scanlane run` from which a hub takes scans.

    name : for logs, metrics and alarms; of the service's lane, where it has one
    address : where it listens, its `dispatch.bind`
    service : its public keys (`service.pub`), where it has keys. Relative paths count from the configuration file
    at_once : scans that are with the hub undecided at one time; the others wait with the lane
    """

    name: Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9_-]{0,31}$")]
    address: str
    service: str | None = None
    at_once: Annotated[int, msgspec.Meta(ge=1, le=100)] = 100


class Hub(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What makes a service the hub of a site (`scanlane hub`): it takes scans from other services, and has no lanes.

    name : by which the lanes know it, that of its key; also outbox.hub, where that is not given
    key : secret key file of `scanlane keys new`, enrolled at every lane with the role hub; none: all on this machine
    """

    name: Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9_-]{0,31}$")]
    key: str | None = None
    lane: tuple[HubLane, ...] = ()


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file.

    state_dir : recordings, outbox and logs live here; relative paths count from the configuration file
    hub : none, or what makes this service a hub; then there is no lane
    cargo : none, and no lane has a `cargo_feed`: declarations come with their vehicles, or not at all
    selection : none: a picture that is called clear waits for nobody, unless `scanlane selection run` chooses it
    """

    state_dir: str
    lane: tuple[Lane, ...]
    storage: Storage = Storage()
    dispatch: Dispatch = Dispatch()
    outbox: Outbox = Outbox()
    audit: Audit = Audit()
    retention: Retention = Retention()
    metrics: Metrics = Metrics()
    cargo: Cargo | None = None
    selection: Selection | None = None
    hub: Hub | None = None


def load(path: Path) -> Config:
    """Return the configuration in the TOML file `path`. Raises ConfigError with every problem found."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read ({error})"]) from error
    return parse(text, str(path), base=path.parent)


def parse(text: str, name: str, base: Path) -> Config:
    """Return the configuration in `text`; `name` stands for the file in messages, `base` for its folder.

    Raises ConfigError with every problem found.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{name}: not valid TOML: {error}"]) from error
    problems: list[str] = []
    told = table.pop("lane", None)
    if "hub" not in table:
        lanes = tuple(_with_files(lane, base, problems) for lane in _lanes(told, problems))
    else:
        lanes = ()
        _prepare_hub(table, told, problems)
    problems += _cross_checks(lanes, table.get("dispatch"))
    if any(device.driver == "cargo_feed" for lane in lanes for device in lane.device):
        table.setdefault("cargo", {})
    config: Config | None = fill(Config, {**table, "lane": ()}, "", problems)
    if config is not None and config.hub is not None and config.selection is not None:
        problems.append("selection: is the lanes' affair, a hub selects nothing; put it into the lanes' configurations")
    if config is not None:
        config = msgspec.structs.replace(
            config, lane=lanes, state_dir=str(base / Path(config.state_dir).expanduser()),
            dispatch=_with_keys(config.dispatch, base, problems), audit=_with_checkpoints(config.audit, base, problems),
            outbox=_with_password(config.outbox, base, problems), hub=_with_hub_keys(config.hub, base, problems),
            selection=_with_rules(config.selection, base, problems),
        )  # fmt: skip
    if problems or config is None:
        raise ConfigError([f"{name}: {p}" for p in problems])
    return config


def _lanes(tables: Any, problems: list[str]) -> tuple[Lane, ...]:
    if not isinstance(tables, list) or not tables:
        problems.append(f"lane: {_shown(tables)}, expected at least one [[lane]] table")
        return ()
    lanes = []
    for number, table in enumerate(tables):
        path = f"lane[{number}]"
        if not isinstance(table, dict):
            problems.append(f"{path}: {_shown(table)}, expected a [[lane]] table")
            continue
        devices = _devices(table.pop("device", None), path, problems)
        lane = fill(Lane, {**table, "device": ()}, path, problems)
        if lane is not None:
            lanes.append(msgspec.structs.replace(lane, device=devices))
    return tuple(lanes)


def _prepare_hub(table: dict[str, Any], lanes: Any, problems: list[str]) -> None:
    """Hold against each other what is told of a hub; its name is that of its outbox, too, unless that has another."""
    hub, outbox = table["hub"], table.get("outbox")
    if lanes is not None:
        problems.append(f"lane: {_shown(lanes)}, expected none beside [hub], whose lanes are [[hub.lane]]")
    if not isinstance(hub, dict):
        return
    if isinstance(outbox, dict) and "url" in outbox:
        outbox.setdefault("hub", hub.get("name"))
    places = hub.get("lane")
    if not isinstance(places, list) or not places:
        problems.append(f"hub.lane: {_shown(places)}, expected at least one [[hub.lane]] table")
        return
    places = [place for place in places if isinstance(place, dict)]
    for key in ("name", "address"):
        told = [str(place.get(key)) for place in places]
        problems += [
            f"hub.lane: {told.count(value)} have the {key} {value!r}, expected each once"
            for value in sorted({v for v in told if told.count(v) > 1})
        ]
    # fill() knows tables, not lists of them
    hub["lane"] = [fill(HubLane, place, f"hub.lane[{n}]", problems) for n, place in enumerate(places)]
    hub["lane"] = tuple(lane for lane in hub["lane"] if lane is not None)


def _with_hub_keys(hub: Hub | None, base: Path, problems: list[str]) -> Hub | None:
    """Return `hub` with the whole paths of its key and of its lanes' public keys, which have been read once."""
    if hub is None:
        return None
    lanes = []
    for lane in hub.lane:
        here = f"hub.lane {lane.name}"
        if (lane.service is None) != (hub.key is None):
            problems.append(f"{here}.service: {_shown(lane.service)}, expected service.pub of it just where hub.key is")
        if hub.key is None and not is_loopback(lane.address):
            problems.append(f"{here}.address: {lane.address!r}, expected one of this machine: hub.key is not given")
        if lane.service is not None:
            lane = msgspec.structs.replace(lane, service=str(base / Path(lane.service).expanduser()))
            try:
                security.load_public(Path(lane.service or ""))
            except ConfigError as error:
                problems += [f"{here}.service: {p}" for p in error.problems]
        lanes.append(lane)
    key = None if hub.key is None else base / Path(hub.key).expanduser()
    if key is not None:
        try:
            if (name := security.load_identity(key).name) != hub.name:
                problems.append(f"hub.name: {hub.name!r}, but {key} is the key of {name!r}")
        except ConfigError as error:
            problems += [f"hub.key: {p}; `scanlane keys new` makes it" for p in error.problems]
    return msgspec.structs.replace(hub, key=None if key is None else str(key), lane=tuple(lanes))


def _with_files(lane: Lane, base: Path, problems: list[str]) -> Lane:
    """Return `lane` with the whole paths of its energy calibration and profiles, which are there and read once.

    A risk profile is read by judgement, which knows its rules.
    """
    paths: dict[str, str] = {}
    for key, told in (
        ("energy_calibration", lane.energy_calibration),
        ("profile", lane.profile),
        ("risk", lane.risk),
    ):
        if told is None:
            continue
        path = base / Path(told).expanduser()
        paths[key] = str(path)
        try:
            if key == "energy_calibration":
                energy_calibration.load(path)
            elif key == "risk":
                if not path.is_file():
                    problems.append(f"lane {lane.name}.risk: {path}: no such file; see `scanlane risk sign`")
            elif why := lane_profile.read(path).foreign(lane=lane.name):
                problems.append(f"lane {lane.name}.profile: {path}: {why}")
        except ConfigError as error:
            problems += [f"lane {lane.name}.{key}: {p}" for p in error.problems]
    return msgspec.structs.replace(lane, **paths)


def _with_keys(dispatch: Dispatch, base: Path, problems: list[str]) -> Dispatch:
    """Return `dispatch` with the whole path of its keys, which have been read once."""
    if dispatch.keys is None:
        return dispatch
    folder = base / Path(dispatch.keys).expanduser()
    for read, file in ((security.load_identity, security.SERVICE_KEY), (security.load_enrolled, security.ENROLLED)):
        try:
            read(folder / file)
        except ConfigError as error:
            problems += [f"dispatch.keys: {p}; `scanlane keys init` makes them" for p in error.problems]
    return msgspec.structs.replace(dispatch, keys=str(folder))


def _with_rules(selection: Selection | None, base: Path, problems: list[str]) -> Selection | None:
    """Return `selection` with whole paths, which are there; what they hold is read by who selects."""
    if selection is None:
        return None
    paths = {
        key: str(base / Path(told).expanduser())
        for key in ("profile", "plan", "seed_file", "keys") if (told := getattr(selection, key)) is not None
    }  # fmt: skip
    made = {"profile": "risk sign", "plan": "selection plan", "seed_file": "selection seed", "keys": "keys init"}
    problems += [
        f"selection.{key}: {path}: is not there; see `scanlane {made[key]}`"
        for key, path in paths.items() if not Path(path).exists()
    ]  # fmt: skip
    return msgspec.structs.replace(selection, **paths)


def _with_checkpoints(audit: Audit, base: Path, problems: list[str]) -> Audit:
    """Return `audit` with the whole path of its checkpoints, whose folder is there."""
    if audit.checkpoints is None:
        return audit
    path = base / Path(audit.checkpoints).expanduser()
    if not path.parent.is_dir():
        problems.append(f"audit.checkpoints: {audit.checkpoints!r}, expected a file in a folder that is there")
    return msgspec.structs.replace(audit, checkpoints=str(path))


def _with_password(outbox: Outbox, base: Path, problems: list[str]) -> Outbox:
    """Return `outbox` with the whole path of its password, which has been read once."""
    if outbox.url is None:
        problems += [
            f"outbox.{key}: {_shown(told)}, expected only with outbox.url"
            for key in ("password_file", "hub", "recordings_shared") if (told := getattr(outbox, key))
        ]  # fmt: skip
        return outbox
    if outbox.hub is None:
        problems.append("outbox.hub: missing, expected a name of this service among those that share the database")
    if why := url_problem(outbox.url):
        problems.append(f"outbox.url: {why}")
    if outbox.password_file is None:
        return outbox
    path = base / Path(outbox.password_file).expanduser()
    try:
        security.secret_in(path)
    except ConfigError as error:
        problems += [f"outbox.password_file: {p}" for p in error.problems]
    return msgspec.structs.replace(outbox, password_file=str(path))


def _devices(tables: Any, path: str, problems: list[str]) -> tuple[Device, ...]:
    if not isinstance(tables, list) or not tables:
        problems.append(f"{path}.device: {_shown(tables)}, expected at least one [[lane.device]] table")
        return ()
    devices = []
    for number, table in enumerate(tables):
        here = f"{path}.device[{number}]"
        name = table.pop("driver", None) if isinstance(table, dict) else None
        if not isinstance(name, str):
            problems.append(f"{here}.driver: {_shown(name)}, expected one of {', '.join(sorted(driver.names()))}")
            continue
        try:
            module = driver.load(name)
        except ConfigError as error:
            problems += [f"{here}.driver: {p}" for p in error.problems]
            continue
        kept = table.pop("capture", "")
        if not isinstance(kept, str):
            problems.append(f"{here}.capture: {_shown(kept)}, expected a folder")
            continue
        config = fill(module.Config, table, here, problems)
        if config is not None:
            devices.append(Device(driver=name, config=config, capture=kept))
    return tuple(devices)


def _cross_checks(lanes: tuple[Lane, ...], dispatch: Any) -> list[str]:
    names = [lane.name for lane in lanes]
    problems = [
        f"lane: {names.count(name)} lanes are named {name!r}, expected each name once"
        for name in sorted({n for n in names if names.count(n) > 1})
    ]
    places: dict[tuple[str, str], list[str]] = {}
    for lane in lanes:
        for number, device in enumerate(lane.device):
            for place in _places(device):
                places.setdefault((device.driver, place), []).append(f"lane {lane.name} device[{number}]")
    problems += [
        f"lane: {' and '.join(users)} read the same {name} {place}, expected each source once: vehicles would be taken "
        "in twice, or in parts"
        for (name, place), users in places.items() if len(users) > 1
    ]  # fmt: skip
    bind = dispatch.get("bind") if isinstance(dispatch, dict) else None
    keys = isinstance(dispatch, dict) and dispatch.get("keys") is not None
    if isinstance(bind, str) and not keys and not is_loopback(bind):
        problems.append(
            f"dispatch.bind: {bind!r}, expected a loopback address such as tcp://127.0.0.1:7410: without dispatch.keys "
            "the wire is not encrypted and must not leave this machine"
        )
    if isinstance(bind, str) and keys and not bind.startswith("tcp://"):
        problems.append(f"dispatch.bind: {bind!r}, expected tcp://ADDRESS:PORT: other transports do not encrypt")
    return problems


def _places(device: Device) -> list[str]:
    """Return the folders and addresses that a device's driver takes its passages from."""
    folders, addresses = (
        [told for name in names if isinstance(told := getattr(device.config, name, None), str) and told]
        for names in (("path", "folder", "spool_dir"), ("address", "endpoint"))
    )
    return list(dict.fromkeys([*map(os.path.realpath, folders), *addresses]))


def is_loopback(address: str) -> bool:
    """Tell whether the ZeroMQ `address` is `tcp://` on this machine alone, with a port (0 or `*`: any free one)."""
    scheme, _, rest = address.partition("://")
    host, _, port = rest.rpartition(":")
    if scheme != "tcp" or not ((port.isdecimal() and int(port) < 65536) or port == "*"):
        return False
    return _is_here(host)


def is_url(text: str) -> bool:
    """Tell whether `text` is the URL of a PostgreSQL database rather than a path."""
    return text.startswith(("postgresql://", "postgres://"))


def url_problem(url: str) -> str:
    """Return in words what is wrong with the URL of a database, without a password that is in it; empty if nothing."""
    expected = "expected postgresql://USER@HOST/DATABASE"
    try:
        parts = urlsplit(url)
        options = parse_qs(parts.query, strict_parsing=bool(parts.query))
    except ValueError:
        return f"is no URL, {expected}"
    user, at, hosts = parts.netloc.rpartition("@")
    if ":" in user or "password" in options:
        return f"has a password in it, {expected} and the password in outbox.password_file or ~/.pgpass"
    if not is_url(url) or not at or not user or parts.path in ("", "/"):
        return f"{url!r}, {expected}"
    places = (
        [h.rpartition(":")[0] or h for h in hosts.split(",")] + options.get("host", []) + options.get("hostaddr", [])
    )
    away = [p for p in map(unquote, places) if p and not p.startswith("/") and not _is_here(p)]
    if away and options.get("sslmode") != ["verify-full"]:
        return f"{url!r}: {away[0]} is another machine, expected ?sslmode=verify-full, so that nobody else can be it"
    return ""


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def fill(struct: type[Any], table: Mapping[str, Any], path: str, problems: list[str]) -> Any:
    """Return an instance of `struct` made from `table`, or None after adding every problem to `problems`."""
    before = len(problems)
    fields = {f.encode_name: f for f in msgspec.structs.fields(struct)}
    for key, value in table.items():
        if key not in fields:
            close = difflib.get_close_matches(key, fields, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(fields)}"
            problems.append(f"{_join(path, key)}: unknown key (value {_shown(value)}); {hint}")
    values: dict[str, Any] = {}
    for key, field in fields.items():
        here = _join(path, key)
        if key not in table:
            if field.required:
                problems.append(f"{here}: missing, expected {_expected(field.type)}")
            continue
        value = table[key]
        inner = next((t for t in (field.type, *get_args(field.type)) if _is_struct(t)), None)
        if inner is not None and isinstance(value, dict):
            values[field.name] = fill(inner, value, here, problems)
            continue
        try:
            values[field.name] = msgspec.convert(value, field.type, strict=True)
        except msgspec.ValidationError as error:
            problems.append(f"{here}: {_shown(value)}, expected {_expected(field.type)} ({error})")
    if len(problems) > before:
        return None
    try:
        return struct(**values)
    except (ValueError, TypeError, ConfigError) as error:  # a struct's own __post_init__ may refuse combinations
        problems.append(f"{path or 'top level'}: {error}")
        return None


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def to_toml_safe(config: Config) -> dict[str, Any]:
    """Return `config` as plain values, as kept inside recordings."""
    plain: dict[str, Any] = msgspec.to_builtins(config)
    return plain


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _shown(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _expected(kind: Any) -> str:
    """Say a type in words."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return f"{_expected(arguments[0])}{_limits(arguments[1])}"
    if origin is Literal:
        return "one of " + ", ".join(repr(a) for a in arguments)
    if origin in (tuple, list):
        return f"a list of {_expected(arguments[0])}"
    if arguments:
        return " or ".join(_expected(a) for a in arguments if a is not type(None))
    words = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
    return words.get(kind, getattr(kind, "__name__", str(kind)))


def _limits(meta: Any) -> str:
    parts = [
        f"{word} {getattr(meta, name)}"
        for name, word in (("gt", "above"), ("ge", "at least"), ("lt", "below"), ("le", "at most"))
        if getattr(meta, name, None) is not None
    ]
    if getattr(meta, "pattern", None):
        parts.append(f"of the form {meta.pattern}")
    return " " + ", ".join(parts) if parts else ""
