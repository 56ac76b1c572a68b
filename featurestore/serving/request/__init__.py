"""What one request may take and how it ends: limits, deadline, steps, statuses."""
