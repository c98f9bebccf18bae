"""A running gateway takes a catalogue, serves what it makes, and charges it to the credit."""

from __future__ import annotations

from fractions import Fraction

from gateway.charging.audit import audit
from gateway.config.families import family
from tests.conftest import World
from tests.test_reload import asked, edit

NO_MODEL = ("models:\n", 'catalogues:\n  openai: {backend: b, models: ["gpt-4o*"], price_factor: 7.1, rates_factor: 1.2}\nmodels:\n')  # fmt: skip  # noqa: E501


async def test_a_call_to_what_a_catalogue_makes_is_charged_by_its_price(world: World) -> None:
    assert (await world.chat(model="gpt-4o-mini"))[0] == 404
    edit(world, NO_MODEL)
    status, value = await asked(world)
    assert (status, value["result"]) == (200, "applied")
    told = [change["text"] for change in value["changes"]]
    assert "model gpt-4o-mini is new: served by b as gpt-4o-mini" in told
    status, answer, headers = await world.chat(model="gpt-4o-mini")
    assert (status, headers["x-moma-backend"], headers["x-moma-model"]) == (200, "b", "gpt-4o-mini")
    assert world.b.requests[-1].body["model"] == "gpt-4o-mini"
    used, price = answer["usage"], family("openai").models["gpt-4o-mini"]["price"]
    tokens = {"input": used["prompt_tokens"], "output": used["completion_tokens"]}
    charge = (await world.charges())[-1]
    in_cny = {bucket: Fraction(price[bucket], 10**6) * Fraction(71, 10) for bucket in tokens}
    assert Fraction(charge["charged"]) == sum(
        n * in_cny[bucket] * Fraction(12, 10) for bucket, n in tokens.items()
    )  # exact: no rate of this model is rounded
    assert charge["model_served"] == "gpt-4o-mini"
    await world.written()
    assert audit(str(world.path / "moma.db")) == []


async def test_names_of_a_catalogue_are_listed_to_clients(world: World) -> None:
    edit(world, NO_MODEL)
    assert (await asked(world))[0] == 200
    async with world.http.get(f"{world.url}/v1/models") as answer:
        names = {model["id"] for model in (await answer.json())["data"]}
    assert names >= {"gpt-4o", "gpt-4o-mini", "small", "auto"}


async def test_a_catalogue_with_a_problem_leaves_what_was_serving(world: World) -> None:
    edit(world, (NO_MODEL[0], NO_MODEL[1].replace("gpt-4o*", "gpt-40*")))
    status, value = await asked(world)
    assert status == 422
    assert [problem["key_path"] for problem in value["error"]["problems"]] == ["catalogues.openai.models.0"]
    assert (await world.chat())[0] == 200
