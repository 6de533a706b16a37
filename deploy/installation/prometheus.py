"""Prometheus: does it answer, is its clock right, and does it scrape every policy engine?"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

from adapters.environment_config import EnvironmentConfig
from adapters.prometheus import PrometheusMetrics
from constitution.errors import ConstitutionError
from deploy.installation.check import Check, clock, missing, not_set, now, ok, refused
from deploy.installation.settings import InstallationSettings

PLACE = "PROMETHEUS_URL"
READY = 'curl --silent "$PROMETHEUS_URL/api/v1/query?query=1"'
SCRAPED = "policy_engine_following_last_contact_timestamp_seconds"  # each engine has it from its start on
MILLISECOND = timedelta(milliseconds=1)


async def prometheus(settings: InstallationSettings, config: EnvironmentConfig | None) -> AsyncIterator[Check]:
    """Ask it what the watch would ask."""
    if settings.prometheus_url is None:
        yield not_set(PLACE, "the assessor")
        return
    try:
        metrics = PrometheusMetrics(
            settings.prometheus_url,
            token_file=settings.prometheus_token_file,
            certificate=settings.prometheus_certificate_file,
            certificate_key=settings.prometheus_certificate_key_file,
        )
    except ConstitutionError as error:
        yield refused(PLACE, "address", error, READY)
        return
    try:
        asked = now()
        (told,) = await metrics.instant("vector(time())")
        yield clock(PLACE, datetime.fromtimestamp(float(told["value"][1]), UTC), asked, now(), MILLISECOND)
        version = [entry["metric"].get("version", "") for entry in await metrics.instant("prometheus_build_info")]
        said = (
            f"Prometheus {version[0]}" if version else "answers; it does not scrape itself, so its version is unknown"
        )
        yield ok(PLACE, "answers", said)
        if config is not None:
            yield _scraped(config, await metrics.instant(SCRAPED))
    except ConstitutionError as error:
        yield refused(PLACE, "answers", error, READY)
    except (ValueError, KeyError, IndexError, TypeError):
        yield missing(PLACE, "answers", "it answers, but not as Prometheus does", READY)
    finally:
        metrics.close()


def _scraped(config: EnvironmentConfig, series: list[dict[str, dict[str, str]]]) -> Check:
    """The engine's own label is `exported_target` where the scrape gives a `target` of its own."""
    known = {entry["metric"].get(name) for entry in series for name in ("target", "exported_target")}
    engines = [target for target in config.environment.targets if target.kind == "policy_engine"]
    absent = [target for target in engines if target.id not in known]
    if absent:
        detail = f"it has no metrics of {', '.join(target.id for target in absent)}: no watch of a release can see them"
        command = f"curl --silent {absent[0].url.rstrip('/')}/metrics  # what a scrape job must fetch"
        return missing(PLACE, "scrapes", detail, command)
    return ok(PLACE, "scrapes", f"has metrics of all {len(engines)} policy engines")
