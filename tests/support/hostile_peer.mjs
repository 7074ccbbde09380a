// A peer with an enrolled key that means harm: `node hostile_peer.mjs FILE`, of JSON with
//   place: the folder of the installed sidecar;  seed, network, topic: hexadecimal;  host, port: the bootstrap node
//   mode: what it does, see below;  envelopes: messages that it heard of, hexadecimal
// It says, as JSON lines, when it is connected, and when it was turned away. It ends with its standard input.

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

const told = JSON.parse(readFileSync(process.argv[2], 'utf8'))
const require = createRequire(path.join(told.place, 'package.json'))
const DHT = require('hyperdht')
const Hyperswarm = require('hyperswarm')
const Protomux = require('protomux')
const c = require('compact-encoding')
const messages = await import(pathToFileURL(path.join(told.place, 'source', 'messages.js')))

const TURN_MS = 20
const topic = Buffer.from(told.topic, 'hex')
const id = topic.toString('latin1', 0, 8)
const heard = told.envelopes.map((envelope) => Buffer.from(envelope, 'hex'))
const WHOLE = { id, from: '0'.repeat(16), to: 'f'.repeat(16), orders: [] }
let turn = 0

function say (what) {
  process.stdout.write(`${JSON.stringify(what)}\n`)
}

function entries (envelopes, { age = 0, hops = 0 } = {}) {
  return messages.encodeEntries(envelopes.map((envelope) => ({ id, age, hops, envelope })))
}

function garbage (size) {
  return Buffer.from(Array.from({ length: size }, () => Math.floor(Math.random() * 256)))
}

// A true announcement with another sequence, and the signature of the first.
function forged (envelope) {
  const value = JSON.parse(envelope.toString('utf8', 64))
  const body = JSON.stringify({ ...value, sequence: value.sequence + 1_000 + turn, state: 'stopped' })
  return Buffer.concat([envelope.subarray(0, 64), Buffer.from(body)])
}

const MODES = {
  garbage: (say) => {
    say.entries(garbage(60_000))
    say.hello(garbage(1_000))
    say.digest(garbage(5_000))
    say.want(garbage(5_000))
  },
  nonsense: (say) => say.entries(entries(Array.from({ length: 20 }, () => garbage(1_000)))),
  oversize: (say) => say.entries(Buffer.alloc(messages.LARGEST_MESSAGE + 1)),
  endless: (say, connection) => connection.write(Buffer.alloc(8 * 1024 * 1024)),
  forged: (say) => say.entries(entries(heard.map(forged))),
  // As true as on the day they were made.
  replayed: (say) => {
    for (const age of [0, 1_000, 4_000_000_000]) say.entries(entries(heard, { age, hops: turn % 20 }))
    say.digest(messages.encodeDigest({ ...WHOLE, orders: [] }))
  },
  // Wants everything, again and again, and reads nothing.
  deaf: (say, connection) => {
    connection.rawStream.pause()
    for (let i = 0; i < 20; i++) say.digest(messages.encodeDigest(WHOLE))
  },
}

const swarm = new Hyperswarm({
  dht: new DHT({ bootstrap: [{ host: told.host, port: told.port }], host: told.host, firewalled: false }),
  keyPair: DHT.keyPair(Buffer.from(told.seed, 'hex')),
  backoffs: [100, 100, 100, 100],
  jitter: 10,
})

swarm.on('connection', (connection) => {
  const key = connection.remotePublicKey.toString('hex')
  connection.on('error', () => {})
  const channel = new Protomux(connection).createChannel({ protocol: 'tether/gossip/1', id: Buffer.from(told.network, 'hex') })
  if (channel === null) return connection.destroy()
  const names = ['hello', 'entries', 'digest', 'want', 'ping', 'pong']
  const send = {}
  for (const name of names) {
    const message = channel.addMessage({ encoding: c.raw, onmessage: () => {} })
    send[name] = (data) => message.send(data)
  }
  channel.open()
  send.hello(messages.encodeHello({ role: 'worker', topics: [topic] }))
  say({ connected: key })
  const timer = setInterval(() => {
    turn++
    MODES[told.mode](send, connection)
    say({ turns: turn })
  }, TURN_MS)
  connection.on('close', () => {
    clearInterval(timer)
    say({ closed: key })
  })
})
process.stdin.on('end', () => process.exit(0)).resume()

const session = swarm.join(topic, { server: true, client: true })
setInterval(() => session.refresh({ server: true, client: true }).catch(() => {}), 300)
