"""What a call may take at most, before it is dispatched: the quote that the ledger holds, and the output it allows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway.adapters.chunks import expected_choices
from gateway.call import LIMITED, Call
from gateway.charging.in_force import InForce
from gateway.charging.offers import STANDARD
from gateway.charging.rating import Quote
from gateway.routing.router import Decision
from gateway.slices import SLICE_TOKENS
from gateway.tenants import Caller

COMPLETIONS_DEFAULT_TOKENS = 16  # the API's own default for an absent max_tokens
_NOTHING: Final[Mapping[str, int]] = {}


def quoted(
    caller: Caller, call: Call, decision: Decision, input_bound: int, *, rates: InForce, deadline_ms: int
) -> Quote:
    """The ceiling of the dearest target. `input_bound` in tokens, images apart."""
    ceiling = decision.ceiling
    rated = ceiling.at(rates)
    dearest = rated.standard
    texts = 1 if call.endpoint == "chat" else call.choices  # each of a batch has the context to itself
    bound = min(ceiling.context * texts, input_bound + call.media_parts * ceiling.image_tokens)
    if call.beyond or call.documents:  # what a backend adds by itself, or finds in a file, nobody can tell before
        bound = ceiling.context
    max_tokens = _max_tokens(caller, call, decision)
    input_uc, open_output, counts = bound * dearest.input + dearest.call, 0, _NOTHING
    if call.work is not None:
        counts, open_output = call.work.counts, call.work.outputs * ceiling.max_output
        input_uc += open_output * dearest.output
        input_uc += counts.get("images", 0) * dearest.images + counts.get("audio_ms", 0) * dearest.audio_ms
    return Quote(
        tenant=caller.tenant,
        account_path=caller.account_path,
        request_id=call.request_id,
        endpoint=call.endpoint,
        model_requested=call.model,
        card=STANDARD,
        card_version=rates.version,
        input_uc=input_uc,
        output_uc_per_token=dearest.output * call.choices,
        max_tokens=max_tokens,
        deadline_ms=deadline_ms,
        input_tokens=bound,
        choices=call.choices,
        open_output=open_output,
        counts=counts,
        offers=rated.offers,
        once=call.once,
        slice_tokens=SLICE_TOKENS if call.stream and max_tokens and _grows(call, max_tokens) else 0,
        key_id=caller.key_id,
    )


def _grows(call: Call, max_tokens: int) -> bool:
    """A long output that is seen as it is written: of `best_of` some is written that nobody sees."""
    return max_tokens > SLICE_TOKENS and expected_choices(call) == call.choices


def _max_tokens(caller: Caller, call: Call, decision: Decision) -> int | None:
    """min(asked, model, plan, context - input); None where there is no output."""
    if call.endpoint not in LIMITED:
        return None
    asked = call.max_tokens
    if asked is None and call.endpoint == "completions":
        asked = COMPLETIONS_DEFAULT_TOKENS
    ceiling, plan_max = decision.ceiling, caller.plan.max_output
    limit = min(ceiling.max_output, max(1, ceiling.context - decision.needed))
    if plan_max is not None and plan_max < limit:
        limit = plan_max
    return limit if asked is None or asked > limit else asked
