"""Training sets: label rows in, features as they were at each label time out.

histories ──> view_events ──> event_partitions ──> stream ──> answer_parts ──> build
tables    ──> plain_join  ───────────────────────────────────────────────────────┘
"""
