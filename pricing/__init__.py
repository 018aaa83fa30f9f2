"""What a call costs. Reads nothing but its own data; money is Decimal, an unknown price is None, never 0."""
