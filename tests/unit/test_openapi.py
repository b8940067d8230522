"""The API's description of itself: complete, and with every refusal a problem document."""

from __future__ import annotations

from typing import Any, cast

from fastapi.routing import APIRoute

from orchestrator.api.app import ROUTERS, create_app
from orchestrator.api.dependencies import Services
from orchestrator.api.gate import OPEN_PATHS
from orchestrator.dashboard.app import PAGES

APP = create_app(cast("Services", None))
DOCUMENT: dict[str, Any] = APP.openapi()
OPERATIONS = {
    f"{verb.upper()} {path}": operation
    for path, verbs in DOCUMENT["paths"].items()
    for verb, operation in verbs.items()
}


PROBLEM = ("application/problem+json", "Problem")
OPENAI = ("application/json", "OpenaiRefusal")


def test_no_route_is_left_out() -> None:
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    assert {f"{verb} {route.path}" for route in routes for verb in route.methods or ()} == set(OPERATIONS)
    assert len(routes) == sum(len(router.routes) for router in ROUTERS)
    expected = len(ROUTERS) + len(PAGES) + 1
    assert len(APP.routes) == expected, "a route beside the routers and /openapi.json is asked by no test"


def test_every_refusal_is_a_problem_document() -> None:
    for name, operation in OPERATIONS.items():
        for status, response in operation["responses"].items():
            if int(status) >= 400 and (name, status) != ("GET /readyz", "503"):
                kind, shape = OPENAI if "/openai/" in name else PROBLEM
                assert response["content"][kind]["schema"] == {"$ref": f"#/components/schemas/{shape}"}, (name, status)
                assert ("Retry-After" in response.get("headers", {})) is (status in ("429", "503"))
    assert "Problem" in DOCUMENT["components"]["schemas"]
    assert "HTTPValidationError" not in str(DOCUMENT)


def test_every_operation_wants_a_key_and_says_how_it_refuses_one() -> None:
    for name, operation in OPERATIONS.items():
        is_open = name.split()[1] in OPEN_PATHS
        assert ("security" not in operation) is is_open
        assert ({"401", "403", "429", "503"} <= set(operation["responses"])) is not is_open, name
        if "{" in name:
            assert "404" in operation["responses"], name
        if "requestBody" in operation:
            wrong = {"400", "413"} if "/openai/" in name else {"400", "413", "422"}
            assert wrong <= set(operation["responses"]), name
