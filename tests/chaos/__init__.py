"""Fault injection: workers, broker, Redis and inputs are hurt while a stream runs, and every sink is compared after."""
