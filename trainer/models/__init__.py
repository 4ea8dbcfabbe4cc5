"""Models, each a function that returns an ``nn.Sequential`` of units."""
