// Waiting for what comes through streams.

import assert from 'node:assert/strict'
import { setImmediate as turn } from 'node:timers/promises'

const PATIENCE_MS = 20_000

// Resolves with the first true value of `condition()`; rejects, naming `what`, when there is none.
export async function eventually (condition, what) {
  const deadline = performance.now() + PATIENCE_MS
  for (;;) {
    const value = condition()
    if (value) return value
    assert.ok(performance.now() < deadline, `never: ${what}`)
    await turn()
  }
}
