import assert from 'node:assert/strict'
import { test } from 'node:test'

import { Allowance, SeenLately } from '../source/limits.js'

test('an allowance lets a burst through, and then so much a second', () => {
  const allowance = new Allowance(10, 3, 0)
  assert.deepEqual([1, 1, 1, 1].map((amount) => allowance.take(amount, 0)), [true, true, true, false])
  assert.ok(!allowance.take(1, 99))
  assert.ok(allowance.take(1, 100))
  assert.ok(!allowance.take(1, 101))
})

test('an allowance that is not used does not grow past the burst', () => {
  const allowance = new Allowance(10, 3, 0)
  assert.ok(!allowance.take(4, 1_000_000))
  assert.ok(allowance.take(3, 1_000_000))
})

test('what is refused costs nothing', () => {
  const allowance = new Allowance(10, 3, 0)
  assert.ok(!allowance.take(100, 0))
  assert.ok(allowance.take(3, 0))
})

test('what was seen is remembered for one generation, and forgotten after two', () => {
  const seen = new SeenLately(100)
  seen.set('a', 1)
  seen.turn()
  assert.equal(seen.get('a'), 1)
  seen.turn()
  assert.equal(seen.get('a'), undefined)
})

test('however much is seen, twice the most is remembered', () => {
  const seen = new SeenLately(10)
  for (let i = 0; i < 1_000; i++) {
    seen.set(`${i}`, i)
    assert.ok(seen.young.size + seen.old.size <= 20)
    for (let j = Math.max(0, i - 9); j <= i; j++) assert.equal(seen.get(`${j}`), j)
  }
})
