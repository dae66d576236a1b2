"""What kind of device it is (kinds.py), and the rules that say so (kinds.tsv)."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
from captures import CAPTURES
from hypothesis import example, given
from hypothesis import strategies as st

from sensor.decode.facts import MAX_FACT_BYTES, FactKind
from sensor.devices.kinds import (
    KINDS,
    LEAD,
    MAX_EVIDENCE,
    THRESHOLD,
    Guess,
    Hint,
    Rule,
    guess_kind,
    load_rules,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

RULES = load_rules()
SOURCES = ("dhcp", "dhcpv6", "mdns", "ssdp", "netbios", "lldp", "cdp", "http")
#: Which facts a protocol tells.
TOLD_BY = {
    FactKind.HOST_NAME: {"dhcp", "mdns", "netbios", "lldp", "cdp"},
    FactKind.VENDOR_CLASS: {"dhcp", "dhcpv6"},
    FactKind.PARAMETERS: {"dhcp"},
    FactKind.SERVICE: {"mdns", "ssdp"},
    FactKind.MODEL: {"mdns", "lldp", "cdp"},
    FactKind.SYSTEM: {"ssdp", "lldp", "cdp"},
    FactKind.CAPABILITIES: {"lldp", "cdp"},
    FactKind.USER_AGENT: {"http", "ssdp"},
}
VENDOR_RULES = [rule for rule in RULES if rule.source == "vendor"]


def hints(*rows: str) -> list[Hint]:
    """Hints as "dhcp host_name axis-accc8e012345"."""
    split = [row.split(" ", 2) for row in rows]
    return [Hint(source, FactKind[what.upper()], text) for source, what, text in split]


def kind_of(*rows: str, vendor: str | None = None) -> str | None:
    return guess_kind(hints(*rows), vendor).kind


# --- the rules ---


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.source} {rule.match}")
def test_a_rule_is_well_formed(rule):
    assert rule.kind in KINDS
    assert 1 <= rule.weight <= 9
    assert rule.match == rule.match.lower()
    part = rule.match.removeprefix("^").removesuffix("$")
    assert 3 <= len(part) <= MAX_FACT_BYTES
    assert not set(part) & set("^$")
    if rule.source == "vendor":
        assert rule.what == FactKind.NONE
    else:
        assert rule.source == "any" or rule.source in TOLD_BY[rule.what]


@pytest.mark.parametrize("origin", sorted({rule.origin for rule in RULES}))
def test_a_rule_says_where_it_is_from(origin):
    if origin.startswith("capture "):
        if not CAPTURES.is_dir() and "CI" not in os.environ:
            pytest.skip(f"no captures in {CAPTURES}")
        assert (CAPTURES / origin.removeprefix("capture ")).is_file()
    else:
        assert origin.startswith(("https://", "IEEE ", "MS-", "UPnP Forum ", "HP ", "Brother ", "English: "))


def test_no_rule_is_there_twice():
    keys = [(rule.source, rule.what, rule.match, rule.kind) for rule in RULES]
    assert len(keys) == len(set(keys))


def example_of(rule: Rule) -> tuple[list[Hint], str | None]:
    """A device to which a rule applies, and its vendor."""
    text = rule.match.removeprefix("^").removesuffix("$")
    if rule.source == "vendor":
        return [], text
    source = min(TOLD_BY[rule.what]) if rule.source == "any" else rule.source
    return [Hint(source, rule.what, text)], None


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.source} {rule.match} {rule.kind}")
def test_a_rule_makes_a_difference(rule):
    """Alone it decides if it is heavy enough; else with a heavy rule of another sort for the same kind."""
    alone, vendor = example_of(rule)
    others = [other for other in RULES if other.kind == rule.kind and other.what != rule.what]
    told, by = example_of(max(others, key=lambda other: (other.source != "vendor", other.weight)))
    without, together = guess_kind(told, by), guess_kind([*alone, *told], vendor or by)
    assert without.kind == together.kind == rule.kind
    assert len(together.evidence) > len(without.evidence)
    if rule.weight >= THRESHOLD:
        rivals = [
            r for r in RULES if r.kind != rule.kind and r.what == rule.what and r.match in f"^{rule.match}$"
        ]
        if not rivals:
            assert guess_kind(alone, vendor).kind == rule.kind


# --- devices ---

DEVICES = [
    # cameras and recorders
    (
        "camera",
        None,
        ["dhcp vendor_class AXIS,PTZ Dome Network Camera,M5014,5.50.3.7", "dhcp host_name axis-accc8e0a0b0c"],
    ),
    (
        "camera",
        "Axis Communications AB",
        ["mdns service _axis-video._tcp", "mdns service _http._tcp", "mdns service _rtsp._tcp"],
    ),
    ("camera", "Hangzhou Hikvision Digital Technology Co.,Ltd.", []),
    (
        "camera",
        "Hangzhou Hikvision Digital Technology Co.,Ltd.",
        ["ssdp service urn:schemas-upnp-org:device:Basic:1"],
    ),
    (
        "camera",
        None,
        [
            "ssdp system Linux/2.6.18_pro500-davinci_N03A_IPCAM_1.0, UPnP/1.0, Portable SDK for UPnP devices/1.6.6"
        ],
    ),
    ("recorder", "Hangzhou Hikvision Digital Technology Co.,Ltd.", ["mdns model DS-7816N-K2"]),
    ("recorder", "Axis Communications AB", ["mdns service _axis-nvr._tcp"]),
    # printers
    (
        "printer",
        "Hewlett Packard",
        [
            "dhcp vendor_class Mfg=Hewlett Packard;Typ=Printer;Mod=HP LaserJet 400 M401dne;Ser=X;",
            "dhcp host_name NPI8D1E2F",
        ],
    ),
    ("printer", "Brother Industries, LTD.", ["dhcp host_name BRN30055C0A0B0C"]),
    (
        "printer",
        "CANON INC.",
        [
            "mdns service _ipp._tcp",
            "mdns service _printer._tcp",
            "mdns service _scanner._tcp",
            "mdns service _canon-chmp._tcp",
        ],
    ),
    # at the television
    (
        "tv",
        "Samsung Electronics Co.,Ltd",
        [
            "ssdp service urn:samsung.com:device:RemoteControlReceiver:1",
            "ssdp service urn:schemas-upnp-org:device:MediaRenderer:1",
        ],
    ),
    (
        "tv",
        "LG Electronics",
        [
            "ssdp service urn:lge-com:service:webos-second-screen:1",
            "http user_agent Mozilla/5.0 (Web0S; Linux/SmartTV) AppleWebKit/537.41 (KHTML, like Gecko)",
        ],
    ),
    (
        "streaming-box",
        "Roku, Inc.",
        [
            "ssdp service urn:roku-com:device:player:1-0",
            "http user_agent Roku/DVP-6.2 (096.02E06005A)",
            "mdns service _airplay._tcp",
        ],
    ),
    (
        "streaming-box",
        "Apple, Inc.",
        ["mdns service _airplay._tcp", "mdns service _raop._tcp", "mdns model AppleTV5,3"],
    ),
    ("streaming-box", "Google, Inc.", ["mdns service _googlecast._tcp", "mdns model Chromecast"]),
    ("speaker", "Google, Inc.", ["mdns service _googlecast._tcp", "mdns model Google Home Mini"]),
    (
        "speaker",
        "Sonos, Inc.",
        [
            "ssdp service urn:schemas-upnp-org:device:ZonePlayer:1",
            "mdns service _sonos._tcp",
            "mdns service _spotify-connect._tcp",
            "mdns service _airplay._tcp",
        ],
    ),
    (
        "speaker",
        "Apple, Inc.",
        ["mdns service _airplay._tcp", "mdns service _raop._tcp", "mdns model AudioAccessory5,1"],
    ),
    # the network itself
    (
        "router",
        "AVM GmbH",
        [
            "ssdp service urn:schemas-upnp-org:device:InternetGatewayDevice:1",
            "ssdp service urn:schemas-upnp-org:device:fritzbox:1",
            "ssdp service urn:schemas-upnp-org:device:MediaServer:1",
        ],
    ),
    (
        "router",
        "TP-LINK TECHNOLOGIES CO.,LTD.",
        ["ssdp system ipos/7.0 UPnP/1.0 TL-WDR3600/1.0"],
    ),  # capture: zeek__raw_packets
    ("router", None, ["lldp capabilities bridge,wlan-access-point,router"]),
    (
        "router",
        "Cisco Systems, Inc",
        ["cdp capabilities router", "cdp model cisco 7206VXR"],
    ),  # arkime__mpls-basic
    (
        "access-point",
        "Aruba, a Hewlett Packard Enterprise Company",
        ["dhcp vendor_class ArubaInstantAP", "lldp capabilities bridge,wlan-access-point"],
    ),
    ("access-point", "Ruckus Wireless", []),
    (
        "switch",
        "SMC",
        [
            "lldp capabilities bridge",
            "lldp host_name SMCGS8P-Smart",
            "lldp system SMCGS8P-Smart - SMCGS8P-Smart v3.20",
        ],
    ),  # zeek__lldp
    (
        "switch",
        "Cisco Systems, Inc",
        ["cdp capabilities bridge,router", "cdp model cisco WS-C3560G-24PS"],
    ),  # tcpdump__3560_CDP
    # telephones and tablets
    (
        "voip-phone",
        "Cisco Systems, Inc",
        [
            "dhcp vendor_class Cisco Systems, Inc. IP Phone CP-8865NR",
            "cdp capabilities telephone,station-only",
        ],
    ),
    ("voip-phone", "Polycom", ["dhcp vendor_class Polycom-VVX410", "lldp capabilities bridge,telephone"]),
    (
        "phone",
        "LG Electronics (Mobile Communications)",
        [
            "dhcp vendor_class dhcpcd-5.5.6",
            "dhcp host_name android-1c1335ec95a27318",
            "http user_agent Dalvik/2.1.0 (Linux; U; Android 5.1.1; LGLS751 Build/LMY47V)",
        ],
    ),  # ndpi__alexa-app
    ("phone", "Apple, Inc.", ["dhcp host_name Joshuas-iPhone", "dhcp parameters 1,3,6,15,119,252"]),
    (
        "tablet",
        "Apple, Inc.",
        ["mdns host_name Art-Teachers-iPad", "dhcp parameters 1,3,6,15,119,252"],
    ),  # zeek__radiotap
    (
        "tablet",
        "Apple, Inc.",
        [
            "mdns host_name Art-Teachers-iPad",
            "dhcp parameters 1,3,6,15,119,252",
            "http user_agent Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15) Safari",
        ],
    ),
    # computers
    (
        "computer",
        "Dell Inc.",
        ["dhcp vendor_class MSFT 5.0", "dhcp host_name DJP95S0J", "netbios host_name DJP95S0J"],
    ),  # tcpdump__eapon1
    (
        "computer",
        "Apple, Inc.",
        [
            "mdns model MacBookPro15,2",
            "mdns service _ipp._tcp",
            "mdns service _printer._tcp",
            "dhcp parameters 1,3,6,15,119,95,252,44,46",
        ],
    ),  # shares a printer
    (
        "computer",
        "Raspberry Pi Foundation",
        ["dhcp vendor_class dhcpcd-6.11.5:Linux-4.1.18-v7+:armv7l:BCM2709", "dhcp host_name raspberrypi"],
    ),  # tcpdump__dhcp-mud
    ("server", "Super Micro Computer, Inc.", []),
    ("server", "Hewlett Packard Enterprise", ["dhcp parameters 1,3,6,15,28,33,43,44,58,59"]),
    # the rest of the house
    (
        "nas",
        "Synology Incorporated",
        [
            "mdns service _adisk._tcp",
            "mdns service _workstation._tcp",
            "ssdp service urn:schemas-upnp-org:device:MediaServer:1",
        ],
    ),
    ("nas", "NETGEAR", ["ssdp system Linux/2.6.31, UPnP/1.0, Free UPnP Entertainment Service/ReadyNAS"]),
    ("hub", "Philips Lighting BV", ["mdns service _hue._tcp", "mdns service _hap._tcp", "mdns model BSB002"]),
    (
        "game-console",
        "Nintendo Co.,Ltd",
        ["http user_agent Mozilla/5.0 (Nintendo WiiU) AppleWebKit/534.52 (KHTML, like Gecko) NX/2.1.0.8.21"],
    ),
    ("game-console", "Microsoft Corporation", ["dhcp vendor_class MSFT 5.0 XBOX"]),
    ("thermostat", "ecobee inc", ["mdns service _ecobee._tcp", "mdns service _hap._tcp"]),
    ("appliance", "Espressif Inc.", ["dhcp host_name shelly1-C45BBE", "mdns service _http._tcp"]),
    ("appliance", "iRobot Corporation", ["dhcp host_name Roomba-3178C81052436"]),
    ("ups", "AMERICAN POWER CONVERSION CORP", ["dhcp parameters 6,3,1,15,66,67,13,43,58,59,42,2,12"]),
]


@pytest.mark.parametrize(("kind", "vendor", "rows"), DEVICES)
def test_devices(kind, vendor, rows):
    guess = guess_kind(hints(*rows), vendor)
    assert guess.kind == kind, guess
    assert 0 < len(guess.evidence) <= MAX_EVIDENCE


def test_every_kind_is_among_them():
    assert {kind for kind, _, _ in DEVICES} == set(KINDS)


@pytest.mark.parametrize(
    ("vendor", "rows"),
    [
        (None, []),
        ("Hon Hai Precision Ind. Co.,Ltd.", ["dhcp host_name dev-17", "dhcp vendor_class udhcp 1.24.1"]),
        ("Apple, Inc.", ["mdns service _companion-link._tcp"]),
        ("Samsung Electronics Co.,Ltd", []),  # makes everything
        ("Hangzhou Hikvision Digital Technology Co.,Ltd.", ["dhcp vendor_class MSFT 5.0"]),
        (None, ["mdns service _axis-video._tcp", "mdns service _sonos._tcp", "mdns service _hue._tcp"]),
        (None, ["ssdp service urn:schemas-upnp-org:device:MediaRenderer:1"]),
        (
            "Lexmark International, Inc.",
            ["dhcp vendor_class android-dhcp-7.1.1", "http user_agent x (iPhone; U"],
        ),
    ],
)
def test_nothing_and_contradictions_make_no_guess(vendor, rows):
    guess = guess_kind(hints(*rows), vendor)
    assert guess.kind is None
    assert guess.evidence == ()


def test_saying_it_again_does_not_make_it_truer():
    assert kind_of("mdns service _ipp._tcp") is None
    assert kind_of(*["mdns service _ipp._tcp"] * 9) is None
    assert kind_of("dhcp host_name npi1", "mdns host_name npi2", "netbios host_name npi3") is None
    assert kind_of("mdns service _ipp._tcp", "dhcp host_name npi1") == "printer"


def test_anchors_are_the_ends_of_the_text():
    assert kind_of("dhcp vendor_class MSFT 5.0") == "computer"
    assert kind_of("dhcp vendor_class not MSFT 5.0") is None
    assert kind_of("mdns service _ecobee._tcp") == "thermostat"
    assert kind_of("mdns service _not_ecobee._tcp") is None
    assert kind_of("dhcp parameters 1,3,6,15,28,33,43,44,58,59,99") is None


def test_rules_are_for_their_protocol():
    assert kind_of("ssdp service _axis-video._tcp") is None
    assert kind_of("dhcp host_name _axis-video._tcp") is None


def test_evidence_is_said_in_words():
    guess = guess_kind(
        hints(
            "mdns service _ipp._tcp",
            'dhcp vendor_class Mfg=LEXMARK;Typ=MFP;Mod="',
            "mdns model Lexmark MX410de",
            "dhcp parameters 6,3,1,15,66,67,13,44,12,81",
            "dhcp host_name NPI123456",
            "mdns service _hue._tcp",
        ),
        "LEXMARK INTERNATIONAL, INC.",
    )
    assert guess.evidence == (
        'DHCP vendor class "Mfg=LEXMARK;Typ=MFP;Mod=""',
        'mDNS model "Lexmark MX410de"',
        "made by LEXMARK INTERNATIONAL, INC.",
        "DHCP asks for options 6,3,1,15,66,67,13,44,12,81",
        'DHCP host name "NPI123456"',
        "mDNS offers _ipp._tcp",
    )


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("lldp capabilities telephone", "LLDP capabilities telephone"),
        ("http user_agent FRITZ!OS/06", 'HTTP user agent "FRITZ!OS/06"'),
        ("ssdp system a miniupnpd/1", 'SSDP software "a miniupnpd/1"'),
        ("netbios host_name roomba-1", 'NetBIOS host name "roomba-1"'),
        ("other host_name roomba-1", 'other host name "roomba-1"'),
    ],
)
def test_each_sort_of_evidence_has_its_words(row, words):
    assert guess_kind(hints(row)).evidence == (words,)


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        (
            [
                "cdp host_name e",
                "lldp host_name d",
                "netbios host_name C",
                "mdns host_name b",
                "dhcp host_name a",
            ],
            "a",
        ),
        (["cdp host_name e", "lldp host_name d", "netbios host_name C", "mdns host_name b"], "b"),
        (["cdp host_name e", "lldp host_name d", "netbios host_name C"], "C"),
        (["cdp host_name e", "lldp host_name d"], "d"),
        (["other host_name f", "cdp host_name e"], "e"),
        (["dhcp host_name ", "other host_name f"], "f"),
        (["dhcp host_name two", "dhcp host_name one"], "one"),
        (["dhcp model a"], None),
    ],
)
def test_the_best_name(rows, name):
    assert guess_kind(hints(*rows)).name == name


@pytest.mark.parametrize(
    ("rows", "model"),
    [
        (
            ["mdns model HP", "mdns model HP LaserJet 400 M401dne", "lldp model LaserJet"],
            "HP LaserJet 400 M401dne",
        ),
        (["mdns model b1", "mdns model a2"], "b1"),
        (["dhcp host_name a"], None),
        (["mdns model "], None),
    ],
)
def test_the_best_model(rows, model):
    assert guess_kind(hints(*rows)).model == model


# --- whatever they say ---

TEXTS = st.one_of(
    st.text(max_size=MAX_FACT_BYTES),
    st.sampled_from([rule.match.strip("^$") for rule in RULES]),
    st.lists(st.sampled_from([rule.match for rule in RULES]), max_size=6).map("".join),
)
HINTS = st.lists(
    st.builds(Hint, st.sampled_from([*SOURCES, "vendor", "any", ""]), st.sampled_from(list(FactKind)), TEXTS),
    max_size=20,
)
VENDORS = st.one_of(st.none(), TEXTS)


@given(HINTS, VENDORS, st.randoms(use_true_random=False))
@example([Hint("mdns", FactKind.SERVICE, "^" * MAX_FACT_BYTES)] * 3, "$^", None)
def test_no_text_raises_and_the_order_does_not_matter(told, vendor, random):
    guess = guess_kind(told, vendor)
    shuffled = [*told, *told[:3]]
    if random is not None:
        random.shuffle(shuffled)
    assert guess_kind(shuffled, vendor) == guess
    assert guess.kind is None or guess.kind in KINDS
    assert (guess.kind is None) == (guess.evidence == ())


@given(HINTS, VENDORS)
def test_the_definition(told, vendor):
    assert guess_kind(told, vendor).kind == defined(told, vendor)


def defined(told: Sequence[Hint], vendor: str | None) -> str | None:
    """The kind, from its definition."""
    applied: set[Rule] = set()
    everything = [*told, *([Hint("vendor", FactKind.NONE, vendor)] if vendor else [])]
    for hint in everything:
        text = "^" + hint.text.lower() + "$"
        fitting = [
            r for r in RULES if r.what == hint.what and r.source in {hint.source, "any"} and r.match in text
        ]
        for kind in KINDS:
            of_kind = [rule for rule in fitting if rule.kind == kind]
            applied |= (
                {next(r for r in of_kind if r.weight == max(o.weight for o in of_kind))} if of_kind else set()
            )
    sums = sorted((sum(rule.weight for rule in applied if rule.kind == kind), kind) for kind in KINDS)
    (second, _), (best, kind) = sums[-2:]
    return kind if best >= THRESHOLD and best >= second + LEAD else None


def test_a_guess_takes_less_than_a_millisecond():
    told = hints(*(row for _, _, rows in DEVICES for row in rows))[:24]
    guess_kind(told, "Cisco Systems, Inc")
    best = min(duration_of(told) for _ in range(20))
    assert best < 1e-3


def duration_of(told: list[Hint]) -> float:
    start = time.perf_counter()
    guess: Guess = guess_kind(told, "Cisco Systems, Inc")
    assert guess.name
    return time.perf_counter() - start
