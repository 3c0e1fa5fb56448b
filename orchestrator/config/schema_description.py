"""What a JSON schema allows, in words: the second half of every message about a file."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from orchestrator.config.yaml_reader import FREE
from trainables.config import Config

Schema = dict[str, Any]

_TYPES: Final = {
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "null": "null",
}


def file_schema(model: type[Config]) -> Schema:
    """The JSON schema of a file, for editors: every mapping may have the writer's own `x-` keys too."""
    schema: Schema = model.model_json_schema()
    for part in (schema, *schema.get("$defs", {}).values()):
        if part.get("additionalProperties") is False:
            part["patternProperties"] = {f"^{FREE}": {}}
    return schema


class SchemaWords:
    """Answers for one model's JSON schema."""

    def __init__(self, schema: Schema) -> None:
        self._root = schema

    def at(self, loc: Sequence[str | int]) -> Schema:
        """The schema at pydantic's location; parts that only name a union member are passed over."""
        schema = self._root
        for part in loc:
            schema = self._child(schema, part)
        return self._resolved(schema)

    def allowed(self, schema: Schema) -> str:
        """The legal values in words."""
        schema = self._resolved(schema)
        if "const" in schema:
            return str(schema["const"])
        if "enum" in schema:
            return ", ".join(str(name) for name in schema["enum"])
        if "discriminator" in schema:
            tag = schema["discriminator"]["propertyName"]
            return f"a mapping with `{tag}`: {', '.join(self.names(schema))}"
        if members := self._members(schema):
            kinds = [self._only_key(member) for member in members]
            if all(kinds[:-1]) and len(kinds) > 2:
                return f"a plain value, or a mapping with one key of {', '.join(filter(None, kinds))}"
            return " or ".join(dict.fromkeys(self.allowed(member) for member in members))
        return self._of_type(schema)

    def names(self, schema: Schema) -> list[str]:
        """The legal names: keys of a mapping, members of an enumeration, tags or kinds of a union."""
        schema = self._resolved(schema)
        if "const" in schema:
            return [str(schema["const"])]
        if "enum" in schema:
            return [str(name) for name in schema["enum"]]
        if "discriminator" in schema:
            return list(schema["discriminator"]["mapping"])
        if members := self._members(schema):
            return [name for member in members for name in self.names(member)]
        return list(schema.get("properties", ()))

    def keys(self, schema: Schema) -> tuple[str, list[str]]:
        """Which keys a mapping of free names may have, in words, and some of them."""
        schema = self._resolved(schema)
        stated = schema.get("propertyNames", {})
        patterns = " or ".join(schema.get("patternProperties", ())) or stated.get("pattern")
        text = f"names that match {patterns}" if patterns else "other names"
        return stated.get("description", text), stated.get("examples", [])

    def _child(self, schema: Schema, part: str | int) -> Schema:
        schema = self._resolved(schema)
        tags = schema.get("discriminator", {}).get("mapping", {})
        if part in tags:
            return {"$ref": tags[part]}
        if isinstance(part, int):
            items: list[Schema] = schema.get("prefixItems", [])
            for found in self._nested(schema, "items", "prefixItems"):
                return self._child(found, part)
            return items[part] if part < len(items) else schema.get("items", schema)
        if part in schema.get("properties", ()):
            child: Schema = schema["properties"][part]
            return child
        for member in self._nested(schema, "properties"):
            if part in member.get("properties", ()):
                return member
        extra = next(iter(schema.get("patternProperties", {}).values()), schema.get("additionalProperties"))
        return extra if isinstance(extra, dict) else schema

    def _nested(self, schema: Schema, *keys: str) -> Iterator[Schema]:
        """Members of a union that hold one of these keys."""
        for member in self._members(schema):
            resolved = self._resolved(member)
            if any(key in resolved for key in keys):
                yield resolved

    def _resolved(self, schema: Schema) -> Schema:
        """Without references, and without the null of an optional value."""
        while True:
            if "$ref" in schema:
                name = schema["$ref"].rpartition("/")[2]
                schema = self._root["$defs"][name]
                continue
            solid = [member for member in self._members(schema) if member.get("type") != "null"]
            if len(solid) != 1:
                return schema
            schema = solid[0]

    @staticmethod
    def _members(schema: Schema) -> list[Schema]:
        members: list[Schema] = schema.get("anyOf") or schema.get("oneOf") or []
        return members

    def _only_key(self, schema: Schema) -> str | None:
        keys = list(self._resolved(schema).get("properties", ()))
        return keys[0] if len(keys) == 1 else None

    def _of_type(self, schema: Schema) -> str:
        kind = schema.get("type")
        if kind in ("integer", "number"):
            return _TYPES[kind] + _bounds(schema)
        if kind == "array":
            return _list_of(schema)
        if kind == "object" and "properties" in schema:
            return f"a mapping with keys of {', '.join(schema['properties']) or 'none'}"
        if kind == "object":
            return "a mapping"
        if kind == "string" and "pattern" in schema:
            return f"text that matches {schema['pattern']}"
        return _TYPES.get(str(kind), "another value") + _length(schema)


def nearest(found: object, names: Iterable[str]) -> str | None:
    """The name that was probably meant, whatever its case."""
    by_lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(str(found).lower(), by_lower, n=1)
    return by_lower[close[0]] if close else None


def did_you_mean(found: object, names: Iterable[str]) -> str:
    """The end of a message that offers the nearest name, or nothing."""
    near = nearest(found, names)
    return f"; did you mean {near!r}?" if near is not None else ""


def _bounds(schema: Schema) -> str:
    parts = []
    if "minimum" in schema:
        parts.append(f"at least {schema['minimum']:g}")
    if "exclusiveMinimum" in schema:
        parts.append(f"above {schema['exclusiveMinimum']:g}")
    if "maximum" in schema:
        parts.append(f"at most {schema['maximum']}")
    if "exclusiveMaximum" in schema:
        parts.append(f"below {schema['exclusiveMaximum']}")
    return f", {' and '.join(parts)}" if parts else ""


def _length(schema: Schema) -> str:
    least, most = schema.get("minLength"), schema.get("maxLength")
    return f" of {least or 0} to {most} characters" if most else f", at least {least} character" * bool(least)


def _list_of(schema: Schema) -> str:
    least, most = schema.get("minItems"), schema.get("maxItems")
    if least is not None and least == most:
        return f"a list of {least} values"
    if most is not None:
        return f"a list of {least or 0} to {most} values"
    return f"a list of at least {least} values" if least else "a list"
