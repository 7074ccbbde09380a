// Gossip between sidecars: what is new is told on once, and what got lost is found by comparing digests.

import { Kind, Refused, hashOf, isSigned, readEnvelope } from './envelopes.js'
import { SeenLately } from './limits.js'
import * as messages from './messages.js'
import { Peer } from './peer.js'

export const MAX_HOPS = 16
// Other peers that an ordinary heartbeat is told on to; what is news goes to all. With each peer telling on to
// four at random, nearly all hear of it at once (epidemic broadcast), and the digests find the rest.
export const FANOUT = 4
// Long enough for other copies to arrive, so that whoever sent one needs none.
export const RELAY_DELAY_MS = 10
const MAX_SEEN = 200_000

const LOCAL_TRUST = { workers: { has: () => true }, operators: { has: () => true } }

export class Gossip {
  constructor ({ network, role, interval, expiry, trust, onHeard, onOffence, random, now }) {
    Object.assign(this, { network, role, interval, expiry, trust, onHeard, onOffence, random, now })
    this.topics = new Map()
    this.peers = new Set()
    this.own = new Map()
    this.seen = new SeenLately(MAX_SEEN)
    this.counts = { accepted: 0, duplicate: 0, old: 0, limited: 0, verified: 0, sent: 0, refused: {} }
    this.relaying = null
    this.flushing = null
    this.turnedAt = now()
  }

  addTopic (state) {
    this.topics.set(state.id, state)
    this.own.set(state.id, new Map())
    for (const peer of this.peers) peer.hello()
  }

  removeTopic (state) {
    this.topics.delete(state.id)
    this.own.delete(state.id)
    for (const peer of this.peers) peer.hello()
  }

  get topicKeys () {
    return [...this.topics.values()].map((state) => state.key)
  }

  // A message of this process: everybody hears of it, in one go with those that are sent in the same moment.
  send (state, age, envelope) {
    const read = readEnvelope(envelope, { ...this.place(state), trust: LOCAL_TRUST })
    const entry = state.accept(read, envelope, age, 0, this.now())
    const hash = hashOf(envelope)
    this.seen.set(hash, state.id + read.subject)
    if (entry === null) return
    entry.hash = hash
    this.own.get(state.id).set(entry.subject, entry)
    for (const peer of this.peers) peer.offer(state, entry)
    this.flushing ??= setImmediate(() => this.flush())
  }

  addConnection (connection, key) {
    const peer = new Peer({ gossip: this, connection, key })
    this.peers.add(peer)
    return peer
  }

  removePeer (peer) {
    this.peers.delete(peer)
  }

  place (state) {
    return { kind: state.kind, topic: state.name, network: this.network }
  }

  // Entries of a peer: checked one by one, the cheap checks first.
  hear (peer, entries) {
    const now = this.now()
    for (const { id, age, hops, envelope } of entries) {
      const hash = hashOf(envelope)
      const offered = this.seen.get(hash)
      if (offered !== undefined) {
        this.counts.duplicate++
        // A peer that sends what it was about to be told knows it.
        peer.withdraw(offered, hash)
        continue
      }
      const state = this.topics.get(id)
      if (state === undefined || hops > MAX_HOPS) continue
      try {
        this.take(peer, state, age, hops, Buffer.from(envelope), hash, now)
      } catch (error) {
        if (!(error instanceof Refused)) throw error
        this.counts.refused[error.reason] = (this.counts.refused[error.reason] ?? 0) + 1
        // Two peers may learn of a new key one after the other, or be of two versions; everything else no honest
        // peer tells on.
        if (error.reason !== 'untrusted' && error.reason !== 'version') peer.offend(error.reason)
      }
    }
  }

  take (peer, state, age, hops, envelope, hash, now) {
    const read = readEnvelope(envelope, { ...this.place(state), trust: this.trust })
    const isContested = state.isContested(read)
    if (!isContested && !state.isNewer(read.subject, read.boot, read.sequence)) {
      this.counts.old++
      this.seen.set(hash, state.id + read.subject)
      return
    }
    // It is not remembered: its age is only the word of this peer, and another's may be better.
    if (age >= this.expiry) {
      this.counts.old++
      return
    }
    if (!peer.mayCost(now)) {
      this.counts.limited++
      return
    }
    this.counts.verified++
    this.seen.set(hash, state.id + read.subject)
    if (!isSigned(envelope, read, state.kind)) throw new Refused('signature')
    const entry = isContested
      ? state.contest(read, envelope, age, hops, now)
      : state.accept(read, envelope, age, hops, now)
    if (entry === null) return
    entry.hash = hash
    this.counts.accepted++
    this.onHeard(state, entry)
    if (hops < MAX_HOPS) this.relay(peer, state, entry)
  }

  relay (from, state, entry) {
    const others = [...this.peers].filter((peer) => peer !== from && peer.topics.has(state.id))
    const chosen = entry.isNews ? others : this.pick(others, FANOUT)
    for (const peer of chosen) peer.offer(state, entry)
    if (chosen.length) this.relaying ??= setTimeout(() => this.flush(), RELAY_DELAY_MS)
  }

  pick (list, count) {
    for (let i = 0; i < Math.min(count, list.length); i++) {
      const j = i + Math.floor(this.random() * (list.length - i))
      ;[list[i], list[j]] = [list[j], list[i]]
    }
    return list.slice(0, count)
  }

  flush () {
    clearTimeout(this.relaying)
    clearImmediate(this.flushing)
    this.relaying = this.flushing = null
    for (const peer of this.peers) peer.flush()
  }

  // Every entry of a topic is named in one of the digests, in order, so that gaps show.
  digests (state) {
    const subjects = [...state.entries.keys()].sort()
    const digests = []
    let from = '0'.repeat(16)
    do {
      const part = subjects.splice(0, messages.MAX_IN_DIGEST)
      const to = subjects.length ? part.at(-1) : 'f'.repeat(16)
      const orders = part.map((subject) => ({ subject, ...state.orders.get(subject) }))
      digests.push({ id: state.id, from, to, orders })
      from = (BigInt(`0x${to}`) + 1n).toString(16).padStart(16, '0')
    } while (subjects.length)
    return digests
  }

  // Answers a peer's digest: with what it lacks, and with a wish for what we lack.
  compare (peer, { id, from, to, orders }) {
    const state = this.topics.get(id)
    if (state === undefined) return
    for (const entry of state.entries.values()) {
      if (entry.subject < from || entry.subject > to) continue
      const theirs = orders.get(entry.subject)
      const isNewer = theirs === undefined || entry.boot > theirs.boot ||
        (entry.boot === theirs.boot && entry.sequence > theirs.sequence)
      if (isNewer) peer.offer(state, entry)
    }
    const subjects = []
    for (const [subject, order] of orders) {
      if (state.isNewer(subject, order.boot, order.sequence)) subjects.push(subject)
    }
    if (subjects.length) peer.want({ id, subjects })
    peer.flush()
  }

  give (peer, { id, subjects }) {
    const state = this.topics.get(id)
    if (state === undefined) return
    for (const subject of subjects) {
      const entry = state.entries.get(subject)
      if (entry !== undefined) peer.offer(state, entry)
    }
    peer.flush()
  }

  // Everything a peer that shares a topic should have at once: what is ours. The digest brings the rest.
  greet (peer, state) {
    for (const entry of this.own.get(state.id).values()) peer.offer(state, entry)
    for (const digest of this.digests(state)) peer.digest(digest)
    peer.flush()
  }

  setTrust () {
    for (const state of this.topics.values()) {
      const trusted = state.kind === Kind.CONTROL ? this.trust.operators : this.trust.workers
      const own = this.own.get(state.id)
      state.forget((key) => trusted.has(key) || [...own.keys()].some((subject) => state.orders.get(subject)?.pubKey === key))
    }
  }

  // Once in each interval: compare notes with a peer at random, and forget what has run out.
  tick () {
    const now = this.now()
    if (now - this.turnedAt >= this.expiry) {
      this.seen.turn()
      this.turnedAt = now
    }
    for (const state of this.topics.values()) {
      const sharing = [...this.peers].filter((peer) => peer.topics.has(state.id))
      for (const peer of this.pick(sharing, 1)) {
        for (const digest of this.digests(state)) peer.digest(digest)
      }
    }
  }

  expire () {
    const now = this.now()
    for (const state of this.topics.values()) {
      state.expire(now)
      for (const [subject, entry] of this.own.get(state.id)) {
        if (entry.endsAt <= now || entry.state === 'stopped') this.own.get(state.id).delete(subject)
      }
    }
    for (const peer of this.peers) peer.check(now)
  }

  // The least of the medians to the peers that are orchestrators; null where none is near.
  get roundTrip () {
    const medians = [...this.peers].map((peer) => peer.roundTrip).filter((median) => median !== null)
    return medians.length ? Math.min(...medians) : null
  }

  close () {
    clearTimeout(this.relaying)
    clearImmediate(this.flushing)
    for (const peer of this.peers) peer.close()
  }
}
