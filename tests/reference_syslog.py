"""A parser of syslog messages, written from the ABNF of RFC 5424 section 6; slow and strict."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PRINTUSASCII = r"[\x21-\x7e]"
_SD_NAME = r"[\x21\x23-\x3c\x3e-\x5c\x5e-\x7e]{1,32}"  # except '=', SP, ']', '"'
_TIMESTAMP = (
    r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?"
    r"(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)"
)
_HEADER = re.compile(
    rf"<(0|[1-9]\d{{0,2}})>([1-9]\d{{0,2}}) (-|{_TIMESTAMP}) (-|{_PRINTUSASCII}{{1,255}}) "
    rf"(-|{_PRINTUSASCII}{{1,48}}) (-|{_PRINTUSASCII}{{1,128}}) (-|{_PRINTUSASCII}{{1,32}}) "
)
_ELEMENT = re.compile(rf"\[({_SD_NAME})")
_PARAM = re.compile(rf' ({_SD_NAME})="((?:[^"\\\]]|\\.)*)"', re.DOTALL)
_UNESCAPED = re.compile(r'\\(["\\\]])')


@dataclass
class Message:
    facility: int
    severity: int
    timestamp: str
    host_name: str
    app_name: str
    process_id: str
    message_id: str
    data: dict[str, list[tuple[str, str]]]
    content: bytes | None  # None: there is not even the space before it


def parse(raw: bytes) -> Message:
    """Parse one message; ValueError if it is none."""
    # surrogateescape: MSG may be any octets, and is kept as such.
    text = raw.decode("utf-8", "surrogateescape")
    header = _HEADER.match(text)
    if not header or int(header[1]) > 191 or header[2] != "1":
        raise ValueError("no header of version 1")
    at = header.end()
    data: dict[str, list[tuple[str, str]]] = {}
    if text.startswith("-", at):
        at += 1
    else:
        while element := _ELEMENT.match(text, at):
            at = element.end()
            params = []
            while param := _PARAM.match(text, at):
                param[2].encode("utf-8")  # UTF-8-STRING
                params.append((param[1], _UNESCAPED.sub(r"\1", param[2])))
                at = param.end()
            if not text.startswith("]", at) or element[1] in data:
                raise ValueError("a broken or doubled SD-ELEMENT")
            at += 1
            data[element[1]] = params
        if not data:
            raise ValueError("no structured data")
    if at < len(text) and text[at] != " ":
        raise ValueError("no space before MSG")
    content = None if at == len(text) else text[at + 1 :].encode("utf-8", "surrogateescape")
    facility, severity = divmod(int(header[1]), 8)
    return Message(facility, severity, header[3], header[4], header[5], header[6], header[7], data, content)
