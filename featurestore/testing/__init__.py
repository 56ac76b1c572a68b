"""Shipped testing kit: naive oracle, manual clock, event strategies, real servers, transaction simulator."""
