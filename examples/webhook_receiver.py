"""A receiver of audiopixel's webhooks: it verifies each call, refuses old ones, and takes a repeat once.

WEBHOOK_SECRET=whsec_… python webhook_receiver.py PORT; needs Python alone
"""

import base64
import hmac
import json
import os
import sys
import time
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WINDOW_S = 300  # an honest call is signed anew at each try; what is older has been recorded and replayed
seen: OrderedDict[str, bool] = OrderedDict()  # in real life a table that lasts: calls repeat for 72 hours


def verified(secret: bytes, headers: dict[str, str], body: bytes, now_s: float) -> bool:
    """True if the call was signed with our secret within the window."""
    ident, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not stamp.isdigit() or abs(now_s - int(stamp)) > WINDOW_S:
        return False
    expected = hmac.digest(secret, f"{ident}.{stamp}.".encode() + body, "sha256")
    for one in headers.get("webhook-signature", "").split():
        version, _, signature = one.partition(",")
        if version == "v1" and hmac.compare_digest(signature.encode(), base64.b64encode(expected)):
            return True
    return False


def take(event: dict[str, object]) -> None:
    """What is to be done with an event, once."""
    print(event["type"], json.dumps(event["data"]), flush=True)


class Receiver(BaseHTTPRequestHandler):
    """Answers 204 to what it has taken, also before; 401 to what is not verified."""

    secret = b""

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", 0))
        if length > 1 << 20:
            self.send_error(413)
            return
        body = self.rfile.read(length)
        headers = {name.lower(): value for name, value in self.headers.items()}
        if not verified(self.secret, headers, body, time.time()):
            self.send_error(401)
            return
        if headers["webhook-id"] not in seen:
            take(json.loads(body))
            seen[headers["webhook-id"]] = True
            while len(seen) > 100_000:
                seen.popitem(last=False)
        self.send_response(204)
        self.end_headers()


if __name__ == "__main__":
    Receiver.secret = base64.b64decode(os.environ["WEBHOOK_SECRET"].removeprefix("whsec_"))
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
