"""Registrable domains: the kernel against the package that the list comes from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from publicsuffixlist import PSLFILE, PublicSuffixList

from sensor.devices import operators
from sensor.devices.suffixes import MAX_RULE_LABELS, RULE_BITS, encode_rules, public_suffix_rules
from sensor.jit import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytestmark = pytest.mark.kernel

REFERENCE = PublicSuffixList()
_START, _OPERATOR = operators.start_of_domain, operators.operator_of_name


@kernel
def find_domains(
    text: NDArray[np.uint8], ends: NDArray[np.int64], rules: NDArray[np.int64], out: NDArray[np.int64]
) -> None:
    """Where the domain of each name begins, and its operator, i8[n, 2]; ``ends``, i8[n]: of the names in ``text``."""
    start = 0
    for i in range(ends.size):
        out[i, 0] = _START(text, start, ends[i], rules)
        out[i, 1] = _OPERATOR(text, start, ends[i], rules)
        start = ends[i]


def found(names: list[bytes], rules: NDArray[np.int64] | None = None) -> list[tuple[bytes, int]]:
    """The registrable domain and the operator of each name; each name's neighbours are other names."""
    arena = b"".join(names) + b"."
    ends = np.cumsum([len(name) for name in names]).astype(np.int64)
    out = np.zeros((len(names), 2), dtype=np.int64)
    text = np.frombuffer(arena, dtype=np.uint8).copy()
    find_domains(text, ends, public_suffix_rules() if rules is None else rules, out)
    return [(arena[start:end], operator) for (start, operator), end in zip(out.tolist(), ends, strict=True)]


def domains(names: list[str], rules: NDArray[np.int64] | None = None) -> list[str]:
    return [domain.decode() for domain, _ in found([name.encode() for name in names], rules)]


def expected(names: list[str], reference: PublicSuffixList = REFERENCE) -> list[str]:
    """By the package; a name that is a suffix itself stays whole."""
    return [reference.privatesuffix(name) or name for name in names]


def listed() -> list[str]:
    """The names of all rules, in punycode."""
    lines = Path(PSLFILE).read_text("utf-8").split("\n")
    names = [line.split(" ")[0].removeprefix("*.").removeprefix("!") for line in lines if line[:2] != "//"]
    return [name.encode("idna").decode() for name in names if name]


LISTED = listed()


def test_every_rule_of_the_list_is_found():
    assert len(LISTED) > 9000
    for prefix in ("", "firm.", "mx.firm.", "a.b.c.d.firm."):
        names = [prefix + name for name in LISTED]
        assert domains(names) == expected(names)


def test_every_name_within_the_list_is_found():
    """What begins in the middle of a rule: "uk" and "co.uk" of "co.uk"."""
    shorter = sorted(
        {".".join(name.split(".")[i:]) for name in LISTED for i in range(1, name.count(".") + 1)}
    )
    assert domains(shorter) == expected(shorter)


LABELS = st.one_of(
    st.sampled_from(
        ["com", "co", "uk", "kobe", "jp", "city", "ck", "www", "mx", "compute", "amazonaws", "github"]
    ),
    st.text("abcxyz0123456789-", min_size=1, max_size=12),
)
NAMES = st.lists(LABELS, min_size=1, max_size=12).map(".".join)
UNDER_A_RULE = st.tuples(NAMES, st.sampled_from(LISTED)).map(".".join)


@given(st.lists(st.one_of(NAMES, UNDER_A_RULE), min_size=1, max_size=20))
def test_any_name_is_found(names):
    assert domains(names) == expected(names)


RULES = st.lists(
    st.tuples(
        st.sampled_from(["", "", "*.", "!"]),
        st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(".".join),
    ).map("".join),
    max_size=8,
)


@given(RULES, st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=6).map(".".join), min_size=1))
@example(["*.a", "!b.a", "c.b.a"], ["a", "b.a", "x.b.a", "c.b.a", "x.c.b.a", "x.y.c.b.a"])
@example(["a", "*.a", "!b.a"], ["b.a", "c.b.a", "c.a", "b.c.a"])
@example(["!a"], ["a", "b.a"])
def test_rules_that_contradict_each_other(rules, names):
    exceptions = [rule for rule in rules if rule == "!" + rule[1:].split(".")[-1]]
    rules = [rule for rule in rules if rule not in exceptions]  # an exception needs a label to its right
    reference = PublicSuffixList(rules)
    assert domains(names, encode_rules(rules)) == expected(names, reference)


@given(st.lists(st.binary(max_size=80), min_size=1, max_size=20))
@example([b"", b".", b"..", b"com.", b".com", b".co.uk", b"a..uk"])
def test_what_is_no_name_has_a_domain_within_it(names):
    for name, (domain, _) in zip(names, found(names), strict=True):
        assert name.endswith(domain)


def test_labels_beyond_the_longest_rule_cost_nothing():
    assert max(name.count(".") + 1 for name in LISTED) < MAX_RULE_LABELS  # one more, below a wildcard
    long = [".".join("x" * 120) + ".firm.co.uk"]
    assert domains(long) == ["firm.co.uk"]


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("mx1.firm.co.uk", "firm.co.uk"),
        ("mx.firm.com", "firm.com"),
        ("mx.city.kobe.jp", "city.kobe.jp"),
        ("mx.firm.any.kobe.jp", "firm.any.kobe.jp"),
        ("mx.firm.xn--p1ai", "firm.xn--p1ai"),
        ("mx.firm.xn--55qx5d.cn", "firm.xn--55qx5d.cn"),  # .公司.cn
        ("mx.one.dyndns.org", "one.dyndns.org"),
        (
            "ec2-203-0-113-7.eu-west-1.compute.amazonaws.com",
            "ec2-203-0-113-7.eu-west-1.compute.amazonaws.com",
        ),
        ("inbound-smtp.eu-west-1.amazonaws.com", "amazonaws.com"),
        ("example-com.mail.protection.outlook.com", "outlook.com"),
        ("mx.printer.lan", "printer.lan"),
        ("co.uk", "co.uk"),
        ("localhost", "localhost"),
    ],
)
def test_domains(name, domain):
    assert domains([name]) == [domain]


def test_an_operator_is_a_domain_whatever_the_host():
    (one, two, other, whole) = found(
        [b"mx1.firm.co.uk", b"x.y.firm.co.uk", b"mx1.other.co.uk", b"firm.co.uk"]
    )
    assert one == two == whole
    assert one[1] != other[1]


def test_rules_are_sorted_and_hash_alike_nowhere():
    rules = public_suffix_rules()
    assert rules.dtype == np.int64
    names = rules >> RULE_BITS
    assert (np.diff(names) >= 0).all()
    assert names.size - np.unique(names).size <= 1
    assert encode_rules(["// com", "", "com  // a remark", "*.com"]).size == 1
    assert encode_rules([]).shape == (0,)
