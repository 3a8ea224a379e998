"""The routing of alerts: Alertmanager's configuration.

While the numbers are old or incomplete, alerts of the pipeline inhibit those about delivery, and traders get
one alert that delivery is not judged. For a reason that only the flow has, this alert inhibits the others.
Nothing inhibits brand safety. The alert for no delivery inhibits the alert for under-delivery.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from dashboards.pipeline_rules import BLINDING, NOT_JUDGED
from dashboards.rules import duration, to_text


def alertmanager(
    webhook: str | None = None,
    *,
    group_wait: timedelta = timedelta(seconds=30),
    group_interval: timedelta = timedelta(minutes=5),
) -> str:
    """The configuration, as YAML.

    Args:
        webhook: the URL to which both receivers post; None: alerts are shown in Alertmanager alone.
        group_wait: the wait for further alerts of a group before its first message.
        group_interval: the least time between two messages about a group.
    """
    hooks: dict[str, Any] = {"webhook_configs": [{"url": webhook, "send_resolved": True}]} if webhook else {}
    return to_text(
        {
            "route": {
                "receiver": "operators",
                "group_by": ["alertname", "campaign"],
                "group_wait": duration(group_wait),
                "group_interval": duration(group_interval),
                "repeat_interval": "12h",
                "routes": [{"matchers": ['area=~"delivery|safety|tags"'], "receiver": "traders"}],
            },
            "inhibit_rules": [
                {
                    "source_matchers": [f'alertname=~"{"|".join((*BLINDING, NOT_JUDGED))}"'],
                    "target_matchers": ['area="delivery"', f'alertname!="{NOT_JUDGED}"'],
                },
                {
                    "source_matchers": ['alertname="AudiopixelNotDelivering"'],
                    "target_matchers": ['alertname="AudiopixelUnderDelivery"'],
                    "equal": ["placement"],
                },
            ],
            "receivers": [{"name": "operators", **hooks}, {"name": "traders", **hooks}],
        }
    )
