"""Giving up privileges, for good, once the capture socket is open."""

from __future__ import annotations

import ctypes
import os
import pwd
import struct
import sys
from typing import Final

from sensor.errors import ConfigError, SensorError
from sensor.notation import visible

# linux/prctl.h, linux/capability.h
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITY_VERSION_3: Final = 0x20080522


def find_user(name: str) -> pwd.struct_passwd:
    """Look a user up; ConfigError if there is none of that name."""
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(f"--user {visible(name)}: there is no such user") from None


def drop_privileges(user: pwd.struct_passwd) -> None:
    """Become ``user`` if we are root; then, as whoever we are, give up all capabilities and ways to new ones.

    To be called before there is a second thread: capabilities are a thread's. SensorError if the kernel refuses.
    """
    try:
        if os.geteuid() == 0:
            os.setgroups([])
            # For root they set the saved ids, too; macOS has no setresuid.
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)
        if not sys.platform.startswith("linux"):
            return  # capabilities and no_new_privs are Linux's
        libc = ctypes.CDLL(None, use_errno=True)
        _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        _check(libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
        # struct __user_cap_header_struct of this thread, and two __user_cap_data_struct without any.
        _check(libc.capset(struct.pack("Ii", _CAPABILITY_VERSION_3, 0), bytes(24)))
    except OSError as reason:
        raise SensorError(f"privileges cannot be given up: {reason.strerror}") from None


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
