"""What a device is to mail, inferred from what it does: a role is earned slowly, not by opening port 25."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from sensor.devices.features import Feature
from sensor.jit import inner, kernel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Role(IntEnum):
    """Roles, in words that appear in alerts."""

    UNKNOWN = 0
    MAIL_SERVER = 1  # configured, or serves mail to others on several days
    NEW_MAIL_SERVER = 2  # serves mail to others, not for long
    SMARTHOST_CLIENT = 3  # hands its mail to one server: cameras, printers, monitoring
    MAIL_CLIENT = 4  # a few submission servers: a person's mail program
    DIRECT_SENDER = 5  # delivers to other people's servers by itself

    @property
    def label(self) -> str:
        """The role in the words of an alert."""
        return self.name.lower().replace("_", " ")


#: Days with mail before a device that serves mail counts as an established server.
ESTABLISHED_DAYS = 3
#: One server has this share of a smarthost client's connections.
SMARTHOST_SHARE = 0.9
MAIL_CLIENT_OPERATORS = 3


_UNKNOWN, _MAIL_SERVER, _NEW_MAIL_SERVER = int(Role.UNKNOWN), int(Role.MAIL_SERVER), int(Role.NEW_MAIL_SERVER)
_SMARTHOST_CLIENT, _MAIL_CLIENT, _DIRECT_SENDER = (
    int(Role.SMARTHOST_CLIENT),
    int(Role.MAIL_CLIENT),
    int(Role.DIRECT_SENDER),
)


@inner
def infer_role(f: NDArray[np.float64]) -> int:
    """Return the Role of a device with the features ``f``, f8[N_FEATURES]."""
    if f[Feature.KNOWN_SERVER] > 0:
        return _MAIL_SERVER
    if f[Feature.INBOUND_MESSAGES] >= 1:
        return _MAIL_SERVER if f[Feature.ACTIVE_DAYS_14] >= ESTABLISHED_DAYS else _NEW_MAIL_SERVER
    if f[Feature.ONE_DESTINATION_SHARE] >= SMARTHOST_SHARE:
        return _SMARTHOST_CLIENT
    submits_only = f[Feature.SUBMISSION_24H] > 0 and f[Feature.SMTP25_24H] == 0
    if submits_only and f[Feature.SUBMISSION_OPERATORS_24H] <= MAIL_CLIENT_OPERATORS:
        return _MAIL_CLIENT
    return _DIRECT_SENDER if f[Feature.OPERATORS25_24H] >= 2 else _UNKNOWN


@kernel
def infer_roles(features: NDArray[np.float64], out: NDArray[np.int64]) -> None:
    """Fill ``out``, i8[n], with the Role of each row of ``features``, f8[n, N_FEATURES]."""
    for i in range(out.size):
        out[i] = infer_role(features[i])
