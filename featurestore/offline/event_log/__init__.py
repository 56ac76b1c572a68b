"""The event log: every record of a source once, in a Delta table by event date.

address    where a log is, for delta-rs and for Arrow
schema     columns of a source's log, decoded events to Arrow
failures   what delta-rs raises, as this package's errors
table      the table as it is at one version: positions, files
writer     rows and positions in one commit; claims and fencing
reader     EventLog: one version, scanned
upkeep     small files merged, old dates dropped, files that nobody needs deleted
adoption   a directory of the release before tables becomes one

What it promises, and why: docs/decisions/0013-event-log-table.md.
"""
