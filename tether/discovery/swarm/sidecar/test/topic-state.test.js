import assert from 'node:assert/strict'
import { test } from 'node:test'

import { Kind } from '../source/envelopes.js'
import { KEY, OTHER, command, presence, read, topicState } from './support/messages.js'

const EXPIRY = 15_000

function accept (state, changes = {}, { key = KEY, age = 0, hops = 0, now = 1_000 } = {}) {
  const envelope = presence(changes, key)
  return state.accept(read(envelope), envelope, age, hops, now)
}

test('only what is strictly newer is kept', () => {
  const state = topicState()
  assert.ok(accept(state, { bootCounter: 2, sequence: 10 }))
  for (const [bootCounter, sequence] of [[2, 10], [2, 9], [1, 99]]) assert.equal(accept(state, { bootCounter, sequence }), null)
  assert.ok(accept(state, { bootCounter: 2, sequence: 11 }))
  assert.ok(accept(state, { bootCounter: 3, sequence: 0 }))
  assert.equal(state.entries.size, 1)
  assert.equal(state.entries.get(KEY.worker).boot, 3)
})

test('a life is counted from when the message was made', () => {
  const state = topicState()
  const entry = accept(state, {}, { age: 4_000 })
  assert.equal(entry.endsAt, 1_000 - 4_000 + EXPIRY)
  assert.equal(2_000 - entry.bornAt, 5_000)
  state.expire(entry.endsAt - 1)
  assert.ok(state.entries.has(KEY.worker))
  state.expire(entry.endsAt)
  assert.ok(!state.entries.has(KEY.worker))
})

test('what has run out on its way is not kept', () => {
  const state = topicState()
  assert.equal(accept(state, {}, { age: EXPIRY }), null)
  assert.ok(accept(state, {}, { age: EXPIRY - 1 }))
})

test('what has run out does not come back', () => {
  const state = topicState()
  accept(state, { sequence: 5 })
  state.expire(1_000 + EXPIRY)
  assert.equal(accept(state, { sequence: 5 }), null)
  assert.ok(accept(state, { sequence: 6 }))
})

test('a goodbye takes the place of a worker, and nothing older comes after it', () => {
  const state = topicState()
  accept(state, { sequence: 1 })
  assert.ok(accept(state, { sequence: 2, state: 'stopped' }).isNews)
  assert.equal(state.entries.get(KEY.worker).state, 'stopped')
  assert.equal(accept(state, { sequence: 1 }), null)
})

test('news are a worker that comes, starts again or changes its state', () => {
  const state = topicState()
  assert.ok(accept(state, { sequence: 1 }).isNews)
  assert.ok(!accept(state, { sequence: 2 }).isNews)
  assert.ok(accept(state, { sequence: 3, state: 'draining' }).isNews)
  assert.ok(!accept(state, { sequence: 4, state: 'draining' }).isNews)
  assert.ok(accept(state, { bootCounter: 2, sequence: 1, state: 'draining' }).isNews)
  state.expire(1_000 + EXPIRY)
  assert.ok(accept(state, { bootCounter: 2, sequence: 2, state: 'draining' }).isNews)
})

test('a revoked key takes all with it that it said, and starts anew if it is trusted again', () => {
  const state = topicState()
  accept(state, { sequence: 5 })
  accept(state, { sequence: 5 }, { key: OTHER })
  state.forget((key) => key === OTHER.text)
  assert.deepEqual([...state.entries.keys()], [OTHER.worker])
  assert.deepEqual([...state.orders.keys()], [OTHER.worker])
  assert.ok(accept(state, { sequence: 1 }))
})

test('a command runs out when it says so, or with the others', () => {
  const state = topicState({ kind: Kind.CONTROL })
  for (const [expiresAt, life] of [[3_000, 2_000], [100_000, EXPIRY]]) {
    const envelope = command({ expiresAt, id: expiresAt.toString(16).padStart(32, '0').split('').reverse().join('') })
    assert.equal(state.accept(read(envelope, Kind.CONTROL), envelope, 0, 0, 1_000).endsAt, 1_000 + life)
  }
  state.expire(1_000 + EXPIRY)
  assert.equal(state.entries.size, 0)
  assert.equal(state.orders.size, 0)
})

test('two processes with one key are noticed once for each newer message', () => {
  const state = topicState()
  accept(state, { sequence: 9, issuedAt: 1_000, nonce: '0'.repeat(32) })
  const heard = (changes) => state.isContested(read(presence({ issuedAt: 1_000, nonce: '0'.repeat(32), ...changes })))
  assert.ok(!heard({ sequence: 9 }))
  assert.ok(!heard({ sequence: 3, issuedAt: 900 }))
  assert.ok(!heard({ bootCounter: 0, sequence: 3, issuedAt: 2_000 }))
  assert.ok(heard({ sequence: 9, nonce: '1'.repeat(32) }))
  assert.ok(heard({ sequence: 3, issuedAt: 2_000 }))
  const shown = presence({ sequence: 3, issuedAt: 2_000 })
  const entry = state.contest(read(shown), shown, 0, 0, 1_000)
  assert.ok(entry.isNews)
  assert.notEqual(entry.name, state.entries.get(KEY.worker).name)
  assert.ok(!heard({ sequence: 4, issuedAt: 3_000 }))
  accept(state, { sequence: 10, issuedAt: 2_500 })
  assert.ok(heard({ sequence: 4, issuedAt: 3_000 }))
})
