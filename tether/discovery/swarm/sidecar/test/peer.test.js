import assert from 'node:assert/strict'
import { test } from 'node:test'

import c from 'compact-encoding'
import Protomux from 'protomux'

import { LARGEST_MESSAGE } from '../source/messages.js'
import * as messages from '../source/messages.js'
import { MAX_OFFENCES, PROTOCOL, QUESTIONS, STALLED_MS, UNANSWERED_MS } from '../source/peer.js'
import { Clock, connect, makeGossip, streams } from './support/gossips.js'
import { KEY, NETWORK, OTHER, formerPresence, keyOf, presence, topicState } from './support/messages.js'
import { eventually } from './support/waiting.js'

const KEYS = [KEY, OTHER]
const WHOLE = { from: '0'.repeat(16), to: 'f'.repeat(16) }

// A gossip with a peer that says what the test tells it to, in the order of the protocol's messages.
async function setUp (t) {
  const clock = new Clock()
  const one = makeGossip(t, { keys: KEYS, clock })
  const [ours, theirs] = streams(t)
  const peer = one.gossip.addConnection(ours, 'hostile')
  const channel = new Protomux(theirs).createChannel({ protocol: PROTOCOL, id: Buffer.from(NETWORK, 'hex') })
  const got = []
  const say = ['hello', 'entries', 'digest', 'want', 'ping', 'pong'].map((name) =>
    channel.addMessage({ encoding: c.raw, onmessage: (data) => got.push({ name, data: Buffer.from(data) }) }))
  channel.open()
  await eventually(() => got.some(({ name }) => name === 'hello'), 'it greets')
  const [hello, entries, digest, want, ping, pong] = say.map((message) => (data) => message.send(data))
  const greet = (topics = one.gossip.topicKeys) => hello(messages.encodeHello({ role: 'orchestrator', topics }))
  const tell = (...envelopes) => entries(messages.encodeEntries(envelopes.map((envelope) => ({ id: one.state.id, age: 0, hops: 1, envelope }))))
  const isGone = () => one.gossip.peers.size === 0 && ours.destroyed
  return { ...one, peer, clock, got, hello, entries, digest, want, ping, pong, greet, tell, isGone, theirs }
}

test('two that connect learn what the other says, and what it has heard', async (t) => {
  const [left, right] = [makeGossip(t, { keys: KEYS }), makeGossip(t, { keys: KEYS })]
  left.gossip.send(left.state, 0, presence())
  const third = keyOf(3)
  left.gossip.trust.workers.add(third.text)
  right.gossip.trust.workers.add(third.text)
  right.gossip.hear({ mayCost: () => true }, [{ id: right.state.id, age: 0, hops: 1, envelope: presence({}, third) }])
  connect(t, left, right)
  await eventually(() => right.heard.length === 2 && left.heard.length === 1, 'both have heard of both')
  assert.equal(left.heard[0].subject, third.worker)
  assert.equal(right.heard[1].subject, KEY.worker)
})

test('ages add up on the way', async (t) => {
  const clocks = [new Clock(), new Clock(), new Clock()]
  const [first, second, third] = clocks.map((clock) => makeGossip(t, { keys: KEYS, clock }))
  first.gossip.send(first.state, 700, presence())
  clocks[0].now += 1_000
  connect(t, first, second)
  const { bornAt, hops } = await eventually(() => second.heard[0], 'the second has heard')
  assert.deepEqual([clocks[1].now - bornAt, hops], [1_700, 1])
  clocks[1].now += 2_000
  connect(t, second, third)
  const last = await eventually(() => third.heard[0], 'the third has heard')
  assert.deepEqual([clocks[2].now - last.bornAt, last.hops], [3_700, 2])
})

test('in a ring everybody hears everything once', async (t) => {
  const members = Array.from({ length: 5 }, () => makeGossip(t, { keys: KEYS }))
  members.forEach((member, i) => connect(t, member, members[(i + 1) % members.length]))
  await eventually(() => members.every(({ gossip }) => [...gossip.peers].every((peer) => peer.topics.size)), 'all have greeted')
  for (const sequence of [1, 2, 3]) {
    members[0].gossip.send(members[0].state, 0, presence({ sequence }))
    await eventually(() => members.slice(1).every(({ heard }) => heard.at(-1)?.sequence === sequence), 'all have heard')
  }
  for (const { heard } of members.slice(1)) assert.deepEqual(heard.map((entry) => entry.sequence), [1, 2, 3])
})

test('only topics that both take part in are spoken of', async (t) => {
  const [left, right] = [makeGossip(t, { keys: KEYS }), makeGossip(t, { keys: KEYS, topics: [topicState({ name: 'tether/presence/elsewhere' })] })]
  const [peer] = connect(t, left, right)
  await eventually(() => peer.topics.size, 'it has greeted')
  left.gossip.send(left.state, 0, presence())
  assert.equal(left.gossip.counts.sent, 0)
  const joined = topicState()
  right.gossip.addTopic(joined)
  await eventually(() => right.heard.length, 'one that joins later learns what is known')
  assert.equal(right.heard[0].subject, KEY.worker)
})

test('a peer of the former version is told only what it can read', async (t) => {
  const { gossip, state, got, hello, peer } = await setUp(t)
  hello(Buffer.from(JSON.stringify({ v: 1, role: 'worker', topics: gossip.topicKeys.map((key) => key.toString('hex')) })))
  await eventually(() => peer.topics.size, 'it has greeted')
  gossip.send(state, 0, presence())
  gossip.send(state, 0, formerPresence({}, OTHER))
  const { data } = await eventually(() => got.find(({ name }) => name === 'entries'), 'it is told something')
  const told = messages.decodeEntries(data).map(({ envelope }) => JSON.parse(envelope.toString('utf8', 64)).v)
  assert.deepEqual(told, [2])
})

test('peers of another network do not understand each other', async (t) => {
  const [left, right] = [makeGossip(t, { keys: KEYS }), makeGossip(t, { keys: KEYS })]
  right.gossip.network = 'cd'.repeat(16)
  left.gossip.send(left.state, 0, presence())
  const [peer] = connect(t, left, right)
  await eventually(() => peer.connection.destroyed || left.gossip.peers.size === 0 || peer.connection.opened, 'they are connected')
  assert.equal(peer.isOpen, false)
  assert.equal(right.heard.length, 0)
})

test('a worker measures how far away orchestrators are, and no others', async (t) => {
  const worker = makeGossip(t, { keys: KEYS })
  const [orchestrator, other] = [makeGossip(t, { keys: KEYS, role: 'orchestrator' }), makeGossip(t, { keys: KEYS })]
  const peers = [connect(t, worker, orchestrator)[0], connect(t, worker, other)[0]]
  await eventually(() => peers.every((peer) => peer.role), 'both have greeted')
  assert.equal(worker.gossip.roundTrip, null)
  peers.forEach((peer) => peer.ping())
  await eventually(() => worker.gossip.roundTrip !== null, 'it has measured')
  assert.equal(peers[1].roundTrip, null)
})

test('an answer to no question measures nothing', async (t) => {
  const { peer, pong, tell, heard } = await setUp(t)
  pong(Buffer.alloc(8))
  tell(presence())
  await eventually(() => heard.length, 'it is heard')
  assert.equal(peer.roundTrip, null)
})

test('a message that cannot be read ends it', async (t) => {
  for (const name of ['hello', 'entries', 'digest', 'want']) {
    const hostile = await setUp(t)
    hostile[name](Buffer.from('x'))
    await eventually(hostile.isGone, `${name}: it is turned away`)
    assert.deepEqual(hostile.turnedAway, [{ key: 'hostile', reason: 'malformed' }])
  }
})

test('a message that is too long ends it', async (t) => {
  const { entries, isGone, turnedAway } = await setUp(t)
  entries(Buffer.alloc(LARGEST_MESSAGE + 1))
  await eventually(isGone, 'it is turned away')
  assert.deepEqual(turnedAway, [{ key: 'hostile', reason: 'size' }])
})

test('a message that never ends is cut off before it is held', async (t) => {
  const { theirs, isGone, turnedAway } = await setUp(t)
  theirs.write(Buffer.alloc(4 * LARGEST_MESSAGE))
  await eventually(isGone, 'it is turned away')
  assert.deepEqual(turnedAway, [{ key: 'hostile', reason: 'size' }])
})

test('a few offences are forgiven, more are not', async (t) => {
  const { tell, gossip, isGone, turnedAway } = await setUp(t)
  const forged = (sequence) => {
    const envelope = Buffer.from(presence({ sequence }))
    envelope[0] ^= 1
    return envelope
  }
  for (let i = 1; i < MAX_OFFENCES; i++) tell(forged(i))
  await eventually(() => gossip.counts.refused.signature === MAX_OFFENCES - 1, 'all were read')
  assert.equal(gossip.peers.size, 1)
  tell(forged(MAX_OFFENCES))
  await eventually(isGone, 'it is turned away')
  assert.deepEqual(turnedAway, [{ key: 'hostile', reason: 'signature' }])
})

test('only so many questions are answered', async (t) => {
  const { greet, ping, tell, got, heard, gossip } = await setUp(t)
  greet()
  for (let i = 0; i < 2 * QUESTIONS.burst; i++) ping(Buffer.alloc(8))
  tell(presence())
  await eventually(() => heard.length, 'all were read')
  assert.ok(gossip.counts.limited >= QUESTIONS.burst)
  await eventually(() => got.filter(({ name }) => name === 'pong').length >= QUESTIONS.burst - 10, 'some are answered')
})

test('whoever leaves and joins a topic again and again is told everything only so often', async (t) => {
  const { greet, tell, got, heard } = await setUp(t)
  for (let i = 0; i < 2 * QUESTIONS.burst; i++) {
    greet()
    greet([])
  }
  tell(presence())
  await eventually(() => heard.length, 'all were read')
  assert.ok(got.filter(({ name }) => name === 'digest').length <= QUESTIONS.burst)
})

test('what is told to one that does not read is the newest of each worker', async (t) => {
  const { gossip, state, greet, peer, got, clock } = await setUp(t)
  greet()
  await eventually(() => peer.topics.size, 'it has greeted')
  peer.blockedAt = clock.now
  for (let sequence = 1; sequence <= 100; sequence++) gossip.send(state, 0, presence({ sequence }))
  assert.equal(peer.outgoing.size, 1)
  peer.drained()
  const { data } = await eventually(() => got.find(({ name }) => name === 'entries'), 'it is told')
  assert.deepEqual(messages.decodeEntries(data).map(({ envelope }) => envelope), [presence({ sequence: 100 })])
})

test('one that does not read for long is let go, and not banned', async (t) => {
  const { gossip, peer, clock, isGone, turnedAway } = await setUp(t)
  peer.blockedAt = clock.now
  clock.now += STALLED_MS
  gossip.expire()
  assert.equal(gossip.peers.size, 1)
  clock.now += 1
  gossip.expire()
  await eventually(isGone, 'it is let go')
  assert.equal(turnedAway.length, 0)
})

test('one that never answers is let go, and not banned', async (t) => {
  const { gossip, clock, turnedAway } = makeGossip(t, { keys: KEYS })
  const [ours] = streams(t)
  gossip.addConnection(ours, 'gone')
  clock.now += UNANSWERED_MS
  gossip.expire()
  assert.equal(gossip.peers.size, 1)
  clock.now += 1
  gossip.expire()
  await eventually(() => gossip.peers.size === 0 && ours.destroyed, 'it is let go')
  assert.equal(turnedAway.length, 0)
})

test('one that has answered may be silent for as long as it likes', async (t) => {
  const { gossip, clock } = await setUp(t)
  clock.now += 2 * UNANSWERED_MS
  gossip.expire()
  assert.equal(gossip.peers.size, 1)
})

test('what has run out while it waited is not told', async (t) => {
  const { gossip, state, greet, peer, clock } = await setUp(t)
  greet()
  await eventually(() => peer.topics.size, 'it has greeted')
  peer.blockedAt = clock.now
  gossip.send(state, 0, presence())
  clock.now += 15_000
  const before = gossip.counts.sent
  peer.drained()
  assert.equal(gossip.counts.sent, before)
  assert.equal(peer.outgoing.size, 0)
})

test('what a peer sends is taken out of what it was to be told', async (t) => {
  const { gossip, state, greet, tell, peer, clock } = await setUp(t)
  greet()
  await eventually(() => peer.topics.size, 'it has greeted')
  peer.blockedAt = clock.now
  gossip.send(state, 0, presence({ sequence: 1 }))
  tell(presence({ sequence: 1 }))
  await eventually(() => peer.outgoing.size === 0, 'it is taken out')
  gossip.send(state, 0, presence({ sequence: 2 }))
  tell(presence({ sequence: 1 }))
  await eventually(() => gossip.counts.duplicate === 2, 'it is read')
  assert.equal(peer.outgoing.size, 1)
})

test('a digest is answered with what is missing', async (t) => {
  const { gossip, state, greet, digest, got, peer } = await setUp(t)
  greet()
  await eventually(() => peer.topics.size, 'it has greeted')
  gossip.send(state, 0, presence({ sequence: 7 }))
  await eventually(() => got.some(({ name }) => name === 'entries'), 'it tells what is its own')
  const orders = [{ subject: KEY.worker, boot: 1, sequence: 6 }, { subject: OTHER.worker, boot: 1, sequence: 1 }]
  digest(messages.encodeDigest({ id: state.id, ...WHOLE, orders }))
  const { data } = await eventually(() => got.find(({ name }) => name === 'want'), 'it wants what it lacks')
  assert.deepEqual(messages.decodeWant(data).subjects, [OTHER.worker])
  await eventually(() => got.filter(({ name }) => name === 'entries').length === 2, 'it tells what it has')
})
