"""Real-time feature store for payments risk: one definition, three readers."""

__version__ = "0.1.0"
