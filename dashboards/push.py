"""The upload of the dashboards to a Grafana, with the extra `dashboards`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from grafana_client.api import GrafanaApi
from grafana_client.client import GrafanaClientError, GrafanaException

from dashboards.site import BOARDS, GENERATED

FOLDER: Final = "audiopixel"
"""The uid and title of the dashboards' folder."""


class PushError(Exception):
    """A dashboard's file is missing, or Grafana refused it; the message has the reason."""


def push(url: str, token: str, directory: Path = GENERATED) -> list[str]:
    """Create or replace the dashboards in their folder, and return their addresses.

    Args:
        url: Grafana's root.
        token: the token of a service account that may edit.
        directory: the directory of their files.

    Raises:
        PushError: a file is missing, or Grafana is away or refuses.
    """
    bodies = [_body(directory / f"{name}.json") for name in BOARDS]
    grafana = GrafanaApi.from_url(url, credential=token)
    try:
        try:
            grafana.folder.get_folder(FOLDER)
        except GrafanaClientError as error:
            if error.status_code != 404:
                raise
            grafana.folder.create_folder(FOLDER, FOLDER)
        return [url.rstrip("/") + grafana.dashboard.update_dashboard(body)["url"] for body in bodies]
    except GrafanaException as error:
        raise PushError(f"{url} answered {error.status_code}: {error.message}") from None
    except OSError as error:
        raise PushError(f"{url} cannot be reached: {error}") from None


def _body(path: Path) -> dict[str, object]:
    try:
        board = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise PushError(f"{path} is no dashboard ({error}): python -m dashboards build writes it") from None
    return {
        "dashboard": board,
        "folderUid": FOLDER,
        "overwrite": True,
        "message": "python -m dashboards push",
    }
