"""Changes of a table's rows as Debezium writes them: an envelope of the row before, the row after, and what was done.

    op   c insert   r read by a snapshot   u update   d delete   t truncate   m message
         after      after                  both       before     neither      neither

`envelope` says what of an envelope counts, `json_envelopes` and `avro_envelopes` read those of their format. What the
rows are is for the readers of formats, as if they were payloads.
"""
