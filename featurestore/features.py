"""Declare features: short ways to write Feast objects; whatever else a repo holds is plain Feast.

    from featurestore.features import LIFETIME, aggregate, count, kafka_source, stream_view

A door: what stands in `__all__` keeps its name and its meaning from release to release.
"""

from featurestore.definitions.author_parts import (
    DerivedFeature,
    NamedWindow,
    WindowedFeature,
    series,
    session,
    this_month,
    this_week,
    this_year,
    today,
)
from featurestore.definitions.authoring import (
    aggregate,
    count,
    derive,
    kafka_source,
    stream_view,
)
from featurestore.definitions.compile.window import LIFETIME

__all__ = [
    "LIFETIME",
    "DerivedFeature",
    "NamedWindow",
    "WindowedFeature",
    "aggregate",
    "count",
    "derive",
    "kafka_source",
    "series",
    "session",
    "stream_view",
    "this_month",
    "this_week",
    "this_year",
    "today",
]
