"""Sending the dashboards to a Grafana."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from grafana_client.api import GrafanaApi
from grafana_client.client import GrafanaClientError, GrafanaException

from dashboards.build import GENERATED

FOLDER: Final = "audiopixel"
"""Uid and title of their folder."""


class PushError(Exception):
    """Grafana did not take the dashboards; the message says why."""


def push(url: str, token: str, directory: Path = GENERATED) -> list[str]:
    """Create or replace the dashboards in their folder; their addresses.

    Args:
        url: Grafana's root.
        token: of a service account that may edit.

    Raises:
        PushError: Grafana is not there, or refuses.
    """
    grafana = GrafanaApi.from_url(url, credential=token)
    try:
        try:
            grafana.folder.get_folder(FOLDER)
        except GrafanaClientError as error:
            if error.status_code != 404:
                raise
            grafana.folder.create_folder(FOLDER, FOLDER)
        return [
            url.rstrip("/") + grafana.dashboard.update_dashboard(_body(path))["url"]
            for path in sorted(directory.glob("*.json"))
        ]
    except GrafanaException as error:
        raise PushError(f"{url} answered {error.status_code}: {error.message}") from None
    except OSError as error:
        raise PushError(f"{url} cannot be reached: {error}") from None


def _body(path: Path) -> dict[str, object]:
    return {
        "dashboard": json.loads(path.read_text()),
        "folderUid": FOLDER,
        "overwrite": True,
        "message": "python -m dashboards push",
    }
