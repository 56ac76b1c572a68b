"""What registered on-demand views call: SQL over features and columns of a request, wherever Feast computes them.

    def checks(inputs):
        from featurestore.on_demand import compute

        return compute(inputs, {"amount": "float64", "mean_30d": "float64"}, {"ratio": "amount / mean_30d"})

Texts like that are written by `featurestore.features.request_features`, and stand in registries. A door: its names and
their meaning stay from release to release. It imports neither Feast nor pandas.
"""

from featurestore.core.lowering.request_time import compute

__all__ = ["compute"]
