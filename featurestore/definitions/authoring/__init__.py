"""Short ways to write Feast objects: windowed and derived features, sources, and features of a request."""

from featurestore.definitions.authoring.expectations import ExpectedOfHours as ExpectedOfHours
from featurestore.definitions.authoring.expectations import ExpectedOfRecords as ExpectedOfRecords
from featurestore.definitions.authoring.expectations import expect as expect
from featurestore.definitions.authoring.expectations import null_share as null_share
from featurestore.definitions.authoring.expectations import one_of as one_of
from featurestore.definitions.authoring.expectations import usual_lateness as usual_lateness
from featurestore.definitions.authoring.expectations import usual_volume as usual_volume
from featurestore.definitions.authoring.parts import DerivedFeature as DerivedFeature
from featurestore.definitions.authoring.parts import NamedWindow as NamedWindow
from featurestore.definitions.authoring.parts import WindowedFeature as WindowedFeature
from featurestore.definitions.authoring.parts import series as series
from featurestore.definitions.authoring.parts import session as session
from featurestore.definitions.authoring.parts import this_month as this_month
from featurestore.definitions.authoring.parts import this_week as this_week
from featurestore.definitions.authoring.parts import this_year as this_year
from featurestore.definitions.authoring.parts import today as today
from featurestore.definitions.authoring.request_features import request_features as request_features
from featurestore.definitions.authoring.sources import kafka_source as kafka_source
from featurestore.definitions.authoring.views import FEAST_TYPES as FEAST_TYPES
from featurestore.definitions.authoring.views import aggregate as aggregate
from featurestore.definitions.authoring.views import count as count
from featurestore.definitions.authoring.views import derive as derive
from featurestore.definitions.authoring.views import stream_view as stream_view
from featurestore.definitions.compile.window import LIFETIME as LIFETIME
from featurestore.definitions.governance.about import about as about
