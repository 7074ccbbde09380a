// Messages between sidecars, on one protomux channel; see docs/reference/swarm.md. Numbers are big-endian.

import { FIRST_PRESENCE_VERSION, PRESENCE_VERSION } from './envelopes.js'

export const LARGEST_MESSAGE = 256 * 1024
export const MAX_IN_DIGEST = 2_000
export const MAX_TOPICS = 256

const TOPIC = 8
const SUBJECT = 8
const ENTRY_HEAD = TOPIC + 4 + 1 + 2
const ORDER = SUBJECT + 6 + 6
const DIGEST_HEAD = TOPIC + SUBJECT + SUBJECT

export class Malformed extends Error {}

function must (holds) {
  if (!holds) throw new Malformed('malformed')
}

export function encodeHello ({ role, topics }) {
  return Buffer.from(JSON.stringify({ v: 1, role, presence: PRESENCE_VERSION, topics: topics.map((key) => key.toString('hex')) }))
}

export function decodeHello (buffer) {
  let value
  try {
    value = JSON.parse(buffer.toString())
  } catch {
    throw new Malformed('malformed')
  }
  must(value !== null && typeof value === 'object' && value.v === 1 && typeof value.role === 'string')
  must(Array.isArray(value.topics) && value.topics.length <= MAX_TOPICS)
  const topics = value.topics.map((text) => {
    must(typeof text === 'string' && /^[0-9a-f]{64}$/.test(text))
    return Buffer.from(text, 'hex').toString('latin1', 0, TOPIC)
  })
  const presence = value.presence ?? FIRST_PRESENCE_VERSION
  must(Number.isInteger(presence))
  return { role: value.role, presence, topics: new Set(topics) }
}

// Entries: [{ id: topic id (latin1), age: ms, hops, envelope }].
export function encodeEntries (entries) {
  const size = entries.reduce((sum, entry) => sum + ENTRY_HEAD + entry.envelope.length, 0)
  const out = Buffer.allocUnsafe(size)
  let at = 0
  for (const { id, age, hops, envelope } of entries) {
    out.write(id, at, TOPIC, 'latin1')
    out.writeUInt32BE(Math.min(Math.max(Math.ceil(age), 0), 0xffffffff), at + TOPIC)
    out[at + TOPIC + 4] = hops
    out.writeUInt16BE(envelope.length, at + TOPIC + 5)
    envelope.copy(out, at + ENTRY_HEAD)
    at += ENTRY_HEAD + envelope.length
  }
  return out
}

export function decodeEntries (buffer) {
  const entries = []
  let at = 0
  while (at < buffer.length) {
    must(buffer.length - at >= ENTRY_HEAD)
    const end = at + ENTRY_HEAD + buffer.readUInt16BE(at + TOPIC + 5)
    must(end <= buffer.length)
    entries.push({
      id: buffer.toString('latin1', at, at + TOPIC),
      age: buffer.readUInt32BE(at + TOPIC),
      hops: buffer[at + TOPIC + 4],
      envelope: buffer.subarray(at + ENTRY_HEAD, end),
    })
    at = end
  }
  return entries
}

// A digest tells the order of every subject between `from` and `to` (hexadecimal, both included).
export function encodeDigest ({ id, from, to, orders }) {
  const out = Buffer.allocUnsafe(DIGEST_HEAD + orders.length * ORDER)
  out.write(id, 0, TOPIC, 'latin1')
  out.write(from, TOPIC, SUBJECT, 'hex')
  out.write(to, TOPIC + SUBJECT, SUBJECT, 'hex')
  let at = DIGEST_HEAD
  for (const { subject, boot, sequence } of orders) {
    out.write(subject, at, SUBJECT, 'hex')
    out.writeUIntBE(boot % 2 ** 48, at + SUBJECT, 6)
    out.writeUIntBE(sequence % 2 ** 48, at + SUBJECT + 6, 6)
    at += ORDER
  }
  return out
}

export function decodeDigest (buffer) {
  must(buffer.length >= DIGEST_HEAD && (buffer.length - DIGEST_HEAD) % ORDER === 0)
  const orders = new Map()
  for (let at = DIGEST_HEAD; at < buffer.length; at += ORDER) {
    orders.set(buffer.toString('hex', at, at + SUBJECT), {
      boot: buffer.readUIntBE(at + SUBJECT, 6),
      sequence: buffer.readUIntBE(at + SUBJECT + 6, 6),
    })
  }
  must(orders.size <= MAX_IN_DIGEST)
  return {
    id: buffer.toString('latin1', 0, TOPIC),
    from: buffer.toString('hex', TOPIC, TOPIC + SUBJECT),
    to: buffer.toString('hex', TOPIC + SUBJECT, DIGEST_HEAD),
    orders,
  }
}

export function encodeWant ({ id, subjects }) {
  return Buffer.concat([Buffer.from(id, 'latin1'), Buffer.from(subjects.join(''), 'hex')])
}

export function decodeWant (buffer) {
  must(buffer.length >= TOPIC && (buffer.length - TOPIC) % SUBJECT === 0)
  const subjects = []
  for (let at = TOPIC; at < buffer.length; at += SUBJECT) {
    subjects.push(buffer.toString('hex', at, at + SUBJECT))
  }
  must(subjects.length <= MAX_IN_DIGEST)
  return { id: buffer.toString('latin1', 0, TOPIC), subjects }
}
