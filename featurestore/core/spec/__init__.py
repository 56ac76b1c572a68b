"""Frozen descriptions of what to compute: the compiled form of a feature repo.

`definitions/` produces these from a Feast registry; stream, lookup and history only ever read them.
All durations are integer milliseconds. Names are as in the registry.
"""

from featurestore.core.spec.contracts import Expectation as Expectation
from featurestore.core.spec.contracts import FreshnessPromise as FreshnessPromise
from featurestore.core.spec.contracts import Measure as Measure
from featurestore.core.spec.contracts import OnFail as OnFail
from featurestore.core.spec.contracts import UsualHours as UsualHours
from featurestore.core.spec.labels import LabelSourceSpec as LabelSourceSpec
from featurestore.core.spec.labels import OnConflict as OnConflict
from featurestore.core.spec.repo import FeatureReference as FeatureReference
from featurestore.core.spec.repo import OnDemandInput as OnDemandInput
from featurestore.core.spec.repo import OnDemandViewSpec as OnDemandViewSpec
from featurestore.core.spec.repo import PinnedView as PinnedView
from featurestore.core.spec.repo import PythonFunction as PythonFunction
from featurestore.core.spec.repo import RepoSpec as RepoSpec
from featurestore.core.spec.repo import ServiceSpec as ServiceSpec
from featurestore.core.spec.repo import counting as counting
from featurestore.core.spec.views import CHANGE_ID as CHANGE_ID
from featurestore.core.spec.views import DEFAULT_LOOKBACK_MS as DEFAULT_LOOKBACK_MS
from featurestore.core.spec.views import DEFAULT_MAX_FUTURE_MS as DEFAULT_MAX_FUTURE_MS
from featurestore.core.spec.views import DEFAULT_SESSION_GAPS as DEFAULT_SESSION_GAPS
from featurestore.core.spec.views import HOP_LADDER_MS as HOP_LADDER_MS
from featurestore.core.spec.views import HOPS_PER_WINDOW_MIN as HOPS_PER_WINDOW_MIN
from featurestore.core.spec.views import IS_UNDO as IS_UNDO
from featurestore.core.spec.views import REPLACE as REPLACE
from featurestore.core.spec.views import SCALAR_TYPES as SCALAR_TYPES
from featurestore.core.spec.views import SESSION_MS_DEFAULT_MAX as SESSION_MS_DEFAULT_MAX
from featurestore.core.spec.views import CalendarUnit as CalendarUnit
from featurestore.core.spec.views import Column as Column
from featurestore.core.spec.views import ComputedColumn as ComputedColumn
from featurestore.core.spec.views import EnrichmentSpec as EnrichmentSpec
from featurestore.core.spec.views import FeatureSpec as FeatureSpec
from featurestore.core.spec.views import MemberSpec as MemberSpec
from featurestore.core.spec.views import PlainViewSpec as PlainViewSpec
from featurestore.core.spec.views import SourceSpec as SourceSpec
from featurestore.core.spec.views import TableSpec as TableSpec
from featurestore.core.spec.views import TopicSpec as TopicSpec
from featurestore.core.spec.views import ValueType as ValueType
from featurestore.core.spec.views import ViewSpec as ViewSpec
from featurestore.core.spec.views import Window as Window
from featurestore.core.spec.views import default_hop_ms as default_hop_ms
from featurestore.core.spec.views import presence_hop_ms as presence_hop_ms
