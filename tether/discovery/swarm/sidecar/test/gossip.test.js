import assert from 'node:assert/strict'
import { test } from 'node:test'

import { Kind, hashOf } from '../source/envelopes.js'
import { FANOUT, MAX_HOPS } from '../source/gossip.js'
import { MAX_IN_DIGEST } from '../source/messages.js'
import { WritingPeer, makeGossip } from './support/gossips.js'
import { CONTROL, COMMAND_DOMAIN, KEY, OTHER, command, keyOf, presence, presenceOf, sign, topicState } from './support/messages.js'

function setUp (t, { peers = 1, ...options } = {}) {
  const one = makeGossip(t, { keys: [KEY, OTHER], ...options })
  const from = new WritingPeer(one.gossip, one.state)
  const others = Array.from({ length: peers }, () => new WritingPeer(one.gossip, one.state))
  const hear = (envelope, { age = 0, hops = 1, peer = from, state = one.state } = {}) => one.gossip.hear(peer, [{ id: state.id, age, hops, envelope }])
  return { ...one, from, others, hear }
}

test('what is new is passed on and told on, once', (t) => {
  const { hear, heard, others: [other], gossip } = setUp(t)
  const envelope = presence()
  hear(envelope)
  hear(envelope)
  hear(envelope, { peer: other })
  assert.deepEqual(heard.map((entry) => entry.envelope), [envelope])
  assert.deepEqual(other.told.map((entry) => entry.envelope), [envelope])
  assert.equal(gossip.counts.duplicate, 2)
  assert.equal(gossip.counts.verified, 1)
})

test('nothing goes back to whoever sent it', (t) => {
  const { hear, from } = setUp(t)
  hear(presence())
  assert.equal(from.told.length, 0)
})

test('a peer that sends what it was about to be told need not be told', (t) => {
  const { hear, others: [other], state } = setUp(t)
  const envelope = presence()
  hear(envelope)
  hear(envelope, { peer: other })
  assert.deepEqual(other.withdrawn, [{ offered: state.id + KEY.worker, hash: hashOf(envelope) }])
})

test('news go to all peers that share the topic, heartbeats to a few', (t) => {
  const { hear, others, gossip } = setUp(t, { peers: 10 })
  const stranger = new WritingPeer(gossip, topicState({ name: 'tether/presence/elsewhere' }))
  const told = () => others.map((peer) => peer.told.length)
  const sum = () => told().reduce((all, count) => all + count, 0)
  hear(presence({ sequence: 1 }))
  assert.deepEqual(told(), Array(10).fill(1))
  hear(presence({ sequence: 2 }))
  assert.equal(sum(), 10 + FANOUT)
  hear(presence({ sequence: 3, state: 'stopped' }))
  assert.equal(sum(), 20 + FANOUT)
  hear(presence({ bootCounter: 2, sequence: 1 }))
  assert.equal(sum(), 30 + FANOUT)
  assert.equal(stranger.told.length, 0)
})

test('the few are picked at random, each once', (t) => {
  const randoms = [0.99, 0.5, 0.1, 0.7]
  const { gossip } = setUp(t, { random: () => randoms.pop() })
  const picked = gossip.pick([...'abcdefgh'], FANOUT)
  assert.equal(new Set(picked).size, FANOUT)
  assert.notDeepEqual(picked, [...'abcd'])
  assert.deepEqual(gossip.pick(['a'], 0), [])
})

test('what has been told on too often is told no further', (t) => {
  const { hear, heard, others: [other] } = setUp(t)
  hear(presence({ sequence: 1 }), { hops: MAX_HOPS })
  assert.equal(heard.length, 1)
  assert.equal(other.told.length, 0)
  hear(presence({ sequence: 2 }), { hops: MAX_HOPS + 1 })
  assert.equal(heard.length, 1)
})

test('an older message after a newer one does nothing', (t) => {
  const { hear, heard, others: [other], gossip } = setUp(t)
  hear(presence({ bootCounter: 2, sequence: 5 }))
  hear(presence({ bootCounter: 2, sequence: 4 }))
  hear(presence({ bootCounter: 1, sequence: 99 }))
  assert.equal(heard.length, 1)
  assert.equal(other.told.length, 1)
  assert.equal(gossip.counts.old, 2)
  assert.equal(gossip.counts.verified, 1)
})

test('a peer that lies about an age keeps nobody from hearing the message', (t) => {
  const { hear, heard, others: [other] } = setUp(t)
  hear(presence(), { age: 15_000 })
  assert.equal(heard.length, 0)
  hear(presence(), { peer: other })
  assert.equal(heard.length, 1)
})

test('what is refused is counted, is an offence, and is told to nobody', (t) => {
  const { hear, heard, from, others: [other], gossip } = setUp(t)
  const refused = {
    signature: sign(presenceOf(), { domain: COMMAND_DOMAIN }),
    network: presence({ network: 'cd'.repeat(16) }),
    topic: presence({ topic: CONTROL }),
    fields: presence({ sequence: -1 }),
    json: sign(Buffer.from('nonsense')),
    size: Buffer.alloc(10),
  }
  for (const envelope of Object.values(refused)) hear(envelope)
  assert.deepEqual(from.offences, Object.keys(refused))
  assert.deepEqual(gossip.counts.refused, Object.fromEntries(Object.keys(refused).map((reason) => [reason, 1])))
  assert.equal(heard.length, 0)
  assert.equal(other.told.length, 0)
  hear(presence())
  assert.equal(heard.length, 1)
})

test('what another version says is counted, is no offence, and is told to nobody', (t) => {
  const { hear, heard, from, others: [other], gossip } = setUp(t)
  hear(presence({ v: 4 }))
  assert.deepEqual(gossip.counts.refused, { version: 1 })
  assert.deepEqual([from.offences, heard, other.told], [[], [], []])
})

test('a forged message does not keep the true one out', (t) => {
  const { hear, heard } = setUp(t)
  const forged = Buffer.from(presence({ sequence: 5 }))
  forged[0] ^= 1
  hear(forged)
  hear(presence({ sequence: 5 }))
  assert.equal(heard.length, 1)
})

test('a key that is not enrolled is no offence, and counts as soon as it is', (t) => {
  const stranger = keyOf(9)
  const { hear, heard, from, gossip } = setUp(t)
  hear(presence({}, stranger))
  assert.deepEqual([heard.length, from.offences.length, gossip.counts.refused.untrusted], [0, 0, 1])
  gossip.trust.workers.add(stranger.text)
  hear(presence({}, stranger))
  assert.equal(heard.length, 1)
})

test('a peer whose signatures have cost enough is not heard for now', (t) => {
  const { hear, heard, from, others: [other], gossip } = setUp(t)
  from.mayVerify = false
  hear(presence())
  assert.equal(heard.length, 0)
  assert.equal(gossip.counts.limited, 1)
  hear(presence(), { peer: other })
  assert.equal(heard.length, 1)
})

test('what belongs to no topic of ours is left alone', (t) => {
  const { hear, heard, from } = setUp(t)
  hear(presence(), { state: topicState({ name: 'tether/presence/elsewhere' }) })
  assert.equal(heard.length, 0)
  assert.equal(from.offences.length, 0)
})

test('commands of operators are told to all, those of workers to nobody', (t) => {
  const control = topicState({ kind: Kind.CONTROL })
  const { hear, heard, from, others, gossip } = setUp(t, { peers: 6, operators: [OTHER], topics: [control] })
  hear(command({}, OTHER))
  hear(command({ id: 'f'.repeat(32) }, KEY))
  assert.equal(heard.length, 1)
  assert.deepEqual(others.map((peer) => peer.told.length), Array(6).fill(1))
  assert.equal(gossip.counts.refused.untrusted, 1)
  assert.equal(from.offences.length, 0)
})

test('what this process says goes to all, and what others repeat of it is known', (t) => {
  const { gossip, state, hear, heard, from, others } = setUp(t, { peers: 6 })
  for (const sequence of [1, 2]) gossip.send(state, 0, presence({ sequence }))
  assert.deepEqual([from, ...others].map((peer) => peer.told.length), Array(7).fill(2))
  hear(presence({ sequence: 2 }))
  assert.equal(heard.length, 0)
  assert.equal(gossip.counts.duplicate, 1)
})

test('this process may say what others do not trust yet', (t) => {
  const { gossip, state, from } = setUp(t)
  gossip.send(state, 0, presence({}, keyOf(9)))
  assert.equal(from.told.length, 1)
})

test('a digest finds what either side lacks', (t) => {
  const keys = [1, 2, 3, 4].map(keyOf)
  const { gossip, state, hear, from } = setUp(t, { keys })
  for (const key of keys.slice(0, 3)) hear(presence({ sequence: 5 }, key))
  const orders = new Map([
    [keys[0].worker, { boot: 1, sequence: 5 }],
    [keys[1].worker, { boot: 1, sequence: 4 }],
    [keys[2].worker, { boot: 2, sequence: 1 }],
    [keys[3].worker, { boot: 1, sequence: 1 }],
  ])
  gossip.compare(from, { id: state.id, from: '0'.repeat(16), to: 'f'.repeat(16), orders })
  assert.deepEqual(from.told.map((entry) => entry.subject), [keys[1].worker])
  assert.deepEqual(from.wants, [{ id: state.id, subjects: [keys[2].worker, keys[3].worker] }])
})

test('a digest of a range says nothing about the others', (t) => {
  const { gossip, state, hear, from } = setUp(t)
  const [low, high] = [KEY, OTHER].sort((one, other) => (one.worker < other.worker ? -1 : 1))
  hear(presence({}, low))
  hear(presence({}, high))
  gossip.compare(from, { id: state.id, from: high.worker, to: 'f'.repeat(16), orders: new Map() })
  assert.deepEqual(from.told.map((entry) => entry.subject), [high.worker])
})

test('whoever wants something gets it, as long as it lives', (t) => {
  const { gossip, state, hear, clock, from } = setUp(t)
  hear(presence())
  const want = { id: state.id, subjects: [KEY.worker, OTHER.worker] }
  gossip.give(from, want)
  assert.deepEqual(from.told.map((entry) => entry.subject), [KEY.worker])
  clock.now += 15_000
  gossip.expire()
  gossip.give(from, want)
  assert.equal(from.told.length, 1)
})

test('the digests of a topic name everybody once, and leave no gap', (t) => {
  const { gossip, state } = setUp(t)
  for (let i = 0; i < 2 * MAX_IN_DIGEST + 1; i++) {
    const subject = (BigInt(i) * 0x1357135713571n).toString(16).padStart(16, '0')
    const read = { subject, boot: 1, sequence: i, state: 'serving', life: Infinity, pubKey: KEY.text }
    state.accept(read, Buffer.alloc(1), 0, 0, 1_000)
  }
  const digests = gossip.digests(state)
  assert.equal(digests.length, 3)
  assert.equal(digests[0].from, '0'.repeat(16))
  assert.equal(digests.at(-1).to, 'f'.repeat(16))
  for (const [i, digest] of digests.entries()) {
    if (i) assert.equal(BigInt(`0x${digest.from}`), BigInt(`0x${digests[i - 1].to}`) + 1n)
    for (const { subject } of digest.orders) assert.ok(digest.from <= subject && subject <= digest.to)
  }
  assert.deepEqual(digests.flatMap((digest) => digest.orders.map((order) => order.subject)), [...state.entries.keys()].sort())
})

test('in each interval one peer that shares the topic gets a digest', (t) => {
  const { gossip, from, others } = setUp(t, { peers: 3 })
  const stranger = new WritingPeer(gossip, topicState({ name: 'tether/presence/elsewhere' }))
  gossip.tick()
  assert.equal([from, ...others].reduce((sum, peer) => sum + peer.digests.length, 0), 1)
  assert.equal(stranger.digests.length, 0)
})

test('what a revoked key said is forgotten, and what this process says is not', (t) => {
  const { gossip, state, hear } = setUp(t)
  hear(presence({}, OTHER))
  gossip.send(state, 0, presence())
  gossip.trust.workers.clear()
  gossip.setTrust()
  assert.deepEqual([...state.entries.keys()], [KEY.worker])
})

test('what was seen is forgotten in time, and still does not count again', (t) => {
  const { gossip, hear, heard, clock } = setUp(t)
  hear(presence())
  for (let turn = 0; turn < 3; turn++) {
    clock.now += 15_000
    gossip.tick()
    gossip.expire()
  }
  hear(presence())
  assert.equal(gossip.counts.old, 1)
  assert.equal(heard.length, 1)
})

test('that two processes use one key is passed on and told on, and takes nobody\'s place', (t) => {
  const { hear, heard, state, others: [other], gossip } = setUp(t)
  hear(presence({ sequence: 5 }))
  const double = presence({ sequence: 5, nonce: 'f'.repeat(32) })
  hear(double)
  hear(presence({ sequence: 5, nonce: 'e'.repeat(32) }))
  assert.deepEqual(heard.map((entry) => entry.envelope), [presence({ sequence: 5 }), double])
  assert.deepEqual(other.told.map((entry) => entry.envelope), [presence({ sequence: 5 }), double])
  assert.deepEqual(state.entries.get(KEY.worker).envelope, presence({ sequence: 5 }))
  assert.equal(gossip.counts.old, 1)
})

test('a double that is forged is an offence', (t) => {
  const { hear, heard, from } = setUp(t)
  hear(presence({ sequence: 5 }))
  hear(sign(presenceOf({ sequence: 5, nonce: 'f'.repeat(32) }), { key: OTHER }))
  assert.equal(heard.length, 1)
  assert.deepEqual(from.offences, ['signature'])
})
