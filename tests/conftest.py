"""What all tests share."""

from hypothesis import HealthCheck, settings

# Machines differ in speed, and no test is to depend on it.
settings.register_profile(
    "logengine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("logengine")
