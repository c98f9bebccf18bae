"""What `moma explain` prints for people: the outcome, the candidates as a table, then what the call would take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.text import Text

from gateway.cli.layout import NONE, say, table

Fields = Mapping[str, Any]
Column = tuple[str, Callable[[Fields], str]]


def show(value: Fields) -> None:
    _head(value)
    candidates(value)
    _lines(value)
    for note in value["notes"]:
        _wrapped(Text.assemble(("note ", "yellow"), note))


def _head(value: Fields) -> None:
    who = f"tenant {value['tenant']} (plan {value['plan']})" if value["tenant"] else "no tenant"
    where = f"configuration {value['config']} of the running gateway" if value["live"] else "routes.yaml alone"
    alias = f" (alias of {value['alias_of']})" if value["alias_of"] else ""
    say(Text.assemble((f"{value['model'] or '?'}{alias}", "bold"), f"  {value['endpoint']}, {who}, by {where}"))
    refusal = value["refusal"]
    if refusal is not None:
        param = f" ({refusal['param']})" if refusal["param"] else ""
        _wrapped(
            Text.assemble((f"refused: {refusal['status']} {refusal['code']}{param}: ", "bold red"), refusal["message"])
        )
    elif value["first"] is not None:
        first = value["first"]
        waits = f"waits in the queue of its {' and of its '.join(value['waits'])}, " if value["waits"] else ""
        say(
            Text.assemble(
                waits, "goes to ", (f"{first['model']} at {first['backend']}", "bold green"), f": {value['reason']}"
            )
        )


def candidates(value: Fields) -> None:
    """Two tables: who is left, in the order in which they are asked, and who was removed by what."""
    left = [row for row in value["candidates"] if not row["removed_by"]]
    removed = [row for row in value["candidates"] if row["removed_by"]]
    columns = _columns(value, left)
    title = f"Candidates of {value['route']}, {_policy(value)}"
    table(title, [name for name, _ in columns], [[cell(row) for _, cell in columns] for row in left])
    reasons = [(row["model"], row["backend"], f"{row['removed_by']}: {row['detail']}") for row in removed]
    table(f"Removed from {value['route']}", ("model", "backend", "by"), reasons)


def _policy(value: Fields) -> str:
    weights = value["weights"]
    if weights is None:
        return f"policy {value['policy']}"
    terms = ", ".join(f"{term} {weights[term]:.2f}" for term in ("cost", "latency", "quality"))
    prefer = f", the client prefers {weights['prefer']}" if weights["prefer"] else ""
    return f"policy balanced: least sum of {terms}{prefer}"


def _columns(value: Fields, rows: Sequence[Fields]) -> list[Column]:
    """What the policy looks at; of balanced the terms stand behind the values they are made of."""
    policy = value["policy"]
    columns: list[Column] = [
        ("#", lambda row: str(row["asked"] or NONE)),
        ("model", lambda row: str(row["model"])),
        ("backend", lambda row: str(row["backend"])),
        (f"cost {value['currency']}", lambda row: f"{row['expected_cost']:.6f}{_term(row, 'cost', policy)}"),
    ]
    if policy == "weighted":
        columns.append(("weight", lambda row: str(row["weight"])))
    if policy in ("fastest", "balanced") or any(row["expected_seconds"] is not None for row in rows):
        columns.append(("seconds", lambda row: f"{_seconds(row)}{_term(row, 'latency', policy)}"))
    if policy in ("best", "balanced"):
        columns.append(("quality", lambda row: f"{row['quality']:.2f}{_term(row, 'quality', policy)}"))
    if policy == "least_busy":
        columns.append(("load", lambda row: _score(row, "load")))
    if policy == "balanced":
        columns.append(("sum", lambda row: _score(row, "sum")))
    if any(row["chance"] not in (None, 0.0, 1.0) for row in rows):
        columns.append(("chance", lambda row: NONE if row["chance"] is None else f"{row['chance']:.0%}"))
    return [*columns, ("state", _state)] if any(map(_state, rows)) else columns


def _term(row: Fields, name: str, policy: str) -> str:
    return f" ({row['scores'][name]:.2f})" if policy == "balanced" and row["scores"] else ""


def _score(row: Fields, name: str) -> str:
    return f"{row['scores'][name]:.2f}" if row["scores"] else NONE


def _seconds(row: Fields) -> str:
    return "?" if row["expected_seconds"] is None else f"{row['expected_seconds']:.2f}"


def _state(row: Fields) -> str:
    parts = [] if row["breaker"] == "closed" else [row["breaker"].replace("_", " ")]
    if row["role"] == "fallback":
        parts.append("fallback")
    if row["as"] != row["model"]:
        parts.append(f"as {row['as']}")
    return "; ".join(parts)


def _lines(value: Fields) -> None:
    """One line each; what is not known or empty is left out."""
    lines = [
        ("expected", _expected(value)),
        ("reserve", _reserve(value)),
        ("fallback", _fallback(value["fallback"])),
        ("affinity", _affinity(value["affinity"])),
        ("cache", _cache(value["cache"])),
        *_limits(value["limits"]),
    ]
    rows = [(label, text) for label, text in lines if text]
    table("", ("", ""), rows)


def _expected(value: Fields) -> str:
    expected = value["expected"]
    if expected is None:
        return ""
    times = f" for each of {expected['choices']} choices" if expected["choices"] > 1 else ""
    needs = f"; needs {', '.join(expected['needs'])}" if expected["needs"] else ""
    return f"about {expected['input_tokens']:,} tokens in, {expected['output_tokens']:,} out{times}{needs}"


def _reserve(value: Fields) -> str:
    if value["reserve"] is None:
        return ""
    held, funds = f"{_credits(value['reserve'])} credits", value["funds"]
    if funds is None:
        return held
    most = "" if funds["max_tokens"] is None else f" for at most {funds['max_tokens']:,} tokens out"
    if funds["slice_tokens"] is not None:
        most = f" for the first {funds['slice_tokens']:,} of at most {funds['max_tokens']:,} tokens out"
    if funds["lowered_from"] is not None:
        most += f" (lowered from {funds['lowered_from']:,})"
    if not funds["pays"]:
        return f"{held}{most}: the tenant cannot pay"
    return f"{held}{most}, of {_credits(funds['available'])} that the tenant has"


def _credits(text: str) -> str:
    whole, dot, part = text.partition(".")
    return f"{int(whole):,}{dot}{part}"


def _fallback(fallback: Fields) -> str:
    kinds = ((kind, _targets(targets)) for kind, targets in fallback.items() if targets)
    return "; ".join(f"on {kind}: {targets}" for kind, targets in kinds)


def _targets(targets: Iterable[Fields]) -> str:
    return ", ".join(f"{target['model']} at {target['backend']}" for target in targets)


def _affinity(affinity: Fields | None) -> str:
    if affinity is None or affinity["by"] == "none":
        return ""
    last = affinity["last"]
    served = f"the conversation was served by {_targets([last])}" if last else "no target is known for the conversation"
    return f"by {affinity['by']}; {served}"


def _cache(cache: Fields) -> str:
    name = f"{cache['name']}: " if cache["name"] else ""
    return f"{name}{cache['verdict']}, {cache['why']}"


def _limits(limits: Fields) -> Iterable[tuple[str, str]]:
    owners = {"tenant": limits["tenant"], **limits["backends"]}
    lines = [f"{name}: {_left(left)}" for name, left in owners.items() if left]
    return zip(("limits", *[""] * len(lines)), lines, strict=False)


def _left(limits: Fields) -> str:
    return ", ".join(f"{kind} {state['left']:,} of {state['limit']:,} left" for kind, state in limits.items())


def _wrapped(text: Text) -> None:
    """Prose, broken between words."""
    say(text, least=1)
