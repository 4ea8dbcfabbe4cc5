"""How packets and control messages travel. Only this package sends and receives."""
