"""Why a feature has its value: what was merged, and what it means."""
