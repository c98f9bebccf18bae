// OpenAI's SDK for Node.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { BASE_URL, EMPTY_KEY, KEY, REAL, raises, run } from "../checks.mjs";

const client = new OpenAI({ baseURL: BASE_URL, apiKey: KEY, maxRetries: 0 });
const Person = z.object({ name: z.string(), age: z.number().int() });
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const WEATHER = { type: "function", function: { name: "weather", parameters } };
const CALLS = 'call weather {"city": "Guiyang"} and weather {"city": "Hohhot"} then weather {"city": "Urumqi"}';
const RESULTS = "Results: sunny in Guiyang; sunny in Hohhot; sunny in Urumqi";

const user = (content) => [{ role: "user", content }];
const create = (more = {}, who = client) =>
  who.chat.completions.create({ model: "auto", messages: user("hello there"), ...more });
const sunny = ({ city }) => `sunny in ${city}`;
const runnable = {
  type: "function",
  function: { name: "weather", parameters, parse: JSON.parse, function: sunny },
};

async function chat() {
  const { data, response, request_id } = await create().withResponse();
  assert.equal(data.choices[0].message.content, "You said: hello there");
  assert.equal(data.usage.total_tokens, data.usage.prompt_tokens + data.usage.completion_tokens);
  assert.equal(response.headers.get("x-request-id"), request_id);
  assert.equal(response.headers.get("x-moma-backend"), "scripted");
}

async function stream() {
  let text = "";
  let last;
  for await (const chunk of await create({ stream: true, stream_options: { include_usage: true } })) {
    text += chunk.choices[0]?.delta.content ?? "";
    last = chunk;
  }
  assert.equal(text, "You said: hello there");
  assert.deepEqual(last.choices, []);
  assert.ok(last.usage.completion_tokens > 0);
}

async function streamHelper() {
  const helper = client.chat.completions.stream({ model: "auto", messages: user("hello there") });
  assert.equal((await helper.finalChatCompletion()).choices[0].message.content, "You said: hello there");
}

async function leaving() {
  for await (const chunk of await create({ stream: true })) {
    assert.ok(chunk.id);
    break;
  }
}

async function tools() {
  const runner = client.chat.completions.runTools({ model: "auto", messages: user(CALLS), tools: [runnable] });
  assert.equal(await runner.finalContent(), RESULTS);
  assert.equal(runner.messages.filter((message) => message.role === "tool").length, 3);
}

async function toolsInStream() {
  const asked = { model: "auto", messages: user(CALLS), tools: [runnable], stream: true };
  const runner = client.chat.completions.runTools(asked);
  assert.equal(await runner.finalContent(), RESULTS);
}

async function toolChoice() {
  const answer = await create({ tools: [WEATHER], tool_choice: { type: "function", function: { name: "weather" } } });
  assert.equal(answer.choices[0].finish_reason, "tool_calls");
  assert.equal(answer.choices[0].message.tool_calls[0].function.name, "weather");
}

async function jsonSchema() {
  const answer = await client.chat.completions.parse({
    model: "auto",
    messages: user('answer {"name": "Ann", "age": 7}'),
    response_format: zodResponseFormat(Person, "person"),
  });
  assert.deepEqual(answer.choices[0].message.parsed, { name: "Ann", age: 7 });
}

async function vision() {
  const image = { type: "image_url", image_url: { url: "data:image/png;base64,iVBORw0KGgo=" } };
  const answer = await create({ messages: user([{ type: "text", text: "look" }, image]) });
  assert.equal(answer.choices[0].message.content, "You said: look");
}

async function completions() {
  const answer = await client.completions.create({ model: "large", prompt: "hello", max_tokens: 5 });
  assert.equal(answer.choices[0].text, "You said: hello");
}

async function embeddings() {
  // Without a format the SDK asks for base64 and decodes it.
  const made = await client.embeddings.create({ model: "large", input: ["one", "two"] });
  const plain = await client.embeddings.create({ model: "large", input: ["one", "two"], encoding_format: "float" });
  assert.equal(made.data.length, 2);
  made.data[0].embedding.forEach((number, at) => assert.ok(Math.abs(number - plain.data[0].embedding[at]) < 1e-6));
}

async function models() {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.ok(ids.includes("auto") && ids.includes("large"));
  assert.equal((await client.models.retrieve("large")).id, "large");
}

async function errors() {
  const is = (kind, code) => (error) => error instanceof kind && error.code === code;
  const wrong = new OpenAI({ baseURL: BASE_URL, apiKey: "sk-moma-wrong", maxRetries: 0 });
  await raises(is(OpenAI.AuthenticationError, "invalid_api_key"), () => create({}, wrong));
  await raises(is(OpenAI.NotFoundError, "model_not_found"), () => create({ model: "none" }));
  const bad = await raises(is(OpenAI.BadRequestError, "invalid_value"), () => create({ n: 1000 }));
  assert.equal(bad.param, "n");
  await raises(is(OpenAI.InternalServerError, "backend_error"), () => create({ messages: user("fail") }));
  await raises(is(OpenAI.RateLimitError, "backend_overloaded"), () => create({ messages: user("busy") }));
  const nobody = new OpenAI({ baseURL: "http://127.0.0.1:1/v1", apiKey: KEY, maxRetries: 0 });
  await raises((error) => error instanceof OpenAI.APIConnectionError, () => create({}, nobody));
}

async function quota() {
  const empty = new OpenAI({ baseURL: BASE_URL, apiKey: EMPTY_KEY }); // with its retries: it must not try again
  const started = Date.now();
  await raises((e) => e instanceof OpenAI.RateLimitError && e.code === "insufficient_quota", () => create({}, empty));
  assert.ok(Date.now() - started < 3000);
}

async function brokenStream() {
  await raises(
    (error) => error instanceof OpenAI.APIError,
    async () => {
      for await (const chunk of await create({ messages: user("break"), stream: true })) assert.ok(chunk);
    },
  );
}

async function timeout() {
  const hasty = new OpenAI({ baseURL: BASE_URL, apiKey: KEY, maxRetries: 0, timeout: 500 });
  const late = (error) => error instanceof OpenAI.APIConnectionTimeoutError;
  await raises(late, () => create({ messages: user("slow") }, hasty));
}

async function realModel() {
  const asked = { model: REAL, messages: user("Say hello."), max_tokens: 16, temperature: 0 };
  const whole = await create(asked);
  let text = "";
  for await (const chunk of await create({ ...asked, stream: true })) text += chunk.choices[0]?.delta.content ?? "";
  assert.equal(whole.choices[0].message.content, text);
  assert.ok(text.length > 0);
}

async function realResponses() {
  const asked = { model: REAL, input: "Say hello.", max_output_tokens: 16, temperature: 0 };
  const whole = await client.responses.create(asked);
  const streamed = await client.responses.stream(asked).finalResponse();
  assert.ok(whole.output_text.length > 0);
  assert.equal(streamed.output_text, whole.output_text);
  assert.deepEqual(streamed.usage.output_tokens, whole.usage.output_tokens);
}

async function responses() {
  const answer = await client.responses.create({ model: "auto", input: "hello there" });
  assert.equal(answer.output_text, "You said: hello there");
  assert.equal(answer.usage.total_tokens, answer.usage.input_tokens + answer.usage.output_tokens);
}

async function keptResponses() {
  const first = await client.responses.create({ model: "auto", input: "hello there" });
  const next = await client.responses.create({ model: "auto", input: "and now", previous_response_id: first.id });
  assert.ok(next.usage.input_tokens > first.usage.input_tokens);
  assert.equal((await client.responses.retrieve(next.id)).output_text, "You said: and now");
  assert.ok((await client.responses.inputItems.list(next.id)).data.length > 0);
  await client.responses.delete(next.id);
  await raises((error) => error instanceof OpenAI.NotFoundError, () => client.responses.retrieve(next.id));
}

async function responsesStream() {
  let text = "";
  let completed;
  for await (const event of await client.responses.create({ model: "auto", input: "hello there", stream: true })) {
    if (event.type === "response.output_text.delta") text += event.delta;
    if (event.type === "response.completed") completed = event.response;
  }
  assert.equal(text, "You said: hello there");
  assert.ok(completed.usage.output_tokens > 0);
}

async function responsesTools() {
  const asked = { model: "auto", tools: [{ type: "function", name: "weather", parameters, strict: false }] };
  const input = [{ role: "user", content: CALLS }];
  for (let turn = 0; turn < 3; turn += 1) {
    const answer = await client.responses.create({ ...asked, input });
    const calls = answer.output.filter((item) => item.type === "function_call");
    if (calls.length === 0) {
      assert.equal(answer.output_text, RESULTS);
      return;
    }
    input.push(...answer.output);
    for (const { call_id, arguments: written } of calls) {
      input.push({ type: "function_call_output", call_id, output: sunny(JSON.parse(written)) });
    }
  }
  throw new Error("the tools had no end");
}

async function responsesSchema() {
  const answer = await client.responses.parse({
    model: "auto",
    input: 'answer {"name": "Ann", "age": 7}',
    text: { format: zodTextFormat(Person, "person") },
  });
  assert.deepEqual(answer.output_parsed, { name: "Ann", age: 7 });
}

async function responsesErrors() {
  const is = (kind, code) => (error) => error instanceof kind && error.code === code;
  const asked = { model: "none", input: "hello" };
  await raises(is(OpenAI.NotFoundError, "model_not_found"), () => client.responses.create(asked));
  const unknown = { model: "auto", input: "hello", previous_response_id: "resp_unknown" };
  await raises((error) => error instanceof OpenAI.APIError, () => client.responses.create(unknown));
}

const { version } = JSON.parse(readFileSync(new URL("node_modules/openai/package.json", import.meta.url)));
await run(version, {
  chat: {
    chat, stream: stream, "stream helper": streamHelper, "leaving a stream": leaving, "tools over three turns": tools,
    "tools in a stream": toolsInStream, "tool choice": toolChoice, "json_schema": jsonSchema, vision, completions,
    embeddings, models, "errors as classes": errors, "no credits": quota, "broken stream": brokenStream, timeout,
  },
  responses: {
    "response": responses, "kept responses": keptResponses, "stream": responsesStream, "tools over three turns": responsesTools,
    "json_schema": responsesSchema, "errors": responsesErrors,
  },
  real: { "whole and streamed": realModel },
  real_responses: { "whole and streamed": realResponses },
});
