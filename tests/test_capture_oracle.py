"""capinfos and the sensor find the same in each capture of the folders formats and malformed.

Packets, link types, first and last time. Where they do not, capture_known.tsv says why; it was made with
capinfos 4.0 (Debian 12), which ends at a damaged record where we search for the next one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from sensor.capture.capfile import CaptureReader
from sensor.capture.records import MAX_TS_NS
from sensor.errors import CaptureError
from tests.captures import CAPTURES

PATHS = sorted(path for part in ("formats", "malformed") for path in (CAPTURES / part).glob("*"))
KNOWN_FILE = Path(__file__).with_name("capture_known.tsv")
HEADER = ["capture", "quantity", "ours", "capinfos", "reason"]

#: What capinfos calls the link types of these captures, by their LINKTYPE_ number.
ENCAPSULATIONS = {
    0: "null", 1: "ether", 8: "slip", 9: "ppp", 12: "rawip", 14: "rawip", 50: "ppp", 51: "ppp", 100: "atm-rfc1483",
    101: "rawip", 104: "chdlc", 105: "ieee-802-11", 106: "linux-atm-clip", 107: "frelay", 108: "null",
    113: "linux-sll", 123: "atm-pdus", 127: "ieee-802-11-radiotap", 129: "arcnet_linux", 137: "juniper-atm1",
    149: "user2", 160: "user13", 166: "ppp", 178: "juniper-ether", 195: "wpan", 215: "wpan-nonask-phy", 226: "ipnet",
    228: "rawip4", 229: "rawip6", 230: "wpan-nofcs", 231: "dbus", 239: "nflog", 242: "ip-ib", 253: "netlink",
    258: "pktap", 271: "vsock", 276: "linux-sll2",
}  # fmt: skip

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(
        (shutil.which("capinfos") is None or not PATHS) and "CI" not in os.environ,
        reason="needs capinfos and the shared captures",
    ),
]


class Found(NamedTuple):
    """``packets``; ``link_types``: their names, or per-packet; times: in ns, or n/a."""

    packets: str
    link_types: str
    first: str
    last: str


def name_of(path: str | Path) -> str:
    return Path(path).relative_to(CAPTURES).as_posix()


def what_capinfos_finds() -> dict[str, Found]:
    command = ["capinfos", "-T", "-r", "-B", "-c", "-E", "-a", "-e", "-S", *map(str, PATHS)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    found = {}
    for line in result.stdout.splitlines():
        path, encapsulation, packets, first, last = line.split("\t")
        found[name_of(path)] = Found(packets, encapsulation, *map(ns_text, (first, last)))
    return found


def ns_text(seconds: str) -> str:
    if not re.fullmatch(r"\d+\.\d+", seconds):
        return seconds  # none, or a fraction beyond a second that capinfos prints as a negative one
    return str(min(int(Decimal(seconds).scaleb(9)), MAX_TS_NS))


def what_we_find(path: Path) -> Found:
    n_packets = 0
    times: list[int] = []
    link_types: set[int] = set()
    try:
        with CaptureReader(str(path), on_problem=lambda _: None) as reader:
            for batch in reader:
                n_packets += len(batch.frames)
                times += [int(batch.frames["ts_ns"].min()), int(batch.frames["ts_ns"].max())]
                link_types |= set(np.unique(batch.frames["link_type"]).tolist())
            link_types |= set(reader._format.link_types)
    except CaptureError as error:
        if re.search("is not read|neither pcap", str(error)):
            return Found("unreadable", "", "", "")
    names = {ENCAPSULATIONS.get(number, str(number)) for number in link_types}
    first, last = (str(min(times)), str(max(times))) if times else ("n/a", "n/a")
    encapsulation = names.pop() if len(names) == 1 else "per-packet" if names else "unknown"
    return Found(str(n_packets), encapsulation, first, last)


def differences() -> list[tuple[str, str, str, str]]:
    theirs = what_capinfos_finds()
    rows = []
    for path in PATHS:
        ours = what_we_find(path)
        other = theirs.get(name_of(path), Found("unreadable", "", "", ""))
        for quantity, our, their in zip(Found._fields, ours, other, strict=True):
            if "unreadable" in (ours.packets, other.packets) and quantity != "packets":
                continue
            if (
                their == "n/a" and other.packets != "0"
            ):  # simple packets have no time: then it names none at all
                continue
            if our != their:
                rows.append((name_of(path), quantity, our, their))
    return rows


def read_known() -> list[list[str]]:
    header, *rows = (line.split("\t") for line in KNOWN_FILE.read_text(encoding="utf-8").splitlines())
    assert header == HEADER
    return rows


def test_captures_are_read_as_by_capinfos() -> None:
    known = {(row[0], row[1], row[2], row[3]) for row in read_known()}
    found = set(differences())
    assert found - known == set(), f"not in {KNOWN_FILE.name}"
    assert known - found == set(), f"no longer so: remove from {KNOWN_FILE.name}"


def test_known_differences_are_well_formed() -> None:
    rows = read_known()
    for row in rows:
        assert len(row) == len(HEADER), row
        assert all(cell and cell == cell.strip() for cell in row), row
    keys = [(row[0], Found._fields.index(row[1])) for row in rows]
    assert keys == sorted(set(keys)), "sorted by capture and quantity, one row for each"
