"""Pure logic: no clock, environment, network or framework of its own."""
