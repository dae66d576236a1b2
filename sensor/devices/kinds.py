"""What kind of device it is, as far as it tells: a camera, a printer, a phone.

Hints are what decoders read in passing (sensor/decode/facts.py), and the name of the vendor that its MAC address is
registered to. Rules give weights to kinds; ``kinds.tsv`` holds them, each with where it is from. A rule looks for
a part of the text, in lower case, in which ``^`` stands before and ``$`` behind it: nothing to backtrack in.

A device says of itself what it likes. A guess is for the administrator who looks for it, with the reasons; nothing
may be allowed or forgiven because of it, but it may be held against a device: whoever says that it is a camera is
measured as one. Hints that contradict each other make no guess.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from sensor.decode.facts import FactKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

KINDS: Final[Mapping[str, str]] = {
    "camera": "watches: IP cameras, video doorbells",
    "recorder": "keeps what cameras see: NVR, DVR",
    "printer": "prints or scans",
    "tv": "a television set",
    "streaming-box": "plays on a television set: sticks, set-top boxes",
    "speaker": "plays music, or listens: network and smart speakers, receivers",
    "nas": "network storage",
    "router": "joins networks: routers, modems, firewalls",
    "access-point": "radio into a network",
    "switch": "wires of a network",
    "phone": "a mobile phone",
    "tablet": "a tablet or reader",
    "voip-phone": "a telephone at the network",
    "computer": "a desktop, laptop or single-board computer, thin clients",
    "server": "a server, its management, or a virtual host",
    "hub": "the centre of a smart home, or its way to other radios",
    "game-console": "a game console",
    "thermostat": "heats or cools",
    "appliance": "other things of the house: lamps, plugs, vacuum cleaners, chargers",
    "ups": "uninterruptible power supplies and their like",
}

#: Kinds that have one mail server in their settings, if any, and behind which there are no others: what joins networks
#: may send mail of whoever is behind it.
ONE_SERVER_KINDS: Final = frozenset(
    {
        *("camera", "recorder", "printer", "tv", "streaming-box", "speaker", "voip-phone", "game-console"),
        *("thermostat", "appliance", "ups"),
    }
)
#: ... if more than one source says so: a name alone may be anybody's.
SURE_SOURCES: Final = 2

#: Weights: 1 to 2 leans to a kind; 3 to 4 fits more than one; from THRESHOLD on it decides, if nothing contradicts;
#: 7 to 9 was made to say so. The best kind must lead the next by LEAD.
THRESHOLD: Final = 5
LEAD: Final = 3
#: Reasons given, the heaviest first.
MAX_EVIDENCE: Final = 6

#: In ``kinds.tsv``: a rule for whatever protocol; a rule about the vendor's name, which has no FactKind.
_ANY, _VENDOR, _NO_FACT = "any", "vendor", "-"
#: Whose host name is best, whose worst; others come behind.
_NAMERS: Final = ("dhcp", "dhcpv6", "mdns", "netbios", "lldp", "cdp")
_PROTOCOLS: Final = {
    "dhcp": "DHCP",
    "dhcpv6": "DHCPv6",
    "mdns": "mDNS",
    "ssdp": "SSDP",
    "netbios": "NetBIOS",
    "lldp": "LLDP",
    "cdp": "CDP",
    "http": "HTTP",
}
_PHRASES: Final = {
    FactKind.HOST_NAME: 'host name "{}"',
    FactKind.VENDOR_CLASS: 'vendor class "{}"',
    FactKind.PARAMETERS: "asks for options {}",
    FactKind.SERVICE: "offers {}",
    FactKind.MODEL: 'model "{}"',
    FactKind.SYSTEM: 'software "{}"',
    FactKind.CAPABILITIES: "capabilities {}",
    FactKind.USER_AGENT: 'user agent "{}"',
}


class Hint(NamedTuple):
    """What one protocol tells of a device."""

    source: str  # "dhcp", "dhcpv6", "mdns", "ssdp", "netbios", "lldp", "cdp", "http"
    what: FactKind
    text: str  # made printable, and cut, by the decoder


class Guess(NamedTuple):
    """What a device seems to be; None is not known. Texts are the device's own: whoever prints them escapes them."""

    kind: str | None  # of KINDS
    name: str | None
    model: str | None
    evidence: tuple[str, ...]  # why that kind, in words; empty without one
    sources: int  # how many protocols, the vendor counted as one, tell that kind


class Rule(NamedTuple):
    """A row of ``kinds.tsv``."""

    source: str  # as of a Hint, or "any"; "vendor" is the vendor's name
    what: FactKind  # NONE of a vendor
    match: str
    kind: str
    weight: int
    origin: str


@cache
def load_rules() -> tuple[Rule, ...]:
    """Return the rules, in the order of the file."""
    _, *lines = Path(__file__).with_name("kinds.tsv").read_text("ascii").splitlines()
    rules = []
    for line in lines:
        source, what, match, kind, weight, origin = line.split("\t")
        fact = FactKind.NONE if what == _NO_FACT else FactKind[what]
        rules.append(Rule(source, fact, match, kind, int(weight), origin))
    return tuple(rules)


@cache
def _rules_of(source: str, what: FactKind) -> tuple[Rule, ...]:
    return tuple(rule for rule in load_rules() if rule.what == what and rule.source in (source, _ANY))


def guess_kind(hints: Iterable[Hint], vendor: str | None = None) -> Guess:
    """Guess what a device is; the order of the hints makes no difference.

    vendor: whom the IEEE has given the MAC address to, None if that is not known. A rule counts once however often
    it applies, and of one hint the heaviest rule for a kind: repeating something does not make it truer.
    """
    told = sorted(set(hints))
    reasons = dict[Rule, Hint]()
    for hint in [*told, *([Hint(_VENDOR, FactKind.NONE, vendor)] if vendor else [])]:
        for rule in _heaviest(hint):
            reasons.setdefault(rule, hint)
    scores = defaultdict[str, int](int)
    for rule in reasons:
        scores[rule.kind] += rule.weight
    kind = _decide(scores)
    return Guess(
        kind=kind,
        name=_best_name(told),
        model=_best_model(told),
        evidence=_evidence({rule: hint for rule, hint in reasons.items() if rule.kind == kind}),
        sources=len({hint.source for rule, hint in reasons.items() if rule.kind == kind}),
    )


def _heaviest(hint: Hint) -> Iterable[Rule]:
    """Return the rules that apply to a hint, one for each kind."""
    text = f"^{hint.text.lower()}$"
    best = dict[str, Rule]()
    for rule in _rules_of(hint.source, hint.what):
        if rule.match in text and (rule.kind not in best or rule.weight > best[rule.kind].weight):
            best[rule.kind] = rule
    return best.values()


def _decide(scores: Mapping[str, int]) -> str | None:
    """Return the kind that has enough, and enough more than any other."""
    best, second, *_ = sorted([*scores.values(), 0, 0], reverse=True)
    if best < THRESHOLD or best - second < LEAD:
        return None
    return max(scores, key=lambda kind: scores[kind])


def _best_name(hints: Sequence[Hint]) -> str | None:
    names = [hint for hint in hints if hint.what == FactKind.HOST_NAME and hint.text]
    ranks = {source: rank for rank, source in enumerate(_NAMERS)}
    return min(names, key=lambda hint: (ranks.get(hint.source, len(ranks)), hint)).text if names else None


def _best_model(hints: Sequence[Hint]) -> str | None:
    """Return the longest text: "HP LaserJet 400 M401dne" is told beside "HP"."""
    models = [hint.text for hint in hints if hint.what == FactKind.MODEL and hint.text]
    return max(models, key=lambda text: (len(text), text)) if models else None


def _evidence(reasons: Mapping[Rule, Hint]) -> tuple[str, ...]:
    by_weight = sorted(reasons.items(), key=lambda item: (-item[0].weight, item[1]))
    return tuple(dict.fromkeys(_in_words(hint) for _, hint in by_weight))[:MAX_EVIDENCE]


def _in_words(hint: Hint) -> str:
    """Say what a hint is, for an administrator."""
    if hint.source == _VENDOR:
        return f"made by {hint.text}"
    return f"{_PROTOCOLS.get(hint.source, hint.source)} {_PHRASES[hint.what].format(hint.text)}"
