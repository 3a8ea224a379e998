"""A real schema registry for tests: Apicurio Registry on loopback, in memory, from the archive that Maven
resolves. The registry serves Confluent's interface below `/apis/ccompat/v7`.

Needs Java 17 and `mvn`; the archive (142 MB) is fetched once to build/apicurio-<version>.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from kafka_server import _GUARD, HOW_TO, KafkaUnavailable, _free_ports

VERSION: Final = "2.6.13.Final"
BUILD: Final = Path(__file__).resolve().parents[2] / "build"


class Apicurio:
    """A registry as a context manager.

    Raises:
        KafkaUnavailable: no Java, no Maven, or no repository.
        RuntimeError: it does not start; with its last output.
    """

    def __init__(self, directory: Path) -> None:
        java = shutil.which("java")
        if java is None:
            raise KafkaUnavailable(f"no java found: {HOW_TO}")
        (port,) = _free_ports(1)
        self.url = f"http://127.0.0.1:{port}/apis/ccompat/v7"
        self._output = directory / "registry.out"
        (runner,) = _unpacked().glob("*-runner.jar")
        self._command = [
            java,
            *("-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
            *(f"-Dquarkus.http.port={port}", "-Dquarkus.http.host=127.0.0.1"),
            *("-jar", str(runner)),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    def put(self, subject: str, schema: str, kind: str = "AVRO", references: Any = ()) -> int:
        """Register a schema; its id."""
        names = ("name", "subject", "version")
        body = {
            "schema": schema,
            "schemaType": kind,
            "references": [dict(zip(names, one, strict=True)) for one in references],
        }
        request = urllib.request.Request(
            f"{self.url}/subjects/{subject}/versions",
            json.dumps(body).encode(),
            {"Content-Type": "application/vnd.schemaregistry.v1+json"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(json.load(answer)["id"])

    def __enter__(self) -> Self:
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        self._guard = subprocess.Popen(
            ["sh", "-c", _GUARD, "guard", str(self._process.pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        deadline_s = time.monotonic() + 120
        while time.monotonic() < deadline_s and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/subjects", timeout=2):
                    return self
            except OSError:
                time.sleep(0.2)
        self.__exit__(None, None, None)
        raise RuntimeError(f"the registry did not start:\n{self._output.read_text()[-2000:]}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in (self._guard, self._process):
            if process is not None:
                process.kill()
                process.communicate()


def _unpacked() -> Path:
    found = BUILD / f"apicurio-{VERSION}"
    if found.is_dir():
        return found
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaUnavailable(f"no mvn found: {HOW_TO}")
    BUILD.mkdir(exist_ok=True)
    with found.with_suffix(".lock").open("w") as lock:  # two workers of the suite may come here at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if found.is_dir():
            return found
        half = BUILD / f"apicurio.{os.getpid()}.part"
        artifact = f"io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"
        command = [
            maven,
            "-B",
            "-q",
            "dependency:copy",
            f"-Dartifact={artifact}",
            f"-DoutputDirectory={half}",
        ]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=240)
            (archive,) = half.glob("*.tar.gz")
        except (subprocess.SubprocessError, ValueError) as error:
            raise KafkaUnavailable(f"mvn could not fetch the registry ({error}): {HOW_TO}") from error
        shutil.unpack_archive(archive, half / "app")
        (half / "app").rename(found)
        shutil.rmtree(half)
    return found
