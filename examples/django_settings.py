"""Django: the part of `settings.py` that sends all logs to logengine, with their fields.

Flask and others: call `logging.config.dictConfig(LOGGING)` before creating the application.
"""

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {
        "logengine": {
            "class": "logengine.LogEngineHandler",
            "stream": "shop",
            # Without a daemon, a request neither waits nor fails because of its logs.
            "on_full": "drop",
        },
    },
    "root": {"handlers": ["logengine"], "level": "INFO"},
    "loggers": {"django.server": {"level": "WARNING"}},
}
