"""A small schema registry for tests of faults, on loopback: it speaks the part of Confluent's documented
interface that a reader asks for. `tests/apache/registry_server.py` is a real one.
"""

from __future__ import annotations

import base64
import io
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import fastavro
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from flows.sources.protobuf import ProtobufSchema
from flows.sources.schemas import Text

AD_EVENT: dict[str, Any] = {
    "type": "record",
    "name": "AdEvent",
    "namespace": "com.example.player",
    "fields": [
        {"name": "id", "type": "string"},
        {
            "name": "kind",
            "type": {"type": "enum", "name": "Kind", "symbols": ["impression", "start", "complete"]},
        },
        {"name": "placement", "type": "string"},
        {"name": "play", "type": ["null", "string"], "default": None},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {
            "name": "listener",
            "type": {
                "type": "record",
                "name": "Listener",
                "fields": [
                    {"name": "device", "type": ["null", "string"], "default": None},
                    {"name": "consent", "type": "boolean", "default": False},
                ],
            },
        },
    ],
}
NAMES = """
[registry]
url = "{url}"
[names]
event = "kind"
event_id = "id"
placement_id = "placement"
play_id = "play"
ts = "at"
listener_id = "listener.device"
consent = "listener.consent"
"""
"""Of a mapping, in whichever format the event is."""
MAPPING = f"""
topic = "{{topic}}"
format = "avro"
{NAMES}"""


def event(number: int, at_ms: int, kind: str = "impression") -> dict[str, Any]:
    return {
        "id": f"e-{number}",
        "kind": kind,
        "placement": "p",
        "play": f"play-{number}",
        "at": at_ms,
        "listener": {"device": f"d-{number % 7}", "consent": True},
    }


def framed(schema_id: int, payload: bytes) -> bytes:
    """A message as Confluent's serializers write it."""
    return b"\0" + schema_id.to_bytes(4, "big") + payload


def avro(schema: Any, record: Any) -> bytes:
    file = io.BytesIO()
    fastavro.schemaless_writer(file, fastavro.parse_schema(schema), record)
    return file.getvalue()


class SmallRegistry:
    """Gives schemas by id and by subject and version.

    Attributes:
        asked: paths, as they were asked for.
        status: an answer other than 200 to all questions; 0: none.
        pause_s: before each answer.
        credentials: `user:password` that it asks for; empty: none.
        descriptors: of schemas of Protobuf by id, in base64.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.status, self.pause_s, self.credentials, self.page = 0, 0.0, "", b"no"
        self.descriptors: dict[int, str] = {}
        self._schemas: list[dict[str, Any]] = []
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.asked.append(self.path)
                time.sleep(registry.pause_s)
                wanted = "Basic " + base64.b64encode(registry.credentials.encode()).decode()
                if registry.credentials and self.headers.get("Authorization") != wanted:
                    self._answer(401, {"error_code": 40101, "message": "Unauthorized"})
                elif registry.status:
                    self._answer(registry.status, None)
                elif (found := registry.found(self.path.partition("?")[0])) is not None:
                    descriptor = registry.descriptors.get(found["id"])
                    described = descriptor and "format=serialized" in self.path
                    self._answer(200, found | {"schema": descriptor} if described else found)
                else:
                    self._answer(404, {"error_code": 40403, "message": "Schema not found"})

            def _answer(self, status: int, body: Any) -> None:
                content = registry.page if body is None else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self._handler = Handler
        self.server: ThreadingHTTPServer | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def found(self, path: str) -> dict[str, Any] | None:
        if (of_id := re.fullmatch(r"/schemas/ids/(\d+)", path)) is not None:
            at = int(of_id[1]) - 1
            return self._schemas[at] if 0 <= at < len(self._schemas) else None
        if (of_subject := re.fullmatch(r"/subjects/([^/]+)/versions/(\d+)", path)) is not None:
            own = [one for one in self._schemas if one["subject"] == of_subject[1]]
            at = int(of_subject[2]) - 1
            return own[at] if 0 <= at < len(own) else None
        return None

    def describe(self, schema_id: int) -> None:
        """Have a descriptor of a schema of Protobuf too, under the name that Confluent gives it."""
        schema = self._schemas[schema_id - 1]
        texts = {one["subject"]: one["schema"] for one in self._schemas}
        references = {one["name"]: texts[one["subject"]] for one in schema["references"]}
        made = ProtobufSchema(Text("PROTOBUF", schema["schema"], references))
        file = FileDescriptorProto()
        file.MergeFromString(made.kinds[0,].message_class.DESCRIPTOR.file.serialized_pb)
        file.name = "default"
        self.descriptors[schema_id] = base64.b64encode(file.SerializeToString()).decode()

    def put(self, subject: str, schema: Any, kind: str = "AVRO", references: Any = ()) -> int:
        """Register a schema; its id."""
        version = 1 + sum(one["subject"] == subject for one in self._schemas)
        text = schema if isinstance(schema, str) else json.dumps(schema)
        self._schemas.append(
            {
                "id": len(self._schemas) + 1,
                "subject": subject,
                "version": version,
                "schema": text,
                "schemaType": kind,
                "references": [
                    dict(zip(("name", "subject", "version"), one, strict=True)) for one in references
                ],
            }
        )
        return len(self._schemas)

    def start(self) -> None:
        """Listen, at the port that it had."""
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Refuse connections."""
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
