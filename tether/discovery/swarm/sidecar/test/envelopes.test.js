import assert from 'node:assert/strict'
import { test } from 'node:test'

import { Kind, LARGEST_ENVELOPE, Refused, hashOf, isSigned, readEnvelope, workerId } from '../source/envelopes.js'
import {
  COMMAND_DOMAIN, CONTROL, FORMER_DOMAIN, KEY, NETWORK, OTHER, PRESENCE_DOMAIN, TOPIC, command, commandOf, formerPresence, presence, presenceOf, read,
  sign, trustOf,
} from './support/messages.js'

function reason (envelope, kind = Kind.PRESENCE, keys = [KEY]) {
  try {
    read(envelope, kind, keys)
  } catch (error) {
    assert.ok(error instanceof Refused, error.stack)
    return error.reason
  }
  return null
}

test('an announcement of an enrolled key is read', () => {
  assert.deepEqual(read(presence({ bootCounter: 3, sequence: 7, state: 'draining' })), {
    version: 3,
    publicKey: KEY.publicKey,
    pubKey: KEY.text,
    subject: KEY.worker,
    boot: 3,
    sequence: 7,
    state: 'draining',
    nonce: '0'.repeat(32),
    issuedAt: 1_000,
    life: Infinity,
  })
})

test('an announcement of the former version is read, and signed in its own words', () => {
  const former = formerPresence({ sequence: 4 })
  assert.deepEqual([read(former).version, read(former).sequence], [2, 4])
  assert.ok(isSigned(former, read(former), Kind.PRESENCE))
  assert.ok(!isSigned(former, { ...read(former), version: 3 }, Kind.PRESENCE))
})

test('the id of a worker is the beginning of the BLAKE2b-512 of its key, as in Python', () => {
  assert.equal(workerId(Buffer.alloc(32)), '9ab7a73a97a1a303')
})

test('a command of an operator is read, and lives as long as it says', () => {
  const told = read(command(), Kind.CONTROL)
  assert.equal(told.subject, '0123456789abcdef')
  assert.equal(told.life, 5_000)
})

test('each thing that is wrong has a reason of its own', () => {
  const wrongs = {
    size: [Buffer.alloc(0), Buffer.alloc(64), Buffer.alloc(LARGEST_ENVELOPE + 1), presence({ filling: 'x'.repeat(LARGEST_ENVELOPE) })],
    json: [sign(Buffer.from('{')), Buffer.alloc(100, 0xff)],
    fields: [
      sign(null), sign([]), sign(7), presence({ pubKey: 7 }), presence({ pubKey: KEY.text.toUpperCase() }), presence({ pubKey: 'ab' }),
      presence({ workerId: OTHER.worker }), presence({ bootCounter: -1 }), presence({ bootCounter: 1.5 }), presence({ sequence: '1' }),
      presence({ sequence: 2 ** 53 }), presence({ bootCounter: null }),
    ],
    version: [presence({ v: 1 }), presence({ v: 4 }), presence({ v: '3' }), presence({ v: [3] }), presence({ v: undefined })],
    network: [presence({ network: 'cd'.repeat(16) }), presence({ network: undefined })],
    topic: [presence({ topic: 'tether/presence/elsewhere' }), presence({ topic: undefined })],
    untrusted: [presence({}, OTHER)],
  }
  for (const [expected, envelopes] of Object.entries(wrongs)) {
    for (const envelope of envelopes) assert.equal(reason(envelope), expected, envelope.toString('latin1', 64, 300))
  }
  assert.equal(reason(presence()), null)
})

test('a command has its reasons, too', () => {
  const wrongs = {
    fields: [command({ id: 'short' }), command({ id: 7 }), command({ issuedAt: -1 }), command({ expiresAt: 'soon' })],
    version: [command({ v: 2 })],
    network: [command({ network: 'cd'.repeat(16) })],
    topic: [command({ topic: TOPIC })],
    untrusted: [command({}, OTHER)],
  }
  for (const [expected, envelopes] of Object.entries(wrongs)) {
    for (const envelope of envelopes) assert.equal(reason(envelope, Kind.CONTROL), expected, envelope.toString('latin1', 64))
  }
})

test('a worker is no operator', () => {
  const place = { kind: Kind.CONTROL, topic: CONTROL, network: NETWORK }
  assert.throws(() => readEnvelope(command(), { ...place, trust: trustOf([KEY], [OTHER]) }), { reason: 'untrusted' })
})

test('a signature counts for its key, its domain and its bytes only', () => {
  const good = presence()
  assert.ok(isSigned(good, read(good), Kind.PRESENCE))
  assert.ok(!isSigned(good, { ...read(good), publicKey: OTHER.publicKey }, Kind.PRESENCE))
  assert.ok(!isSigned(good, { ...read(good), version: 1 }, Kind.CONTROL))
  assert.ok(isSigned(command(), read(command(), Kind.CONTROL), Kind.CONTROL))
  for (const domain of ['', FORMER_DOMAIN, 'tether presence 3', 'tether presence 3\0\0', COMMAND_DOMAIN]) {
    assert.ok(!isSigned(sign(presenceOf(), { domain }), read(good), Kind.PRESENCE), domain)
  }
  for (const domain of ['', PRESENCE_DOMAIN, 'tether command 2\0']) {
    assert.ok(!isSigned(sign(commandOf(), { domain }), read(command(), Kind.CONTROL), Kind.CONTROL), domain)
  }
})

test('any changed bit breaks the signature', () => {
  const good = presence()
  for (let bit = 0; bit < good.length * 8; bit++) {
    const changed = Buffer.from(good)
    changed[bit >> 3] ^= 1 << (bit & 7)
    assert.ok(!isSigned(changed, read(good), Kind.PRESENCE), `bit ${bit}`)
    assert.notEqual(hashOf(changed), hashOf(good))
  }
})
