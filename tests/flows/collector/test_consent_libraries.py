"""Consent strings as the IAB's own libraries make them: two implementations meet.

They need node and npm, which install the libraries into a folder that is thrown away:
`pytest tests/flows/collector/test_consent_libraries.py`, with AUDIOPIXEL_CONSENT_LIBRARIES=FOLDER where they
are installed already.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from flows.collector import gpp, tcf

LIBRARIES = ("@iabtcf/core@1.5.6", "@iabgpp/cmpapi@3.2.0")
COUNT, SEED = 1_000, 2026
HOW = "install node and npm, and let them reach their registry, to hold our decoders against the IAB's own"
MAX_VENDOR = 1_500


@pytest.fixture(scope="module")
def strings(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip(HOW)
    installed = os.environ.get("AUDIOPIXEL_CONSENT_LIBRARIES")
    folder = Path(installed) if installed else tmp_path_factory.mktemp("libraries")
    if not installed:
        install = [npm, "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", *LIBRARIES]
        try:
            subprocess.run(install, cwd=folder, check=True, timeout=120, capture_output=True)
        except (subprocess.SubprocessError, OSError):
            pytest.skip(HOW)
    script = Path(__file__).with_name("consent_strings.mjs")
    made = subprocess.run(
        [node, str(script), str(COUNT), str(SEED)], cwd=folder, check=True, timeout=120, capture_output=True
    )
    return [json.loads(line) for line in made.stdout.splitlines()]


def ids(vendors: tcf.Vendors) -> list[int]:
    found = {one for first, last in vendors.ranges for one in range(first, last + 1)}
    found |= {one for one in range(1, vendors.most + 1) if vendors.field >> (vendors.most - one) & 1}
    assert all((one in vendors) == (one in found) for one in (0, 1, 2, 5, 755, vendors.most, MAX_VENDOR))
    return sorted(found)


def our_reading(text: str) -> dict[str, Any]:
    """Our reading of a TC string in the libraries' terms."""
    found = tcf.decode(text)
    return {
        "policy": found.policy_version,
        "created": found.created_ms,
        "specific": found.service_specific,
        "treatment": found.purpose_one_treatment,
        "purposes": [one for one in range(1, 25) if found.consents_to(one)],
        "interests": [one for one in range(1, 25) if found.interests >> (24 - one) & 1],
        "vendors": ids(found.vendors),
        "vendorInterests": ids(found.vendor_interests),
        "disclosed": None if found.disclosed is None else ids(found.disclosed),
        "restrictions": sorted(
            [one.purpose, one.type, vendor]
            for one in found.restrictions
            for first, last in one.vendors
            for vendor in range(first, last + 1)
        ),
    }


def expected(read: dict[str, Any]) -> dict[str, Any]:
    names = our_reading(EMPTY)
    return {name: read[name] for name in names} | {"restrictions": sorted(read["restrictions"])}


EMPTY = "CQtDjkAQtDjkAAfAAAENCWFgAAAAAAAAAAwIAAAAAAAA.IAAA.YAAAAAAAAAAA"


def test_our_decoders_agree_with_the_iabs_libraries(strings: list[dict[str, Any]]) -> None:
    differences, seen = [], {"tcf": 0, "section": 0, "out": 0}
    for one in strings:
        if one["kind"] == "tcf":
            seen["tcf"] += 1
            if our_reading(one["text"]) != expected(one):
                differences.append(one["text"])
            continue
        sections = gpp.sections(one["text"])
        seen["section"] += len(sections)
        outs = {id_: gpp.opted_out(id_, sections[id_]) for id_ in sections if gpp.is_known(id_)}
        wanted = {int(id_): out for id_, out in one["out"].items()}
        seen["out"] += sum(out is True for out in outs.values())
        if list(sections) != one["sections"] or outs != wanted:
            differences.append(one["text"])
        if "tcf" in one and our_reading(sections[gpp.TCF_EU]) != expected(one["tcf"]):
            differences.append(one["text"])
    assert differences == []
    assert seen["tcf"] == COUNT // 2
    assert seen["section"] > 500
    assert seen["out"] > 100
