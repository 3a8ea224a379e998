"""Every test named by `tiers` exists, and a file is spared only if `make test` runs no test of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tiers import APACHE, LONG, SHORT, is_wholly_long, long_key

ROOT = Path(__file__).parents[1]
NAMED = [name for name in (*LONG, *SHORT) if name != APACHE]


@pytest.mark.parametrize("name", NAMED)
def test_every_named_test_exists(name: str) -> None:
    beginning, _, test = name.partition("::")
    files = [path for path in [*ROOT.glob(f"{beginning}*")] if path.is_dir() or path.suffix == ".py"]
    assert files
    if test:
        function, bracket, _ = test.partition("[")
        begins = rf"^(async )?def {re.escape(function)}" + (r"\b" if bracket else "")
        assert re.search(begins, files[0].read_text(), re.MULTILINE)


def test_a_file_is_spared_if_none_of_its_tests_is_short() -> None:
    assert is_wholly_long("tests/test_soak.py")
    assert is_wholly_long("tests/flows/attribution/test_conversion_logs.py")
    assert is_wholly_long("tests/proofs")
    assert not is_wholly_long("tests/faults")
    assert not is_wholly_long("tests/faults/test_verify.py")
    assert not is_wholly_long("tests/faults/test_faults_recovery.py")
    assert not is_wholly_long("tests/flows/rows/test_given_out.py"), "some of its tests are long"
    assert not is_wholly_long("tests/test_secrets.py")
    for name in SHORT:
        assert not is_wholly_long(name.partition("::")[0])


def test_a_short_test_is_none_of_the_long_ones() -> None:
    nothing = "tests/flows/rows/test_given_out.py::test_every_change_by_time_alone_is_published"
    assert long_key(f"{nothing}[3-True-False]", apache=False) is None
    assert long_key(f"{nothing}[13-True-False]", apache=False) is not None
    assert long_key(f"{nothing}[3-True-False]", apache=True) == APACHE
