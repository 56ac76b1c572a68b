"""What is registered and what becomes of it, for people and programs that look: one model, three faces.

registry ─┬─> Catalog ─┬─> web      pages that people open
store ────┘            ├─> command line: list, search, describe, lineage
                       └─> tools    MCP, for assistants

Nothing here writes, and nothing here has rights of its own: a value is asked for with the token of whoever asks.
"""
