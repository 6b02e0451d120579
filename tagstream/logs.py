"""Log lines: plain, or JSON with the record's origin as fields."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

_FIELDS = ("topic", "partition", "offset", "product_id", "step", "events")


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class PlainLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        origin = " ".join(f"{name}={getattr(record, name)}" for name in _FIELDS if hasattr(record, name))
        line = super().format(record)
        return f"{line} [{origin}]" if origin else line


def set_up_logs(*, as_json: bool) -> None:
    """Send the package's log lines to stderr; other libraries keep their own handlers."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonLines() if as_json else PlainLines("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    logger = logging.getLogger("tagstream")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
