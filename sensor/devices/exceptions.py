"""Mail that the operator has accepted: by a device, to a destination, or by one to the other, until it expires."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sensor.devices.identity import is_in_networks
from sensor.devices.resolution import find_answer
from sensor.devices.table import N_ADDRESSES, SITE_SERIAL, DeviceTables
from sensor.jit import i64, inner

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_DOT = 46


@inner
def ends_with(text: NDArray[np.uint8], length: int, suffix: NDArray[np.uint8], suffix_len: int) -> bool:
    """Tell whether the name ``text[:length]`` is the domain ``suffix[:suffix_len]`` or below it; both in lower case."""
    if suffix_len > length:
        return False
    for i in range(suffix_len):
        if text[length - suffix_len + i] != suffix[i]:
            return False
    return length == suffix_len or text[length - suffix_len - 1] == _DOT


@inner
def is_host_name(t: DeviceTables, row: int, name: NDArray[np.uint8], name_len: int) -> bool:
    """Tell whether a device calls itself ``name[:name_len]``, in any case."""
    if t.devices[row]["host_name_len"] != name_len:
        return False
    for i in range(name_len):
        byte = t.host_names[row, i]
        if 65 <= byte <= 90:
            byte += 32
        if byte != name[i]:
            return False
    return True


@inner
def is_excepted_device(t: DeviceTables, e: int, row: int) -> bool:
    """Tell whether exception ``e`` speaks of the device in ``row``."""
    exception = t.exceptions[e]
    if exception["device_mac"] >= 0 and t.devices[row]["mac"] != exception["device_mac"]:
        return False
    if exception["device_name_len"] > 0 and not is_host_name(
        t, row, t.exception_names[2 * e], exception["device_name_len"]
    ):
        return False
    if exception["has_device_net"] != 0:
        for i in range(N_ADDRESSES):
            address = t.addresses[row, i]
            if address["last_ns"] != 0 and is_in_networks(
                t.exception_nets[2 * e : 2 * e + 1], address["hi"], address["lo"]
            ):
                return True
        return False
    return True


@inner
def is_excepted_destination(t: DeviceTables, e: int, row: int, hi: int, lo: int, ts_ns: int) -> bool:
    """Tell whether exception ``e`` speaks of this destination, by address or by the name that the device knows."""
    exception = t.exceptions[e]
    if exception["has_destination_net"] != 0:
        return is_in_networks(t.exception_nets[2 * e + 1 : 2 * e + 2], hi, lo)
    if exception["domain_len"] > 0:
        answer = find_answer(t.answers, t.devices[row]["serial"], hi, lo, ts_ns)
        if answer < 0:
            answer = find_answer(t.answers, SITE_SERIAL, hi, lo, ts_ns)
        if answer < 0:
            return False
        known = i64(t.answers[answer]["name_len"])
        return ends_with(t.answer_names[answer], known, t.exception_names[2 * e + 1], exception["domain_len"])
    return True


@inner
def is_excepted(t: DeviceTables, row: int, hi: int, lo: int, ts_ns: int) -> bool:
    """Tell whether mail of the device in ``row`` to an address is covered by an exception that has not expired."""
    for e in range(t.exceptions.size):
        if (
            ts_ns < t.exceptions[e]["expires_ns"]
            and is_excepted_device(t, e, row)
            and is_excepted_destination(t, e, row, hi, lo, ts_ns)
        ):
            return True
    return False
