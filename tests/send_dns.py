"""Send as many DNS queries to the loopback as the argument says, of 1,000 bytes each, in about a second and a half."""

import socket
import sys
import time

QUERY = bytes.fromhex("123401000001000000000000") + b"\x07example\x03com\0\0\x0f\0\x01"

if __name__ == "__main__":
    n = int(sys.argv[1])
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as to,
    ):
        to.bind(("127.0.0.1", 53))
        for i in range(n):
            out.sendto(QUERY + bytes(1000 - len(QUERY)), ("127.0.0.1", 53))
            if i % 50 == 49:
                time.sleep(75 / n)
