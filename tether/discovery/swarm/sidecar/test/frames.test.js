import assert from 'node:assert/strict'
import { test } from 'node:test'

import { FrameReader, LARGEST_FRAME, Type, VERSION, decodeEntries, encodeEntries, encodeFrame, encodeJson } from '../source/frames.js'

const ENTRIES = [
  { topic: 1, age: 0, envelope: Buffer.from('first') },
  { topic: 65_535, age: 4_294_967_295, envelope: Buffer.alloc(16_384, 7) },
  { topic: 2, age: 15_000, envelope: Buffer.alloc(0) },
]

function readAll (chunks) {
  const frames = []
  const reader = new FrameReader((type, payload) => frames.push([type, payload.toString('hex')]))
  for (const chunk of chunks) reader.push(chunk)
  return frames
}

test('entries come back as they were', () => {
  const [[type, payload]] = readAll([encodeEntries(Type.HEARD, ENTRIES)])
  assert.equal(type, Type.HEARD)
  assert.deepEqual(decodeEntries(Buffer.from(payload, 'hex')), ENTRIES)
})

test('an age is whole milliseconds that fit', () => {
  const ages = [-1, 0.4, 0.6, 2 ** 40].map((age) => ({ topic: 1, age, envelope: Buffer.alloc(0) }))
  const [[, payload]] = readAll([encodeEntries(Type.HEARD, ages)])
  assert.deepEqual(decodeEntries(Buffer.from(payload, 'hex')).map(({ age }) => age), [0, 0, 1, 4_294_967_295])
})

test('the frames are the same however the bytes are cut', () => {
  const bytes = Buffer.concat([encodeJson(Type.START, { a: 'ä' }), encodeFrame(Type.STOP, Buffer.alloc(0)), encodeEntries(Type.SEND, ENTRIES.slice(0, 1))])
  const whole = readAll([bytes])
  assert.equal(whole.length, 3)
  for (let size = 1; size <= bytes.length; size++) {
    const chunks = []
    for (let at = 0; at < bytes.length; at += size) chunks.push(bytes.subarray(at, at + size))
    assert.deepEqual(readAll(chunks), whole, `in pieces of ${size} bytes`)
  }
})

test('an entry that is cut off is refused', () => {
  const payload = encodeEntries(Type.SEND, ENTRIES.slice(0, 1)).subarray(6)
  for (let size = 1; size < payload.length; size++) {
    assert.throws(() => decodeEntries(payload.subarray(0, size)), /cut off/)
  }
})

test('a frame of another version is refused', () => {
  const bytes = encodeJson(Type.STOP, {})
  bytes[4] = VERSION + 1
  assert.throws(() => readAll([bytes]), /version/)
})

test('a frame that is too long or too short is refused before it is there', () => {
  for (const size of [0, 1, LARGEST_FRAME + 1, 0xffffffff]) {
    const head = Buffer.alloc(6)
    head.writeUInt32BE(size)
    assert.throws(() => readAll([head]), /not allowed/)
  }
})
