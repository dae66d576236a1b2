"""Events as JSON Lines, in EVE's vocabulary where it has a word: what decoding saw, for people and programs.

In every line ``src`` is the side that opened the connection (or asked) and ``dest`` the side that answered,
whichever of them the event came from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from sensor.decode.facts import FactKind, FactSource
from sensor.decode.layers import session_text
from sensor.decode.status import FrameStatus
from sensor.events.transfers import SLOT_NS
from sensor.events.types import EventFlag, EventKind, Fate, QType, Verb
from sensor.notation import address_text, eve_time, mac_text, printable_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

_NS_PER_S: Final = 1_000_000_000
_encoder = msgspec.json.Encoder()

Row = dict[str, Any]


def _flag_names(flags: int) -> list[str]:
    return [str(flag.name).lower() for flag in EventFlag if flags & flag]


def _enhanced_text(enhanced: int) -> str | None:
    """Write an enhanced status code (RFC 3463 section 2): ``5.1.1``."""
    if not enhanced:
        return None
    status_class, rest = divmod(enhanced, 1_000_000)
    subject, detail = divmod(rest, 1_000)
    return f"{status_class}.{subject}.{detail}"


_QTYPES: Final = {member.value: member.name for member in QType}
_VERBS: Final = {member.value: member.name for member in Verb}
_WHATS: Final = {member.value: member.name.lower() for member in FactKind}
_SOURCES: Final = {member.value: member.name.lower() for member in FactSource}
#: Events of one end: what a device says of itself.
_LAN_KINDS: Final = (EventKind.ARP, EventKind.DHCP, EventKind.ND, EventKind.DHCPV6, EventKind.FACT)
_FATES: Final = {member.value: member.name.lower() for member in Fate}


def _qtype_text(qtype: int) -> str:
    """Write a record type by its name, else as ``TYPE99`` (RFC 3597 section 5)."""
    return _QTYPES.get(qtype, f"TYPE{qtype}")


def _conn_open(row: Row, _text: str) -> Row:
    return {"flags": _flag_names(row["flags"]), "syn_fingerprint": row["aux_lo"] or None}


def _conn_close(row: Row, _text: str) -> Row:
    return {
        "fate": _FATES[row["code"]],
        "bytes_toserver": row["orig_bytes"],
        "bytes_toclient": row["resp_bytes"],
        "duration_s": row["duration_ns"] / _NS_PER_S,
        "syns": row["syns"],
        "messages_accepted": row["count"],
        "transactions_unseen": row["enhanced"],
        "dialect": row["aux_lo"] or None,
        "flags": _flag_names(row["flags"]),
    }


def _smtp_command(row: Row, text: str) -> Row:
    return {"verb": _VERBS[row["code"]], "domain": text or None}


def _smtp_reply(row: Row, text: str) -> Row:
    return {
        "code": row["code"],
        "enhanced": _enhanced_text(row["enhanced"]),
        "answers": _VERBS[row["verb"]] if row["verb"] else None,
        "server": text or None,
        "flags": _flag_names(row["flags"]),
    }


def _tls_hello(_row: Row, text: str) -> Row:
    return {"sni": text}


def _smtp_message(row: Row, _text: str) -> Row:
    return {"code": row["code"] or None, "recipients": row["count"], "size": row["orig_bytes"]}


def _dns_query(row: Row, text: str) -> Row:
    return {"rrtype": _qtype_text(row["code"]), "rrname": text, "flags": _flag_names(row["flags"])}


def _dns_answer(row: Row, text: str) -> Row:
    rrtype = _qtype_text(row["code"])
    answer: Row = {"rrtype": rrtype, "ttl": row["ttl_s"]}
    if rrtype in ("A", "AAAA"):
        return answer | {"rrname": text, "rdata": address_text(row["aux_hi"], row["aux_lo"])}
    return answer | {"rdata": text}


def _dns_response(row: Row, text: str) -> Row:
    return {
        "rrtype": _qtype_text(row["code"]),
        "rrname": text,
        "rcode": row["enhanced"],
        "answers": row["count"],
        "flags": _flag_names(row["flags"]),
    }


def _arp(_row: Row, _text: str) -> Row:
    return {}


def _nd(row: Row, _text: str) -> Row:
    return {"icmpv6_type": row["code"], "router": bool(row["count"])}


def _dhcp(row: Row, text: str) -> Row:
    return {"type": row["code"], "hostname": text or None, "relay_mac": mac_text(row["resp_mac"])}


def _dhcpv6(row: Row, text: str) -> Row:
    return {"type": row["code"], "hostname": text or None}


def _fact(row: Row, text: str) -> Row:
    return {"source": _SOURCES[row["enhanced"]], "what": _WHATS[row["code"]], "text": text}


def _transfer(row: Row, _text: str) -> Row:
    return {
        "of": "mail" if row["code"] == FrameStatus.MAIL else "other",
        "slot": eve_time(row["aux_lo"] * SLOT_NS),
        "bytes_toserver": row["orig_bytes"],
        "bytes_toclient": row["resp_bytes"],
    }


def _peer_call(row: Row, _text: str) -> Row:
    return {"syn_fingerprint": row["aux_lo"] or None}


_OWN_KEYS: Final[dict[int, Callable[[Row, str], Row]]] = {
    EventKind.CONN_OPEN: _conn_open,
    EventKind.CONN_CLOSE: _conn_close,
    EventKind.SMTP_COMMAND: _smtp_command,
    EventKind.SMTP_REPLY: _smtp_reply,
    EventKind.SMTP_MESSAGE: _smtp_message,
    EventKind.DNS_QUERY: _dns_query,
    EventKind.DNS_ANSWER: _dns_answer,
    EventKind.DNS_RESPONSE: _dns_response,
    EventKind.ARP: _arp,
    EventKind.DHCP: _dhcp,
    EventKind.TRANSFER: _transfer,
    EventKind.PEER_CALL: _peer_call,
    EventKind.ND: _nd,
    EventKind.DHCPV6: _dhcpv6,
    EventKind.FACT: _fact,
    EventKind.TLS_HELLO: _tls_hello,
}
_TYPES: Final = {kind.value: kind.name.lower() for kind in EventKind}


def event_objects(events: NDArray[Any], text: NDArray[np.uint8]) -> Iterator[Row]:
    """Yield one JSON-ready object per event, in order.

    ``events``: EVENT_DTYPE[n]; ``text``: u8[n_bytes], the arena that they point into. Names become printable
    ASCII.
    """
    names = events.dtype.names or ()
    arena = text.tobytes()
    for values in events.tolist():
        row = dict(zip(names, values, strict=True))
        own_text = printable_bytes(arena[row["text_start"] : row["text_start"] + row["text_len"]])
        yield _common_keys(row) | _OWN_KEYS[row["kind"]](row, own_text)


def _common_keys(row: Row) -> Row:
    common: Row = {
        "timestamp": eve_time(row["ts_ns"]),
        "event_type": _TYPES[row["kind"]],
        "vlan": row["vlan"] if row["vlan"] >= 0 else None,
        "src_mac": mac_text(row["orig_mac"]),
        "src_ip": address_text(row["orig_hi"], row["orig_lo"]),
    }
    if row["session"] >= 0:
        common["session"] = session_text(row["session"])
    if row["kind"] in _LAN_KINDS:
        return common
    return common | {
        "src_port": row["orig_port"],
        "dest_mac": mac_text(row["resp_mac"]),
        "dest_ip": address_text(row["resp_hi"], row["resp_lo"]),
        "dest_port": row["resp_port"],
        "flow_id": row["flow_id"] if row["flow_id"] >= 0 else None,
    }


def event_lines(events: NDArray[Any], text: NDArray[np.uint8]) -> bytes:
    """Encode events as JSON Lines; the arguments are those of ``event_objects``."""
    return _encoder.encode_lines(event_objects(events, text))
