"""spamsensor: names the devices of a network that send spam, from the packets of a mirror port."""

__version__ = "0.1.0"
