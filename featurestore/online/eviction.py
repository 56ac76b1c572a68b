"""A store that evicts loses single keys, and answers from what is left: how to tell, and whom.

`INFO` says so also where a managed service forbids `CONFIG`. Keys of ours that expire are as good as any other to a
`volatile-*` policy, so every policy but `noeviction` evicts, as soon as there is a limit.
"""

from __future__ import annotations

from dataclasses import dataclass

from featurestore.errors import StoreMismatch

NO_EVICTION = "noeviction"


@dataclass(frozen=True, slots=True)
class StoreMemory:
    """Memory of the servers behind a store; of several the sum, and the first policy that evicts.

    Attributes:
        used_bytes: what is in use.
        limit_bytes: `maxmemory`; 0 is none.
        policy: `maxmemory-policy`.
        evicted_keys: keys that were evicted since the servers began.
        key_count: keys of all projects, and of whoever else uses the servers.
    """

    used_bytes: int
    limit_bytes: int
    policy: str
    evicted_keys: int
    key_count: int

    @property
    def evicts(self) -> bool:
        """Whether keys go when the memory is full."""
        return self.limit_bytes > 0 and self.policy != NO_EVICTION


def refuse_eviction(memory: StoreMemory | None) -> None:
    """Refuse to write to a store that evicts; None, which nobody may see, is let pass.

    Raises:
        StoreMismatch: with the remedy.
    """
    if memory is not None and memory.evicts:
        raise StoreMismatch(
            f'the online store evicts keys: maxmemory-policy is "{memory.policy}"',
            detail=f"Its memory is limited to {memory.limit_bytes:,} bytes, of which {memory.used_bytes:,} are used; "
            f"{memory.evicted_keys:,} keys have been evicted. A feature whose events were evicted is wrong.",
            hint=f"CONFIG SET maxmemory-policy {NO_EVICTION}, or the same in the service's parameters",
        )
