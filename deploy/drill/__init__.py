"""``constitution drill``: a whole update and a whole rollback on scratch servers, the worker killed in each step."""
