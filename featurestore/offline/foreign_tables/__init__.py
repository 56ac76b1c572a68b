"""Tables that somebody else keeps, Delta or Iceberg: read at one version, and never written.

opening    which kind of table is at an address, if any
delta      a Delta table: the files of one version
iceberg    an Iceberg table: the files of one snapshot, through pyiceberg
table      what both have in common
"""
