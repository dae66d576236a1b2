"""What can go wrong for reasons outside this program, each with one line that a person can act on.

Malformed *traffic* is never an error: it is a status and a counter (decode/status.py).
"""

from __future__ import annotations


class SensorError(Exception):
    """Root of all errors that the command line shows as one line, without a traceback."""


class ConfigError(SensorError):
    """A configuration file or option is wrong: names the key, the value and what is allowed."""


class CaptureError(SensorError):
    """A capture cannot be opened or read: names the file and the reason."""


class CaptureFormatError(CaptureError):
    """A capture is not what its format demands: names the file, the byte offset and the reason."""


class DataError(SensorError):
    """A directory of simulated data cannot be used: names the file and the reason."""


class ModelError(SensorError):
    """A model artifact cannot be used: names the artifact and the reason."""


class StateError(SensorError):
    """Stored state cannot be used: names the file and the reason."""
