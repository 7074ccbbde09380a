// Clients of Node against a gateway: `node clients.mjs URL KEY MODEL`. Prints what each got, as one JSON object.
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { generateText, streamText } from 'ai'
import { EventSource } from 'eventsource'
import OpenAI from 'openai'

const [url, key, model] = process.argv.slice(2)
const messages = [{ role: 'user', content: 'one two' }]
const seen = {}

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 })
const whole = await client.chat.completions.create({ model, messages, seed: 7 })
seen.openai = whole.choices[0].message.content
seen.openai_stream = ''
for await (const chunk of await client.chat.completions.create({ model, messages, seed: 7, stream: true })) {
  seen.openai_stream += chunk.choices[0]?.delta?.content ?? ''
}
try {
  await client.chat.completions.create({ model, messages, n: 2 })
} catch (error) {
  seen.openai_refused = [error.constructor.name, error.status, error.param]
}

const provider = createOpenAICompatible({ name: 'tether', baseURL: `${url}/v1`, apiKey: key })
seen.ai_sdk = (await generateText({ model: provider(model), messages, seed: 7 })).text
seen.ai_sdk_stream = ''
for await (const text of streamText({ model: provider(model), messages, seed: 7 }).textStream) {
  seen.ai_sdk_stream += text
}

const source = new EventSource(`${url}/v1/jobs/${whole.id}/stream`, {
  fetch: (input, init) =>
    fetch(input, { ...init, headers: { ...init.headers, Authorization: `Bearer ${key}` } })
})
seen.eventsource = ''
await new Promise((resolve, reject) => {
  source.addEventListener('delta', event => {
    seen.eventsource += JSON.parse(event.data).texts.join('')
  })
  source.addEventListener('finished', resolve)
  source.addEventListener('error', reject)
})
source.close()
console.log(JSON.stringify(seen))
