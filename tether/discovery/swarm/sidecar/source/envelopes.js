// What the sidecar must know of a signed message to keep, order and relay it. Tether's own code reads the rest.

import sodium from 'sodium-universal'

export const LARGEST_ENVELOPE = 16_384
export const Kind = Object.freeze({ PRESENCE: 'presence', CONTROL: 'control' })

const SIGNATURE = 64
// What is signed before the message, by its version.
const DOMAINS = {
  [Kind.PRESENCE]: { 2: Buffer.from('tether presence 2\0'), 3: Buffer.from('tether presence 3\0') },
  [Kind.CONTROL]: { 1: Buffer.from('tether command 1\0') },
}
export const PRESENCE_VERSION = 3
// That of peers which do not say what they read.
export const FIRST_PRESENCE_VERSION = 2
const KEY = /^[0-9a-f]{64}$/
const COMMAND_ID = /^[0-9a-f]{32}$/

export class Refused extends Error {
  constructor (reason) {
    super(reason)
    this.reason = reason
  }
}

// The id of the worker with a public key: first 16 hexadecimal digits of the key's BLAKE2b-512 (RFC 7693).
export function workerId (publicKey) {
  const digest = Buffer.allocUnsafe(64)
  sodium.crypto_generichash(digest, publicKey)
  return digest.toString('hex', 0, 8)
}

export function hashOf (envelope) {
  const digest = Buffer.allocUnsafe(16)
  sodium.crypto_generichash(digest, envelope)
  return digest.toString('latin1')
}

// Everything but the signature. `trust` answers { workers: Set, operators: Set } of keys in hexadecimal.
export function readEnvelope (envelope, { kind, topic, network, trust }) {
  if (envelope.length <= SIGNATURE || envelope.length > LARGEST_ENVELOPE) throw new Refused('size')
  let value
  try {
    value = JSON.parse(envelope.toString('utf8', SIGNATURE))
  } catch {
    throw new Refused('json')
  }
  if (value === null || typeof value !== 'object' || Array.isArray(value)) throw new Refused('fields')
  if (!Number.isInteger(value.v) || !Object.hasOwn(DOMAINS[kind], value.v)) throw new Refused('version')
  if (typeof value.pubKey !== 'string' || !KEY.test(value.pubKey)) throw new Refused('fields')
  if (value.network !== network) throw new Refused('network')
  if (value.topic !== topic) throw new Refused('topic')
  return kind === Kind.PRESENCE ? readPresence(value, trust) : readCommand(value, trust)
}

function readPresence (value, trust) {
  if (!trust.workers.has(value.pubKey)) throw new Refused('untrusted')
  const publicKey = Buffer.from(value.pubKey, 'hex')
  const subject = workerId(publicKey)
  if (value.workerId !== subject || !isCount(value.bootCounter) || !isCount(value.sequence)) {
    throw new Refused('fields')
  }
  return {
    version: value.v,
    publicKey,
    pubKey: value.pubKey,
    subject,
    boot: value.bootCounter,
    sequence: value.sequence,
    state: value.state,
    nonce: value.nonce,
    issuedAt: value.issuedAt,
    life: Infinity,
  }
}

function readCommand (value, trust) {
  if (!trust.operators.has(value.pubKey)) throw new Refused('untrusted')
  if (typeof value.id !== 'string' || !COMMAND_ID.test(value.id)) throw new Refused('fields')
  if (!isCount(value.issuedAt) || !isCount(value.expiresAt)) throw new Refused('fields')
  return {
    version: value.v,
    publicKey: Buffer.from(value.pubKey, 'hex'),
    pubKey: value.pubKey,
    // As long as a worker's id, so that digests name both alike.
    subject: value.id.slice(0, 16),
    boot: 0,
    sequence: 0,
    state: 'command',
    life: Math.max(value.expiresAt - value.issuedAt, 0),
  }
}

export function isSigned (envelope, { version, publicKey }, kind) {
  const message = Buffer.concat([DOMAINS[kind][version], envelope.subarray(SIGNATURE)])
  return sodium.crypto_sign_verify_detached(envelope.subarray(0, SIGNATURE), message, publicKey)
}

function isCount (value) {
  return Number.isSafeInteger(value) && value >= 0
}
