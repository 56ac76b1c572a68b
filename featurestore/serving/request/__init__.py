"""What one request may take and how it ends: limits, steps, statuses."""
