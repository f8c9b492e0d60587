// Two requests as a program in a sandbox makes them. Arguments: which client, URL, API key.
// Prints what came back. Whatever goes wrong ends it, with the words that its user would see.

import { createRequire } from "node:module";

// The packages lie beside the Node that runs this.
const require = createRequire(process.execPath);
const hello = [{ role: "user", content: "hello" }];

const clients = {
  async *fetch(url, key) {
    for (let n = 0; n < 2; n++) {
      const answer = await fetch(url, { headers: { authorization: `Bearer ${key}` } });
      if (!answer.ok) throw new Error(await answer.text());
      yield await answer.text();
    }
  },

  async *undici(url, key) {
    const { EnvHttpProxyAgent, request } = require("undici");
    const dispatcher = new EnvHttpProxyAgent();
    for (let n = 0; n < 2; n++) {
      const answer = await request(url, { dispatcher, headers: { authorization: `Bearer ${key}` } });
      yield await answer.body.text();
    }
    await dispatcher.close();
  },

  async *axios(url, key) {
    const axios = require("axios");
    for (let n = 0; n < 2; n++) {
      const answer = await axios.get(url, { headers: { authorization: `Bearer ${key}` } });
      yield JSON.stringify(answer.data);
    }
  },

  async *openai(url, key) {
    const { OpenAI } = require("openai");
    const client = new OpenAI({ apiKey: key, baseURL: `${url}/v1`, maxRetries: 0 });
    for (let n = 0; n < 2; n++) {
      let text = "";
      const stream = await client.chat.completions.create({ model: "sample", messages: hello, stream: true });
      for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
      yield text;
    }
  },

  async *anthropic(url, key) {
    const { Anthropic } = require("@anthropic-ai/sdk");
    const client = new Anthropic({ apiKey: key, baseURL: url, maxRetries: 0 });
    for (let n = 0; n < 2; n++) {
      yield await client.messages.stream({ model: "sample", max_tokens: 16, messages: hello }).finalText();
    }
  },
};

const [client, url, key] = process.argv.slice(2);
for await (const text of clients[client](url, key)) console.log(text);
