"""The real software of the lab and its configuration: Postfix, unbound, dnsmasq, busybox httpd, udhcpc and the rest."""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from machines import HOME, LabError, Machine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TLS_KEY, TLS_CERT = HOME / "tls.key", HOME / "tls.crt"
#: Mailboxes that exist in every domain of the lab; all others are answered with 550 5.1.1.
MAILBOXES = ("anna", "ben", "carla", "info", "office", "sales", "news", "left")

COMMON_SETTINGS = {
    "compatibility_level": "3.6",
    "maillog_file": "/var/log/mail.log",
    "inet_interfaces": "all",
    "inet_protocols": "ipv4",
    "mydestination": "",
    "local_recipient_maps": "",
    "alias_maps": "",
    "mynetworks": "127.0.0.0/8",
    "virtual_mailbox_maps": f"regexp:{{{{/^({'|'.join(MAILBOXES)})@/ found}}}}",
    "virtual_transport": "discard",
    "smtpd_tls_cert_file": str(TLS_CERT),
    "smtpd_tls_key_file": str(TLS_KEY),
    "smtpd_sasl_path": "smtpd",
    "smtpd_relay_restrictions": "permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination",
    "smtp_tls_security_level": "may",
    # Minutes instead of hours: a capture of three minutes shall hold a retry.
    "minimal_backoff_time": "20s",
    "maximal_backoff_time": "60s",
    "queue_run_delay": "15s",
}

MASTER_CF = """\
pickup    unix  n - n 60 1 pickup
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
verify    unix  - - n - 1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n - - proxymap
smtp      unix  - - n - - smtp
relay     unix  - - n - - smtp
showq     unix  n - n - - showq
error     unix  - - n - - error
retry     unix  - - n - - error
discard   unix  - - n - - discard
anvil     unix  - - n - 1 anvil
scache    unix  - - n - 1 scache
postlog   unix-dgram n - n - 1 postlogd
smtpd     pass  - - n - - smtpd
dnsblog   unix  - - n - 0 dnsblog
tlsproxy  unix  - - n - 0 tlsproxy
"""


@dataclass(frozen=True)
class Listener:
    """One port of a mail server: a line of master.cf."""

    port: int
    address: str = ""  # all addresses
    daemon: str = "smtpd"
    options: Mapping[str, str] = field(default_factory=dict)

    def line(self) -> str:
        endpoint = f"{self.address}:{self.port}" if self.address else str(self.port)
        processes = 1 if self.daemon == "postscreen" else "-"
        words = [f"-o {{{key} = {value}}}" for key, value in self.options.items()]
        return " ".join([endpoint, "inet n - n -", str(processes), self.daemon, *words])


@dataclass(frozen=True)
class Announcement:
    """What a device offers over multicast DNS (RFC 6763)."""

    service: str
    port: int
    model: str


@dataclass(frozen=True)
class MailServer:
    """What one Postfix instance is."""

    hostname: str
    domains: tuple[str, ...]
    listeners: tuple[Listener, ...]
    settings: Mapping[str, str] = field(default_factory=dict)
    accounts: Mapping[str, str] = field(default_factory=dict)  # login name with domain: password


def submission(address: str = "", *, port: int = 587, tls: str = "may", hostname: str = "") -> Listener:
    """A port for clients with a login. ``tls``: none, may, encrypt, or wrap (TLS from the first byte on)."""
    options = {
        "smtpd_sasl_auth_enable": "yes",
        "smtpd_relay_restrictions": "permit_mynetworks, permit_sasl_authenticated, reject",
        "smtpd_recipient_restrictions": "",
        "smtpd_tls_security_level": "encrypt" if tls == "wrap" else tls,
        "smtpd_tls_wrappermode": "yes" if tls == "wrap" else "no",
    }
    return Listener(port, address, options=options | ({"myhostname": hostname} if hostname else {}))


def make_certificate() -> None:
    """Self-signed, for this run only."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(TLS_KEY)]
    request = [
        "openssl",
        "req",
        "-x509",
        "-days",
        "30",
        "-subj",
        "/CN=lab.example",
        *key,
        "-out",
        str(TLS_CERT),
    ]
    subprocess.run(request, check=True, capture_output=True)


def start_postfix(machine: Machine, server: MailServer) -> subprocess.Popen[bytes]:
    """Run a whole Postfix on the machine, with the default paths, which are the machine's own.

    Returns the command ``postfix start``, which ends when the server is ready (see ``await_success``).
    """
    for directory, target in {
        "etc": "/etc/postfix",
        "spool": "/var/spool/postfix",
        "lib": "/var/lib/postfix",
        "log": "/var/log",
    }.items():
        (machine.home / directory).mkdir()
        machine.bind(machine.home / directory, target)
    machine.run("chown", "postfix:", "/var/lib/postfix")
    etc = machine.home / "etc"
    for file in ("postfix-files", "dynamicmaps.cf"):  # Debian's own lists, needed at every start
        shutil.copy(Path("/etc/postfix", file), etc)
    settings = COMMON_SETTINGS | {
        "myhostname": server.hostname,
        "virtual_mailbox_domains": ", ".join(server.domains),
        **server.settings,
    }
    (etc / "main.cf").write_text("".join(f"{key} = {value}\n" for key, value in settings.items()))
    (etc / "master.cf").write_text(
        MASTER_CF + "".join(f"{listener.line()}\n" for listener in server.listeners)
    )
    _store_accounts(machine, etc / "sasl", server.accounts)
    return machine.start("postfix", "start")


def _store_accounts(machine: Machine, directory: Path, accounts: Mapping[str, str]) -> None:
    directory.mkdir()
    database = "/etc/postfix/sasl/sasldb2"
    (directory / "smtpd.conf").write_text(
        f"pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: PLAIN LOGIN\nsasldb_path: {database}\n"
    )
    for login, password in accounts.items():
        user, _, realm = login.partition("@")
        machine.run("saslpasswd2", "-f", database, "-p", "-c", "-u", realm, user, stdin=password)
    if accounts:
        machine.run("chgrp", "postfix", database)
        machine.run("chmod", "640", database)


#: unbound keeps empty zones of its own for documentation addresses; the three zones here take their place.
UNBOUND_CONF = """\
server:
  interface: {address}
  access-control: 0.0.0.0/0 allow
  do-ip6: no
  do-daemonize: no
  username: ''
  chroot: ''
  pidfile: ''
  use-syslog: no
  module-config: 'iterator'
  local-zone: '2.0.192.in-addr.arpa.' static
  local-zone: '100.51.198.in-addr.arpa.' static
  local-zone: '113.0.203.in-addr.arpa.' static
  local-zone: '.' static
{data}remote-control:
  control-enable: no
"""


def start_unbound(machine: Machine, records: Sequence[str], address: str) -> None:
    """The resolver of the outside: answers from ``records`` alone, everything else does not exist."""
    conf = machine.home / "unbound.conf"
    data = "".join(f"  local-data: '{record}'\n" for record in records)
    conf.write_text(UNBOUND_CONF.format(address=address, data=data))
    machine.start("unbound", "-d", "-c", str(conf))


def start_gateway_dnsmasq(
    machine: Machine, network: str, upstream: str, leases: Sequence[tuple[str, str]], *more: str
) -> None:
    """DHCP and caching DNS of a home gateway. ``leases``: (MAC, address) of every device of the network.

    They are in a file, which dnsmasq reads again on SIGHUP: see ``lease_file``.
    """
    options = ("--keep-in-foreground", "--conf-file=/dev/null", "--no-hosts", "--no-resolv", "--user=root")
    where = ("--interface=br0", "--except-interface=lo", "--bind-interfaces", "--domain=lan")
    pool = (f"--dhcp-range={network}100,{network}199,10m", f"--dhcp-leasefile={machine.home}/leases")
    (machine.home / LEASES).write_text(lease_file(leases))
    fixed = (f"--dhcp-hostsfile={machine.home / LEASES}", f"--pid-file={machine.home}/dnsmasq.pid")
    machine.start(
        "dnsmasq", *options, *where, *pool, *fixed, *more, "--dhcp-authoritative", f"--server={upstream}"
    )


def lease_file(leases: Sequence[tuple[str, str]]) -> str:
    """What dnsmasq reads of the addresses that belong to devices."""
    return "".join(f"{mac},{address}\n" for mac, address in leases)


def start_dhcp_relay(machine: Machine, inside: str, server: str) -> None:
    """Carry DHCP between the network of the address ``inside`` and a server."""
    options = ("--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--no-hosts")
    machine.start(
        "dnsmasq", *options, f"--pid-file={machine.home}/dnsmasq.pid", f"--dhcp-relay={inside},{server}"
    )


def start_lldpd(machine: Machine, description: str) -> None:
    """Announce the machine to its neighbour, by LLDP (IEEE 802.1AB) and by CDP."""
    machine.run("mkdir", "-p", "/run/lldpd")
    options = ("-d", "-cc", "-I", "eth0", "-u", f"{machine.home}/lldpd.socket", "-S", description)
    machine.start("lldpd", *options)


def start_ipv6_door(machine: Machine, address: str, inside: str) -> None:
    """Take connections to port 25 of an IPv6 address to the mail server, which speaks IPv4 only."""
    machine.start("socat", f"TCP6-LISTEN:25,bind=[{address}],fork", f"TCP4:{inside}:25")


def start_web_server(machine: Machine, address: str) -> None:
    """Something that is not mail: a page of four kilobytes."""
    (machine.home / "index.html").write_text("<html>" + "all is well. " * 320 + "</html>\n")
    machine.start("busybox", "httpd", "-f", "-p", f"{address}:80", "-h", str(machine.home))


#: File names below a machine's home.
LEASES, DHCP_CLIENT, DHCP_CLIENT_PID = "fixed-leases", "dhcp-client.sh", "udhcpc.pid"

UDHCPC_SCRIPT = """\
#!/bin/sh
case "$1" in
deconfig)
    ip -4 address flush dev "$interface"
    ;;
bound|renew)
    ip address replace "$ip/$mask" dev "$interface"
    ip route replace default via "$router"
    printf 'search %s\\nnameserver %s\\n' "$domain" "$dns" > /etc/resolv.conf
esac
"""


def start_dhcp_client(machine: Machine, client_id: str = "") -> None:
    """Ask for an address; ``client_id``: option 61, in place of the MAC address."""
    script = machine.home / "udhcpc.sh"
    script.write_text(UDHCPC_SCRIPT)
    script.chmod(0o755)
    identity = f"-x hostname:{machine.name}" + (f" -C -x 0x3d:{client_id}" if client_id else "")
    client = machine.home / DHCP_CLIENT
    client.write_text(f"exec udhcpc -f -i eth0 {identity} -p {machine.home / DHCP_CLIENT_PID} -s {script}\n")
    machine.start("sh", str(client))


AVAHI_CONF = """\
[server]
use-ipv4=yes
use-ipv6=yes
enable-dbus=no
ratelimit-interval-usec=1000000
ratelimit-burst=1000
[publish]
publish-addresses=yes
publish-hinfo=no
publish-workstation=no
"""
AVAHI_SERVICE = """\
<?xml version="1.0" standalone='no'?>
<!DOCTYPE service-group SYSTEM "avahi-service.dtd">
<service-group><name>{model}</name>
<service><type>{service}</type><port>{port}</port><txt-record>ty={model}</txt-record></service>
</service-group>
"""


def start_avahi(machine: Machine, announcement: Announcement) -> None:
    """Announce a service over multicast DNS."""
    services = machine.home / "avahi-services"
    services.mkdir()
    (services / "device.service").write_text(AVAHI_SERVICE.format(**vars(announcement)))
    machine.bind(services, "/etc/avahi/services")
    conf = machine.home / "avahi-daemon.conf"
    conf.write_text(AVAHI_CONF)
    own_run = machine.home / "avahi-run"
    own_run.mkdir()
    machine.run("mkdir", "-p", "/run/avahi-daemon")
    machine.bind(own_run, "/run/avahi-daemon")
    machine.start("avahi-daemon", "-f", str(conf), "--no-drop-root", "--no-chroot", "--no-rlimits")


MINIDLNA_CONF = """\
network_interface=eth0
friendly_name={name}
model_name={model}
media_dir={home}/media
db_dir={home}/dlna
log_dir={home}/dlna
notify_interval=30
uuid=4d696e69-444c-164e-9d41-0011326f6619
"""


def start_minidlna(machine: Machine, model: str) -> None:
    """Announce a media server over SSDP (UPnP Device Architecture 2.0 section 1.2)."""
    for directory in ("media", "dlna"):
        (machine.home / directory).mkdir()
    conf = machine.home / "minidlna.conf"
    conf.write_text(MINIDLNA_CONF.format(name=machine.name, model=model, home=machine.home))
    machine.start("minidlnad", "-S", "-f", str(conf), "-P", f"{machine.home}/minidlna.pid")


SMB_CONF = """\
[global]
netbios name = {name}
workgroup = WORKGROUP
server string = {name}
interfaces = eth0
bind interfaces only = yes
lock directory = {home}/smb
state directory = {home}/smb
cache directory = {home}/smb
private dir = {home}/smb
pid directory = {home}/smb
log file = {home}/smb/log
"""


def start_nmbd(machine: Machine, name: str) -> None:
    """Register a NetBIOS name and answer for it (RFC 1002)."""
    (machine.home / "smb").mkdir()
    conf = machine.home / "smb.conf"
    conf.write_text(SMB_CONF.format(name=name, home=machine.home))
    machine.start("nmbd", "--foreground", "--no-process-group", f"--configfile={conf}")


def start_dhcpv6_client(machine: Machine) -> None:
    """Ask for an IPv6 address, besides the one that the machine makes itself (RFC 8415)."""
    files = ("-lf", f"{machine.home}/dhclient6.leases", "-pf", f"{machine.home}/dhclient6.pid")
    (machine.home / "dhclient6.conf").write_text(f'send fqdn.fqdn "{machine.name}";\n')
    conf = ("-cf", f"{machine.home}/dhclient6.conf", "-sf", f"{machine.home}/dhclient6.sh")
    script = machine.home / "dhclient6.sh"
    script.write_text(
        '#!/bin/sh\ncase "$reason" in BOUND6 | RENEW6 | REBIND6)\n'
        '    ip address replace "$new_ip6_address/128" dev "$interface"\nesac\n'
    )
    script.chmod(0o755)
    # It binds to the link-local address, which has to be checked first (RFC 4862 section 5.4).
    is_checked = "ip -6 address show dev eth0 scope link -tentative | grep -q inet6"
    client = " ".join(("dhclient", "-6", "-d", *conf, *files, "eth0"))
    machine.start("sh", "-c", f"until {is_checked}; do sleep 0.1; done; exec {client}")


KEEPALIVED_CONF = """\
vrrp_instance lan {{
    state MASTER
    interface eth0
    virtual_router_id 51
    priority 200
    advert_int 5
    use_vmac
    virtual_ipaddress {{
        {address}/24
    }}
}}
"""


def start_keepalived(machine: Machine, address: str) -> None:
    """Be the master of a virtual router (RFC 5798) at ``address``, under its virtual MAC address."""
    conf = machine.home / "keepalived.conf"
    conf.write_text(KEEPALIVED_CONF.format(address=address))
    pids = tuple(f"--{kind}={machine.home}/{kind}" for kind in ("pid", "vrrp_pid"))
    machine.start("keepalived", "--dont-fork", "--log-console", "--vrrp", f"--use-file={conf}", *pids)


def await_address(machine: Machine, address: str) -> None:
    for _ in range(200):
        shown = machine.run("ip", "-4", "address", "show")
        if f" {address}/" in shown:
            return
        time.sleep(0.1)
    raise LabError(f"{machine.name}: no address {address} after 20 s")
