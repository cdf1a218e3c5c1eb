"""``docs/openapi.json`` says what the coordinator answers, field by field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from fl_mobile.coordinator.coordinator import Coordinator
from fl_mobile.coordinator.web import routes_of
from fl_mobile.records import FitPlan, Receipt
from tests.fl_mobile.coordinator.asking import SECONDS, ask_and_upload, enrol, signed
from tests.fl_mobile.coordinator.tiny import key_of, round_of

DOCUMENT: dict[str, Any] = json.loads((Path(__file__).parents[3] / "docs" / "openapi.json").read_text())
SCHEMAS = DOCUMENT["components"]["schemas"]


def check(value: Any, schema: dict[str, Any], where: str = "$") -> None:
    """Fails unless a value is what the part of JSON Schema that the document uses says."""
    if "$ref" in schema:
        check(value, SCHEMAS[schema["$ref"].rpartition("/")[2]], where)
    elif "oneOf" in schema:
        fitting = [option for option in schema["oneOf"] if set(option["required"]) == set(value)]
        assert len(fitting) == 1, where
        check(value, fitting[0], where)
    elif schema.get("type") == "object":
        assert isinstance(value, dict), where
        properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        assert set(schema.get("required", ())) <= set(value), where
        for name, each in value.items():
            inner = properties.get(name, others)
            assert inner is not False, f"{where}.{name} is not in the document"
            if isinstance(inner, dict):
                check(each, inner, f"{where}.{name}")
    elif "type" in schema:
        kinds = {"integer": int, "number": (int, float), "string": str, "boolean": bool, "array": list}
        assert isinstance(value, kinds[schema["type"]]), where  # type: ignore[arg-type]


def test_every_route_is_in_the_document_and_no_other() -> None:
    told = {(path, method.upper()) for path, row in DOCUMENT["paths"].items() for method in row}
    assert told == {(path, method) for path, method in routes_of() if method != "HEAD"}


def references(value: Any) -> Iterator[str]:
    """Yields every reference inside a JSON value."""
    for name, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if name == "$ref":
            yield each
        else:
            yield from references(each)


def test_references_lead_somewhere() -> None:
    for reference in references(DOCUMENT):
        found: Any = DOCUMENT
        for name in reference.removeprefix("#/").split("/"):
            found = found[name]


def test_what_is_said_fits_the_document(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path)
    coordinator.open_round(round_of(0))
    answers = DOCUMENT["paths"]["/v1/devices/{device}/check-ins"]["post"]["responses"]["200"]["content"]
    schema = answers["application/json"]["schema"]
    for key in (key_of(0), key_of(1), key_of(2), key_of(3)):
        device = enrol(coordinator, key)
        asked = signed(coordinator.run, key, f"/v1/devices/{device}/check-ins", device=device)
        check(coordinator.check_in(asked, device=device, held=0).result(SECONDS).body, schema)
    reply = ask_and_upload(coordinator, key_of(0), 0)
    check(reply.body, SCHEMAS["Receipted"])
    coordinator.finish()
    asked = signed(coordinator.run, key_of(1), "/v1/devices/1/check-ins", device=1)
    check(coordinator.check_in(asked, device=1, held=0).result(SECONDS).body, schema)
    coordinator.close()


@pytest.mark.parametrize(("name", "record", "more"), [("Plan", FitPlan, set()), ("Receipt", Receipt, {"accepted"})])
def test_records_and_document_have_the_same_fields(name: str, record: type, more: set[str]) -> None:
    assert set(SCHEMAS[name]["properties"]) == {f.name for f in fields(record)} | more
