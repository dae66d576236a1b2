"""The outside of the lab: who runs mail servers where, for which domains, and how they treat their senders.

All addresses are documentation addresses (RFC 5737), all names end in ``.example`` (RFC 2606).
"""

from __future__ import annotations

from dataclasses import dataclass

from services import Listener, MailServer, submission

RESOLVER = "192.0.2.53"
WEB = "198.51.100.80"
PROXY_CONTROLLER = "203.0.113.200"
BACKBONE = ("198.51.100.1/24", "203.0.113.1/24", "192.0.2.1/24", "100.64.0.1/30")
GATEWAY_OUTSIDE = "100.64.0.2"
BLOCK_LIST = "zen.example"
TTL_S = 300
#: The same login at every server: the one a thief has bought works, the others of his list do not.
STOLEN_LOGIN, STOLEN_PASSWORD = "carla", "summer-of-69"
LOGIN, PASSWORD = "anna", "correct-horse"


@dataclass(frozen=True)
class Operator:
    """One company that runs mail servers."""

    name: str
    mx: dict[str, str]  # host name: address
    domains: tuple[str, ...]
    policy: str  # a key of POLICIES
    submission_host: str
    submission_tls: str = "may"  # may: logins in clear are taken too

    @property
    def submission_address(self) -> str:
        return next(iter(self.mx.values()))


#: IPv6, where a scenario has it: the prefix of the LAN, the way to it, and the provider's mail server.
LAN_V6, BACKBONE_V6, GATEWAY_V6 = "2001:db8:50:", "2001:db8:fe::1", "2001:db8:fe::2"
ISP_ROUTER_V6, ISP_V6 = "2001:db8:ff::1", "2001:db8:ff::25"

POLICIES: dict[str, dict[str, str]] = {
    # The mailbox "left" is taken in and then returned to its sender: the late bounce that real mail has.
    "plain": {"transport_maps": "regexp:{{/^left@/ error:5.1.6 this mailbox has moved}}"},
    "tls": {"smtpd_tls_security_level": "may"},
    # postscreen tests new clients and answers 450 once; who comes back with the same dialogue is let in.
    "greylist": {"postscreen_greet_wait": "1s", "postscreen_pipelining_enable": "yes"},
    "block-list": {
        "smtpd_recipient_restrictions": f"reject_unauth_destination, reject_rbl_client {BLOCK_LIST}"
    },
    "rate-limit": {"smtpd_client_message_rate_limit": "4"},
}

OPERATORS = (
    Operator(
        "northmail",
        {f"mx{i}.northmail.example": f"198.51.100.1{i}" for i in (1, 2, 3)},
        ("alpha.example", "bravo.example", "charlie.example", "delta.example"),
        "plain",
        "smtp.northmail.example",
    ),
    Operator(
        "freemail",
        {f"mx{i}.freemail.example": f"203.0.113.2{i}" for i in (1, 2, 3, 4)},
        ("freemail.example", "echo.example", "foxtrot.example"),
        "tls",
        "smtp.freemail.example",
        "encrypt",
    ),
    Operator(
        "greymail",
        {f"mx{i}.greymail.example": f"192.0.2.3{i}" for i in (1, 2)},
        ("golf.example", "hotel.example", "india.example"),
        "greylist",
        "mail.greymail.example",
    ),
    Operator(
        "guardmail",
        {f"in{i}.guardmail.example": f"198.51.100.4{i}" for i in (1, 2, 3)},
        ("juliett.example", "kilo.example", "lima.example"),
        "block-list",
        "submit.guardmail.example",
        "encrypt",
    ),
    Operator(
        "busymail",
        {f"mx{i}.busymail.example": f"203.0.113.5{i}" for i in (1, 2)},
        ("mike.example", "november.example", "oscar.example"),
        "rate-limit",
        "smtp.busymail.example",
    ),
    Operator(
        "isp",
        {"mx.isp.example": "203.0.113.90"},
        ("isp.example", "papa.example", "quebec.example"),
        "plain",
        "smtp.isp.example",
    ),
)
#: Domains whose mail host refuses every connection, and whose mail host is not there.
DEAD_MX = {
    "romeo.example": ("mx.romeo.example", WEB),
    "sierra.example": ("mx.sierra.example", "203.0.113.78"),
}
WEB_NAMES = ("www.alpha.example", "www.kilo.example", "updates.tv.example", "time.camera.example")
DOMAINS = tuple(domain for operator in OPERATORS for domain in operator.domains)


def mail_server(operator: Operator) -> MailServer:
    """The operator's Postfix: port 25 at every MX address, submission at the first."""
    if operator.policy == "greylist":  # one postscreen process must own its memory of clients
        inbound = [Listener(25, daemon="postscreen")]
    else:
        inbound = [Listener(25, ip, options={"myhostname": name}) for name, ip in operator.mx.items()]
    at, name = operator.submission_address, operator.submission_host
    return MailServer(
        hostname=next(iter(operator.mx)),
        domains=operator.domains,
        listeners=(
            *inbound,
            submission(at, tls=operator.submission_tls, hostname=name),
            submission(at, port=465, tls="wrap", hostname=name),
        ),
        settings=POLICIES[operator.policy],
        accounts={
            f"{LOGIN}@{operator.domains[0]}": PASSWORD,
            f"{STOLEN_LOGIN}@{operator.domains[0]}": STOLEN_PASSWORD,
        },
    )


def dns_records(office_mx: tuple[str, str, str], block_listed: tuple[str, ...]) -> list[str]:
    """Every record of the outside resolver. ``office_mx``: the office's domain, its mail host and address."""
    records = []
    hosts = dict.fromkeys(WEB_NAMES, WEB)
    for operator in OPERATORS:
        hosts |= operator.mx | {operator.submission_host: operator.submission_address}
        for domain in operator.domains:
            records += [f"{domain}. {TTL_S} IN MX {10 * i} {mx}." for i, mx in enumerate(operator.mx, 1)]
    for domain, (mx, address) in (DEAD_MX | {office_mx[0]: office_mx[1:]}).items():
        hosts[mx] = address
        records.append(f"{domain}. {TTL_S} IN MX 10 {mx}.")
    for name, address in hosts.items():
        records.append(f"{name}. {TTL_S} IN A {address}")
    for operator in OPERATORS:
        records += [f"{_reversed(ip)}.in-addr.arpa. {TTL_S} IN PTR {mx}." for mx, ip in operator.mx.items()]
    for address in block_listed:
        records.append(f"{_reversed(address)}.{BLOCK_LIST}. {TTL_S} IN A 127.0.0.4")
        records.append(
            f'{_reversed(address)}.{BLOCK_LIST}. {TTL_S} IN TXT "infected, see https://{BLOCK_LIST}/"'
        )
    return records


def _reversed(address: str) -> str:
    return ".".join(reversed(address.split(".")))
