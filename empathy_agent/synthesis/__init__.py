"""Makes conversations with any chat model, and holds written and made ones to the same gates."""
