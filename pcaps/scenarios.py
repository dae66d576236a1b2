"""The scenarios: which devices there are, what each of them does and when, and who is guilty of what.

Only data and the small functions that make it; ``lab.py`` brings it to life.
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from internet import (
    DEAD_MX,
    DOMAINS,
    ISP_V6,
    LOGIN,
    OPERATORS,
    PASSWORD,
    PROXY_CONTROLLER,
    STOLEN_LOGIN,
    STOLEN_PASSWORD,
    Operator,
)
from machines import HOME
from services import (
    DHCP_CLIENT,
    DHCP_CLIENT_PID,
    LEASES,
    Announcement,
    Listener,
    MailServer,
    lease_file,
    start_dhcpv6_client,
    start_minidlna,
    start_nmbd,
    submission,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from machines import Machine

HERE = Path(__file__).resolve().parent
LAN, GATEWAY, GATEWAY_MAC = "192.168.50.", "192.168.50.1", "4c:5e:0c:7a:01:01"
OFFICE_DOMAIN, OFFICE_MX = "office.example", "mail.office.example"
ISP = OPERATORS[-1]


@dataclass(frozen=True)
class Device:
    """A device of the LAN. The MAC has a real vendor's prefix, the address comes by DHCP."""

    name: str
    mac: str
    address: str
    server: MailServer | None = None
    announces: Announcement | None = None
    client_id: str = (
        ""  # DHCP option 61, hexadecimal digits: by it the address belongs to the device, not by its MAC
    )
    is_private: bool = False  # draws IPv6 addresses that change (RFC 8981)
    is_behind: bool = False  # ... the inner router
    is_static: bool = False  # its address is set by hand
    starts: tuple[Callable[[Machine], None], ...] = ()  # what it runs besides
    moves_to: str = ""  # the address that it gets when leases move

    @property
    def last_address(self) -> str:
        return self.moves_to or self.address

    @property
    def lease(self) -> tuple[str, str]:
        """By what the DHCP server knows it, and its address."""
        octets = [self.client_id[i : i + 2] for i in range(0, len(self.client_id), 2)]
        return f"id:{':'.join(octets)}" if octets else self.mac, self.last_address


@dataclass(frozen=True)
class Step:
    """At ``at`` seconds the machine ``on`` (a device, an operator, or outside host) starts a command."""

    at: float
    on: str
    argv: tuple[str, ...]
    stdin: str | None = None
    may_fail: bool = False  # the command's failure is part of the story


@dataclass(frozen=True)
class Guilt:
    """What an infected device does; its first frame passes ``first_sign``, from second ``since`` on."""

    device: Device
    family: str
    cause: str
    what: str
    since: float
    first_sign: str


@dataclass(frozen=True)
class Scenario:
    """One capture."""

    name: str
    seconds: float
    devices: tuple[Device, ...]
    steps: tuple[Step, ...]
    guilt: Guilt | None = None
    blocks_port_25: bool = False
    has_ipv6: bool = False
    has_inner_router: bool = False
    has_virtual_mac: bool = False  # ... which is a virtual router (VRRP)

    @property
    def block_listed(self) -> tuple[str, ...]:
        return (self.guilt.device.address,) if self.guilt else ()


OFFICE_SERVER = MailServer(
    hostname=OFFICE_MX,
    domains=(OFFICE_DOMAIN,),
    listeners=(Listener(25), submission(tls="encrypt")),
    settings={"mynetworks": f"127.0.0.0/8 {LAN}0/24"},
    accounts={f"{LOGIN}@{OFFICE_DOMAIN}": PASSWORD},
)
#: Whoever asks may send mail through it to anybody.
OPEN_RELAY = MailServer(
    hostname="nas.home.example",
    domains=("nas.home.example",),
    listeners=(Listener(25),),
    settings={"mynetworks": "0.0.0.0/0"},
)

MAIL = Device("mail", "00:25:90:4a:10:0a", f"{LAN}10", OFFICE_SERVER)
CAMERA = Device("front-door-camera", "44:19:b6:5d:20:15", f"{LAN}21")
PRINTER = Device("hp-laserjet", "3c:d9:2b:81:33:16", f"{LAN}22")
TV = Device("living-room-tv", "8c:79:f5:0e:44:17", f"{LAN}23")
PC = Device("office-pc", "f8:b1:56:c2:55:18", f"{LAN}24")
NAS = Device("nas", "00:11:32:6f:66:19", f"{LAN}25")
RELAY_NAS = Device("nas", NAS.mac, NAS.address, OPEN_RELAY)
#: The camera's address becomes the PC's.
MOVING_PC = replace(PC, moves_to=CAMERA.address)
MOVING_CAMERA = replace(CAMERA, moves_to=f"{LAN}31")
TALKING_PRINTER = replace(PRINTER, announces=Announcement("_ipp._tcp", 631, "HP LaserJet 400 color M451dw"))
INNER_ROUTER, INNER_ROUTER_MAC, INNER_LAN = "inner-router", "4c:5e:0c:7a:02:02", "192.168.60."
PRIVATE_PC = replace(PC, is_private=True)
PHONE = Device("phone", "0a:5e:7c:10:00:01", f"{LAN}41", client_id="00706978656c2d37")
INNER_CAMERA = Device("back-door-camera", "44:19:b6:5d:20:77", f"{INNER_LAN}21", is_behind=True)
#: What a NAS and a PC tell their neighbours, and a camera whose router hides behind a virtual MAC address.
TALKING_NAS = replace(NAS, starts=(partial(start_minidlna, model="Lab NAS 220"), start_dhcpv6_client))
TALKING_PC = replace(PC, starts=(partial(start_nmbd, name="OFFICE-PC"),))
STATIC_CAMERA = replace(INNER_CAMERA, address=f"{INNER_LAN}31", is_static=True)
#: Two devices behind a router: the camera's address becomes the PC's.
INNER_PC = Device(
    "back-office-pc", "f8:b1:56:c2:55:78", f"{INNER_LAN}24", is_behind=True, moves_to=INNER_CAMERA.address
)
MOVING_INNER_CAMERA = replace(INNER_CAMERA, moves_to=f"{INNER_LAN}31")
DVR = Device("garage-dvr", "3c:ef:8c:97:77:1a", f"{LAN}26")


def message(sender: str, recipient: str, subject: str, lines: int = 3) -> str:
    body = "This is a harmless line of a lab message.\n" * lines
    return f"From: <{sender}>\nTo: <{recipient}>\nSubject: {subject}\n\n{body}"


STARTTLS = ("--tls=on", "--tls-starttls=on", "--tls-certcheck=off", "--auth=plain")
CLEAR = ("--tls=off", "--auth=login")


def submit(
    at: float,
    device: Device,
    *tls: str,
    host: str,
    port: int,
    login: str,
    password: str,
    to: str,
    subject: str,
) -> Step:
    """A mail handed to a submission server by msmtp, with a login that is the sender's address as well."""
    user = (f"--user={login}", f"--passwordeval=echo {password}", f"--from={login}")
    argv = ("msmtp", f"--host={host}", f"--port={port}", f"--domain={device.name}", *user, *tls, to)
    return Step(at, device.name, argv, message(login, to, subject))


def notify(at: float, device: Device, *, port: int = 587) -> Step:
    """A camera's alarm mail: one smarthost, a login in clear, as cheap firmware does."""
    return submit(
        at,
        device,
        *CLEAR,
        host=ISP.submission_host,
        port=port,
        login=f"{LOGIN}@{ISP.domains[0]}",
        password=PASSWORD,
        to=f"ben@{ISP.domains[0]}",
        subject="Motion detected",
    )


def write_mail(at: float, recipient: str, *, through_office: bool = True) -> Step:
    """The PC's mail program: submission with STARTTLS and a login."""
    host, domain = (OFFICE_MX, OFFICE_DOMAIN) if through_office else (ISP.submission_host, ISP.domains[0])
    return submit(
        at,
        PC,
        *STARTTLS,
        host=host,
        port=587,
        login=f"{LOGIN}@{domain}",
        password=PASSWORD,
        to=recipient,
        subject="Our meeting",
    )


def scan_to_mail(at: float) -> Step:
    """The printer hands its scan to the office's own server, on port 25 and without a login."""
    sender, recipient = f"info@{OFFICE_DOMAIN}", f"{LOGIN}@{OFFICE_DOMAIN}"
    argv = ("swaks", "--server", OFFICE_MX, "--from", sender, "--to", recipient)
    return Step(
        at, PRINTER.name, (*argv, "--header", "Subject: scan", "--body", "page one of a scan\n" * 100)
    )


def browse(at: float, device: Device, host: str) -> Step:
    return Step(at, device.name, ("busybox", "wget", "-q", "-O", "/dev/null", f"http://{host}/"))


def watch_tv(at: float, host: str) -> Step:
    """Fetch a page under the name that a TV's browser gives itself."""
    agent = "Mozilla/5.0 (SMART-TV; Linux; Tizen 6.0) AppleWebKit/538.1 (KHTML, like Gecko) Version/6.0 TV Safari/538.1"
    return Step(at, TV.name, ("curl", "-s", "-o", "/dev/null", "-A", agent, f"http://{host}/"))


def receive(at: float, operator: Operator, mailbox: str = LOGIN) -> Step:
    """Mail from outside: the operator's own Postfix looks up the office's MX and delivers."""
    sender, recipient = f"ben@{operator.domains[0]}", f"{mailbox}@{OFFICE_DOMAIN}"
    text = message(sender, recipient, "An offer")
    return Step(at, operator.name, ("sendmail", "-i", "-f", sender, recipient), text)


def send_from_server(at: float, recipient: str, sender_box: str = LOGIN) -> Step:
    sender = f"{sender_box}@{OFFICE_DOMAIN}"
    text = message(sender, recipient, "News from the office", lines=8)
    return Step(at, MAIL.name, ("sendmail", "-i", "-f", sender, recipient), text)


def bot(at: float, device: Device, *, seconds: float, rate: float, timeout: float = 8.0) -> Step:
    argv = (sys.executable, str(HERE / "bot.py"), "--resolver", GATEWAY, "--seed", "7")
    pace = ("--seconds", str(seconds), "--rate", str(rate), "--timeout", str(timeout))
    return Step(at, device.name, (*argv, *pace, *DOMAINS, *DEAD_MX))


def everyday(seconds: float, devices: tuple[Device, ...]) -> tuple[Step, ...]:
    """What these devices do in any case, about the same in every scenario."""
    steps = []
    names = {device.name for device in devices}
    if TV.name in names:
        steps += [browse(at, TV, "updates.tv.example") for at in range(5, int(seconds), 35)]
    if CAMERA.name in names:
        steps.append(browse(3, CAMERA, "time.camera.example"))
        steps += [notify(at, CAMERA) for at in (12, 14.5, 70)]
    if PC.name in names:
        sites = cycle(("www.alpha.example", "www.kilo.example"))
        steps += [browse(at, PC, next(sites)) for at in range(8, int(seconds), 23)]
        steps += [write_mail(at, f"carla@{DOMAINS[2]}", through_office=False) for at in (22, 85)]
    if MAIL.name in names:
        senders = cycle(OPERATORS)
        steps += [receive(at, next(senders)) for at in range(6, int(seconds), 9)]
        steps += [receive(at, next(senders), "nobody") for at in (29, 76)]
        steps += [write_mail(27, "info@golf.example"), write_mail(52, "sales@alpha.example")]
        if PRINTER.name in names:
            steps += [scan_to_mail(at) for at in (17, 58)]
    return tuple(step for step in steps if step.at < seconds - 5)


def newsletter(at: float) -> tuple[Step, ...]:
    """A list blast of the legitimate server: every domain, wrong addresses, bounces, retries after 450."""
    boxes = cycle(("anna", "ben", "info", "sales", "office"))
    recipients = [f"{next(boxes)}@{domain}" for _ in range(2) for domain in DOMAINS]
    recipients += [
        "gone@bravo.example",
        "gone@oscar.example",
        "left@papa.example",
        f"info@{next(iter(DEAD_MX))}",
    ]
    random.Random(5).shuffle(recipients)
    return tuple(send_from_server(at + 0.6 * i, to, "news") for i, to in enumerate(recipients))


def proxied_mail(at: float, device: Device, count: int, pause_s: float) -> tuple[Step, ...]:
    """``count`` mails of a foreign mailer through a device that is handed addresses and looks nothing up."""
    rng = random.Random(11)
    jobs = []
    for i in range(count):
        operator = OPERATORS[i % len(OPERATORS)]
        recipient = f"{rng.choice(('info', 'anna', 'nobody9', 'office'))}@{rng.choice(operator.domains)}"
        address = rng.choice(list(operator.mx.values()))
        pause = rng.uniform(0.5, 1.5) * pause_s
        jobs.append(f"{pause:.1f} {address} offers@bulk{rng.randrange(3)}.tango.example {recipient}\n")
    return (
        Step(at, "proxy-controller", (str(HERE / "proxy_controller.sh"), "8443", "9001"), "".join(jobs)),
        Step(at + 1, device.name, (str(HERE / "proxy_device.sh"), PROXY_CONTROLLER, "8443")),
    )


def try_logins(at: float, device: Device, count: int, every_s: float) -> tuple[Step, ...]:
    """A list of stolen logins against all submission servers in turn; one in eight still works."""
    rng = random.Random(13)
    steps = []
    for i in range(count):
        operator = OPERATORS[i % len(OPERATORS)]
        works = i % 8 == 5
        user, password = (STOLEN_LOGIN, STOLEN_PASSWORD) if works else (f"user{rng.randrange(99)}", "letmein")
        step = submit(
            at + every_s * (i + rng.uniform(-0.3, 0.3)),
            device,
            *(STARTTLS if operator.submission_tls == "encrypt" else CLEAR),
            host=operator.submission_host,
            port=587,
            login=f"{user}@{operator.domains[0]}",
            password=password,
            to=f"info@{rng.choice(DOMAINS)}",
            subject="news for you",
        )
        steps.append(replace(step, may_fail=not works))
    return tuple(steps)


def abuse_relay(at: float, device: Device, count: int, every_s: float) -> tuple[Step, ...]:
    """An outsider pushes mail to everybody through the device's open mail server."""
    rng = random.Random(17)
    steps = []
    for i in range(count):
        to = ",".join(f"{rng.choice(('info', 'anna', 'joe77'))}@{name}" for name in rng.sample(DOMAINS, 2))
        argv = ("swaks", "--server", device.address, "--helo", "win-5k2", "--from", "offers@tango.example")
        text = ("--to", to, "--header", "Subject: news for you", "--body", "lab test body")
        steps.append(Step(at + every_s * i, "proxy-controller", (*argv, *text), may_fail=True))
    return tuple(steps)


def move_leases(at: float, devices: tuple[Device, ...]) -> tuple[Step, ...]:
    """The gateway gives addresses to other devices; those that lose theirs let it go and ask anew, one by one."""
    leases = lease_file([device.lease for device in devices])
    home = HOME / "gateway"
    reread = f"cat > {home / LEASES}; kill -HUP $(cat {home / 'dnsmasq.pid'})"
    steps = [Step(at, "gateway", ("sh", "-c", reread), leases)]
    moving = [device for device in devices if device.moves_to]
    for number, device in enumerate(moving):
        pid = HOME / device.name / DHCP_CLIENT_PID
        steps.append(Step(at + 1 + number / 2, device.name, ("sh", "-c", f"kill -USR2 $(cat {pid})")))
        steps.append(Step(at + 4 + 3 * number, device.name, ("sh", "-c", f"kill -USR1 $(cat {pid})")))
    return tuple(steps)


def write_over_ipv6(at: float) -> Step:
    """A mail of the PC's to the provider's IPv6 address."""
    login = f"{LOGIN}@{ISP.domains[0]}"
    to = f"ben@{ISP.domains[0]}"
    user = ("--port=25", "--domain=office-pc", f"--from={login}", "--tls=off", "--auth=off")
    return Step(at, PC.name, ("msmtp", f"--host={ISP_V6}", *user, to), message(login, to, "Over IPv6"))


def draw_mac(at: float, device: Device, mac: str) -> tuple[Step, ...]:
    """A phone joins the network anew, under a MAC address that it has just drawn."""
    pid = HOME / device.name / DHCP_CLIENT_PID
    link = f"ip link set eth0 down; ip link set eth0 address {mac}; ip link set eth0 up"
    leave = Step(at - 70, device.name, ("sh", "-c", f"kill -USR2 $(cat {pid}); sleep 1; kill $(cat {pid})"))
    return leave, Step(at, device.name, ("sh", "-c", f"{link}; exec sh {HOME / device.name / DHCP_CLIENT}"))


OFFICE = (MAIL, CAMERA, PRINTER, TV, PC)
NAMES = (MAIL, PRIVATE_PC, PHONE, INNER_CAMERA, TALKING_PRINTER)
KINDS = (TALKING_NAS, TV, TALKING_PC, STATIC_CAMERA)
MOVING_BEHIND = (INNER_PC, MOVING_INNER_CAMERA, TALKING_PRINTER)
MOVING = (MAIL, MOVING_PC, MOVING_CAMERA, TALKING_PRINTER, TV)

SCENARIOS = (
    Scenario(
        "flood-camera",
        seconds=125,
        devices=OFFICE,
        steps=(*everyday(125, OFFICE), bot(30.5, CAMERA, seconds=85, rate=1.7)),
        guilt=Guilt(
            CAMERA,
            "F5",
            "direct-to-mx-spam",
            "looks up MX records and delivers to all of them, about two mails a second, no retries",
            since=30.5,
            first_sign="udp dst port 53",
        ),
    ),
    Scenario(
        "clean-office",
        seconds=150,
        devices=OFFICE,
        steps=everyday(150, OFFICE) + newsletter(75),
    ),
    Scenario(
        "proxy-tv",
        seconds=150,
        devices=OFFICE,
        steps=everyday(150, OFFICE) + proxied_mail(20, TV, count=13, pause_s=8),
        guilt=Guilt(
            TV,
            "F4",
            "mail-proxy",
            "passes a foreign mailer's mail on to addresses it is handed, six operators, no DNS look-up",
            since=20,
            first_sign="tcp dst port 25",
        ),
    ),
    Scenario(
        "logins-nas",
        seconds=110,
        devices=(NAS, CAMERA, TV, PC),
        steps=everyday(110, (NAS, CAMERA, TV, PC)) + try_logins(15, NAS, count=48, every_s=1.8),
        guilt=Guilt(
            NAS,
            "F6",
            "submission-abuse",
            "tries stolen logins at six submission servers in turn, sends where one works",
            since=14,
            first_sign="tcp dst port 587",
        ),
    ),
    Scenario(
        "blocked-dvr",
        seconds=95,
        devices=(DVR, CAMERA, TV, PC),
        steps=everyday(95, (DVR, TV, PC))
        + tuple(replace(notify(at, CAMERA, port=25), may_fail=True) for at in range(10, 90, 25))
        + (bot(20.5, DVR, seconds=65, rate=1, timeout=7),),
        guilt=Guilt(
            DVR,
            "F9",
            "blocked-spam",
            "looks up MX records and calls all of them on port 25, which the gateway drops without a word",
            since=20.5,
            first_sign="udp dst port 53",
        ),
        blocks_port_25=True,
    ),
    Scenario(
        "relay-nas",
        seconds=95,
        devices=(RELAY_NAS, CAMERA, TV, PC),
        steps=everyday(95, (RELAY_NAS, CAMERA, TV, PC)) + abuse_relay(20, RELAY_NAS, count=40, every_s=1.7),
        guilt=Guilt(
            RELAY_NAS,
            "F10",
            "open-relay",
            "takes mail from outside without a login and passes it on to all operators",
            since=20,
            first_sign="tcp dst port 25",
        ),
    ),
    Scenario(
        "moved-lease",
        seconds=110,
        devices=MOVING,
        steps=(
            *everyday(110, MOVING),
            bot(10.5, MOVING_CAMERA, seconds=30, rate=1.7),
            *move_leases(45, MOVING),
            bot(70.5, MOVING_CAMERA, seconds=30, rate=1.7),
        ),
        guilt=Guilt(
            MOVING_CAMERA,
            "F5",
            "direct-to-mx-spam",
            "looks up MX records and delivers to all of them; halfway the PC gets its address, and it another",
            since=10.5,
            first_sign="udp dst port 53",
        ),
    ),
    Scenario(
        "many-names",
        seconds=115,
        devices=NAMES,
        steps=(
            *everyday(115, NAMES),
            *(write_over_ipv6(at) for at in (30, 80)),
            *(notify(at, INNER_CAMERA) for at in (25, 75)),
            *(browse(at, PHONE, "www.alpha.example") for at in (6, 12, 105)),
            *draw_mac(95, PHONE, "0e:5e:7c:10:00:02"),
        ),
        has_ipv6=True,
        has_inner_router=True,
    ),
    Scenario(
        "many-kinds",
        seconds=100,
        devices=KINDS,
        steps=(
            *everyday(100, KINDS),
            *(watch_tv(at, "updates.tv.example") for at in (12, 60)),
            *(notify(at, STATIC_CAMERA) for at in (25, 75)),
            *(notify(at, TALKING_NAS) for at in (33, 83)),
        ),
        has_ipv6=True,
        has_inner_router=True,
        has_virtual_mac=True,
    ),
    Scenario(
        "moved-behind",
        seconds=110,
        devices=MOVING_BEHIND,
        steps=(
            *everyday(110, MOVING_BEHIND),
            bot(10.5, MOVING_INNER_CAMERA, seconds=30, rate=1.7),
            *move_leases(45, MOVING_BEHIND),
            *(browse(at, INNER_PC, "www.alpha.example") for at in (8, 60, 85, 100)),
            bot(70.5, MOVING_INNER_CAMERA, seconds=30, rate=1.7),
        ),
        guilt=Guilt(
            MOVING_INNER_CAMERA,
            "F5",
            "direct-to-mx-spam",
            "behind a router that relays DHCP: looks up MX records and delivers to all; halfway the PC gets its "
            "address, and it another",
            since=10.5,
            first_sign="udp dst port 53",
        ),
        has_inner_router=True,
    ),
)
