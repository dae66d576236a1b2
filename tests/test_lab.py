"""The captures of pcaps/: by default, exactly the devices that their labels call infected are accused."""

from __future__ import annotations

import csv
import hashlib
import re
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sensor.capture.merge import open_captures
from tests.worlds import run

if TYPE_CHECKING:
    from sensor.errors import CaptureError
    from tests.worlds import Run

PCAPS = Path(__file__).parents[1] / "pcaps"
CAPTURES = sorted(PCAPS.glob("*.pcap"))
with (PCAPS / "labels.tsv").open(encoding="utf-8", newline="") as file:
    LABELS = list(csv.DictReader(file, delimiter="\t"))

#: A flood has to be named within so many mail connections of the device, and so much packet time.
MAX_FLOOD_CONNECTIONS = 30
MAX_FLOOD_TIME = timedelta(seconds=15)


@cache
def replay(capture: str) -> Run:
    problems: list[CaptureError] = []
    with open_captures([PCAPS / capture], on_problem=problems.append) as frames:
        outcome = run(frames)
    assert problems == []
    return outcome


def labelled(capture: str, label: str) -> list[dict[str, str]]:
    return [row for row in LABELS if row["capture"] == capture and row["label"] == label]


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_every_capture_has_labels_and_every_label_a_capture() -> None:
    assert len(CAPTURES) >= 3
    assert {row["capture"] for row in LABELS} == {path.name for path in CAPTURES}
    assert {row["label"] for row in LABELS} == {"infected", "benign"}
    assert all(labelled(path.name, "benign") for path in CAPTURES)


def test_the_readme_knows_the_captures_by_their_digest() -> None:
    text = (PCAPS / "README.md").read_text(encoding="utf-8")
    stated = dict(re.findall(r"^\| `([\w-]+\.pcap)`<br>`([0-9a-f]{64})` \|", text, re.MULTILINE))
    assert stated == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in CAPTURES}


@pytest.mark.invariant
@pytest.mark.parametrize("capture", [path.name for path in CAPTURES])
def test_exactly_the_infected_devices_are_accused_of_what_they_do(capture: str) -> None:
    accused = {key: alert.cause for key, alert in replay(capture).started().items()}
    assert accused == {row["device_mac"]: row["cause"] for row in labelled(capture, "infected")}


@pytest.mark.parametrize("capture", [path.name for path in CAPTURES])
def test_a_device_is_accused_once_and_called_what_it_calls_itself(capture: str) -> None:
    started = [
        alert for alert in replay(capture).alerts if (alert.event_type, alert.state) == ("alert", "started")
    ]
    assert len(started) == len({alert.device.key for alert in started})
    names = {row["device_mac"]: row["device_name"] for row in LABELS if row["capture"] == capture}
    for alert in started:
        assert alert.device.hostname == names[alert.device.key]


@pytest.mark.parametrize("capture", [path.name for path in CAPTURES])
def test_every_device_is_one_with_its_name_and_the_address_that_it_had_last(capture: str) -> None:
    found = {
        row["device"]: (row["hostname"], next(ip for ip in row["ips"].split() if "." in ip))
        for row in replay(capture).devices
        if row["key_kind"] == "mac"
    }
    routers = {
        ("many-kinds.pcap", "inner-router")
    }  # one that is announced by name, and sends packets of its own
    found = {mac: who for mac, who in found.items() if (capture, who[0]) not in routers}
    labels = [row for row in LABELS if row["capture"] == capture and row["device_name"] != "gateway"]
    behind = {row["device"] for row in replay(capture).devices if row["key_kind"] == "address"}
    known = {row["device_mac"]: (row["device_name"], row["device_ip"]) for row in labels}
    assert found == {mac: who for mac, who in known.items() if who[1] not in behind}
    assert len(known) - len(found) == (capture == "many-kinds.pcap")


def test_a_lease_that_moves_takes_no_blame_along() -> None:
    """The PC has the address from which the camera flooded, and the camera floods on from another one."""
    outcome = replay("moved-lease.pcap")
    devices = {row["hostname"]: row for row in outcome.devices}
    camera, pc = devices["front-door-camera"], devices["office-pc"]
    (alert,) = outcome.started().values()
    assert alert.device.key == camera["device"]
    assert pc["ips"].split()[0] in alert.device.ips  # at that time
    assert pc["ips"].split()[0] not in camera["ips"].split()
    assert camera["smtp25_connections"] > 80  # of both floods
    assert (pc["smtp25_connections"], pc["evidence"]) == (0, 0)


def test_a_device_is_one_however_many_names_it_has() -> None:
    """IPv6 with privacy addresses, a MAC address that changes, DHCP that is relayed: of real clients and servers."""
    outcome = replay("many-names.pcap")
    devices = {row["hostname"]: row for row in outcome.devices if row["key_kind"] == "mac"}
    assert len(devices) == sum(row["key_kind"] == "mac" for row in outcome.devices) == 5
    pc, phone, camera = (devices[name] for name in ("office-pc", "phone", "back-door-camera"))
    assert any(ip.startswith("2001:db8:50:") for ip in pc["ips"].split())
    assert pc["smtp25_connections"] == 2  # both over IPv6
    assert {"fe80::85e:7cff:fe10:1", "fe80::c5e:7cff:fe10:2"} < set(phone["ips"].split())  # of its two MACs
    assert camera["ips"] == "192.168.60.21"  # behind a router, known by its MAC
    assert camera["submission_connections"] == 2


def test_a_lease_that_moves_behind_a_router_takes_no_blame_along() -> None:
    """As above, but all that is seen of both has the router's MAC address: who is who is told by the DHCP it relays."""
    outcome = replay("moved-behind.pcap")
    devices = {row["hostname"]: row for row in outcome.devices}
    camera, pc = devices["back-door-camera"], devices["back-office-pc"]
    (alert,) = outcome.started().values()
    assert alert.device.key == camera["device"]
    assert pc["ips"].split()[0] in alert.device.ips  # at that time
    assert pc["ips"].split()[0] not in camera["ips"].split()
    assert camera["smtp25_connections"] > 80  # of both floods
    assert (pc["smtp25_connections"], pc["evidence"]) == (0, 0)


def test_a_virtual_mac_is_no_device_and_behind_it_the_address_is_the_key() -> None:
    """keepalived speaks for a router (RFC 5798); the camera behind it has its address set by hand."""
    devices = {row["device"]: row for row in replay("many-kinds.pcap").devices}
    assert not any(key.startswith("00:00:5e:00:01:") for key in devices)
    camera = devices["192.168.60.31"]
    assert (camera["key_kind"], camera["submission_connections"]) == ("address", 2)


def test_devices_are_told_by_what_their_software_says() -> None:
    """minidlnad, nmbd, dhclient for IPv6, curl as a TV's browser, lldpd with CDP: each says what it always does."""
    devices = {row["hostname"]: row for row in replay("many-kinds.pcap").devices if row["hostname"]}
    nas, tv, router = devices["nas"], devices["living-room-tv"], devices["inner-router"]
    assert nas["type"] == "nas"
    assert "SSDP offers urn:schemas-upnp-org:device:MediaServer:1" in nas["type_evidence"]
    assert re.search(r"2001:db8:50::1[0-9a-f]{2}\b", nas["ips"])  # leased by DHCPv6, joined by its MAC
    assert (tv["type"], "smart-tv" in tv["type_evidence"].lower()) == ("tv", True)
    assert (router["type"], "CDP" in router["type_evidence"]) == ("router", True)


def test_a_name_is_learned_over_netbios_alone(tmp_path: Path) -> None:
    """The DHCP of the PC is cut from the capture: nmbd's registrations say its name, too."""
    from scapy.layers.dhcp import DHCP  # noqa: PLC0415 - GPL, and slow to import
    from scapy.utils import PcapWriter, rdpcap  # noqa: PLC0415

    cut = tmp_path / "cut.pcap"
    with PcapWriter(str(cut)) as writer:
        for packet in rdpcap(str(PCAPS / "many-kinds.pcap")):
            if DHCP not in packet:
                writer.write(packet)
    with open_captures([cut], on_problem=lambda problem: pytest.fail(str(problem))) as frames:
        devices = {row["device"]: row for row in run(frames).devices}
    assert devices["f8:b1:56:c2:55:18"]["hostname"] == "OFFICE-PC"


def test_a_printer_is_told_by_what_it_announces() -> None:
    (printer,) = (row for row in replay("moved-lease.pcap").devices if row["hostname"] == "hp-laserjet")
    assert (printer["type"], printer["model"]) == ("printer", "HP LaserJet 400 color M451dw")
    assert "mDNS offers _ipp._tcp" in printer["type_evidence"]


@pytest.mark.parametrize("capture", [path.name for path in CAPTURES])
def test_nothing_is_said_before_it_happens(capture: str) -> None:
    outcome = replay(capture)
    first = {row["device_mac"]: moment(row["first_ts"]) for row in labelled(capture, "infected")}
    for alert in outcome.alerts:
        assert moment(alert.first_seen) <= moment(alert.onset) <= moment(alert.timestamp)
        if alert.event_type == "alert":
            assert moment(alert.timestamp) > first[alert.device.key]
    assert [alert.timestamp for alert in outcome.alerts] == sorted(
        alert.timestamp for alert in outcome.alerts
    )


def test_the_flood_is_named_in_time() -> None:
    (label,) = labelled("flood-camera.pcap", "infected")
    alert = replay("flood-camera.pcap").started()[label["device_mac"]]
    assert alert.counts.smtp_connections <= MAX_FLOOD_CONNECTIONS
    assert moment(alert.timestamp) - moment(label["first_ts"]) <= MAX_FLOOD_TIME


def test_the_clean_office_is_not_even_for_review_but_for_its_mail_server() -> None:
    server = next(row["device_mac"] for row in LABELS if row["device_name"] == "mail")
    assert set(replay("clean-office.pcap").started("review")) <= {server}
