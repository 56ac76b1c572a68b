"""What watches a project from outside, made from its registry: rules for Prometheus, a dashboard for Grafana."""
