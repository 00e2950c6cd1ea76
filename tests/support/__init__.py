"""Everything that several test files lean on, once each: builders, doubles, clocks, waiting and the pace."""
