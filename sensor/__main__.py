"""``python -m sensor`` is the command ``spamsensor``."""

from sensor.cli import main

main()
