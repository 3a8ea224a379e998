"""No tracked file holds a secret: detect-secrets finds what `.secrets.baseline` lists, and nothing else.

`make test` scans the files of the last commits and of the working tree; all files are a long test.

Each entry there was looked at: all are made up for a test or an example. A token of our own
form, NAME.SECRET, is none of the kinds that it knows.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from detect_secrets.core.secrets_collection import SecretsCollection
from detect_secrets.settings import transient_settings

ROOT = Path(__file__).parents[1]
KNOWN: dict[str, Any] = json.loads((ROOT / ".secrets.baseline").read_text())
UNREAD = (".gz", ".png", ".secrets.baseline")
COMMITS = 20
"""The last commits whose files `make test` scans."""
AGAIN = (
    "is it made up? Then: detect-secrets scan --no-verify --baseline .secrets.baseline, and commit that file"
)


def listed(*command: str) -> list[str]:
    """Names of files that a git command lists, each with a zero byte after it."""
    done = subprocess.run(["git", *command, "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.split("\0") if name and not name.endswith(UNREAD)]


def tracked() -> list[str]:
    return listed("ls-files")


def changed() -> list[str]:
    """Tracked files that the last commits or the working tree have changed."""
    last = listed("log", f"-{COMMITS}", "--format=", "--name-only", "--no-renames")
    return sorted({*last, *listed("diff", "HEAD", "--name-only")} & {*tracked()})


def secrets_in(root: Path, names: list[str]) -> dict[tuple[str, str, str], str]:
    """Secrets in these files, by file, kind and hash: each as one line for a reader, without its text."""
    secrets = SecretsCollection(root=str(root))
    with transient_settings(KNOWN):
        for name in names:
            secrets.scan_file(name)
    return {
        (name, one.type, one.secret_hash): f"{name}:{one.line_number} {one.type}" for name, one in secrets
    }


in_git = pytest.mark.skipif(
    not (ROOT / ".git").exists(), reason="needs git's list of files: clone the project"
)


@in_git
def test_no_tracked_file_holds_a_secret() -> None:
    names = tracked()
    assert len(names) > 500
    assert_known_alone(names)
    assert {*KNOWN["results"]} <= {*names}, f"these files are gone: {AGAIN}"


@in_git
def test_no_file_of_the_last_commits_holds_a_secret() -> None:
    names = changed()
    assert names
    assert_known_alone(names)


def assert_known_alone(names: list[str]) -> None:
    """Each secret in these files is listed, and each that is listed for them is there."""
    known = {
        (name, one["type"], one["hashed_secret"])
        for name in KNOWN["results"].keys() & {*names}
        for one in KNOWN["results"][name]
    }
    new = secrets_in(ROOT, names)
    assert [said for key, said in new.items() if key not in known] == [], AGAIN
    assert known - new.keys() == set(), f"these are gone: {AGAIN}"


def test_a_pasted_secret_is_found(tmp_path: Path) -> None:
    lines = {
        "token.py": 'token = "ghp_' + "Zq3v" * 9 + '"',
        "aws.py": "aws = AKIA" + "Z7Q2" * 4,
        "key.py": "-----BEGIN RSA " + "PRIVATE KEY-----",
        "url.py": 'url = "rediss://door:' + 'Xk2vQ9@10.0.0.1:6379/0"',
        "none.py": "answer = 42",
    }
    for name, line in lines.items():
        (tmp_path / name).write_text(f"{line}\n")
    # A single scan of all files: to load the detectors takes a second.
    assert {name for name, *_ in secrets_in(tmp_path, [*lines])} == lines.keys() - {"none.py"}
