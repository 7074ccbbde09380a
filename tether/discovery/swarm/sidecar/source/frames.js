// Frames between Tether and its sidecar, see docs/reference/swarm.md: a length of 4 bytes, a version, a type,
// then JSON or entries. Entries are announcements and commands, many to a frame.

export const VERSION = 1
export const LARGEST_FRAME = 4 * 1024 * 1024
export const LARGEST_BATCH = 64 * 1024

export const Type = Object.freeze({
  START: 1,
  JOIN: 2,
  LEAVE: 3,
  TRUST: 4,
  SEND: 5,
  STOP: 6,
  REPLAY: 7,
  READY: 129,
  HEARD: 130,
  STATUS: 131,
  STRANGER: 132,
  FAILED: 133,
  STOPPED: 134,
})

const HEAD = 6
const ENTRY_HEAD = 8

export function encodeFrame (type, payload) {
  const head = Buffer.allocUnsafe(HEAD)
  head.writeUInt32BE(payload.length + 2, 0)
  head[4] = VERSION
  head[5] = type
  return Buffer.concat([head, payload])
}

export function encodeJson (type, value) {
  return encodeFrame(type, Buffer.from(JSON.stringify(value)))
}

// Entries: [{ topic: number, age: ms, envelope: Buffer }].
export function encodeEntries (type, entries) {
  const size = entries.reduce((sum, entry) => sum + ENTRY_HEAD + entry.envelope.length, 0)
  const frame = Buffer.allocUnsafe(HEAD + size)
  frame.writeUInt32BE(size + 2, 0)
  frame[4] = VERSION
  frame[5] = type
  let at = HEAD
  for (const { topic, age, envelope } of entries) {
    frame.writeUInt16BE(topic, at)
    frame.writeUInt32BE(Math.min(Math.max(Math.round(age), 0), 0xffffffff), at + 2)
    frame.writeUInt16BE(envelope.length, at + 6)
    envelope.copy(frame, at + ENTRY_HEAD)
    at += ENTRY_HEAD + envelope.length
  }
  return frame
}

export function decodeEntries (payload) {
  const entries = []
  let at = 0
  while (at < payload.length) {
    if (payload.length - at < ENTRY_HEAD) throw new Error('an entry is cut off')
    const end = at + ENTRY_HEAD + payload.readUInt16BE(at + 6)
    if (end > payload.length) throw new Error('an entry is cut off')
    entries.push({
      topic: payload.readUInt16BE(at),
      age: payload.readUInt32BE(at + 2),
      envelope: Buffer.from(payload.subarray(at + ENTRY_HEAD, end)),
    })
    at = end
  }
  return entries
}

// Cuts a stream of bytes into frames.
export class FrameReader {
  constructor (onFrame) {
    this.onFrame = onFrame
    this.chunks = []
    this.length = 0
  }

  push (chunk) {
    this.chunks.push(chunk)
    this.length += chunk.length
    while (this.length >= HEAD) {
      if (this.chunks[0].length < HEAD) this.chunks = [Buffer.concat(this.chunks)]
      const size = this.chunks[0].readUInt32BE(0)
      if (size < 2 || size > LARGEST_FRAME) throw new Error(`a frame of ${size} bytes is not allowed`)
      if (this.length < size + 4) return
      const all = this.chunks.length === 1 ? this.chunks[0] : Buffer.concat(this.chunks)
      const rest = all.subarray(size + 4)
      this.chunks = rest.length ? [rest] : []
      this.length = rest.length
      if (all[4] !== VERSION) throw new Error(`frames of version ${all[4]} are not understood`)
      this.onFrame(all[5], all.subarray(HEAD, size + 4))
    }
  }
}
