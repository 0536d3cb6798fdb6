"""Golden bytes of every message: what has once been sent must be understood for ever."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner_io import wire
from scanner_io.errors import ProtocolError
from scanner_io.model import Decision, Opinion
from tests import samples
from tests.scanner_io.previous_peer import MINOR_2, PREVIOUS

DECISION = Decision(
    decision_id="5a3c", scan_id=samples.SCAN_ID, sha256="ab", analyst="ana", verdict="inspect", decided_utc_ns=7,
    codes=(2,), note="look", lease_id="1f",
)  # fmt: skip

OPINION = Opinion(
    opinion_id="O1", scan_id="s", sha256="ab", analyst="ana", verdict="inspect", given_utc_ns=7, note="r?!", blind=False
)

# The header of each message as hexadecimal MessagePack, decoded beside it. 8x: map of x pairs; ax: text of x bytes.
GOLDEN = {
    wire.Hello(analyst="ana", capacity=2, client_version="0.1.0"):
        "87"                                    # a map of 7
        "a474797065" "a568656c6c6f"             # type: hello
        "a7616e616c797374" "a3616e61"           # analyst: ana
        "a86361706163697479" "02"               # capacity: 2
        "a970726f746f5f6d696e" "00"             # proto_min: 0
        "a970726f746f5f6d6178" "04"             # proto_max: 4
        "ae636c69656e745f76657273696f6e" "a5302e312e30"  # client_version: 0.1.0
        "a3687562" "c2",                        # hub: false
    wire.Fetch(scan_id="s", lease_id="1f", offset=1048576, credit=4):
        "85"
        "a474797065" "a56665746368"             # type: fetch
        "a77363616e5f6964" "a173"               # scan_id: s
        "a86c656173655f6964" "a23166"           # lease_id: 1f
        "a66f6666736574" "ce00100000"           # offset: 1048576
        "a6637265646974" "04",                  # credit: 4
    wire.Received(scan_id="s", lease_id="1f", sha256="ab"):
        "84"
        "a474797065" "a87265636569766564"       # type: received
        "a77363616e5f6964" "a173"
        "a86c656173655f6964" "a23166"
        "a6736861323536" "a26162",              # sha256: ab
    wire.Renew(lease_id="1f"):
        "82" "a474797065" "a572656e6577" "a86c656173655f6964" "a23166",
    wire.Here(idle_s=2.5):
        "82" "a474797065" "a468657265" "a669646c655f73" "cb4004000000000000",
    wire.Release(lease_id="1f"):
        "82" "a474797065" "a772656c65617365" "a86c656173655f6964" "a23166",
    wire.Claim(scan_id="s"):
        "82" "a474797065" "a5636c61696d" "a77363616e5f6964" "a173",
    wire.QueueRequest():
        "81" "a474797065" "ad71756575655f72657175657374",
    wire.QueueRequest(after="s"):
        "82" "a474797065" "ad71756575655f72657175657374" "a56166746572" "a173",
    wire.Bye():
        "81" "a474797065" "a3627965",
    wire.Ping(counter=300):
        "82" "a474797065" "a470696e67" "a7636f756e746572" "cd012c",
    wire.Pong(counter=1):
        "82" "a474797065" "a4706f6e67" "a7636f756e746572" "01",
    wire.Welcome(connection_id="c", minor=0, lease_s=120.0, heartbeat_s=2.0, service_version="0.1.0"):
        "88"
        "a474797065" "a777656c636f6d65"         # type: welcome
        "ad636f6e6e656374696f6e5f6964" "a163"   # connection_id: c
        "a56d696e6f72" "00"                     # minor: 0
        "a76c656173655f73" "cb405e000000000000"  # lease_s: 120.0
        "ab6865617274626561745f73" "cb4000000000000000"  # heartbeat_s: 2.0
        "ab6368756e6b5f6279746573" "ce00100000"  # chunk_bytes: 1048576
        "aa6d61785f637265646974" "10"           # max_credit: 16
        "af736572766963655f76657273696f6e" "a5302e312e30",  # service_version: 0.1.0
    wire.Chunk(scan_id="s", offset=0, last=True):
        "84" "a474797065" "a56368756e6b" "a77363616e5f6964" "a173" "a66f6666736574" "00" "a46c617374" "c3",
    wire.Decided(decision_id="5a3c", scan_id="s", durable=True, applied=False, reason="late"):
        "88"
        "a474797065" "a764656369646564"         # type: decided
        "ab6465636973696f6e5f6964" "a435613363"  # decision_id: 5a3c
        "a77363616e5f6964" "a173"
        "a764757261626c65" "c3"                 # durable: true
        "a76170706c696564" "c2"                 # applied: false
        "a6726561736f6e" "a46c617465"           # reason: late
        "a86f70696e696f6e73" "90"               # opinions: none
        "a67369676e6564" "90",                  # signed: none
    wire.Peek(scan_id="s"):
        "82" "a474797065" "a47065656b" "a77363616e5f6964" "a173",
    wire.Opine(statement=b"ab", signature=b"c"):
        "85"
        "a474797065" "a56f70696e65"             # type: opine
        "a86c656173655f6964" "a0"               # lease_id: empty
        "a76f70696e696f6e" "c0"                 # opinion: nil
        "a973746174656d656e74" "c4026162"       # statement: 2 bytes
        "a97369676e6174757265" "c40163",        # signature: 1 byte
    wire.Opine(lease_id="1f", opinion=OPINION):
        "85"
        "a474797065" "a56f70696e65"             # type: opine
        "a86c656173655f6964" "a23166"           # lease_id: 1f
        "a76f70696e696f6e" "88"                 # opinion: a map of 8
        "aa6f70696e696f6e5f6964" "a24f31"       # opinion_id: O1
        "a77363616e5f6964" "a173"
        "a6736861323536" "a26162"
        "a7616e616c797374" "a3616e61"
        "a776657264696374" "a7696e7370656374"   # verdict: inspect
        "ac676976656e5f7574635f6e73" "07"       # given_utc_ns: 7
        "a46e6f7465" "a3723f21"                 # note: r?!
        "a5626c696e64" "c2"                     # blind: false
        "a973746174656d656e74" "c400"           # statement: no bytes
        "a97369676e6174757265" "c400",          # signature: no bytes
    wire.Opined(opinion_id="O1", scan_id="s", durable=True):
        "84" "a474797065" "a66f70696e6564" "aa6f70696e696f6e5f6964" "a24f31" "a77363616e5f6964" "a173"
        "a764757261626c65" "c3",
    wire.Revoked(scan_id="s", lease_id="1f", reason="x"):
        "84" "a474797065" "a77265766f6b6564" "a77363616e5f6964" "a173" "a86c656173655f6964" "a23166"
        "a6726561736f6e" "a178",
    wire.Alarm(kind="unattended", text="2 wait", utc_ns=7, scan_id="s", waiting=2, waited_s=150.0):
        "88"
        "a474797065" "a5616c61726d"             # type: alarm
        "a46b696e64" "aa756e617474656e646564"   # kind: unattended
        "a474657874" "a6322077616974"           # text: 2 wait
        "a67574635f6e73" "07"                   # utc_ns: 7
        "a77363616e5f6964" "a173"
        "a777616974696e67" "02"                 # waiting: 2
        "a87761697465645f73" "cb4062c00000000000"  # waited_s: 150.0
        "a46f766572" "c2",                      # over: false
    wire.Refused(about="claim", reason="x", ref="s"):
        "84" "a474797065" "a772656675736564" "a561626f7574" "a5636c61696d" "a6726561736f6e" "a178"
        "a3726566" "a173",
}  # fmt: skip


@pytest.mark.parametrize("message", GOLDEN, ids=lambda m: type(m).__name__)
def test_golden_bytes(message):
    golden = bytes.fromhex(GOLDEN[message])
    raw = b"pixels" if isinstance(message, wire.Chunk) else None
    frames = wire.encode(message, raw)
    assert frames[0] == b"scanlane/1"
    assert frames[1] == golden
    assert decoded(frames, type(message)) == message


def decoded(frames, kind):
    if kind in wire.FromAnalyst.__args__:
        return wire.decode_from_analyst(frames)
    return wire.decode_from_service(frames)[0]


@pytest.mark.parametrize(
    "message",
    [
        wire.Decide(decision=DECISION),
        wire.Offer(
            scan_id=samples.SCAN_ID, lease_id="1f", lease_s=1.0, size=9, sha256="ab", lane="north", start_utc_ns=1,
            attempt=1, simulated=True, result=samples.result(), declaration=samples.declaration(),
            opinions=(OPINION, msgspec.structs.replace(OPINION, verdict=None, note="")),
            signed=(wire.SignedOpinion(opinion_id="O1", statement=b"s", signature=b"g"),),
        ),
        wire.Queue(
            rows=(
                wire.QueueRow(
                    scan_id="s", lane="n", outcome="ALARM", start_utc_ns=1, state="pending", analyst="", reasons=("r",),
                    opinions=2,
                ),
            ),
            counts={"recorded": 1},
        ),
    ],
    ids=lambda m: type(m).__name__,
)  # fmt: skip
def test_nested_messages_come_back(message):
    assert decoded(wire.encode(message), type(message)) == message


def test_every_message_has_its_golden_bytes_or_round_trip():
    tested = {type(m) for m in GOLDEN} | {wire.Decide, wire.Offer, wire.Queue}
    assert tested == set(wire.FromAnalyst.__args__) | set(wire.FromService.__args__)


def test_the_bytes_that_are_signed_with_an_opinion():
    statement = wire.OpinionStatement(opinion=OPINION, lease_id="1f", connection_id="c", sequence=3, service="k")
    golden = bytes.fromhex(
        "86"
        "a474797065" "a76f70696e696f6e"         # type: opinion, so that it is taken for nothing else
        "a76f70696e696f6e" "88"                 # opinion: a map of 8
        "aa6f70696e696f6e5f6964" "a24f31" "a77363616e5f6964" "a173" "a6736861323536" "a26162"
        "a7616e616c797374" "a3616e61" "a776657264696374" "a7696e7370656374" "ac676976656e5f7574635f6e73" "07"
        "a46e6f7465" "a3723f21" "a5626c696e64" "c2"
        "a86c656173655f6964" "a23166"           # lease_id: 1f
        "ad636f6e6e656374696f6e5f6964" "a163"   # connection_id: c
        "a873657175656e6365" "03"               # sequence: 3
        "a773657276696365" "a16b"               # service: k
    )  # fmt: skip
    assert wire.encode_statement(statement) == golden
    assert wire.decode_opinion_statement(golden) == statement
    with pytest.raises(ProtocolError, match="decision"):
        wire.decode_statement(golden)
    decided = wire.encode_statement(wire.Statement(decision=DECISION, connection_id="c", sequence=3, service="k"))
    with pytest.raises(ProtocolError, match="opinion"):
        wire.decode_opinion_statement(decided)


SENT = {f"{minor}-{name}": told for minor, sent in ((0, PREVIOUS), (2, MINOR_2)) for name, told in sent.items()}


@pytest.mark.parametrize("sent", SENT)
def test_what_was_sent_before_is_understood(sent):
    header, says = SENT[sent]
    name = sent.partition("-")[2]
    if name == "statement":
        message = wire.decode_statement(header)
    elif says["type"] in {kind.__struct_config__.tag for kind in wire.FromAnalyst.__args__}:
        message = wire.decode_from_analyst([wire.PROTOCOL, header])
    else:
        frames = [wire.PROTOCOL, header, *([b"raw"] if name == "chunk" else [])]
        message, _ = wire.decode_from_service(frames)
    assert says_all_of(msgspec.json.decode(msgspec.json.encode(message)), says)


def says_all_of(now, then):
    """Tell whether every value of then is there now; there may be more fields."""
    if isinstance(then, dict):
        return then.keys() <= now.keys() and all(says_all_of(now[key], then[key]) for key in then)
    if isinstance(then, list):
        return len(then) == len(now) and all(map(says_all_of, now, then))
    return now == then


def test_unknown_fields_are_tolerated_and_wrong_types_refused():
    newer = msgspec.msgpack.encode({"type": "renew", "lease_id": "1f", "colour": "red"})
    assert wire.decode_from_analyst([wire.PROTOCOL, newer]) == wire.Renew(lease_id="1f")
    wrong = msgspec.msgpack.encode({"type": "renew", "lease_id": 5})
    with pytest.raises(ProtocolError, match=r"Expected `str`, got `int` - at `\$.lease_id`"):
        wire.decode_from_analyst([wire.PROTOCOL, wrong])
    unknown = msgspec.msgpack.encode({"type": "teleport"})
    with pytest.raises(ProtocolError, match="teleport"):
        wire.decode_from_analyst([wire.PROTOCOL, unknown])


def test_another_major_version_is_told_to_upgrade():
    with pytest.raises(ProtocolError, match="upgrade"):
        wire.decode_from_analyst([b"scanlane/2", b"\x80"])


def test_the_raw_part_comes_with_chunks_only():
    with pytest.raises(ProtocolError, match="frames"):
        wire.decode_from_service(wire.encode(wire.Ping(counter=1), b"raw"))
    with pytest.raises(ProtocolError, match="frames"):
        wire.decode_from_service(wire.encode(wire.Chunk(scan_id="s", offset=0, last=True)))


@given(st.lists(st.binary(max_size=200), max_size=4), st.booleans())
def test_any_bytes_are_a_message_or_a_protocol_error(frames, versioned):
    if versioned:
        frames = [wire.PROTOCOL, *frames]
    for decode in (wire.decode_from_analyst, wire.decode_from_service):
        try:
            decode(frames)
        except ProtocolError:
            continue
        assert frames[0] == wire.PROTOCOL


@given(st.data())
def test_mutated_messages_are_a_message_or_a_protocol_error(data):
    header = bytearray(wire.encode(wire.Decide(decision=DECISION))[1])
    for _ in range(data.draw(st.integers(1, 4))):
        header[data.draw(st.integers(0, len(header) - 1))] = data.draw(st.integers(0, 255))
    try:
        message = wire.decode_from_analyst([wire.PROTOCOL, bytes(header)])
    except ProtocolError:
        return
    assert isinstance(message, wire.Message)
