"""haversine_km(lat1, lon1, lat2, lon2): great-circle distance of two points in degrees, on a sphere.

The radius is the mean radius of WGS 84 (IUGG 1980), 6371.0088 km; the true distance on the ellipsoid differs by up to
0.6 %. Null where a latitude is beyond the poles or a coordinate is not finite; longitudes may be given in any turn.
Source: R. W. Sinnott, "Virtues of the Haversine", Sky and Telescope 68 (1984): stable for small distances.
"""

from __future__ import annotations

import numpy as np

from featurestore.core.events import BoolArray, Float64Array
from featurestore.core.expressions.kinds import Kind
from featurestore.core.expressions.overload import Overloads, fixed
from featurestore.core.expressions.vector import partial

EARTH_RADIUS_KM = 6371.0088

_POLE_DEGREES = 90.0


def _haversine_km(
    latitude: Float64Array, longitude: Float64Array, other_latitude: Float64Array, other_longitude: Float64Array
) -> tuple[Float64Array, BoolArray]:
    phi, other_phi = np.radians(latitude), np.radians(other_latitude)
    half_chord = (
        np.sin((other_phi - phi) / 2) ** 2
        + np.cos(phi) * np.cos(other_phi) * np.sin(np.radians(other_longitude - longitude) / 2) ** 2
    )
    # Rounding can carry antipodes just beyond 1.
    distance_km = 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.minimum(half_chord, 1.0)))
    on_earth = (np.abs(latitude) <= _POLE_DEGREES) & (np.abs(other_latitude) <= _POLE_DEGREES)
    return distance_km, on_earth & np.isfinite(distance_km)


OVERLOADS: Overloads = {
    "HAVERSINE_KM": (
        fixed(Kind.FLOAT, Kind.FLOAT, Kind.FLOAT, Kind.FLOAT, gives=Kind.FLOAT, kernel=partial(_haversine_km)),
    )
}
