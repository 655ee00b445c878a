"""Whether the networks learn what they should, beside a baseline that is known."""
