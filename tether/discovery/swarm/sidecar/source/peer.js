// One connected peer: what it is told, what it may send, and how far away it is.

import c from 'compact-encoding'
import Protomux from 'protomux'

import { Allowance } from './limits.js'
import { FIRST_PRESENCE_VERSION, Kind } from './envelopes.js'
import * as messages from './messages.js'

export const PROTOCOL = 'tether/gossip/1'

// What one peer may cost. A signature takes some 50 µs to check.
export const VERIFICATIONS = { rate: 4_000, burst: 20_000 }
export const BYTES = { rate: 8 * 1024 * 1024, burst: 64 * 1024 * 1024 }
export const QUESTIONS = { rate: 20, burst: 400 }
export const MAX_OFFENCES = 16
export const STALLED_MS = 15_000
// The library gives up a connection without an other side after 13 s or more, and until then may turn away every new
// one of that peer.
export const UNANSWERED_MS = 5_000
const LARGEST_BATCH = 64 * 1024
const ROUND_TRIPS = 15

export class Peer {
  constructor ({ gossip, connection, key }) {
    const now = gossip.now()
    this.gossip = gossip
    this.connection = connection
    this.key = key
    this.role = ''
    this.topics = new Set()
    this.presence = FIRST_PRESENCE_VERSION
    this.outgoing = new Map()
    this.isOpen = false
    this.connectedAt = now
    this.blockedAt = null
    this.offences = 0
    this.isPunished = false
    this.greetedTopics = new Set()
    this.unread = 0
    this.samples = []
    this.pinged = null
    this.verifications = new Allowance(VERIFICATIONS.rate, VERIFICATIONS.burst, now)
    this.bytes = new Allowance(BYTES.rate, BYTES.burst, now)
    this.questions = new Allowance(QUESTIONS.rate, QUESTIONS.burst, now)
    this.open()
  }

  open () {
    const connection = this.connection
    connection.on('error', () => {})
    connection.on('close', () => this.gossip.removePeer(this))
    // One message is all that may be held of a peer before it is complete.
    connection.rawStream.on('data', (data) => {
      this.unread += data.length
      if (this.unread > 2 * messages.LARGEST_MESSAGE) this.punish('size')
    })
    const mux = new Protomux(connection)
    this.channel = mux.createChannel({
      protocol: PROTOCOL,
      id: Buffer.from(this.gossip.network, 'hex'),
      onopen: () => {
        this.isOpen = true
        this.hello()
      },
      ondrain: () => this.drained(),
      onclose: () => connection.destroy(),
    })
    if (this.channel === null) {
      connection.destroy()
      return
    }
    const add = (handle) => this.channel.addMessage({ encoding: c.raw, onmessage: (data) => this.receive(data, handle) })
    this.messages = {
      hello: add((data) => this.greeted(messages.decodeHello(data))),
      entries: add((data) => this.gossip.hear(this, messages.decodeEntries(data))),
      digest: add((data) => this.asked() && this.gossip.compare(this, messages.decodeDigest(data))),
      want: add((data) => this.asked() && this.gossip.give(this, messages.decodeWant(data))),
      ping: add((data) => this.asked() && data.length === 8 && this.messages.pong.send(Buffer.from(data))),
      pong: add((data) => this.answered(data)),
    }
    this.channel.open()
  }

  receive (data, handle) {
    this.unread = 0
    if (data.length > messages.LARGEST_MESSAGE) return this.punish('size')
    if (!this.bytes.take(data.length, this.gossip.now())) {
      this.gossip.counts.limited++
      return
    }
    try {
      handle(data)
    } catch (error) {
      if (!(error instanceof messages.Malformed)) throw error
      this.punish('malformed')
    }
  }

  asked () {
    const may = this.questions.take(1, this.gossip.now())
    if (!may) this.gossip.counts.limited++
    return may
  }

  hello () {
    if (this.isOpen) {
      this.messages.hello.send(messages.encodeHello({ role: this.gossip.role, topics: this.gossip.topicKeys }))
      this.greetNew()
    }
  }

  greeted ({ role, presence, topics }) {
    this.role = role
    this.presence = presence
    this.topics = topics
    this.greetNew()
  }

  greetNew () {
    for (const id of this.topics) {
      const state = this.gossip.topics.get(id)
      if (state !== undefined && !this.greetedTopics.has(id)) {
        this.greetedTopics.add(id)
        // Without it, the next heartbeats and digests bring the same.
        if (this.asked()) this.gossip.greet(this, state)
      }
    }
    for (const id of this.greetedTopics) {
      if (!this.topics.has(id) || !this.gossip.topics.has(id)) this.greetedTopics.delete(id)
    }
  }

  // Tells it at the next flush; of one subject only the newest, so that a slow peer costs no more than that.
  // One of an older version would take what it cannot read for an offence.
  offer (state, entry) {
    if (state.kind === Kind.PRESENCE && entry.version > this.presence) return
    if (this.topics.has(state.id)) this.outgoing.set(state.id + entry.name, { id: state.id, entry })
  }

  withdraw (offered, hash) {
    if (this.outgoing.get(offered)?.entry.hash === hash) this.outgoing.delete(offered)
  }

  flush () {
    if (!this.isOpen || this.blockedAt !== null) return
    const now = this.gossip.now()
    let batch = []
    let size = 0
    for (const [key, { id, entry }] of this.outgoing) {
      this.outgoing.delete(key)
      if (entry.endsAt <= now) continue
      batch.push({ id, age: now - entry.bornAt, hops: entry.hops + 1, envelope: entry.envelope })
      size += entry.envelope.length + 16
      if (size >= LARGEST_BATCH) {
        if (!this.sendEntries(batch)) return
        batch = []
        size = 0
      }
    }
    if (batch.length) this.sendEntries(batch)
  }

  sendEntries (batch) {
    this.gossip.counts.sent += batch.length
    return this.noteRoom(this.messages.entries.send(messages.encodeEntries(batch)))
  }

  digest (digest) {
    this.ask(this.messages.digest, messages.encodeDigest(digest))
  }

  want (want) {
    this.ask(this.messages.want, messages.encodeWant(want))
  }

  ask (message, data) {
    if (this.isOpen && this.blockedAt === null) this.noteRoom(message.send(data))
  }

  noteRoom (hasRoom) {
    if (!hasRoom) this.blockedAt ??= this.gossip.now()
    return hasRoom
  }

  drained () {
    this.blockedAt = null
    this.flush()
  }

  ping () {
    if (this.role !== 'orchestrator' || !this.isOpen || this.blockedAt !== null) return
    const nonce = Buffer.allocUnsafe(8)
    nonce.writeDoubleBE(this.gossip.random(), 0)
    this.pinged = { nonce, at: performance.now() }
    this.messages.ping.send(nonce)
  }

  answered (data) {
    if (this.pinged === null || !this.pinged.nonce.equals(data)) return
    this.samples.push(performance.now() - this.pinged.at)
    if (this.samples.length > ROUND_TRIPS) this.samples.shift()
    this.pinged = null
  }

  get roundTrip () {
    if (this.samples.length === 0) return null
    return this.samples.toSorted((a, b) => a - b)[Math.floor(this.samples.length / 2)]
  }

  mayCost (now) {
    return this.verifications.take(1, now)
  }

  offend (reason) {
    this.offences++
    if (this.offences >= MAX_OFFENCES) this.punish(reason)
  }

  punish (reason) {
    if (this.isPunished) return
    this.isPunished = true
    this.gossip.onOffence(this.key, reason)
    this.close()
  }

  // Resolves when what was sent has left, or the peer is gone.
  flushed () {
    return this.connection.flush().catch(() => false)
  }

  // One that does not read, or never answered, is let go: it can come back, and holds nothing up meanwhile.
  check (now) {
    const isStalled = this.blockedAt !== null && now - this.blockedAt > STALLED_MS
    const isUnanswered = !this.isOpen && now - this.connectedAt > UNANSWERED_MS
    if (isStalled || isUnanswered) this.close()
  }

  close () {
    this.gossip.removePeer(this)
    this.connection.destroy()
  }
}
