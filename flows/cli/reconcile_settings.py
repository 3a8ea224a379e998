"""The settings and plans in the form that the oracle takes. The oracle imports neither, so only this file
passes them on.
"""

from __future__ import annotations

from decimal import Decimal

from connectors.redis import Client, read_rows
from flows.delivery import read_book, require_label_plans
from flows.intake import keys_of
from flows.model.catalogue.fields import LISTED_FIELDS
from flows.model.redis_keys import deny_key
from flows.reconcile import HOUSEHOLD, LISTENER, Denied, Planned, Rules, Thresholds
from flows.settings import Settings, ms
from flows.state.keys import TIES, sub_key
from flows.state.people import People


def rules(settings: Settings) -> Rules:
    """The rules by which a flow of these settings counts.

    Only the present plans are read: earlier plans of the flow are unknown. Plans with errors are left out, as
    in the flow.

    Raises:
        SettingsError: labels must be planned, and there are no plans.
        PlanError, ConnectError: the plans cannot be read.
    """
    require_label_plans(settings)
    book = read_book(settings)
    return Rules(
        out_of_orderness=settings.out_of_orderness,
        allowed_lateness=settings.allowed_lateness,
        horizon=settings.horizon,
        conversion_horizon=settings.conversion_horizon,
        consent=settings.consent,
        invalid_agents=list(settings.invalid_agents.values()),
        model=settings.attribution,
        click_window=settings.click_window,
        listen_window=settings.listen_window,
        half_life=settings.half_life,
        household_listeners=settings.household_listeners,
        touch_listens=settings.touch_listens,
        touch_clicks=settings.touch_clicks,
        touch_listens_in_all=settings.touch_listens_in_all,
        touch_clicks_in_all=settings.touch_clicks_in_all,
        mature_after=settings.mature_after,
        quiet=settings.quiet,
        max_hold=settings.max_hold,
        max_state=settings.max_state,
        row_ttl=settings.row_ttl,
        row_memory=settings.row_memory,
        timezone=settings.timezone,
        thresholds=Thresholds(
            settings.under,
            settings.over,
            ms(settings.delivery_grace),
            settings.delivery_gap,
            ms(settings.state_hold),
        ),
        utm_placements=settings.utm_placements,
        platform_basis=settings.platform_basis,
        app_rows=settings.app_rows,
        labels=settings.labels,
        tie_key=b"" if settings.listener_key is None else sub_key(settings.secret_listener_key(), TIES),
        conversions_from=settings.conversions_from,
        plans={
            name: Planned(
                start_ms=plan.start_ms,
                currency=plan.currency,
                campaign=plan.campaign_id,
                blocked_categories=plan.blocked_categories,
                end_ms=plan.end_ms,
                booked=plan.booked,
                pauses=plan.pauses,
                curve=plan.curve,
                timezone=plan.timezone or "UTC",
                cpm=None if plan.cpm_micros is None else Decimal(plan.cpm_micros) / 1_000_000,
                target=plan.target_completion_rate,
                labels=dict(zip(LISTED_FIELDS, plan.listed, strict=True)),
                balance=plan.delivered_before,
                until_ms=plan.delivered_before_until,
                source=plan.delivered_before_source,
                conversions_from=plan.conversions_from,
            )
            for name, plan in book.items()
        },
    )


def denied(settings: Settings, client: Client) -> Denied | None:
    """A test for listeners and households on Redis's deny-list; None if the list is empty.

    Raises:
        SettingsError: the list has entries, and the listeners' key, by which they are hashed, is not set.
        RedisUnavailable: Redis does not answer.
    """
    (listed,) = read_rows(client, [deny_key(settings.namespace)])
    if not listed:
        return None
    keys, hashed = set(keys_of(listed).tolist()), People(settings.secret_listener_key())
    key_of = {LISTENER: hashed.listener, HOUSEHOLD: hashed.household}
    return lambda kind, name: key_of[kind](name) in keys
