"""Limits of the lookup server: what one request may ask for, and how long the server's own work may take."""

from __future__ import annotations

ROWS_PER_REQUEST_MAX = 1_000
"""Entity rows of one request; a row costs some tens of microseconds a view, and they are answered in one go."""

ENTITY_READS_PER_REQUEST_MAX = 5_000
"""Distinct (view, entity key) reads of one request: one pipeline to the online store."""

REQUEST_BYTES_MAX = 1 << 20
"""Largest request message, bytes."""

RESPONSE_BYTES_MAX = 16 << 20
"""Largest response message, bytes; clients must allow as much."""

ELEMENTS_PER_ANSWER_MAX = 1 << 20
"""Elements of all lists and maps of one answer: at 16 bytes each they are what a response may hold."""

FEATURES_PER_REQUEST_MAX = 2_000
"""Features of one ad-hoc "view:feature" list."""

CACHED_PLANS_MAX = 1_024
"""Plans kept for ad-hoc feature lists; the oldest goes first."""

DEADLINE_DEFAULT_MS = 5_000.0
"""Budget of a request whose caller set no deadline, so that no thread waits for ever."""

STORE_TIMEOUT_MAX_MS = 2_000.0
"""Longest wait for one answer of the online store, whatever the caller's deadline."""

WORKERS_DEFAULT = {"sync": 4, "aio": 8}
"""Requests at work at once, by kind of server: enough to overlap waits for the store. More would only take turns on the
interpreter."""

POLL_SECONDS = 1.0
"""How often the registry and the store's generations are looked at."""

DRAIN_SECONDS = 10.0
"""How long requests in flight may go on after SIGTERM."""

WAITING_MAX = 128
"""Requests that wait for their turn; each holds a thread where threads serve."""

WAIT_MS_MAX = 50.0
"""Longest wait for a turn: that of some answers. Whoever would wait longer is refused with RESOURCE_EXHAUSTED."""

LARGE_AT_WORK_MAX = 1
"""Large requests at work at once: two of them would take the interpreter from the small ones twice as often."""

LARGE_WAITING_MAX = 16
"""Large requests that wait for their turn."""

LARGE_WAIT_MS_MAX = 2_000.0
"""Longest wait of a large request for its turn."""

LOOKUP_STREAMS_MAX = 16
"""Streams of chunks that are open at once; each holds a thread where threads serve."""

CHUNK_WAIT_MS_MAX = 30_000.0
"""Longest wait of a chunk for its turn: nobody waits at the other end but a job."""

CHUNK_REST_MS_MAX = 500.0
"""Longest pause between two chunks for the sake of others."""

STREAM_SILENCE_MS_MAX = 60_000.0
"""How long a stream may be open without a chunk."""

STREAMS_PER_CONNECTION_MAX = 1_000
"""Calls under way on one connection; a client keeps more of them back by itself, as HTTP/2 has it."""
