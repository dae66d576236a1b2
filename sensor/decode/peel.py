"""Frames and packets inside others: one layer is peeled at a time, up to a named bound.

A function that peels a layer is given where its header begins, and returns (status, Layer, its position):
UNDECIDED and what is inside, or the frame's FrameStatus. ``end`` and ``wire_end`` are those of decode/ip.py.
What a header says of the packet goes into its columns: a frame inside brings its own stations and VLAN, whatever
else is in between makes them unknown, and the innermost session id stays.

To add one: its member of ``Layer``, its function beside its kin, who announces it (an EtherType, a protocol
number, a port), its line in ``peel_layer``; the same in tests/reference_tunnels.py, a builder, a capture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sensor.decode.gre import peel_erspan_ii, peel_erspan_iii, peel_gre
from sensor.decode.layers import Layer
from sensor.decode.link import peel_ethernet, peel_nflog
from sensor.decode.ppp import peel_chdlc, peel_ppp, peel_pppoe
from sensor.decode.shims import peel_etag, peel_fabricpath, peel_mpls, peel_nsh, peel_pbb, peel_vntag
from sensor.decode.status import UNDECIDED, status_of_lack
from sensor.decode.udp_tunnels import (
    peel_capwap,
    peel_geneve,
    peel_gre_in_udp,
    peel_gtp_u,
    peel_l2tp,
    peel_l2tpv3,
    peel_teredo,
    peel_tzsp,
    peel_vxlan,
)
from sensor.decode.wifi import peel_radiotap, peel_wifi
from sensor.decode.wire import has
from sensor.jit import inner, spliced

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sensor.decode.wire import Bytes

#: A mirror in a tunnel in a tunnel takes about nine (IP, GRE, ERSPAN, Ethernet, IP, VXLAN, Ethernet, PPPoE, IP).
MAX_LAYERS = 16

_ETHERIP_BYTES = 2


@spliced
def peel_etherip(
    _data: Bytes, pos: int, end: int, wire_end: int, weirds: NDArray[np.int64]
) -> tuple[int, int, int]:
    """Peel EtherIP (RFC 3378): a version and zeros in front of a frame."""
    if not has(pos, end, _ETHERIP_BYTES):
        return status_of_lack(pos, _ETHERIP_BYTES, wire_end, weirds), Layer.NONE, pos
    return UNDECIDED, Layer.ETHERNET, pos + _ETHERIP_BYTES


@inner
def peel_layer(
    data: Bytes, layer: int, pos: int, end: int, wire_end: int, packet: Any, weirds: NDArray[np.int64]
) -> tuple[int, int, int]:
    """Peel one header, of any kind but a network header."""
    if layer in (
        Layer.ETHERNET,
        Layer.ERSPAN_I,
        Layer.AMSDU,
    ):  # the second has no header, the third begins like the first
        return peel_ethernet(data, pos, end, wire_end, packet, weirds)
    if layer == Layer.IPV4_IN_IP:
        return UNDECIDED, Layer.IPV4, pos
    if layer == Layer.IPV6_IN_IP:
        return UNDECIDED, Layer.IPV6, pos
    if layer == Layer.VXLAN:
        return peel_vxlan(data, pos, end, wire_end, packet)
    if layer == Layer.GRE:
        return peel_gre(data, pos, end, wire_end, packet, weirds)
    if layer == Layer.ERSPAN_II:
        return peel_erspan_ii(data, pos, end, wire_end, packet, weirds)
    if layer == Layer.ERSPAN_III:
        return peel_erspan_iii(data, pos, end, wire_end, packet, weirds)
    if layer == Layer.TZSP:
        return peel_tzsp(data, pos, end, wire_end)
    if layer == Layer.PPPOE:
        return peel_pppoe(data, pos, end, wire_end, packet, weirds)
    if layer == Layer.PPP:
        return peel_ppp(data, pos, end, wire_end, weirds)
    if layer == Layer.MPLS:
        return peel_mpls(data, pos, end, wire_end, packet, weirds)
    if layer == Layer.GENEVE:
        return peel_geneve(data, pos, end, wire_end, packet)
    if layer == Layer.GTP_U:
        return peel_gtp_u(data, pos, end, wire_end, packet)
    if layer == Layer.TEREDO:
        return peel_teredo(data, pos, end, wire_end)
    if layer == Layer.CAPWAP:
        return peel_capwap(data, pos, end, wire_end)
    if layer == Layer.L2TP:
        return peel_l2tp(data, pos, end, wire_end, packet)
    if layer == Layer.L2TPV3:
        return peel_l2tpv3(data, pos, end, wire_end, packet)
    if layer == Layer.GRE_IN_UDP:
        return peel_gre_in_udp(data, pos, end, wire_end)
    if layer == Layer.ETHERIP:
        return peel_etherip(data, pos, end, wire_end, weirds)
    if layer == Layer.RADIOTAP:
        return peel_radiotap(data, pos, end, wire_end, packet, weirds)
    if layer == Layer.WIFI:
        return peel_wifi(data, pos, end, wire_end, False, packet, weirds)
    if layer == Layer.NFLOG:
        return peel_nflog(data, pos, end, wire_end, weirds)
    if layer == Layer.CHDLC:
        return peel_chdlc(data, pos, end, wire_end, weirds)
    if layer == Layer.VNTAG:
        return peel_vntag(data, pos, end, wire_end, packet, weirds)
    if layer == Layer.ETAG:
        return peel_etag(data, pos, end, wire_end, packet, weirds)
    if layer == Layer.PBB:
        return peel_pbb(data, pos, end, wire_end, packet, weirds)
    if layer == Layer.FABRICPATH:
        return peel_fabricpath(data, pos, end, wire_end, packet, weirds)
    return peel_nsh(data, pos, end, wire_end, packet, weirds)
