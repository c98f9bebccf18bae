"""Bodies in which a place or two hold something else than they should, as clients write them."""

from __future__ import annotations

import copy
import random
from collections.abc import Collection, Iterator
from typing import Any, Final

import orjson

from gateway.call import JSON

JUNK: Final[tuple[Any, ...]] = (None, False, True, 0, 7, "", "x", "auto", [], {}, ["x"], {"type": "text"}, [{}])


def spoilt(body: JSON, rng: random.Random, *, keep: Collection[str] = ()) -> JSON:
    """A copy. That messages are a list of objects, the parser has seen; so it has for the fields in `keep`."""
    changed: JSON = orjson.loads(orjson.dumps(body))
    for _ in range(rng.randint(1, 2)):
        given = changed["messages"]
        places = [place for place in _places(changed) if place[0] is not given and place[1] not in keep]
        holder, key = rng.choice(places)
        holder[key] = copy.deepcopy(rng.choice(JUNK))
    return changed


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a body: what holds it, and by which name or number."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        yield value, key
        yield from _places(item)
