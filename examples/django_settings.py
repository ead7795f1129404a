"""Django: the part of `settings.py` that sends all logs to logengine, with their fields.

Flask and others: `logging.config.dictConfig(LOGGING)` before the application is made.
"""

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {
        "logengine": {
            "class": "logengine.LogEngineHandler",
            "stream": "shop",
            # While no daemon is there, a request neither waits nor fails because of its log.
            "on_full": "drop",
        },
    },
    "root": {"handlers": ["logengine"], "level": "INFO"},
    "loggers": {"django.server": {"level": "WARNING"}},
}
