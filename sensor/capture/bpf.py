"""Socket filters: classic BPF programs, made here, by which the kernel picks the packets that it hands over.

A program reads the frame as it lies in the kernel, where an outer VLAN tag has been taken out already
(Documentation/networking/filter.rst; McCanne and Jacobson, The BSD Packet Filter, 1993). A read beyond the end
of the frame drops it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sensor.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

# linux/bpf_common.h and linux/filter.h: the codes that are used here.
_LD_U8_X, _LD_U16, _LD_U16_X, _LD_U32 = 0x50, 0x28, 0x48, 0x20
_LDX, _TAX = 0x01, 0x07
_ADD_X, _AND, _LSH = 0x0C, 0x54, 0x64
_JA, _JEQ, _JSET = 0x05, 0x15, 0x45
_RET: Final = 0x06
_LD_CONSTANT: Final = 0x00
_INTERFACE_INDEX: Final = 0xFFFFF000 + 8  # SKF_AD_OFF + SKF_AD_IFINDEX: no byte, but whose frame it is

#: What a jump of a condition can span.
_MAX_JUMP: Final = 255
#: VLAN tags that lie in the frame and are seen through; of frames with more, all are kept.
MAX_TAGS: Final = 3
_TPIDS: Final = (0x8100, 0x88A8, 0x9100)
_ETHERTYPE: Final = 12
_ETHERNET_BYTES: Final = 14
_IPV4, _IPV6 = 0x0800, 0x86DD
_ICMP, _TCP, _UDP, _ESP = 1, 6, 17, 50
_FRAGMENT_OFFSET: Final = 0x1FFF
_IPV6_BYTES: Final = 40


class Instruction(NamedTuple):
    """struct sock_filter. ``on_true`` and ``on_false``: instructions to pass over."""

    code: int
    on_true: int
    on_false: int
    value: int


class KeptPorts(NamedTuple):
    """Ports of either side whose packets are kept, whoever sends them."""

    tcp: frozenset[int]
    udp: frozenset[int]


class _Program:
    """Instructions with jumps to labels, which lie further down."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, str | None, str | None, int]] = []
        self._labels: dict[str, int] = {}

    def do(self, code: int, value: int = 0) -> None:
        """Add an instruction that goes on to the next one."""
        self._rows.append((code, None, None, value))

    def go_if(self, code: int, value: int, target: str, otherwise: str | None = None) -> None:
        """Add a condition; without ``otherwise`` it goes on to the next one."""
        self._rows.append((code, target, otherwise, value))

    def go(self, target: str) -> None:
        """Add a jump."""
        self._rows.append((_JA, target, None, 0))

    def label(self, name: str) -> None:
        """Name the next instruction."""
        self._labels[name] = len(self._rows)

    def instructions(self) -> list[Instruction]:
        """Resolve the labels. CaptureError if a condition's jump is too far: there are too many ports."""
        return [self._resolved(row, *parts) for row, parts in enumerate(self._rows)]

    def _resolved(
        self, row: int, code: int, target: str | None, otherwise: str | None, value: int
    ) -> Instruction:
        true, false = (self._labels[name] - row - 1 if name else 0 for name in (target, otherwise))
        if code == _JA:
            return Instruction(code, 0, 0, true)
        if max(true, false) > _MAX_JUMP:
            raise CaptureError("too many ports for a socket filter")
        return Instruction(code, true, false, value)


def filter_program(
    interfaces: Collection[int] | None, ports: KeptPorts | None, snaplen: int
) -> Sequence[Instruction]:
    """Return the program that keeps frames of ``interfaces`` (their indexes; None: wherever they are from).

    ``ports``: keep only what can be mail, DNS or tell who is who, which is all but IP's TCP, UDP, ICMP and ESP
    as they are, and of TCP and UDP the packets of these ports, and no fragments but the first; encapsulations
    are all kept, by their protocol or port. None: keep everything. ``snaplen``: bytes kept of a frame.
    """
    program = _Program()
    if interfaces is not None:
        program.do(_LD_U32, _INTERFACE_INDEX)
        for index in interfaces:
            program.go_if(_JEQ, index, "wanted")
        program.go("drop")
        program.label("wanted")
    if ports is not None:
        _pick_mail(program, ports)
    program.label("keep")
    program.do(_RET, snaplen)
    program.label("drop")
    program.do(_RET, 0)
    return program.instructions()


def _pick_mail(program: _Program, ports: KeptPorts) -> None:
    for n_tags in range(MAX_TAGS + 1):
        program.do(_LD_U16, _ETHERTYPE + 4 * n_tags)
        for tpid in _TPIDS:
            program.go_if(_JEQ, tpid, f"tag {n_tags}")
        program.do(_LDX, 4 * n_tags)
        program.go("network")
        program.label(f"tag {n_tags}")
    program.go("keep")

    # From here on the index register is what lies before the header at hand, but for the Ethernet header.
    program.label("network")
    program.go_if(_JEQ, _IPV4, "IPv4")
    program.go_if(_JEQ, _IPV6, "IPv6", "keep")

    program.label("IPv4")  # RFC 791 section 3.1
    program.do(_LD_U8_X, _ETHERNET_BYTES + 9)
    for protocol in (_ICMP, _ESP):
        program.go_if(_JEQ, protocol, "drop")
    for protocol in (_TCP, _UDP):
        program.go_if(_JEQ, protocol, f"IPv4 {protocol}")
    program.go("keep")
    for protocol in (_TCP, _UDP):
        program.label(f"IPv4 {protocol}")
        program.do(_LD_U16_X, _ETHERNET_BYTES + 6)
        program.go_if(_JSET, _FRAGMENT_OFFSET, "drop")
        program.do(_LD_U8_X, _ETHERNET_BYTES)
        program.do(_AND, 0x0F)
        program.do(_LSH, 2)
        program.go(f"transport {protocol}")

    program.label("IPv6")  # RFC 8200 section 3; with extension headers it is kept
    program.do(_LD_U8_X, _ETHERNET_BYTES + 6)
    program.go_if(_JEQ, _ESP, "drop")
    for protocol in (_TCP, _UDP):
        program.go_if(_JEQ, protocol, f"IPv6 {protocol}")
    program.go("keep")
    for protocol in (_TCP, _UDP):
        program.label(f"IPv6 {protocol}")
        program.do(_LD_CONSTANT, _IPV6_BYTES)
        program.go(f"transport {protocol}")

    for protocol, kept in ((_TCP, ports.tcp), (_UDP, ports.udp)):
        program.label(f"transport {protocol}")
        program.do(_ADD_X)
        program.do(_TAX)
        for side in (0, 2):
            program.do(_LD_U16_X, _ETHERNET_BYTES + side)
            for port in sorted(kept):
                program.go_if(_JEQ, port, "keep")
        program.go("drop")
