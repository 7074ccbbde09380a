import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'

import * as messages from '../source/messages.js'

const ID = Buffer.from('fedcba9876543210', 'hex').toString('latin1')
const KEYS = [Buffer.alloc(32, 1), Buffer.alloc(32, 2)]

test('a greeting tells the role and the topics', () => {
  const told = messages.decodeHello(messages.encodeHello({ role: 'worker', topics: KEYS }))
  assert.equal(told.role, 'worker')
  assert.deepEqual([...told.topics], KEYS.map((key) => key.toString('latin1', 0, 8)))
})

test('entries come back as they were, their age rounded up', () => {
  const entries = [
    { id: ID, age: 0.2, hops: 0, envelope: Buffer.from('first') },
    { id: ID, age: 2 ** 40, hops: 255, envelope: Buffer.alloc(16_384, 7) },
  ]
  const [first, second] = messages.decodeEntries(messages.encodeEntries(entries))
  assert.deepEqual(first, { ...entries[0], age: 1 })
  assert.deepEqual(second, { ...entries[1], age: 0xffffffff })
})

test('a digest tells the order of each subject', () => {
  const orders = [
    { subject: '0'.repeat(16), boot: 0, sequence: 2 ** 48 - 1 },
    { subject: 'f'.repeat(16), boot: 2 ** 40, sequence: 0 },
  ]
  const told = messages.decodeDigest(messages.encodeDigest({ id: ID, from: '0'.repeat(16), to: 'f'.repeat(16), orders }))
  assert.deepEqual([told.id, told.from, told.to], [ID, '0'.repeat(16), 'f'.repeat(16)])
  assert.deepEqual([...told.orders], orders.map(({ subject, boot, sequence }) => [subject, { boot, sequence }]))
})

test('a wish names subjects', () => {
  const want = { id: ID, subjects: ['0123456789abcdef', 'f'.repeat(16)] }
  assert.deepEqual(messages.decodeWant(messages.encodeWant(want)), want)
})

test('whatever bytes come are read or are malformed', () => {
  const decoders = [messages.decodeHello, messages.decodeEntries, messages.decodeDigest, messages.decodeWant]
  for (let size = 0; size < 600; size++) {
    const bytes = randomBytes(size)
    for (const decode of decoders) {
      try {
        decode(bytes)
      } catch (error) {
        assert.ok(error instanceof messages.Malformed, `${decode.name}(${bytes.toString('hex')}): ${error.stack}`)
      }
    }
  }
})

test('a greeting that says something else is malformed', () => {
  const good = { v: 1, role: 'worker', topics: ['ab'.repeat(32)] }
  const wrongs = [
    null, 1, 'text', [], { ...good, v: 2 }, { ...good, role: 7 }, { ...good, topics: 'all' }, { ...good, topics: [7] },
    { ...good, topics: ['AB'.repeat(32)] }, { ...good, topics: ['ab'] },
    { ...good, topics: Array(messages.MAX_TOPICS + 1).fill('ab'.repeat(32)) },
  ]
  messages.decodeHello(Buffer.from(JSON.stringify(good)))
  for (const wrong of wrongs) {
    assert.throws(() => messages.decodeHello(Buffer.from(JSON.stringify(wrong))), messages.Malformed, JSON.stringify(wrong))
  }
})

test('a digest and a wish name only so many subjects', () => {
  const subjects = Array.from({ length: messages.MAX_IN_DIGEST + 1 }, (_, i) => i.toString(16).padStart(16, '0'))
  const orders = subjects.map((subject) => ({ subject, boot: 1, sequence: 1 }))
  const digest = messages.encodeDigest({ id: ID, from: '0'.repeat(16), to: 'f'.repeat(16), orders })
  assert.throws(() => messages.decodeDigest(digest), messages.Malformed)
  assert.throws(() => messages.decodeWant(messages.encodeWant({ id: ID, subjects })), messages.Malformed)
})
