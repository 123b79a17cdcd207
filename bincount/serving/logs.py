"""The log: a JSON object a line, on standard error."""

import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

import orjson

#: What a record carries besides its message.
_MORE = "bincount_more"

log = logging.getLogger("bincount.serving")


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, event, what was given besides, and of an error where it happened."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": when, "level": record.levelname.lower()}
        line |= {"event": record.getMessage(), **getattr(record, _MORE, {})}
        if record.exc_info and record.exc_info[1]:
            line["trace"] = "".join(traceback.format_exception(record.exc_info[1]))
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def tell(level: int, event: str, *, failure: BaseException | None = None, **more: Any) -> None:
    """Log an event, and an error that is to be looked into; ``more`` are its further fields."""
    log.log(level, event, exc_info=failure, extra={_MORE: {k: v for k, v in more.items() if v is not None}})


def log_as_json() -> None:
    """Send what the service and its HTTP server say to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name, level in ((log.name, logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
