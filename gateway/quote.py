"""What a call may take at most, before it is dispatched: the quote that the ledger holds, and the output it allows."""

from __future__ import annotations

from gateway.call import Call
from gateway.charging.cards import CARD
from gateway.charging.rating import Quote
from gateway.routing.router import Decision
from gateway.tenants import Caller

COMPLETIONS_DEFAULT_TOKENS = 16  # the API's own default for an absent max_tokens


def quoted(
    caller: Caller, call: Call, decision: Decision, input_bound: int, *, card_version: int, deadline_ms: int
) -> Quote:
    """The ceiling of the dearest target. `input_bound` in tokens, images apart."""
    ceiling = decision.ceiling
    texts = 1 if call.endpoint == "chat" else call.choices  # each of a batch has the context to itself
    bound = min(ceiling.context * texts, input_bound + call.media_parts * ceiling.image_tokens)
    return Quote(
        tenant=caller.tenant,
        account_path=caller.account_path,
        request_id=call.request_id,
        endpoint=call.endpoint,
        model_requested=call.model,
        card=CARD,
        card_version=card_version,
        input_uc=bound * ceiling.input_rate + ceiling.call_rate,
        output_uc_per_token=ceiling.output_rate * call.choices,
        max_tokens=_max_tokens(caller, call, decision),
        deadline_ms=deadline_ms,
        input_tokens=bound,
        choices=call.choices,
        offers=ceiling.offers,
        once=call.once,
        key_id=caller.key_id,
    )


def _max_tokens(caller: Caller, call: Call, decision: Decision) -> int | None:
    """min(asked, model, plan, context - input); None where there is no output."""
    if call.endpoint == "embeddings":
        return None
    asked = call.max_tokens
    if asked is None and call.endpoint == "completions":
        asked = COMPLETIONS_DEFAULT_TOKENS
    ceiling, plan_max = decision.ceiling, caller.plan.max_output
    limit = min(ceiling.max_output, max(1, ceiling.context - decision.needed))
    if plan_max is not None and plan_max < limit:
        limit = plan_max
    return limit if asked is None or asked > limit else asked
