"""Which values of signals are there already, and for which samples they hold."""
