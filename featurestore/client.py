"""Look features up: clients of a running server, for threads and for asyncio.

    from featurestore.client import LookupClient

    with LookupClient("127.0.0.1:6566", timeout_s=0.1) as client:
        result = client.lookup("fraud_detection", {"card_id": ["c-17"], "merchant_id": [4711], "terminal_id": [99]})

A door: what stands in `__all__` keeps its name and its meaning from release to release. Errors are in
`featurestore.errors`.
"""

from featurestore.online.answer.schema import FeatureStatus, ServiceSchema
from featurestore.serving.client.clients import AsyncLookupClient, LookupClient
from featurestore.serving.client.messages import LookupBatch
from featurestore.serving.client.result import LookupResult, SourcePosition, ViewFreshness
from featurestore.serving.client.tls import ClientTls

__all__ = [
    "AsyncLookupClient",
    "ClientTls",
    "FeatureStatus",
    "LookupBatch",
    "LookupClient",
    "LookupResult",
    "ServiceSchema",
    "SourcePosition",
    "ViewFreshness",
]
