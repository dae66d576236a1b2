"""The kinds of header that decoding goes through; each module of this package knows a few of them."""

from __future__ import annotations

from enum import IntEnum


class Layer(IntEnum):
    """What begins at a position. All but NETWORK_LAYERS are peeled, and counted in ``--stats``, when found inside."""

    NONE = 0
    IPV4 = 1
    IPV6 = 2
    ARP = 3
    ETHERNET = 4  # a whole frame, or what a pseudo-wire carries of one
    # before the network header (shims.py)
    MPLS = 5
    VNTAG = 6
    ETAG = 7
    PBB = 8
    FABRICPATH = 9
    NSH = 10
    # point to point (ppp.py)
    PPP = 11
    PPPOE = 12
    CHDLC = 13
    # radio (wifi.py)
    RADIOTAP = 14
    WIFI = 15
    AMSDU = 16
    NFLOG = 17  # link.py
    # over IP (gre.py, ip.py)
    IPV4_IN_IP = 18
    IPV6_IN_IP = 19
    GRE = 20
    ERSPAN_I = 21
    ERSPAN_II = 22
    ERSPAN_III = 23
    ETHERIP = 24
    L2TPV3 = 25
    # over UDP (udp_tunnels.py)
    VXLAN = 26
    GENEVE = 27
    GTP_U = 28
    TEREDO = 29
    L2TP = 30
    CAPWAP = 31
    TZSP = 32
    GRE_IN_UDP = 33
    # what a switch says of itself (lldp.py, cdp.py)
    LLDP = 34
    CDP = 35


N_LAYERS = len(Layer)

#: Layers without IP: the whole message is the packet's payload.
LAN_LAYERS = (Layer.ARP, Layer.LLDP, Layer.CDP)
#: The layers that end the search, whose own decoder goes on.
NETWORK_LAYERS = (Layer.IPV4, Layer.IPV6, *LAN_LAYERS)


def session_text(session: int) -> str | None:
    """Write PACKET_DTYPE's ``session`` as the layer that it is of and its number, ``vxlan 42``; None for -1."""
    return None if session < 0 else f"{Layer(session >> 32).name.lower()} {session & 0xFFFFFFFF}"
