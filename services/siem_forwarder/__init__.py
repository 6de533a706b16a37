"""The SIEM forwarder: hands both topics to a SIEM, losing nothing."""
