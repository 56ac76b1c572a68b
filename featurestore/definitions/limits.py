"""Limits on what a repo may define, with units in their names; checked when the repo is compiled."""

from __future__ import annotations

DAY_MS = 86_400_000

VIEWS_MAX = 2_000
"""Feature views (of all kinds) a project."""

SERVICES_MAX = 2_000
"""Feature services a project."""

VIEW_FEATURES_MAX = 1_024
"""Features a view."""

SERVICE_FEATURES_MAX = 4_096
"""Features a service."""

EXPECTATIONS_MAX = 100
"""Expectations of a source: each is a label of metrics."""

ENRICHMENTS_MAX = 20
"""Tables that a source's events are enriched from."""

TABLE_ROWS_MAX = 1_000_000
"""Versions of rows of a table that a stream holds in memory: about 300 bytes each."""

HISTORY_TABLE_ROWS_MAX = 20_000_000
"""The same of whoever reads history: a table's whole past."""

LABELS_MATURE_MS_MAX = 3_660 * DAY_MS
"""Longest time after which labels may still arrive."""

FRESHNESS_MS_MAX = 366 * DAY_MS
"""Longest that may be promised of freshness."""

JOIN_KEYS_MAX = 8
"""Join keys a view."""

NAME_LENGTH_MAX = 200
"""Characters in the name of a view, service, feature or column."""

WINDOW_MS_MAX = 3_660 * DAY_MS
"""Longest window, and longest offset: ten years. Longer is lifetime."""

SERIES_WINDOWS_MAX = 1_000
"""Windows in a series: elements of its list."""

SESSION_GAPS_MAX = 1_000
"""Gaps that the longest session may last: it is kept in tiles no wider than the gap."""

EXPECTED_ENTITIES_MAX = 10**12
"""Most entities that a view may expect."""

LOOKBACK_MS_MAX = 30 * DAY_MS
"""Longest exact look-back: compaction keeps the finest grid for that long."""

DEDUP_HORIZON_MS_DEFAULT = 3_600_000
"""How long an event id is remembered when the source declares an id but no horizon."""

DEDUP_HORIZON_MS_MAX = 7 * DAY_MS
"""Longest de-duplication horizon: every remembered id costs the store memory."""

MAX_FUTURE_MS_MAX = 7 * DAY_MS
"""Furthest that a source may allow an event to be dated ahead of the clock."""

REGISTRY_BYTES_MAX = 256 * 1024 * 1024
"""Largest registry file read."""
