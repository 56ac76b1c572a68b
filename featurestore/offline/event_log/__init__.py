"""The event log: every record of a source once, as Parquet by event date.

layout      names of files and directories; a data file's name says which offsets it holds
schema      columns of a source's log, decoded events to Arrow
files       the few operations on a file system that the protocol needs, on a local disk and on an object store
commits     the chain of commit records of one partition: positions and fencing
writer      stage, commit, publish; recovery
snapshot    what may be read at one moment
reader      EventLog: positions, dates, scan
compaction  many small files to one, while others read
retention   old event dates are dropped

The protocol and its guarantees: docs/decisions/0008-event-log-commit.md.
"""
