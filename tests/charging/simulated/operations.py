"""What happens in the simulation: each operation, and how often it is drawn. One more is a function and a line here."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.charging import months
from tests.charging.simulated.town import CODES, KEYS, MODELS, PACKAGES, STATIC_KEY, TENANTS, ZONE
from tests.charging.simulated.world import Leave, Operation, World

HOUR_MS = 3_600_000
DAY_S = 86_400.0
FAST_S = (0.0, 0.0, 0.0, 0.0005, 0.003, 0.02, 0.3)
AGAIN_S = (0.0, 0.01, 3.0)
LONGEST = 3  # tries of a client that is refused or cut off


# -- clients ------------------------------------------------------------------------------------------------------


async def call(world: World) -> None:
    """One, or the same several times: what a cache, a flight or an Idempotency-Key is for."""
    rng = world.rng
    model = rng.choice(MODELS)
    kept = model in ("kept", "gratis")
    number = len(world.calls) + world.loop.steps
    tag = f"shared {rng.randint(0, 2)}" if kept else f"q{number}"
    key = rng.choice((*KEYS, STATIC_KEY))
    once = f"o{number}" if rng.random() < 0.2 else None
    body = body_of(world, model, tag)
    copies = rng.choice((2, 3, 6)) if kept and rng.random() < 0.5 else 2 if once and rng.random() < 0.5 else 1
    for _ in range(copies):
        world.own(client(world, tag, key, model, once, body))
        await asyncio.sleep(rng.choice(FAST_S))


def body_of(world: World, model: str, tag: str) -> dict[str, Any]:
    rng = world.rng
    if model == "e":
        return {"model": model, "input": tag}
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": tag}]}
    if model == "long":
        return body | {"max_tokens": rng.choice((2000, 5000, 20_000)), "stream": rng.random() < 0.9}
    if rng.random() < 0.7:
        body["max_tokens"] = rng.choice((1, 50, 300, 2000))
    if rng.random() < 0.5:
        body |= {"stream": True} | ({"stream_options": {"include_usage": True}} if rng.random() < 0.5 else {})
    return body


async def client(world: World, tag: str, key: str, model: str, once: str | None, body: dict[str, Any]) -> None:
    """With an Idempotency-Key it asks again until it has an answer."""
    rng = world.rng
    headers = {"idempotency-key": once} if once else {}
    if rng.random() < 0.05:
        headers["x-stainless-read-timeout"] = rng.choice(("0.01", "5"))
    for _ in range(LONGEST if once else 1):
        await world.up()
        asked = world.asked(tag, key, model, once)
        answer = await world.ask(asked, body, headers, leaving(world))
        if answer.complete and answer.status not in (409, 429, 500, 502, 503, 504):
            return
        await asyncio.sleep(rng.choice(AGAIN_S))


def leaving(world: World) -> Leave | None:
    """Some leave: between any two awaits, or after a while."""
    rng = world.rng
    if rng.random() >= world.mood.leaving:
        return None
    if rng.random() < 0.6:
        steps = rng.randint(1, 40)
        return lambda loop, go: loop.after(steps, go)
    seconds = rng.choice((0.001, 0.3, 3.0, 12.0))
    return lambda loop, go: loop.call_later(seconds, go)


# -- the operator -------------------------------------------------------------------------------------------------


async def order(world: World) -> None:
    """New, or one of before with the same content, which may run still; sometimes three at once."""
    rng, wished = world.rng, world.facts.wished
    if wished and rng.random() < 0.3:
        name = rng.choice(list(wished))
    else:
        name = f"A-{len(wished)}"
        package = rng.choice(PACKAGES)
        wished[name] = {"order_id": name, "tenant": rng.choice(TENANTS), "package": package}
        if package not in ("trial",):
            wished[name]["quantity"] = rng.choice((1, 1, 2))
    for _ in range(rng.choice((1, 1, 3))):
        world.own(placed(world, name))


async def placed(world: World, name: str) -> None:
    """Sent until it is answered: nothing else says whether it is there."""
    known = world.facts.orders
    while True:
        status, value = await world.admin("POST", "orders", world.facts.wished[name])
        if status in (0, 503):
            await asyncio.sleep(1.0)
            continue
        world.tell(f"order {name} of {world.facts.wished[name]['package']}: {status}")
        if status in (200, 201):
            assert known.setdefault(name, value) == value, f"order {name} was answered in two ways"
        else:
            assert status == 409, f"order {name}: {status} {value}"
            assert name not in known, f"order {name} was there, and is refused"
        return


async def refund(world: World) -> None:
    if orders := [name for name, value in world.facts.orders.items() if value["kind"] == "order"]:
        name, body = (
            world.rng.choice(orders),
            {} if world.rng.random() < 0.3 else {"credits": world.rng.choice((1, 400))},
        )
        status, _ = await world.admin("POST", f"orders/{name}/refund", body)
        world.tell(f"refund of {name}: {status}")


async def subscription(world: World) -> None:
    """Changed or cancelled."""
    rng = world.rng
    subscriptions = [value["subscription"] for value in world.facts.orders.values() if value["subscription"]]
    if not subscriptions:
        return
    one = rng.choice(subscriptions)
    if rng.random() < 0.3:
        status, _ = await world.admin("POST", f"subscriptions/{one}/cancel", {"now": rng.random() < 0.4})
        world.tell(f"{one} is cancelled: {status}")
    else:
        package = rng.choice(("month", "day", "tokens", "code", "over", "slow", "owl"))
        body = {"package": package, "quantity": rng.choice((1, 2, 3))}
        status, _ = await world.admin("POST", f"subscriptions/{one}/change", body)
        world.tell(f"{one} is changed: {status}")


async def redeem(world: World) -> None:
    """A code, by two tenants at once: one of them has it, and it stays so."""
    rng = world.rng
    code = rng.choice(CODES)
    for tenant in rng.sample(TENANTS, 2):
        world.own(redeemed(world, code, tenant))


async def redeemed(world: World, code: str, tenant: str) -> None:
    status, _ = await world.admin("POST", f"tenants/{tenant}/redeem", {"code": code})
    world.tell(f"{code} by {tenant}: {status}")
    if status in (200, 201):
        assert world.facts.codes.setdefault(code, tenant) == tenant, f"{code} was redeemed twice"


async def grant(world: World) -> None:
    rng = world.rng
    body: dict[str, Any] = {"credits": rng.choice(("0.5", 300, 5000)), "source_ref": f"r{rng.randint(0, 5)}"}
    if rng.random() < 0.3:
        body["expires_at"] = (world.clock.wall_ms() + rng.choice((HOUR_MS, 40 * HOUR_MS))) // 1000
    if rng.random() < 0.2:
        body["card"] = "raw"
    tenant = rng.choice(TENANTS)
    status, _ = await world.admin("POST", f"tenants/{tenant}/grants", body)
    world.tell(f"a grant for {tenant}: {status}")


async def revoke(world: World) -> None:
    """It is refused from the answer on; so is it when the process has died since."""
    left = [key for key in KEYS if key not in world.facts.revoked]
    if len(left) < len(KEYS) - 3:
        return
    secret = world.rng.choice(left)
    tenant, number = KEYS[secret], secret[-1]
    status, _ = await world.admin("DELETE", f"tenants/{tenant}/keys/{world.key_ids[secret]}")
    world.tell(f"key {number} of {tenant} is revoked: {status}")
    if status == 200:
        world.facts.revoked.add(secret)


async def suspend(world: World) -> None:
    """Or let in again."""
    suspended = world.facts.suspended
    tenant = world.rng.choice([*suspended] or ("ann", "desk", "solo", "house"))
    wish = "active" if tenant in suspended else "suspended"
    world.facts.turns += 1
    suspended.discard(tenant)  # until it is answered nobody knows
    status, _ = await world.admin("PATCH", f"tenants/{tenant}", {"status": wish})
    world.tell(f"{tenant} is {wish}: {status}")
    if status == 200 and wish == "suspended":
        suspended.add(tenant)


async def cap(world: World) -> None:
    rng = world.rng
    tenant = rng.choice(TENANTS)
    caps = rng.choice(
        ({}, {"total": {"credits": 9000}}, {"day": {"calls": 9}}, {"5h": {"credits": 4000}, "week": {"calls": 40}})
    )
    world.facts.capped.add(tenant)
    status, _ = await world.admin("PATCH", f"tenants/{tenant}", {"caps": caps})
    world.tell(f"caps of {tenant}: {status}")


async def move(world: World) -> None:
    parent = world.rng.choice(("firm", "house", None))
    status, _ = await world.admin("PATCH", "tenants/desk", {"parent": parent})
    world.tell(f"desk below {parent}: {status}")


async def read(world: World) -> None:
    """What people look at while all goes on."""
    tenant = world.rng.choice(TENANTS)
    path = world.rng.choice(
        (f"tenants/{tenant}/statement", f"tenants/{tenant}/usage", "orders", f"tenants/{tenant}/charges")
    )
    status, value = await world.admin("GET", path)
    assert status in (0, 200, 503), f"{path}: {status} {value}"


async def month(world: World) -> None:
    """The statement of this month or one before, read or cut; one that is cut is the same ever after."""
    rng = world.rng
    tenant, back = rng.choice(TENANTS), rng.choice((0, 1, 1, 2))
    name = months.of(world.clock.wall_ms(), ZONE)
    for _ in range(back):
        name = months.before(name)
    if rng.random() < 0.4:
        status, said = await world.admin("POST", f"tenants/{tenant}/statements", {"month": name})
    else:
        status, said = await world.admin("GET", f"tenants/{tenant}/statements/{name}")
    world.tell(f"{name} of {tenant}: {status}")
    assert status in (0, 200, 201, 400, 404, 409, 503), f"{name} of {tenant}: {status} {said}"
    if status in (200, 201) and not said["preliminary"]:
        known = world.facts.months.setdefault((tenant, name), said)
        assert known == said, f"the statement of {tenant} for {name} has changed: {known}, now {said}"


async def reload(world: World) -> None:
    """Another version of routes.yaml, with other rates, another share of a cache, more credits of a plan."""
    process = await world.up()
    version = world.rng.randrange(len(world.configs))
    task = world.loop.create_task(process.reload(world.configs[version]))
    await asyncio.wait((task,))
    good = not task.cancelled() and task.exception() is None
    world.tell(f"routes.yaml {version}: {'in force' if good else 'failed'}")
    if good and not process.dead:
        world.version = version


# -- time and fate ------------------------------------------------------------------------------------------------


async def pause(world: World) -> None:
    await asyncio.sleep(world.rng.choice((0.001, 0.06, 1.0, 8.0, 40.0)))


async def age(world: World) -> None:
    """The machine sleeps: both clocks move."""
    await world.quiet()
    world.loop.at += world.rng.choice((6 * 3600.0, DAY_S, 9 * DAY_S, 33 * DAY_S))
    world.era += 1
    world.tell("time has passed")


async def jump(world: World) -> None:
    """The wall clock alone is set, forward or back."""
    way = world.rng.choice((-1, 1))
    world.clock.skew_ms += way * world.rng.choice((HOUR_MS, 31 * 24 * HOUR_MS))
    world.era += 1
    world.clock_was_set = True
    world.tell("the wall clock was set")


async def look(world: World) -> None:
    process = await world.up()
    process.look()


async def restart(world: World) -> None:
    world.tell("restart")
    await world.restart()


async def crash(world: World) -> None:
    process = await world.up()
    if world.mood.crashing:
        process.disk.die("at any time")


OPERATIONS: tuple[tuple[int, Operation], ...] = (
    (60, call), (8, pause), (6, order), (3, refund), (3, subscription), (3, grant), (2, redeem), (1, revoke),
    (3, suspend), (2, cap), (1, move), (4, read), (2, month), (2, reload), (2, age), (1, jump), (4, look),
    (1, restart), (1, crash),
)  # fmt: skip
