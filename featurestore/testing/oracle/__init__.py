"""The naive oracle: what every value must be, in plain loops that share nothing with what they judge."""
