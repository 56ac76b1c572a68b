"""Declare features: short ways to write Feast objects; whatever else a repo holds is plain Feast.

    from featurestore.features import LIFETIME, aggregate, count, kafka_source, stream_view

A door: what stands in `__all__` keeps its name and its meaning from release to release.
"""

from featurestore.definitions.authoring import (
    LIFETIME,
    DerivedFeature,
    ExpectedOfHours,
    ExpectedOfRecords,
    NamedWindow,
    TableColumns,
    WindowedFeature,
    about,
    aggregate,
    count,
    derive,
    expect,
    kafka_source,
    null_share,
    one_of,
    request_features,
    series,
    session,
    stream_view,
    table,
    this_month,
    this_week,
    this_year,
    today,
    usual_lateness,
    usual_volume,
)

__all__ = [
    "LIFETIME",
    "DerivedFeature",
    "ExpectedOfHours",
    "ExpectedOfRecords",
    "NamedWindow",
    "TableColumns",
    "WindowedFeature",
    "about",
    "aggregate",
    "count",
    "derive",
    "expect",
    "kafka_source",
    "null_share",
    "one_of",
    "request_features",
    "series",
    "session",
    "stream_view",
    "table",
    "this_month",
    "this_week",
    "this_year",
    "today",
    "usual_lateness",
    "usual_volume",
]
