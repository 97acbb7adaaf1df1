"""What runs by itself: conditions, the sensor that asks for few runs, and what becomes of failures."""
