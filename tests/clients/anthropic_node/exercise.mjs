// Anthropic's SDK for Node.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import Anthropic from "@anthropic-ai/sdk";
import { EMPTY_KEY, KEY, REAL, URL as GATEWAY, raises, run } from "../checks.mjs";

const anthropic = (more = {}) => new Anthropic({ baseURL: GATEWAY, apiKey: KEY, maxRetries: 0, ...more });
const client = anthropic();
const input_schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const WEATHER = { name: "weather", description: "The weather in a city.", input_schema };
const CALLS = 'call weather {"city": "Guiyang"} and weather {"city": "Hohhot"} then weather {"city": "Urumqi"}';
const RESULTS = "Results: sunny in Guiyang; sunny in Hohhot; sunny in Urumqi";

const user = (content) => [{ role: "user", content }];
const asked = (more = {}) => ({ model: "large", max_tokens: 100, messages: user("hello there"), ...more });
const create = (more = {}, who = client) => who.messages.create(asked(more));

async function chat() {
  const { data, response, request_id } = await create({ system: "be brief" }).withResponse();
  assert.equal(data.content[0].text, "You said: hello there");
  assert.deepEqual([data.type, data.role, data.stop_reason], ["message", "assistant", "end_turn"]);
  assert.ok(data.usage.input_tokens > 0 && data.usage.output_tokens > 0);
  assert.equal(response.headers.get("x-moma-model"), "large");
  assert.ok(request_id);
}

async function stream() {
  let text = "";
  const events = client.messages.stream(asked()).on("text", (piece) => (text += piece));
  const final = await events.finalMessage();
  assert.equal(text, "You said: hello there");
  assert.equal(final.stop_reason, "end_turn");
  const whole = await create();
  assert.equal(final.usage.input_tokens, whole.usage.input_tokens);
  assert.equal(final.usage.output_tokens, whole.usage.output_tokens);
}

async function events() {
  const kinds = [];
  for await (const event of await create({ stream: true })) kinds.push(event.type);
  assert.deepEqual(kinds.slice(0, 2), ["message_start", "content_block_start"]);
  assert.deepEqual(kinds.slice(-3), ["content_block_stop", "message_delta", "message_stop"]);
}

async function leaving() {
  for await (const event of await create({ stream: true })) {
    assert.equal(event.type, "message_start");
    break;
  }
}

const result = ({ id, input }) => ({ type: "tool_result", tool_use_id: id, content: `sunny in ${input.city}` });

async function conversed(ask) {
  const messages = user(CALLS);
  for (const calls of [2, 1, 0]) {
    const answer = await ask(messages);
    const used = answer.content.filter((block) => block.type === "tool_use");
    assert.equal(used.length, calls);
    assert.equal(answer.stop_reason, calls ? "tool_use" : "end_turn");
    messages.push({ role: "assistant", content: answer.content }, { role: "user", content: used.map(result) });
    if (calls === 0) assert.equal(answer.content[0].text, RESULTS);
  }
}

const tools = () => conversed((messages) => create({ messages, tools: [WEATHER] }));
const toolsInStream = () =>
  conversed((messages) => client.messages.stream(asked({ messages, tools: [WEATHER] })).finalMessage());

async function toolChoice() {
  const answer = await create({ tools: [WEATHER], tool_choice: { type: "any" } });
  assert.equal(answer.content[0].name, "weather");
}

async function structured() {
  const schema = {
    type: "object", properties: { name: { type: "string" }, age: { type: "integer" } }, required: ["name", "age"],
    additionalProperties: false,
  };
  const messages = user('answer {"name": "Ann", "age": 7}');
  const answer = await create({ messages, output_config: { format: { type: "json_schema", schema } } });
  assert.deepEqual(JSON.parse(answer.content[0].text), { name: "Ann", age: 7 });
}

async function vision() {
  const source = { type: "base64", media_type: "image/png", data: "iVBORw0KGgo=" };
  const answer = await create({ messages: user([{ type: "image", source }, { type: "text", text: "look" }]) });
  assert.equal(answer.content[0].text, "You said: look");
}

async function countTokens() {
  const short = await client.messages.countTokens({ model: "large", messages: user("hello there") });
  const long = await client.messages.countTokens({ model: "large", messages: user("hello there ".repeat(50)) });
  assert.ok(short.input_tokens > 0 && long.input_tokens > short.input_tokens);
}

async function errors() {
  const is = (kind) => (error) => error instanceof kind;
  const wrong = anthropic({ apiKey: "sk-moma-wrong" });
  await raises(is(Anthropic.AuthenticationError), () => create({}, wrong));
  await raises(is(Anthropic.NotFoundError), () => create({ model: "none" }));
  const bad = await raises(is(Anthropic.BadRequestError), () => create({ max_tokens: -1 }));
  assert.equal(bad.error.error.type, "invalid_request_error");
  await raises(is(Anthropic.InternalServerError), () => create({ messages: user("fail") }));
  await raises(is(Anthropic.RateLimitError), () => create({ messages: user("busy") }));
  await raises(is(Anthropic.APIConnectionError), () => create({}, anthropic({ baseURL: "http://127.0.0.1:1" })));
}

async function quota() {
  const started = Date.now(); // with the SDK's retries: it must not try again
  await raises((e) => e instanceof Anthropic.APIError, () => create({}, anthropic({ apiKey: EMPTY_KEY, maxRetries: 2 })));
  assert.ok(Date.now() - started < 3000);
}

async function brokenStream() {
  await raises(
    (error) => error instanceof Anthropic.APIError,
    async () => {
      for await (const event of await create({ messages: user("break"), stream: true })) assert.ok(event);
    },
  );
}

async function timeout() {
  const late = (error) => error instanceof Anthropic.APIConnectionTimeoutError;
  await raises(late, () => create({ messages: user("slow") }, anthropic({ timeout: 500 })));
}

async function realModel() {
  const small = { model: REAL, max_tokens: 16, temperature: 0, messages: user("Say hello.") };
  const whole = await create(small);
  assert.ok(whole.content[0].text);
  assert.equal(await client.messages.stream(asked(small)).finalText(), whole.content[0].text);
}

const { version } = JSON.parse(readFileSync(new URL("node_modules/@anthropic-ai/sdk/package.json", import.meta.url)));
await run(version, {
  messages: {
    chat, "stream with usage": stream, "order of events": events, "leaving a stream": leaving,
    "tools over three turns": tools, "tools in a stream": toolsInStream, "tool choice": toolChoice,
    "structured output": structured, vision, count_tokens: countTokens, "errors as classes": errors,
    "no credits": quota, "broken stream": brokenStream, timeout,
  },
  real_messages: { "whole and streamed": realModel },
});
