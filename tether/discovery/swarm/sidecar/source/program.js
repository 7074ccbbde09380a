// Ties frames, gossip and connections together: what Tether asks for, and what it is told.

import { Refused } from './envelopes.js'
import { FrameReader, LARGEST_BATCH, Type, decodeEntries, encodeEntries, encodeJson } from './frames.js'
import { Gossip } from './gossip.js'
import { Swarm } from './swarm.js'
import { TopicState } from './topic-state.js'

const STATUS_MS = 1_000
const PING_MS = 1_000
// News that come one by one are passed on at once, many together: each time has a price of its own.
const GATHER_MS = 50
const GOODBYE_MS = 1_000

export class Program {
  constructor ({ channel, log, exit }) {
    this.channel = channel
    this.log = log
    this.exit = exit
    this.trust = { workers: new Set(), operators: new Set(), peers: new Set() }
    this.byNumber = new Map()
    this.pending = new Map()
    this.isBlocked = false
    this.gathering = null
    this.passedAt = -Infinity
    this.timers = []
    this.strangers = new Set()
    this.isStopping = false
    const reader = new FrameReader((type, payload) => this.onFrame(type, payload))
    channel.on('data', (chunk) => {
      try {
        reader.push(chunk)
      } catch (error) {
        this.fail('frames', error)
      }
    })
    channel.on('drain', () => {
      this.isBlocked = false
      this.pass()
    })
    // Tether is gone: nothing here is of use to anybody.
    channel.on('end', () => this.exit(0))
    channel.on('error', () => this.exit(0))
  }

  onFrame (type, payload) {
    switch (type) {
      case Type.START: return this.start(JSON.parse(payload.toString()))
      case Type.JOIN: return this.join(JSON.parse(payload.toString()))
      case Type.LEAVE: return this.leave(JSON.parse(payload.toString()))
      case Type.TRUST: return this.setTrust(JSON.parse(payload.toString()))
      case Type.SEND: return this.send(decodeEntries(payload))
      case Type.STOP: return this.stop()
      case Type.REPLAY: return this.replay(JSON.parse(payload.toString()))
      default: throw new Error(`frames of type ${type} are not understood`)
    }
  }

  start ({ seed, network, role, bootstrap, host, port, maxPeers, interval, expiry }) {
    this.gossip = new Gossip({
      network,
      role,
      interval,
      expiry,
      trust: this.trust,
      onHeard: (state, entry) => this.heard(state, entry),
      onOffence: (key, reason) => this.swarm.ban(key, reason),
      random: Math.random,
      now: () => performance.now(),
    })
    this.expiry = expiry
    this.swarm = new Swarm({
      seed: Buffer.from(seed, 'hex'),
      bootstrap,
      host,
      port,
      maxPeers,
      interval,
      trust: this.trust,
      onConnection: (connection, key) => this.gossip.addConnection(connection, key),
      onStranger: (key) => this.meetStranger(key),
      log: this.log,
    })
    const every = (time, action) => this.timers.push(setInterval(action, time))
    every(interval, () => {
      this.gossip.tick()
      this.swarm.tick()
      this.strangers.clear()
    })
    every(Math.min(1_000, interval), () => this.gossip.expire())
    every(PING_MS, () => this.ping())
    every(STATUS_MS, () => this.tellStatus())
    this.swarm.ready().then(
      (bound) => this.write(encodeJson(Type.READY, { publicKey: this.swarm.publicKey, port: bound })),
      (error) => this.fail('listen', error),
    )
  }

  join ({ topic, key, number, kind }) {
    const state = new TopicState({ name: topic, number, key: Buffer.from(key, 'hex'), kind, expiry: this.expiry })
    this.byNumber.set(number, state)
    this.gossip.addTopic(state)
    this.swarm.join(state.key)
  }

  leave ({ number }) {
    const state = this.byNumber.get(number)
    if (state === undefined) return
    this.byNumber.delete(number)
    this.gossip.removeTopic(state)
    this.swarm.leave(state.key).catch((error) => this.log('debug', 'Leaving failed.', { error: error.message }))
  }

  setTrust ({ add, remove, operators }) {
    for (const key of remove) this.trust.workers.delete(key)
    for (const key of add) this.trust.workers.add(key)
    this.trust.operators.clear()
    for (const key of operators) this.trust.operators.add(key)
    this.trust.peers = this.trust.workers
    if (remove.length) {
      this.swarm.dropUntrusted()
      this.gossip.setTrust()
    }
    if (add.length) this.swarm.letIn(add)
  }

  send (entries) {
    for (const { topic, age, envelope } of entries) {
      const state = this.byNumber.get(topic)
      if (state === undefined) continue
      try {
        this.gossip.send(state, age, envelope)
      } catch (error) {
        if (!(error instanceof Refused)) throw error
        this.log('error', 'A message of this process cannot be sent.', { topic: state.name, reason: error.reason })
      }
    }
  }

  // Everything that is known on a topic, once more.
  replay ({ number }) {
    const state = this.byNumber.get(number)
    for (const entry of state?.entries.values() ?? []) this.heard(state, entry)
  }

  // Tether hears the newest of each subject. Where it does not read, older ones are dropped and nothing grows.
  heard (state, entry) {
    if (entry.state === 'stopped') this.swarm.expectEnd(state.orders.get(entry.subject).pubKey)
    this.pending.set(`${state.number}/${entry.name}`, { state, entry })
    if (this.isBlocked) return
    const since = performance.now() - this.passedAt
    this.gathering ??= setTimeout(() => this.pass(), since >= GATHER_MS ? 0 : GATHER_MS - since)
  }

  pass () {
    clearTimeout(this.gathering)
    this.gathering = null
    const now = performance.now()
    this.passedAt = now
    let batch = []
    let size = 0
    for (const [key, { state, entry }] of this.pending) {
      if (this.isBlocked) break
      this.pending.delete(key)
      batch.push({ topic: state.number, age: now - entry.bornAt, envelope: entry.envelope })
      size += entry.envelope.length
      if (size >= LARGEST_BATCH) {
        this.write(encodeEntries(Type.HEARD, batch))
        batch = []
        size = 0
      }
    }
    if (batch.length) this.write(encodeEntries(Type.HEARD, batch))
  }

  write (frame) {
    if (!this.channel.write(frame)) this.isBlocked = true
  }

  meetStranger (key) {
    // Once an interval is enough; and Tether looks at what it trusts by itself, too.
    if (this.strangers.has(key) || this.strangers.size > 1_000) return
    this.strangers.add(key)
    if (!this.isBlocked) this.write(encodeJson(Type.STRANGER, { key }))
  }

  ping () {
    if (this.gossip.role !== 'worker') return
    for (const peer of this.gossip.peers) peer.ping()
  }

  tellStatus () {
    if (this.isBlocked) return
    const { user, system } = process.cpuUsage()
    const connections = [...this.swarm.hyperswarm.connections]
    this.write(encodeJson(Type.STATUS, {
      peers: [...this.gossip.peers].map((peer) => ({ key: peer.key, role: peer.role })),
      topics: [...this.byNumber.values()].map((state) => ({ topic: state.name, subjects: state.entries.size })),
      roundTrip: this.gossip.roundTrip,
      counts: this.gossip.counts,
      bytes: {
        in: connections.reduce((sum, one) => sum + one.rawBytesRead, 0),
        out: connections.reduce((sum, one) => sum + one.rawBytesWritten, 0),
      },
      memory: process.memoryUsage().rss,
      cpu: (user + system) / 1e6,
      waiting: this.pending.size,
    }))
  }

  // What was sent before is on its way to all peers before anything is closed.
  async stop () {
    if (this.isStopping) return
    this.isStopping = true
    const limit = setTimeout(() => this.finish(), GOODBYE_MS)
    try {
      this.gossip.flush()
      await Promise.all([...this.gossip.peers].map((peer) => peer.flushed()))
      this.timers.forEach(clearInterval)
      await this.swarm.close()
    } catch (error) {
      this.log('debug', 'Closing failed.', { error: error.message })
    }
    clearTimeout(limit)
    this.finish()
  }

  finish () {
    this.channel.end(encodeJson(Type.STOPPED, {}), () => this.exit(0))
  }

  fail (what, error) {
    this.log('error', 'The sidecar cannot go on.', { what, error: error.message })
    this.channel.end(encodeJson(Type.FAILED, { what, error: error.message }), () => this.exit(1))
  }
}
