"""Builds the sink that the settings name."""

from services.siem_forwarder.settings import ForwarderSettings
from services.siem_forwarder.sinks.http import HttpSink
from services.siem_forwarder.sinks.ndjson import NdjsonSink
from services.siem_forwarder.sinks.sink import Sink
from services.siem_forwarder.sinks.syslog import SyslogSink

APP_NAME = "constitution"


def chosen_sink(settings: ForwarderSettings) -> Sink:
    """Return the sink of ``SIEM_SINK``.

    Raises:
        ValueError: its address is missing (the settings refuse that before).
    """
    if settings.siem_sink == "ndjson" and settings.siem_file is not None:
        return NdjsonSink(settings.siem_file)
    if settings.siem_sink == "syslog" and settings.siem_syslog_address is not None:
        host, _, port = settings.siem_syslog_address.rpartition(":")
        return SyslogSink(host.strip("[]"), int(port), app_name=APP_NAME)
    if settings.siem_sink == "http" and settings.siem_http_url is not None:
        token = settings.siem_http_token.get_secret_value() if settings.siem_http_token else None
        return HttpSink(settings.siem_http_url, token=token)
    raise ValueError(f"SIEM_SINK={settings.siem_sink} has no address")
