"""Who somebody is, and what he may do: tokens of an issuer, and the registry's permissions."""
