"""Who hears of failed runs and red checks."""
