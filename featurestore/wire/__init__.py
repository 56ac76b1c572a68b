"""Bytes: event decoding, entity keys, the tile codec and the store's layout. No I/O."""
