// Vercel's AI SDK, with its providers for OpenAI-compatible endpoints, OpenAI's and Anthropic's.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, Output, embedMany, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { BASE_URL, KEY, REAL, raises, run } from "../checks.mjs";

const compatible = (apiKey = KEY) =>
  createOpenAICompatible({
    name: "moma", baseURL: BASE_URL, apiKey, includeUsage: true, supportsStructuredOutputs: true,
  });
const openai = createOpenAI({ baseURL: BASE_URL, apiKey: KEY });
const anthropic = createAnthropic({ baseURL: BASE_URL, apiKey: KEY });
const weather = tool({
  description: "The weather in a city.",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `sunny in ${city}`,
});
const Person = z.object({ name: z.string(), age: z.number().int() });
const CALLS = 'call weather {"city": "Guiyang"} and weather {"city": "Hohhot"} then weather {"city": "Urumqi"}';
const RESULTS = "Results: sunny in Guiyang; sunny in Hohhot; sunny in Urumqi";

const asked = (model, prompt = "hello there", more = {}) => ({ model, prompt, maxRetries: 0, ...more });

async function text(model) {
  const answer = await generateText(asked(model, "hello there", { system: "be brief" }));
  assert.equal(answer.text, "You said: hello there");
  assert.equal(answer.finishReason, "stop");
  assert.ok(answer.usage.inputTokens > 0 && answer.usage.outputTokens > 0);
}

async function stream(model) {
  const answer = streamText(asked(model));
  let said = "";
  for await (const piece of answer.textStream) said += piece;
  assert.equal(said, "You said: hello there");
  const usage = await answer.usage;
  assert.ok(usage.inputTokens > 0 && usage.outputTokens > 0);
}

const loop = { tools: { weather }, stopWhen: stepCountIs(5) };

async function tools(model) {
  const answer = await generateText(asked(model, CALLS, loop));
  assert.equal(answer.text, RESULTS);
  assert.deepEqual(answer.steps.map((step) => step.toolCalls.length), [2, 1, 0]);
}

async function toolsInStream(model) {
  const answer = streamText(asked(model, CALLS, loop));
  const kinds = [];
  for await (const part of answer.fullStream) kinds.push(part.type);
  assert.equal(kinds.filter((kind) => kind === "tool-result").length, 3);
  assert.equal(await answer.text, RESULTS);
}

async function structured(model) {
  const output = Output.object({ schema: Person });
  const answer = await generateText(asked(model, 'answer {"name": "Ann", "age": 7}', { output }));
  assert.deepEqual(answer.output, { name: "Ann", age: 7 });
}

async function vision(model) {
  const image = { type: "image", image: new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]), mediaType: "image/png" };
  const messages = [{ role: "user", content: [{ type: "text", text: "look" }, image] }];
  assert.equal((await generateText({ model, messages, maxRetries: 0 })).text, "You said: look");
}

async function embeddings() {
  const { embeddings: made } = await embedMany({ model: compatible().embeddingModel("large"), values: ["one", "two"] });
  assert.deepEqual(made.map((vector) => vector.length), [16, 16]);
}

async function errors() {
  const status = (wanted) => (error) => APICallError.isInstance(error) && error.statusCode === wanted;
  const wrong = compatible("sk-moma-wrong");
  await raises(status(401), () => generateText(asked(wrong("large"))));
  const missing = await raises(status(404), () => generateText(asked(compatible()("none"))));
  assert.ok(missing.message.includes("none"));
  const busy = await raises(status(429), () => generateText(asked(compatible()("large"), "busy")));
  assert.ok(busy.isRetryable);
}

async function brokenStream() {
  const kinds = [];
  const answer = streamText(asked(compatible()("large"), "break", { onError: () => {} }));
  for await (const part of answer.fullStream) kinds.push(part.type);
  assert.ok(kinds.includes("error"));
}

async function timeout() {
  const abortSignal = AbortSignal.timeout(500);
  const aborted = (error) => ["AbortError", "TimeoutError"].includes(error.name);
  await raises(aborted, () => generateText(asked(compatible()("large"), "slow", { abortSignal })));
}

async function realModel() {
  const small = asked(compatible()(REAL), "Say hello.", { maxOutputTokens: 16, temperature: 0 });
  const whole = (await generateText(small)).text;
  assert.ok(whole);
  assert.equal(await streamText(small).text, whole);
}

const all = (prefix, model) =>
  Object.fromEntries(
    Object.entries({
      text, "stream with usage": stream, "tool loop over three turns": tools, "streamed tool loop": toolsInStream,
      "structured output": structured, vision,
    }).map(([name, check]) => [`${prefix}${name}`, () => check(model)]),
  );

const { version } = JSON.parse(readFileSync(new URL("node_modules/ai/package.json", import.meta.url)));
await run(version, {
  chat: {
    ...all("", compatible()("large")), ...all("OpenAI provider: ", openai.chat("large")), embeddings, errors,
    "broken stream": brokenStream, timeout,
  },
  responses: all("", openai.responses("large")),
  messages: all("", anthropic("large")),
  real: { "whole and streamed": realModel },
});
