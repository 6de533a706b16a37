"""A closed history is archived as the same bytes, however often Temporal is asked for it."""

from temporalio.api.common.v1 import Payload
from temporalio.api.history.v1 import History, HistoryEvent
from temporalio.client import WorkflowHistory

from adapters.runs import in_one_order


def history(*metadata: str) -> WorkflowHistory:
    payload = Payload(data=b"{}")
    for name in metadata:
        payload.metadata[name] = name.encode()
    event = HistoryEvent(event_id=1)
    event.workflow_execution_started_event_attributes.header.fields["x"].CopyFrom(payload)
    return WorkflowHistory("id", list(History(events=[event]).events))


def test_the_order_of_a_map_changes_no_byte() -> None:
    names = [f"name-{number}" for number in range(20)]
    one, other = history(*names), history(*reversed(names))
    assert in_one_order(one.to_json()) == in_one_order(other.to_json())
    assert in_one_order('{"b": 1, "a": {"d": 2, "c": 3}}') == in_one_order('{"a": {"c": 3, "d": 2}, "b": 1}')
    assert WorkflowHistory.from_json("id", in_one_order(one.to_json()).decode()) == one
