// Signed messages for tests.

import sodium from 'sodium-universal'

import { Kind, readEnvelope, workerId } from '../../source/envelopes.js'
import { TopicState } from '../../source/topic-state.js'

export const NETWORK = 'ab'.repeat(16)
export const TOPIC = 'tether/presence/local'
export const CONTROL = 'tether/control/local'
export const PRESENCE_DOMAIN = 'tether presence 3\0'
export const FORMER_DOMAIN = 'tether presence 2\0'
export const COMMAND_DOMAIN = 'tether command 1\0'

export function keyOf (number) {
  const publicKey = Buffer.allocUnsafe(32)
  const secretKey = Buffer.allocUnsafe(64)
  sodium.crypto_sign_seed_keypair(publicKey, secretKey, Buffer.alloc(32, number))
  return { publicKey, secretKey, text: publicKey.toString('hex'), worker: workerId(publicKey) }
}

export const KEY = keyOf(1)
export const OTHER = keyOf(2)

export function sign (value, { key = KEY, domain = PRESENCE_DOMAIN } = {}) {
  const body = Buffer.isBuffer(value) ? value : Buffer.from(JSON.stringify(value))
  const signature = Buffer.allocUnsafe(64)
  sodium.crypto_sign_detached(signature, Buffer.concat([Buffer.from(domain), body]), key.secretKey)
  return Buffer.concat([signature, body])
}

export function presenceOf (changes = {}, key = KEY) {
  return {
    v: 3,
    network: NETWORK,
    topic: TOPIC,
    pubKey: key.text,
    workerId: key.worker,
    bootCounter: 1,
    sequence: 1,
    state: 'serving',
    nonce: '0'.repeat(32),
    issuedAt: 1_000,
    ...changes,
  }
}

export function presence (changes, key = KEY) {
  return sign(presenceOf(changes, key), { key })
}

// As workers of the former version announce themselves.
export function formerPresence (changes, key = KEY) {
  return sign(presenceOf({ v: 2, ...changes }, key), { key, domain: FORMER_DOMAIN })
}

export function commandOf (changes = {}, key = KEY) {
  return {
    v: 1,
    network: NETWORK,
    topic: CONTROL,
    pubKey: key.text,
    id: '0123456789abcdef'.repeat(2),
    issuedAt: 1_000,
    expiresAt: 6_000,
    ...changes,
  }
}

export function command (changes, key = KEY) {
  return sign(commandOf(changes, key), { key, domain: COMMAND_DOMAIN })
}

export function trustOf (workers, operators = []) {
  const texts = (keys) => new Set(keys.map((key) => key.text))
  return { workers: texts(workers), operators: texts(operators), peers: texts(workers) }
}

export function topicState ({ kind = Kind.PRESENCE, name = kind === Kind.CONTROL ? CONTROL : TOPIC, expiry = 15_000 } = {}) {
  const key = Buffer.allocUnsafe(32)
  sodium.crypto_generichash(key, Buffer.from(name))
  return new TopicState({ name, number: 1, key, kind, expiry })
}

// What a sidecar that trusts the key reads in an envelope.
export function read (envelope, kind = Kind.PRESENCE, keys = [KEY, OTHER]) {
  const place = { kind, topic: kind === Kind.CONTROL ? CONTROL : TOPIC, network: NETWORK }
  return readEnvelope(envelope, { ...place, trust: trustOf(keys, keys) })
}
