"""Packages for another administration: every byte counts, and so does who signed, for whom, when and how often."""

import msgspec
import pytest

from scanner_io import exchange, security
from scanner_io.errors import ConfigError, DataError

NOW = 1_800_000_000 * 10**9
FILES = {"001.scan.json": b'{"a": 1}', "001.scan.h5": bytes(range(200)), "empty": b""}


@pytest.fixture(scope="module")
def south():
    return security.generate("south")


@pytest.fixture(scope="module")
def trust(south):
    return exchange.trusting(exchange.TrustList(me="north"), south.public, NOW)


def packed(identity, files=None, **changes):
    values = {
        "recipient": "north", "scans": ("s1",), "now_utc_ns": NOW, "valid_days": 30.0, "simulated": True,
        "software": "scanlane test",
    }  # fmt: skip
    return exchange.pack(FILES if files is None else files, identity, **{**values, **changes})


def test_what_goes_in_comes_out_with_who_sent_it(south, trust):
    opened = exchange.verify(packed(south), trust, NOW, exchange.Ledger())
    assert opened.files == FILES and opened.header.sender == "south" and opened.header.simulated


def test_the_layout_is_the_one_that_is_written_down(south):
    data = packed(south, {"a": b"xyz"})
    assert data[:20] == b"SCANLANE-EXCHANGE-1\n"
    length = int.from_bytes(data[20:24], "big")
    header = msgspec.json.decode(data[24 : 24 + length])
    assert header["files"] == [{
        "name": "a", "size": 3, "sha256": "3608bca1e44ea6c4d268eb6db02260269892c0b42b86bbf1e77a6fa16c3c9282",
    }]  # fmt: skip
    signature = data[24 + length : 24 + length + 64]
    assert security.verified(south.signing, data[: 24 + length], signature)
    assert data[24 + length + 64 :] == b"xyz"


def test_every_change_of_a_single_byte_is_refused(south, trust):
    data = packed(south)
    for at in range(len(data)):
        for change in (0x01, 0x80, 0xFF):
            changed = bytearray(data)
            changed[at] ^= change
            with pytest.raises(exchange.Refused):
                exchange.verify(bytes(changed), trust, NOW)


def test_every_cut_and_every_byte_put_in_is_refused(south, trust):
    data = packed(south)
    for at in range(len(data)):
        for changed in (data[:at], data[:at] + data[at + 1 :], data[:at] + b"\0" + data[at:]):
            with pytest.raises(exchange.Refused):
                exchange.verify(changed, trust, NOW)
    with pytest.raises(exchange.Refused, match="something was added"):
        exchange.verify(data + b"\0", trust, NOW)


def test_who_is_not_trusted_or_no_longer_is_refused(south, trust):
    data = packed(south)
    with pytest.raises(exchange.Refused, match="not on the trust list; trusted are nobody"):
        exchange.verify(data, exchange.TrustList(me="north"), NOW)
    other = security.generate("south")  # the same name with another key
    with pytest.raises(exchange.Refused, match="signature is not south's"):
        exchange.verify(packed(other), trust, NOW)
    revoked = exchange.revoking(trust, "south", NOW, "key file was stolen")
    with pytest.raises(exchange.Refused, match="was revoked: key file was stolen"):
        exchange.verify(data, revoked, NOW)  # though it was made before: whoever has the key sets its clock
    renewed = exchange.trusting(revoked, other.public, NOW)
    assert exchange.verify(packed(other), renewed, NOW).header.sender == "south"
    with pytest.raises(exchange.Refused, match="was revoked"):
        exchange.verify(data, renewed, NOW)
    with pytest.raises(ConfigError, match="a key is given once"):
        exchange.trusting(revoked, south.public, NOW)


def test_a_package_for_somebody_else_or_of_another_time_is_refused(south, trust):
    with pytest.raises(exchange.Refused, match="for west, this is north"):
        exchange.verify(packed(south, recipient="west"), trust, NOW)
    with pytest.raises(exchange.Refused, match="held until"):
        exchange.verify(packed(south), trust, NOW + 31 * exchange.DAY_NS)
    with pytest.raises(exchange.Refused, match="in the future"):
        exchange.verify(packed(south), trust, NOW - 2 * exchange.DAY_NS)


def test_a_package_counts_once_and_older_news_of_the_same_scan_not_at_all(south, trust, tmp_path):
    ledger = tmp_path / "accepted.json"
    older, newer, other = packed(south), packed(south, now_utc_ns=NOW + 5), packed(south, scans=("s2",))
    for data in (newer, other):
        opened = exchange.verify(data, trust, NOW, exchange.load_ledger(ledger))
        exchange.accept(ledger, opened.header, NOW)
        with pytest.raises(exchange.Refused, match="was opened here before"):
            exchange.verify(data, trust, NOW, exchange.load_ledger(ledger))
        with pytest.raises(exchange.Refused, match="was opened here before"):
            exchange.accept(ledger, opened.header, NOW)
    with pytest.raises(exchange.Refused, match="s1: a package made later"):
        exchange.verify(older, trust, NOW, exchange.load_ledger(ledger))


@pytest.mark.parametrize("name", ["../up", "/etc/x", ".hidden", "", "a/b", "a\0b", "x" * 200])
def test_names_that_would_leave_the_folder_are_neither_packed_nor_opened(south, trust, name):
    with pytest.raises(DataError, match="file name"):
        packed(south, {name: b"x"})
    # a sender that is trusted and signs such a name all the same
    data = packed(south, {"a": b"x"})
    length = int.from_bytes(data[20:24], "big")
    header = msgspec.json.decode(data[24 : 24 + length], type=exchange.Header)
    bad = msgspec.structs.replace(header, files=(msgspec.structs.replace(header.files[0], name=name),))
    text = msgspec.json.encode(bad)
    signed = data[:20] + len(text).to_bytes(4, "big") + text
    with pytest.raises(exchange.Refused, match="names that no package has"):
        exchange.verify(signed + south.sign(signed) + b"x", trust, NOW)


def test_what_is_no_list_is_told(tmp_path):
    with pytest.raises(ConfigError, match="no trust list; make it with"):
        exchange.load_trust(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ConfigError, match="is no file of `scanlane exchange`"):
        exchange.load_trust(tmp_path / "bad.json")
    with pytest.raises(DataError, match="0 files"):
        exchange.pack({}, security.generate("x"), recipient="n", scans=(), now_utc_ns=NOW, valid_days=1,
                      simulated=True, software="")  # fmt: skip
