"""What is in use elsewhere, over the same features: yardsticks, each at the setting that it is published with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sensor.devices.features import Feature

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

#: ntopng's "SMTP Server Contacts": more servers than this, by a host that is none itself.
NTOPNG_CONTACTS: Final = 5
#: Connections to port 25 within the hour; plain rate limits at providers lie about here.
RATE_PER_HOUR: Final = 20


def any_mx(features: Floats) -> NDArray[np.bool_]:
    """Return where f8[n, N_FEATURES] has any look-up of a mail exchange (Whyte et al., ACSAC 2006): bool[n]."""
    found: NDArray[np.bool_] = features[:, Feature.MX_24H] >= 1
    return found


def server_contacts(features: Floats) -> NDArray[np.bool_]:
    """Return what ntopng's check says, of the last day: its own counter is never reset; bool[n]."""
    is_server = features[:, Feature.INBOUND_24H] + features[:, Feature.INBOUND_LOCAL_24H] > 0
    found: NDArray[np.bool_] = (features[:, Feature.DESTINATIONS_24H] > NTOPNG_CONTACTS) & ~is_server
    return found


def port_25_rate(features: Floats) -> NDArray[np.bool_]:
    """Return where connections to port 25 reach a limit; bool[n]."""
    found: NDArray[np.bool_] = features[:, Feature.SMTP25_1H] >= RATE_PER_HOUR
    return found


BASELINES: Final[dict[str, Callable[[Floats], NDArray[np.bool_]]]] = {
    "any MX look-up": any_mx,
    "more than 5 servers": server_contacts,
    "20 connections an hour": port_25_rate,
}
