"""From trained networks to an ensemble."""
